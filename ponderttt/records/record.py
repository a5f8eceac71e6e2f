"""One row per (stream, chunk): everything that was scored, decided and spent.

``records.parquet`` lies in ``results/runs/{corpus}/{model}/{fast_weights}/{method}/seed-{seed}/`` beside its
manifest, which carries the settings, the digests of everything that the numbers depend on, and the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.atomic import atomic_path
from ponderttt.files.manifest import MANIFEST, read_manifest, write_manifest
from ponderttt.records.step import check_finite

if TYPE_CHECKING:
    import pyarrow

RECORDS = "records.parquet"
KIND = "records"


@dataclass(frozen=True)
class Record:
    """Losses are nats per scored token, means over the chunk; seconds and FLOPs are those of this chunk.

    ``loss`` is the committed loss: of the fast weights as they stood before anything was learned from this
    chunk (protocol ``score_first``).  ``action`` is the decision taken *after* scoring this chunk; it can
    change the loss of later chunks only.
    """

    model: str
    fast_weights: str
    method: str
    protocol: str
    seed: int
    corpus: str
    language: str
    stream_id: str
    chunk_index: int
    n_tokens: int
    n_bytes: int
    loss: float
    loss_frozen: float
    action: str
    steps: int
    cost_nominal: float
    flops: float
    seconds: float
    reconstruction_loss: float | None = None
    gate_score: float | None = None
    #: Percentile rank of ``gate_score`` among calibration chunks, 0..1, and the ranks from which each update begins.
    gate_rank: float | None = None
    gate_cuts: tuple[float, ...] | None = None
    #: Of an oracle: loss of chunk t+1 if SKIP minus its loss if UPDATE_1, UPDATE_2 or UPDATE_4 follows chunk t.
    look_ahead: tuple[float, ...] | None = None
    budget_left: float | None = None
    features: tuple[float, ...] | None = None


def schema() -> pyarrow.Schema:
    """The Parquet schema of a record."""
    import pyarrow as pa

    text = ("model", "fast_weights", "method", "protocol", "corpus", "language", "stream_id", "action")
    whole = ("seed", "chunk_index", "n_tokens", "n_bytes", "steps")
    optional = ("reconstruction_loss", "gate_score", "gate_rank", "budget_left")
    fields = []
    for name in Record.__dataclass_fields__:
        if name in text:
            fields.append(pa.field(name, pa.string(), nullable=False))
        elif name in whole:
            fields.append(pa.field(name, pa.int64(), nullable=False))
        elif name in ("features", "gate_cuts", "look_ahead"):
            fields.append(pa.field(name, pa.list_(pa.float64())))
        else:
            fields.append(pa.field(name, pa.float64(), nullable=name in optional))
    return pa.schema(fields)


def write_records(folder: Path | str, records: Sequence[Record], facts: Mapping[str, Any]) -> None:
    """Write the records of one arm and seed, with their manifest; both appear by atomic rename.

    Raises:
        PonderTTTError: there is no record, a loss is not finite, or the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    if not records:
        raise PonderTTTError(f"{folder}: no chunk was scored; nothing is written")
    for record in records:
        check_finite(record, f"{folder}: ")
    table = pa.Table.from_pylist([asdict(record) for record in records], schema=schema())
    with atomic_path(folder / RECORDS) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        # Only now, so that a full disk leaves earlier records whole; and before the new ones take their place.
        (folder / MANIFEST).unlink(missing_ok=True)
    write_manifest(folder, KIND, {RECORDS: table.num_rows}, facts)


def read_records(
    folder: Path | str, rebuild: str, expected_code: str | None = None
) -> tuple[pyarrow.Table, dict[str, Any]]:
    """Read and verify one arm and seed.

    Args:
        folder: the folder of :func:`write_records`.
        rebuild: the command that makes it again, for error messages.
        expected_code: the stage digest that ``facts["stage_digest"]`` must equal, if given.

    Returns:
        The table (schema of :func:`schema`) and the manifest.

    Raises:
        CorruptFileError: missing, damaged, of another schema, or written by another version of the code.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    manifest = read_manifest(folder, KIND, rebuild)
    try:
        table = pq.read_table(folder / RECORDS)
    except (pa.ArrowException, OSError) as error:
        raise CorruptFileError(
            f"{folder / RECORDS}: not a readable Parquet file ({error}). Rebuild it: {rebuild}"
        ) from None
    if table.schema.remove_metadata() != schema():
        raise CorruptFileError(
            f"{folder / RECORDS}: its columns are not those of a record. Rebuild it: {rebuild}"
        )
    found = manifest["facts"].get("stage_digest")
    if expected_code is not None and found != expected_code:
        raise CorruptFileError(
            f"{folder}: these records come from another version of the code ({str(found)[:12]}, now "
            f"{expected_code[:12]}). Rebuild them: {rebuild}"
        )
    return table, manifest
