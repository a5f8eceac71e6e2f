"""Which repositories a corpus of at most so many has: the first ones that have a file left once copies are dropped.

Whether a file is a copy depends on what else is in the corpus.  So only repositories that may be in it are compared.  Those that
are left empty give their place to the next ones, until nothing changes.  Where a file is near a copy, and the copy near what is in
the corpus, both are dropped, as without a limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ponderttt.corpus.hub.duplicates import Copies, Duplicates


class Choice(NamedTuple):
    """What a corpus has, and what it lacks because it has it already."""

    #: Number of a file, counted over the segments in their order → the reason to drop it.
    reasons: dict[int, str]
    #: Numbers of the repositories that are in the corpus, in the order of the segments; ``None``: all.
    repositories: frozenset[int] | None
    #: See :class:`ponderttt.corpus.hub.duplicates.Copies`.
    truncated_bands: int


def choose(duplicates: Duplicates, files: int, most: int | None) -> Choice:
    """The first ``most`` repositories of a corpus that keep a file, and the copies that they lose.

    Args:
        duplicates: all files, of which those of a repository follow one another.
        files: how many there are.
        most: repositories that the corpus may have; ``None``: all.
    """
    if most is None:
        reasons, truncated = duplicates.copies()
        return Choice(reasons, None, truncated)
    return first_that_stay(duplicates.repositories(), files, most, duplicates.copies)


def first_that_stay(
    starts: np.ndarray, files: int, most: int, copies: Callable[[np.ndarray], Copies]
) -> Choice:
    """As :func:`choose`, for repositories that begin at the files ``starts`` [R].

    Args:
        starts: number of the first file of each repository, ascending.
        files: how many files there are.
        most: repositories that the corpus may have.
        copies: of some files, those that are copies of others of them.
    """
    stops = np.append(starts[1:], files)
    chosen: list[int] = []
    reasons: dict[int, str] = {}
    found = Copies({}, 0)
    tried, more = 0, most
    while len(chosen) < most and tried < len(starts):
        missing, until = most - len(chosen), min(tried + more, len(starts))
        together = [*chosen, *range(tried, until)]
        now = copies(np.concatenate([np.arange(starts[place], stops[place]) for place in together]))
        lost = Counter((np.searchsorted(starts, list(now.reasons), "right") - 1).tolist())
        left = [place for place in together if lost[place] < stops[place] - starts[place]]
        if len(left) > most:
            # Some of these would not be in the corpus, so what they dropped says nothing.
            more = missing
            continue
        for place in set(together).difference(left):
            reasons |= {number: now.reasons[number] for number in range(starts[place], stops[place])}
        chosen, found, tried = left, now, until
        # Where thousands of copies follow one another more are tried each time, so that there are few rounds.
        more = most - len(chosen) if 2 * (most - len(chosen)) <= missing else 2 * more
    return Choice(reasons | found.reasons, frozenset(chosen), found.truncated_bands)
