"""Choose the repositories of a corpus with a limit: the first ones that keep a file once copies are dropped.

Whether a file is a copy depends on the rest of the corpus, so only repositories that may be in it are compared.  Empty
ones give their place to the next, until nothing changes.  If a file is near a copy, and the copy near a file of the corpus,
both are dropped, as without a limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ponderttt.corpus.hub.duplicates import Copies, Duplicates


class Choice(NamedTuple):
    """The repositories of a corpus, and the copies dropped from them."""

    #: Number of a file, counted over the segments in order → the reason to drop it.
    reasons: dict[int, str]
    #: Numbers of the repositories in the corpus, in the order of the segments; None for all.
    repositories: frozenset[int] | None
    #: See :class:`ponderttt.corpus.hub.duplicates.Copies`.
    truncated_bands: int


def choose(duplicates: Duplicates, files: int, most: int | None) -> Choice:
    """Choose the first ``most`` repositories that keep a file, and the copies to drop from them.

    Args:
        duplicates: all files; those of a repository are neighbours.
        files: number of files.
        most: number of repositories that the corpus may have; None for all.
    """
    if most is None:
        reasons, truncated = duplicates.copies()
        return Choice(reasons, None, truncated)
    return first_that_stay(duplicates.repositories(), files, most, duplicates.copies)


def first_that_stay(
    starts: np.ndarray, files: int, most: int, copies: Callable[[np.ndarray], Copies]
) -> Choice:
    """Choose as :func:`choose` does, given where each of the R repositories begins.

    Args:
        starts: [R] number of the first file of each repository, ascending.
        files: number of files.
        most: number of repositories that the corpus may have.
        copies: returns the copies among some files.
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
            # Some of these would not be in the corpus, so their drops do not count.
            more = missing
            continue
        for place in set(together).difference(left):
            reasons |= {number: now.reasons[number] for number in range(starts[place], stops[place])}
        chosen, found, tried = left, now, until
        # Try more each time, so that thousands of copies in a row take few rounds.
        more = most - len(chosen) if 2 * (most - len(chosen)) <= missing else 2 * more
    return Choice(reasons | found.reasons, frozenset(chosen), found.truncated_bands)
