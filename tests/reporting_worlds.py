"""Records of made-up arms for the tests of the table and the figures; the process that made them is known."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ponderttt.actions import Action
from ponderttt.records import Record, write_records

CODE = "c0de" * 16
CORPUS = "heldout-python"
MODEL = "tiny"
#: loss(stream, chunk_index, seed) in nats per token.
Loss = Callable[[int, int, int], float]


def run_folder(root: Path, fast_weights: str, method: str, seed: int, corpus: str = CORPUS) -> Path:
    """Where the workflow keeps this run."""
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
) -> Path:
    """Write one run; ``tokens[stream][chunk]`` scored tokens, three bytes each; ``action`` of (stream, chunk)."""
    folder = run_folder(root, fast_weights, method, seed)
    records = [
        Record(
            model=MODEL,
            fast_weights=fast_weights,
            method=method,
            protocol=protocol,
            seed=seed,
            corpus=CORPUS,
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
        )
        for stream, counts in enumerate(tokens)
        for chunk, count in enumerate(counts)
    ]
    write_records(folder, records, {"stage_digest": code} if code else {})
    return folder


def default_grid(root: Path, streams: int = 8, seed: int = 0) -> list[Path]:
    """The arms of the default grid with three seeds; updates of TTT help more and more, those of LoRA do not."""
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
            "context_1",
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
