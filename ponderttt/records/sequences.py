"""Losses of every sequence of actions: ``loss[stream, sequence]``, written as a tree.

The loss of chunk t depends on the actions before it, its *past*.  ``sequences.parquet`` has one row per stream, chunk and
past, so sequences share the rows of their common start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ponderttt.actions import Action
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.atomic import atomic_path
from ponderttt.files.manifest import MANIFEST, read_manifest, write_manifest

SEQUENCES = "sequences.parquet"
KIND = "sequences"

#: Indices of the actions on the chunks before; its text is their digits.
Past = tuple[int, ...]


@dataclass(frozen=True)
class StreamLosses:
    """The losses of one stream of N chunks after many pasts.

    Attributes:
        stream_id: name of the stream.
        levels: for each chunk t, past of t actions → loss of the chunk, nats per token.
        n_tokens: scored tokens of each chunk.
        width: width of the beam that found the pasts; None if no allowed past is left out.
    """

    stream_id: str
    levels: tuple[Mapping[Past, float], ...]
    n_tokens: Int[np.ndarray, " N"]
    width: int | None = None

    @cached_property
    def sequences(self) -> Int[np.ndarray, "K N"]:
        """The sequences of actions whose every loss is known, as numbers in base 4 rise; SKIP after the last chunk."""
        pasts = np.array(sorted(self.levels[-1]), np.int8).reshape(len(self.levels[-1]), -1)
        return np.column_stack([pasts, np.full(len(pasts), int(Action.SKIP), np.int8)])

    @cached_property
    def losses(self) -> Float[np.ndarray, "K N"]:
        """Losses of the chunks under each of :attr:`sequences`, nats per token."""
        rows = [tuple(row) for row in self.sequences.tolist()]
        return np.array(
            [[level[row[:t]] for t, level in enumerate(self.levels)] for row in rows], np.float64
        ).reshape(len(rows), len(self.levels))

    @property
    def nats(self) -> Float[np.ndarray, " K"]:
        """Total loss of each sequence, nats."""
        totals: Float[np.ndarray, " K"] = self.losses @ self.n_tokens
        return totals


def write_sequences(folder: Path | str, streams: Sequence[StreamLosses], facts: Mapping[str, Any]) -> None:
    """Write the losses of all sequences, with their manifest; both appear by atomic rename.

    Raises:
        PonderTTTError: a loss is not finite, or the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    columns: dict[str, list[Any]] = {
        "stream_id": [],
        "chunk_index": [],
        "n_tokens": [],
        "past": [],
        "loss": [],
    }
    for stream in streams:
        for t, level in enumerate(stream.levels):
            columns["stream_id"] += [stream.stream_id] * len(level)
            columns["chunk_index"] += [t] * len(level)
            columns["n_tokens"] += [int(stream.n_tokens[t])] * len(level)
            columns["past"] += ["".join(map(str, past)) for past in level]
            columns["loss"] += level.values()
    if not np.isfinite(columns["loss"]).all():
        raise PonderTTTError(
            f"{folder}: the loss of a sequence is not finite; lower the inner rate of the fast weights"
        )
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns, schema=_schema())
    with atomic_path(folder / SEQUENCES) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        (folder / MANIFEST).unlink(missing_ok=True)
    widths = {stream.stream_id: stream.width for stream in streams}
    write_manifest(folder, KIND, {SEQUENCES: table.num_rows}, {**facts, "beam_width": widths})


def read_sequences(folder: Path | str, rebuild: str) -> tuple[list[StreamLosses], dict[str, Any]]:
    """Read and verify the losses of all sequences.

    Args:
        folder: folder of the file, see :func:`write_sequences`.
        rebuild: command that rebuilds it, for error messages.

    Returns:
        The streams in the order of the file, and the facts of the manifest.

    Raises:
        CorruptFileError: the file is missing, damaged, of another schema, or lacks the start of a sequence.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    facts = read_manifest(folder, KIND, rebuild)["facts"]
    again = f"Rebuild it: {rebuild}"
    try:
        table = pq.read_table(folder / SEQUENCES)
    except (pa.ArrowException, OSError) as error:
        raise CorruptFileError(
            f"{folder / SEQUENCES}: not a readable Parquet file ({error}). {again}"
        ) from None
    if table.schema.remove_metadata() != _schema():
        raise CorruptFileError(f"{folder / SEQUENCES}: its columns are not those of sequences. {again}")
    levels: dict[str, dict[int, dict[Past, float]]] = {}
    tokens: dict[str, dict[int, int]] = {}
    for stream_id, t, count, past, loss in zip(
        *(column.to_pylist() for column in table.columns), strict=True
    ):
        levels.setdefault(stream_id, {}).setdefault(t, {})[tuple(map(int, past))] = loss
        tokens.setdefault(stream_id, {})[t] = count
    streams = []
    for stream_id, mine in levels.items():
        chunks = range(len(mine))
        if sorted(mine) != list(chunks) or not _complete([mine[t] for t in chunks]):
            raise CorruptFileError(f"{folder / SEQUENCES}: a sequence of {stream_id} has no start. {again}")
        counts = np.array([tokens[stream_id][t] for t in chunks])
        width = facts["beam_width"].get(stream_id)
        streams.append(StreamLosses(stream_id, tuple(mine[t] for t in chunks), counts, width))
    return streams, facts


def _complete(levels: Sequence[Mapping[Past, float]]) -> bool:
    """Return whether every past goes on from a past of the chunk before."""
    return set(levels[0]) == {()} and all(
        len(past) == t and past[:-1] in before
        for t, (before, after) in enumerate(pairwise(levels), start=1)
        for past in after
    )


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("stream_id", pa.string(), nullable=False),
            pa.field("chunk_index", pa.int64(), nullable=False),
            pa.field("n_tokens", pa.int64(), nullable=False),
            pa.field("past", pa.string(), nullable=False),
            pa.field("loss", pa.float64(), nullable=False),
        ]
    )
