"""Exact references: looked up in the losses of all sequences, and right by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ponderttt.actions import Action
from ponderttt.errors import CorruptFileError
from ponderttt.policies.budget import NOMINAL_COSTS, matched_probabilities
from ponderttt.records.sequences import StreamLosses, write_sequences
from ponderttt.reporting.numbers.rows import ReferenceRow, TableRow
from ponderttt.reporting.numbers.tables import Table, build_table
from reporting_worlds import CODE, CORPUS, MODEL, STATISTICS, value, write_run

#: Scored tokens of three streams of three chunks, and of one of two.
TOKENS = [[100, 300, 200], [200, 200, 100], [100, 100, 100], [300, 100]]
#: Of three chunks, 7 units before the last: UPDATE_1 and UPDATE_2 in either order.  Of two, 4 units, of which 2 are spent.
BUDGET = 10 / 3
FIRST, SECOND = (1, 2, 0), (2, 1, 0)
GAIN = np.array([0.0, 0.1, 0.3, 0.4])
#: What an update on chunks 0 and 1 is worth at every later chunk of the stream.
WORTH = [(1.0, 2.0), (1.0, 6.0), (3.0, 1.0), (1.0,)]


def loss_after(stream: int, past: tuple[int, ...]) -> float:
    return 3.0 - sum(WORTH[stream][t] * GAIN[action] for t, action in enumerate(past))


def write_all(root: Path, seed: int, *, digest: str = "w", width: int | None = None) -> Path:
    folder = root / "sequences" / CORPUS / MODEL / "memory" / f"seed-{seed}"
    streams = []
    for s, counts in enumerate(TOKENS):
        levels = tuple(
            {past: loss_after(s, past) for past in itertools.product(range(4), repeat=t)}
            for t in range(len(counts))
        )
        streams.append(StreamLosses(f"package-{s}", levels, np.array(counts), width))
    facts = {
        "corpus": CORPUS,
        "model": MODEL,
        "fast_weights": "memory",
        "seed": seed,
        "costs": NOMINAL_COSTS,
        "unit": "nominal",
        "module_digest": digest,
    }
    write_sequences(folder, streams, facts)
    return folder


def write_policy(
    root: Path, method: str, actions: Callable[[int], tuple[int, ...]], over: str = "stream"
) -> Path:
    return write_run(
        root,
        "memory",
        method,
        0,
        lambda s, c, k: loss_after(s, actions(s)[:c]),
        tokens=TOKENS,
        action=lambda s, c: Action(actions(s)[c]),
        facts={"budget": {"mean": BUDGET, "unit": "nominal", "over": over}, "module_digest": "w"},
    )


def own(stream: int) -> tuple[int, ...]:
    """UPDATE_2 on the chunk where it is worth more."""
    return (SECOND, FIRST, SECOND, (1, 0))[stream]


def total(stream: int, sequence: tuple[int, ...]) -> float:
    return sum(n * loss_after(stream, sequence[:c]) for c, n in enumerate(TOKENS[stream]))


def made(root: Path, sequences: list[Path]) -> Table:
    folders = [
        write_policy(root, "skip", lambda s: (0,) * len(TOKENS[s])),
        write_policy(root, "update_1", lambda s: (1,) * (len(TOKENS[s]) - 1) + (0,)),
        write_policy(root, "random", lambda s: (SECOND, FIRST, FIRST, (1, 0))[s]),
        write_policy(root, "entropy", own),
    ]
    return build_table(folders, CODE, STATISTICS, sequences=sequences)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    root = tmp_path_factory.mktemp("references")
    return made(root, [write_all(root, 0)])


@pytest.fixture(scope="module")
def references(table: Table) -> dict[str, ReferenceRow]:
    return {row.reference: row for row in table.references if row.method == "entropy"}


def row_of(table: Table, method: str) -> TableRow:
    return next(row for row in table.rows if row.method == method)


ALL_TOKENS = sum(map(sum, TOKENS))


def test_random_is_the_mean_over_all_sequences(references: dict[str, ReferenceRow], table: Table) -> None:
    means = [np.mean([total(s, FIRST), total(s, SECOND)]) for s in range(3)]
    assert references["random"].loss == pytest.approx((sum(means) + total(3, (1, 0))) / ALL_TOKENS)
    assert references["random"].n_sequences == 2
    # The arm of random decisions has this loss too, not that of its draws.
    assert row_of(table, "random").loss == pytest.approx(references["random"].loss, rel=1e-12)
    assert "not a draw" in row_of(table, "random").note
    assert references["random"].budget == pytest.approx(BUDGET)


def test_the_oracle_takes_the_best_sequence_of_each_stream(
    references: dict[str, ReferenceRow], table: Table
) -> None:
    best = [min(total(s, FIRST), total(s, SECOND)) for s in range(3)]
    oracle = references["oracle"]
    assert oracle.loss == pytest.approx((sum(best) + total(3, (1, 0))) / ALL_TOKENS)
    # No policy of the budget is better.
    for method in ("random", "entropy"):
        assert row_of(table, method).loss >= oracle.loss - 1e-12
    assert value(oracle.delta) == pytest.approx(row_of(table, "entropy").loss - oracle.loss)


def test_the_best_schedule_of_a_stream_is_chosen_on_the_others(references: dict[str, ReferenceRow]) -> None:
    expected = total(3, (1, 0))
    for s in range(3):
        others = [other for other in range(3) if other != s]
        chosen = min((FIRST, SECOND), key=lambda q: sum(total(other, q) for other in others))
        expected += total(s, chosen)
    assert references["best_schedule"].loss == pytest.approx(expected / ALL_TOKENS)
    assert references["best_schedule"].loss > references["oracle"].loss


def test_a_constant_rank_follows_the_cuts_of_the_budget(references: dict[str, ReferenceRow]) -> None:
    """Two sequences: the cut to UPDATE_2 is at 1/2, so rank 0.5 begins with it; then UPDATE_1 is all that is left."""
    expected = sum(total(s, SECOND) for s in range(3)) + total(3, (1, 0))
    assert references["constant_rank"].loss == pytest.approx(expected / ALL_TOKENS)


def test_own_sequences_elsewhere_are_the_mean_over_the_other_streams(
    references: dict[str, ReferenceRow],
) -> None:
    expected = total(3, (1, 0))
    for s in range(3):
        expected += np.mean([total(s, own(other)) for other in range(3) if other != s])
    row = references["own_elsewhere"]
    assert row.loss == pytest.approx(expected / ALL_TOKENS)
    # Six orders of (SECOND, FIRST, SECOND), two of which are the policy's own.
    orders = [sum(total(s, own(order[s])) for s in range(3)) for order in itertools.permutations(range(3))]
    mine = sum(total(s, own(s)) for s in range(3))
    assert row.p_swap == pytest.approx(np.mean(np.array(orders) <= mine + 1e-9), abs=0.02)
    assert row.p_swap == pytest.approx(1 / 3, abs=0.02)


def test_the_table_compares_with_the_exact_random_and_the_exact_oracle(
    table: Table, references: dict[str, ReferenceRow]
) -> None:
    row, skip = row_of(table, "entropy"), row_of(table, "skip")
    random, oracle = references["random"].loss, references["oracle"].loss
    assert value(row.delta_vs_random) == pytest.approx(row.loss - random)
    assert value(row.recovery_vs_skip) == pytest.approx((skip.loss - row.loss) / (skip.loss - oracle))
    assert value(row.recovery_vs_random) == pytest.approx((random - row.loss) / (random - oracle))
    assert {reference.method for reference in table.references} == {"random", "entropy"}


def test_a_beam_gives_an_oracle_and_says_its_width(tmp_path: Path) -> None:
    found = [
        row for row in made(tmp_path, [write_all(tmp_path, 0, width=8)]).references if row.method == "entropy"
    ]
    assert [(row.reference, row.beam_width) for row in found] == [("oracle", 8)]


def test_sequences_of_another_adapter_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="enumerated with another trained adapter") as error:
        made(tmp_path, [write_all(tmp_path, 0, digest="other")])
    assert "\n" not in str(error.value)


def test_sequences_of_other_chunks_are_one_line(tmp_path: Path) -> None:
    folder = write_all(tmp_path, 0)
    changed = [[100, 300, 201], *TOKENS[1:]]
    policy = write_run(
        tmp_path,
        "memory",
        "entropy",
        0,
        lambda s, c, k: 2.0,
        tokens=changed,
        action=lambda s, c: Action(own(s)[c]),
        facts={"budget": {"mean": BUDGET, "unit": "nominal"}, "module_digest": "w"},
    )
    with pytest.raises(CorruptFileError, match=r"other streams or chunks than it scored \(package-0\)"):
        build_table([policy], CODE, STATISTICS, sequences=[folder])


def test_over_a_corpus_random_has_the_mean_at_one_price_and_the_oracle_spends_at_most_the_budget(
    tmp_path: Path,
) -> None:
    """Eleven chunks, seven of which spend 25 units above SKIP at most."""
    runs = [
        write_policy(tmp_path, "skip", lambda s: (0,) * len(TOKENS[s])),
        write_policy(tmp_path, "random", lambda s: (1,) * (len(TOKENS[s]) - 1) + (0,), "corpus"),
        write_policy(tmp_path, "entropy", own, "corpus"),
    ]
    table = build_table(runs, CODE, STATISTICS, sequences=[write_all(tmp_path, 0)])
    found = {row.reference: row for row in table.references if row.method == "entropy"}
    assert set(found) == {"random", "oracle", "own_elsewhere"}

    chance = matched_probabilities(NOMINAL_COSTS, 1 + (BUDGET - 1) * 11 / 7)
    every = [[(*q, 0) for q in itertools.product(range(4), repeat=len(counts) - 1)] for counts in TOKENS]
    mean = sum(
        np.prod(chance[list(q[:-1])]) * total(s, q) for s, sequences in enumerate(every) for q in sequences
    )
    assert found["random"].loss == pytest.approx(mean / ALL_TOKENS)

    units = np.array([0, 2, 5, 11])
    spent = [np.array([units[list(q)].sum() for q in sequences]) for sequences in every]
    nats = [np.array([total(s, q) for q in sequences]) for s, sequences in enumerate(every)]
    # All ways to give each stream a sequence.
    costs = sum(np.ix_(*spent)[s] for s in range(4))
    losses = sum(np.ix_(*nats)[s] for s in range(4))
    best = losses[costs <= 25].min() / ALL_TOKENS
    assert best - 1e-12 <= found["oracle"].loss < found["random"].loss
    # What one price chooses is the best allocation of what it spends.
    reached = found["oracle"].loss * ALL_TOKENS
    chosen = costs[np.abs(losses - reached) < 1e-6].min()
    assert chosen <= 25
    assert reached == pytest.approx(losses[costs <= chosen].min())
    assert row_of(table, "random").loss == pytest.approx(found["random"].loss, rel=1e-12)
