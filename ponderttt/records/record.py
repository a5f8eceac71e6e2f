"""One row per (stream, chunk): everything that was scored, decided and spent.

``records.parquet`` is in ``results/runs/{corpus}/{model}/{fast_weights}/{method}/seed-{seed}/``, next to its manifest,
which has the settings, the digests of everything that the numbers depend on, and the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

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
    """One row: the names of the run, and the fields of a :class:`ponderttt.records.step.Step`.

    Losses are means over the chunk, in nats per scored token; FLOPs and seconds are those of this chunk.  ``loss`` is the
    committed loss: under protocol ``score_first``, the loss before anything is learned from this chunk.  ``action`` is
    the decision *after* scoring this chunk; it can change only the losses of later chunks.
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
    gate_rank: float | None = None
    gate_cuts: tuple[float, ...] | None = None
    look_ahead: tuple[float, ...] | None = None
    budget_left: float | None = None
    features: tuple[float, ...] | None = None


def schema() -> pyarrow.Schema:
    """Return the Parquet schema of a record, which follows from the types of its fields."""
    import pyarrow as pa

    types = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        tuple[float, ...]: pa.list_(pa.float64()),
    }
    fields = []
    for name, hint in get_type_hints(Record).items():
        optional = isinstance(hint, UnionType)
        fields.append(pa.field(name, types[get_args(hint)[0] if optional else hint], nullable=optional))
    return pa.schema(fields)


def write_records(folder: Path | str, records: Sequence[Record], facts: Mapping[str, Any]) -> None:
    """Write the records of one run, with their manifest; both appear by atomic rename.

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
        # After writing, so that a full disk leaves earlier records whole, and before the new ones replace them.
        (folder / MANIFEST).unlink(missing_ok=True)
    write_manifest(folder, KIND, {RECORDS: table.num_rows}, facts)


def read_records(
    folder: Path | str, rebuild: str, expected_code: str | None = None
) -> tuple[pyarrow.Table, dict[str, Any]]:
    """Read and verify the records of one run.

    Args:
        folder: folder of the records, see :func:`write_records`.
        rebuild: command that rebuilds them, for error messages.
        expected_code: required value of ``facts["stage_digest"]``, if given.

    Returns:
        The table (schema of :func:`schema`) and the manifest.

    Raises:
        CorruptFileError: the records are missing, damaged, of another schema, or of another version of the code.
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
