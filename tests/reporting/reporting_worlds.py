"""Synthetic records for the tests of the table and the figures."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ponderttt.actions import Action
from ponderttt.records.record import Record, write_records
from ponderttt.reporting.guide.claims import ClaimRule
from ponderttt.reporting.numbers.columns import Estimate
from ponderttt.reporting.numbers.rows import TableRow
from ponderttt.reporting.numbers.tables import build_table
from ponderttt.settings.statistics import StatisticsConfig

CODE = "c0de" * 16
CORPUS = "heldout-python"
MODEL = "tiny"
STATISTICS = StatisticsConfig(bootstrap_samples=2000)
#: Two streams: the first of 100 and 300 tokens, the second of 200.
TOKENS = [[100, 300], [200]]
#: loss(stream, chunk_index, seed) in nats per token.
Loss = Callable[[int, int, int], float]


def run_folder(root: Path, fast_weights: str, method: str, seed: int, corpus: str = CORPUS) -> Path:
    """Return the folder of a run."""
    return root / "runs" / corpus / MODEL / fast_weights / method / f"seed-{seed}"


def write_run(
    root: Path,
    fast_weights: str,
    method: str,
    seed: int,
    loss: Loss,
    *,
    tokens: Sequence[Sequence[int]],
    action: Callable[[int, int], Action] = lambda stream, chunk: Action.SKIP,
    protocol: str = "score_first",
    code: str | None = CODE,
    seconds: float = 1.0,
    flops: float = 1e9,
    corpus: str = CORPUS,
    observed: Callable[[int, int], dict[str, Any]] = lambda stream, chunk: {},
    facts: dict[str, Any] | None = None,
) -> Path:
    """Write one run; ``tokens[stream][chunk]`` scored tokens, three bytes each.

    ``action`` and ``observed`` (further columns) are functions of (stream, chunk); an update costs a tenth of a SKIP.
    """
    folder = run_folder(root, fast_weights, method, seed, corpus)
    records = [
        Record(
            model=MODEL,
            fast_weights=fast_weights,
            method=method,
            protocol=protocol,
            seed=seed,
            corpus=corpus,
            language="Python",
            stream_id=f"package-{stream}",
            chunk_index=chunk,
            n_tokens=count,
            n_bytes=3 * count,
            loss=loss(stream, chunk, seed),
            loss_frozen=2.0,
            action=action(stream, chunk).name,
            steps=action(stream, chunk).steps,
            cost_nominal=action(stream, chunk).nominal_cost,
            flops=flops * (1 + action(stream, chunk).steps / 10),
            seconds=seconds * (1 + action(stream, chunk).steps / 10),
            **observed(stream, chunk),
        )
        for stream, counts in enumerate(tokens)
        for chunk, count in enumerate(counts)
    ]
    write_records(
        folder,
        records,
        {
            "budget": {"mean": 3.0, "unit": "nominal"},
            **(facts or {}),
            **({"stage_digest": code} if code else {}),
        },
    )
    return folder


def default_grid(root: Path, streams: int = 8, seed: int = 0) -> list[Path]:
    """Write the arms of the default grid with three seeds; the gain of TTT grows along the stream, LoRA gains nothing."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 13, streams)
    tokens = [[512] * (n - 1) + [int(rng.integers(40, 512))] for n in lengths]
    difficulty = rng.normal(2.2, 0.5, streams)
    noise = rng.normal(0, 0.25, (streams, 13))

    def chunk_loss(shift: float, growth: float, jitter: float, name: str) -> Loss:
        own = np.random.default_rng(zlib.crc32(name.encode())).normal(0, jitter, (streams, 13, 3))
        offset = np.random.default_rng(zlib.crc32(name.encode()) + 1).normal(0, jitter / 4, 3)
        return lambda s, c, k: float(
            difficulty[s] + noise[s, c] + shift - growth * c + own[s, c, k] * (c > 0) + offset[k]
        )

    def act(action: Action) -> Callable[[int, int], Action]:
        return lambda stream, chunk: action

    draws = rng.choice(4, p=[0.48, 0.25, 0.17, 0.10], size=(streams, 13))
    folders = [
        write_run(root, "none", "plain", 0, chunk_loss(0, 0, 0, "plain"), tokens=tokens, seconds=2.7),
        write_run(
            root,
            "none",
            "full",
            0,
            chunk_loss(-0.16, 0, 0.03, "c"),
            tokens=tokens,
            seconds=5.1,
            flops=2.1e9,
        ),
    ]
    effects = {
        "ttt": {"skip": (-0.05, 0.0), "update_1": (-0.05, 0.006), "update_2": (-0.05, 0.009)},
        "lora": {"skip": (-0.03, 0.0), "update_1": (-0.03, 0.0), "update_2": (-0.029, 0.0)},
    }
    effects["ttt"] |= {"update_4": (-0.05, 0.008), "random": (-0.05, 0.004)}
    effects["lora"] |= {"update_4": (-0.03, -0.006), "random": (-0.03, 0.0)}
    effects["ttt"] |= {"in_chunk": (-0.08, 0.006), "transductive": (-0.6, 0.006)}
    for fast_weights, methods in effects.items():
        for method, (shift, growth) in methods.items():
            known = {"skip": Action.SKIP, "update_2": Action.UPDATE_2, "update_4": Action.UPDATE_4}
            action = act(known.get(method, Action.UPDATE_1))
            if method == "random":
                action = lambda stream, chunk: Action(int(draws[stream, chunk]))  # noqa: E731
            for k in range(3):
                folders.append(
                    write_run(
                        root,
                        fast_weights,
                        method,
                        k,
                        chunk_loss(shift, growth, 0.0 if method == "skip" else 0.02, fast_weights + method),
                        tokens=tokens,
                        action=action,
                        protocol=method if method in ("in_chunk", "transductive") else "score_first",
                        seconds=2.75 if fast_weights == "ttt" else 2.72,
                    )
                )
    return folders


