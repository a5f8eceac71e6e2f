"""The cost of observing a chunk, as a share of a SKIP chunk: attention, predictions, features of both and of the text.

    python speed/features.py [--model-dir data/models/smollm2-135m] [--rounds 31] [--json features.json]

A SKIP chunk is 512 tokens read by the backbone, split before its last two blocks, and scored with the entropy of its
predictions, in float32.  Everything that the frozen pass does beyond that so that policies can observe the chunk is
timed beside it, in one process, in rounds of all parts in turn, so that whatever else the machine does falls on all.
A share is the median over rounds of (with the part − without it) / SKIP, both of the same round.

On a busy machine, ``--threads 1 --clock cpu`` measures the CPU time of one thread instead, which others do not change.
"""

from __future__ import annotations

import statistics
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from setting import SMOLLM2_135M, parse

from ponderttt.corpus.streams import Document, Stream, cut_chunks, tokenize_documents
from ponderttt.costs import Measured, Program
from ponderttt.features.frozen import frozen_features
from ponderttt.features.text import code_metrics
from ponderttt.frozen.model import FrozenModel, chunk_signals, chunk_text
from ponderttt.models.backbone import Backbone
from ponderttt.models.losses import frozen_losses, gradient_sketch

CHUNK = 512
#: Real code that every Python has.
SOURCE = Path(sysconfig.get_path("stdlib")) / "argparse.py"
#: Largest allowed cost of observation, as a share of SKIP.
TARGET = 0.02


@dataclass(frozen=True)
class Bytes:
    """One token for each byte: for a model with random weights, which has no tokenizer."""

    vocab_size: int = SMOLLM2_135M.vocab_size
    pad_id: int = SMOLLM2_135M.pad_id
    eot_id: int = 0
    digest: str = "bytes"

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return list(text.encode())

    def token_bytes(self, ids: list[int]) -> list[int]:
        """Return the number of bytes of each token."""
        return [1] * len(ids)

    def decode(self, ids: Any) -> str:
        """Return the text of token ids."""
        return bytes(np.asarray(ids, np.uint8)).decode(errors="replace")


@dataclass(frozen=True)
class Row:
    """A part of observing a chunk: its own median seconds, counted FLOPs where it is a program, its share of SKIP."""

    part: str
    seconds: float
    gigaflops: float | None
    share_of_skip: float


def parts_of(backbone: Backbone, tokenizer: Any, stream: Stream) -> dict[str, Callable[[], Any]]:
    """Return what is timed, on chunk 1 of a stream: name → a call that runs to completion."""
    graph, params = backbone.graph, backbone.params
    matrix, sketch = backbone.unembedding, gradient_sketch(backbone.unembedding)
    tokens, targets = stream.input_ids[1][None], stream.targets[1]
    real = tokens < backbone.config.vocab_size

    prefix = Program(lambda params, tokens: nnx.merge(graph, params).prefix(tokens))
    suffix = Program(lambda params, split, real: nnx.merge(graph, params).suffix(split, real, CHUNK))
    observed = Program(
        lambda params, split, real: nnx.merge(graph, params).observed_suffix(split, real, CHUNK)
    )
    # What no output needs is not computed: loss and entropy alone.
    plain_losses, losses = Program(lambda *given: frozen_losses(*given)[:2]), Program(frozen_losses)

    model = FrozenModel(backbone)
    previous, states = model.together(stream, 0, 0).hidden, model.together(stream, 1, 0)
    split, scored = prefix(params, tokens).value, losses(states.hidden, matrix, sketch, targets).value

    def signals() -> Any:
        return chunk_signals(stream, 1, states, scored, previous, tokenizer)

    text = chunk_text(stream, 1, tokenizer)
    silent = signals()._replace(text="")
    alone = silent._replace(previous_hidden=None, previous_mask=None)
    return {
        "prefix": lambda: prefix(params, tokens),
        "suffix": lambda: suffix(params, split, real),
        "observed suffix": lambda: observed(params, split, real),
        "loss and entropy": lambda: plain_losses(states.hidden, matrix, sketch, targets),
        "all of the losses": lambda: losses(states.hidden, matrix, sketch, targets),
        "features": lambda: frozen_features(signals()),
        "code metrics": lambda: code_metrics(text, stream.language),
        "features without text": lambda: frozen_features(silent),
        "features without text or the chunk before": lambda: frozen_features(alone),
    }


def measure(
    parts: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Time each part in each round, all parts in turn; return seconds, and FLOPs of compiled programs."""
    flops = {}
    for name, run in parts.items():
        result = run()
        if isinstance(result, Measured):
            flops[name] = result.flops
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, run in parts.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: np.asarray(values) for name, values in seconds.items()}, flops


def rows_of(seconds: Mapping[str, np.ndarray], flops: Mapping[str, float]) -> list[Row]:
    """Return the table: SKIP, what each part of observation adds to it, and all of them."""
    s, f = seconds, flops
    skip = s["prefix"] + s["suffix"] + s["loss and entropy"]
    before = s["features without text or the chunk before"]
    added = {
        "attention statistics": s["observed suffix"] - s["suffix"],
        "confidence and gradient sketch": s["all of the losses"] - s["loss and entropy"],
        "features": s["features"],
    }
    counted = {
        "attention statistics": f["observed suffix"] - f["suffix"],
        "confidence and gradient sketch": f["all of the losses"] - f["loss and entropy"],
    }
    within = {
        "  of which code metrics": s["code metrics"],
        "  of which the chunk before": s["features without text"] - before,
        "  of which all other features": before,
    }
    skip_flops = f["prefix"] + f["suffix"] + f["loss and entropy"]

    def row(part: str, values: np.ndarray, count: float | None = None) -> Row:
        return Row(
            part,
            statistics.median(values),
            None if count is None else count / 1e9,
            statistics.median(values / skip),
        )

    return [
        row("SKIP", skip, skip_flops),
        *(row(part, values, counted.get(part)) for part, values in added.items()),
        *(row(part, values) for part, values in within.items()),
        row("observation in all", sum(added.values(), np.zeros_like(skip))),
    ]


def main() -> None:
    """Print a table, and write JSON with ``--json``; exit with 1 if the target is missed."""
    setting = parse(__doc__.splitlines()[0], 31)
    backbone = setting.backbone()
    tokenizer: Any = backbone.tokenizer or Bytes()
    document = Document(SOURCE.name, SOURCE.read_text(encoding="utf-8"))
    tokens = tokenize_documents([document], tokenizer, max_tokens=2 * CHUNK + 1)
    stream = cut_chunks(tokens, CHUNK, tokenizer.pad_id, "stdlib", "Python")
    rows = rows_of(*measure(parts_of(backbone, tokenizer, stream), setting.rounds, setting.clock))
    print(
        f"{setting.threads} threads, float32, {setting.clock_name} clock, medians of {setting.rounds} rounds"
    )
    print(f"{'part':34s} {'ms':>8s} {'GFLOPs':>8s} {'share of SKIP':>14s}")
    for row in rows:
        count = "" if row.gigaflops is None else f"{row.gigaflops:.3f}"
        print(f"{row.part:34s} {1e3 * row.seconds:8.2f} {count:>8s} {row.share_of_skip:14.2%}")
    setting.write(rows, target=TARGET)
    raise SystemExit(int(rows[-1].share_of_skip > TARGET))


if __name__ == "__main__":
    main()
