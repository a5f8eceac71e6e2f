"""MinHash signatures on disk, cut into bands: files that share a band may be near duplicates.

The bands are those of ``datasketch.MinHashLSH`` for the same threshold, so the candidate pairs are the same as in memory
(:mod:`ponderttt.corpus.dedup`).  All pairs with a training file are compared; within a corpus see
:data:`ponderttt.corpus.hub.duplicates.COMPARED`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ponderttt.corpus.dedup import NearDuplicates


def signature_schema() -> Any:
    """Return the schema: ``blob_id``, ``bands`` (empty for a text without words), ``signature`` (uint32 as bytes)."""
    import pyarrow as pa

    fields = [("blob_id", pa.string()), ("bands", pa.list_(pa.uint64())), ("signature", pa.binary())]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])


def signature_row(near: NearDuplicates, blob: str, text: str) -> dict[str, Any]:
    """Return the row of one file."""
    signature = near.signature(text)
    if signature is None:
        return {"blob_id": blob, "bands": [], "signature": b""}
    values = np.asarray(signature.hashvalues, np.uint32)
    bands = [
        int.from_bytes(
            hashlib.blake2b(values[start:stop].tobytes(), digest_size=8, salt=str(start).encode()).digest(),
            "little",
        )
        for start, stop in near.band_ranges
    ]
    return {"blob_id": blob, "bands": bands, "signature": values.tobytes()}


def similarity(first: bytes, second: bytes) -> float:
    """Estimate the Jaccard similarity of two signatures."""
    return float(np.mean(np.frombuffer(first, np.uint32) == np.frombuffer(second, np.uint32)))


class SignatureFile:
    """The signatures of many Parquet files in one plain file, read by number."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        import pyarrow.parquet as pq

        self._width = 0
        waiting = 0
        with path.open("wb") as target:
            for file in files:
                with pq.ParquetFile(file) as reader:
                    for batch in reader.iter_batches(1_024, columns=["signature"]):
                        for signature in batch.column(0).to_pylist():
                            if signature and not self._width:
                                self._width = len(signature)
                                target.write(bytes(waiting * self._width))
                            # A text without words has no bands, so its signature is never read.
                            waiting += not self._width
                            target.write(signature or bytes(self._width))
        self._handle = path.open("rb", buffering=0)

    def __getitem__(self, number: int) -> bytes:
        return os.pread(self._handle.fileno(), self._width, number * self._width)

    def __enter__(self) -> SignatureFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()