#: Budget → how many of 48 chunks get each action, for exactly that mean cost.
ALLOCATION = {1.5: (42, 4, 1, 1), 3.0: (15, 27, 4, 2), 5.0: (12, 16, 10, 10)}
#: Gain of 0, 1, 2 and 4 updates, in multiples of the lesson of the chunk.
WORTH = np.array([0.0, 1.0, 1.3, 1.4])
#: Rule → how well its signal knows the lesson of a chunk.
SIGHT = {"random": 0.0, "entropy": 0.9, "loss": 0.4, "reconstruction": 0.0, "greedy_oracle": 1.0}
#: Rule → the power that shifts its ranks from those of training streams; above 1, they are lower.
SHIFT = {"entropy": 1.3, "loss": 0.8, "reconstruction": 1.02}
CONTROL_SIGN = {"shuffled": 0.0, "sign_flipped": -1.0, "other_stream": 0.1}
CONTROL_CORPORA = {"random-tokens": "random_tokens", "repeated": "repeated"}
#: Its logarithm, 2.08, is below every loss on random tokens.
VOCABULARIES = {MODEL: 8}


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the share of smaller values for each value."""
    return np.argsort(np.argsort(values, axis=None)).reshape(values.shape) / values.size


def cuts_of(budget: str) -> np.ndarray:
    """Return the ranks from which each update begins."""
    return np.cumsum(ALLOCATION[float(budget or 3.0)])[:3] / 48


class RuleWorld:
    """Streams whose chunks have lessons of different size, so that a policy that knows them spends updates better."""

    def __init__(self, streams: int, chunks: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape = (streams, chunks)
        self.tokens = [[512] * (chunks - 1) + [int(self.rng.integers(100, 512))] for _ in range(streams)]
        self.level = self.rng.normal(2.2, 0.4, (streams, 1)) + self.rng.normal(0, 0.2, self.shape)
        self.lesson = self.rng.gamma(0.7, 0.03, self.shape)

    def actions(self, method: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of the actions and the signal that they follow."""
        base, _, budget = method.partition("@")
        fixed = {"skip": 0, "update_2": 2, "update_4": 3}
        if base == "schedule":
            return np.tile(np.resize([2, 2, 1, 0, 0, 0], self.shape[1]), (self.shape[0], 1)), self.lesson
        if base not in SIGHT:
            return np.full(self.shape, fixed.get(base, 1)), self.lesson
        noise = np.random.default_rng([seed, zlib.crc32(base.encode())]).permutation(self.lesson.ravel())
        signal = SIGHT[base] * self.lesson + (1 - SIGHT[base]) * noise.reshape(self.shape)
        return np.searchsorted(cuts_of(budget) - 1e-9, _ranks(signal), side="right"), signal

    def write(
        self, root: Path, fast_weights: str, method: str, seed: int, strength: float, corpus: str = CORPUS
    ) -> Path:
        """Write a run of a method; a lesson helps the chunks after it, less at each."""
        base, _, budget = method.partition("@")
        actions, signal = self.actions(method, seed)
        learned = strength * CONTROL_SIGN.get(base, 1.0) * self.lesson * WORTH[actions]
        carried = np.zeros(self.shape)
        for t in range(1, self.shape[1]):
            carried[:, t] = 0.9 * carried[:, t - 1] + learned[:, t - 1]
        loss = self.level - 0.04 - carried
        cuts = tuple(cuts_of(budget).tolist())
        rank = _ranks(signal) ** SHIFT.get(base, 1.0)
        generator = np.random.default_rng([seed, 7])
        features = generator.normal(size=(*self.shape, 64))
        features[..., 0] += 100 * self.lesson
        features[..., 1] -= 15 * self.lesson

        def observed(s: int, c: int) -> dict[str, Any]:
            row: dict[str, Any] = {}
            if base in ("entropy", "loss", "reconstruction"):
                row |= {
                    "gate_score": float(signal[s, c]),
                    "gate_rank": float(rank[s, c]),
                    "gate_cuts": cuts,
                }
            if base == "greedy_oracle":
                row["features"] = tuple(features[s, c].tolist())
                if c + 1 < self.shape[1]:
                    row["look_ahead"] = tuple((strength * self.lesson[s, c] * WORTH[1:]).tolist())
            return row

        return write_run(
            root,
            fast_weights,
            method,
            seed,
            lambda s, c, k: float(loss[s, c] + 0.002 * k),
            tokens=self.tokens,
            action=lambda s, c: Action(int(actions[s, c])),
            corpus=corpus,
            observed=observed,
        )


def rules_grid(
    root: Path, labels: dict[str, float], seeds: int = 2, streams: int = 8, chunks: int = 6
) -> list[Path]:
    """Write fixed schedules, rules and oracles at three budgets, and controls.

    Args:
        root: results folder.
        labels: fast weights → strength of an update.
        seeds: number of seeds.
        streams: number of streams.
        chunks: chunks of each stream.
    """
    world = RuleWorld(streams, chunks)
    folders = [
        write_run(root, "none", "plain", 0, lambda s, c, k: float(world.level[s, c]), tokens=world.tokens),
        write_run(
            root,
            "none",
            "full",
            0,
            lambda s, c, k: float(world.level[s, c] - 0.1 * (c > 0)),
            tokens=world.tokens,
            seconds=2.0,
            flops=2e9,
        ),
    ]
    budgeted = [base + suffix for base in SIGHT for suffix in ("", "@1.5", "@5")]
    methods = ["skip", "update_1", "update_2", "update_4", "schedule", *budgeted, *CONTROL_SIGN]
    for label, strength in labels.items():
        folders += [world.write(root, label, method, k, strength) for method in methods for k in range(seeds)]
    for corpus, factor in (("random-tokens", 0.0), ("repeated", 5.0)):
        control = RuleWorld(4, chunks, seed=1)
        folders.append(
            write_run(
                root,
                "none",
                "plain",
                0,
                lambda s, c, k, control=control: float(control.level[s, c]),
                tokens=control.tokens,
                corpus=corpus,
            )
        )
        folders += [
            control.write(root, label, method, 0, factor * strength, corpus)
            for label, strength in labels.items()
            for method in ("skip", "update_1", "entropy")
        ]
    return folders


def update(stream: int, chunk: int) -> Action:
    """Make one update after every chunk."""
    return Action.UPDATE_1


def verdict(row: TableRow, difference: Estimate | None) -> str:
    """Return what the guide says of a difference of a row."""
    return ClaimRule(STATISTICS.confidence, row.n_streams).verdict(difference)


def value(estimate: Estimate | None) -> float:
    """Return the value of a cell that is not empty."""
    assert estimate is not None
    return estimate.value


def table_of(
    folders: list[Path], statistics: StatisticsConfig = STATISTICS
) -> dict[tuple[str, str], TableRow]:
    """Return the rows by fast weights and method."""
    rows = build_table(folders, CODE, statistics).rows
    return {(row.fast_weights, row.method): row for row in rows}
