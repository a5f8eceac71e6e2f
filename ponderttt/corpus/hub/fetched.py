"""Keep fetched contents on disk, so that other filters or other code need not fetch them again.

The contents of one segment are one Parquet file, a pack, written before the segment.  It holds true bytes under their
sha1 and depends on no setting.  Its name states the range of hashes of its repositories, so a later segment, however cut,
opens only the few packs whose ranges meet its own, in memory that does not grow with the number of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ponderttt.corpus.files import blob_id, content_id
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.contents import Content, ContentClient, as_text, in_order
from ponderttt.corpus.hub.selection import stable_hash
from ponderttt.files.atomic import atomic_path, digest

#: Bytes of content in a row group, which is decoded as a whole even for one file.
BYTES = 1 << 20
_NAME = re.compile(r"([0-9a-f]{16,17})-([0-9a-f]{16,17})-[0-9a-f]{16}")


class _Pack(NamedTuple):
    """A file of contents and the range of its repositories' hashes (times 2^64), both ends included."""

    first: int
    last: int
    path: Path


class FetchedContents:
    """The contents of a bucket, fetched unless they are on disk.

    Args:
        client: the client to fetch with.
        folder: folder of the packs; jobs of other buckets may use it at the same time.
        scratch: folder of this job on the same file system, for a pack that is being written.
    """

    def __init__(self, client: ContentClient, folder: Path, scratch: Path) -> None:
        self._client, self._folder, self._scratch = client, folder, scratch
        self._packs = sorted(filter(None, map(_pack, folder.glob("*.parquet"))))

    def contents(self, group: Sequence[Candidate]) -> Iterator[tuple[Candidate, Content]]:
        """Yield the files of a segment with their contents, in order; after the last one, all that arrived is on disk.

        Raises:
            PonderTTTError: the server refuses everything, or the disk is full.
        """
        known = self._read(group)
        missing = [file for file, raw in zip(group, known, strict=True) if raw is None]
        if not missing:
            for file, raw in zip(group, known, strict=True):
                assert raw is not None
                yield file, as_text(raw, file)
            return
        if len(missing) < len(group):
            self._client.came_before()
        waiting = self._scratch / "fetched.parquet"
        with (
            closing(in_order(self._client.content, missing, self._client.config.connections)) as arriving,
            atomic_path(waiting) as temporary,
            _Writer(temporary) as writer,
        ):
            for file, raw in zip(group, known, strict=True):
                if raw is not None:
                    yield file, as_text(raw, file)
                    continue
                _, content = next(arriving)
                if content.raw is not None:
                    writer.add(file.blob_id, content.raw)
                yield file, content
        if not writer.blobs:
            waiting.unlink()
            return
        # Files come in the order of the hashes of their repositories.
        first, last = _hash(group[0]), _hash(group[-1])
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{first:016x}-{last:016x}-{digest(writer.blobs)[:16]}.parquet"
        waiting.replace(path)
        self._packs.append(_Pack(first, last, path))

    def _read(self, group: Sequence[Candidate]) -> list[bytes | None]:
        """Return the bytes of each file of a segment; None for those that are not on disk."""
        found: list[bytes | None] = [None] * len(group)
        wanted, hashes = {file.blob_id for file in group}, [_hash(file) for file in group]
        for pack in [pack for pack in self._packs if pack.first <= hashes[-1] and hashes[0] <= pack.last]:
            contents = _contents_of(pack.path, wanted)
            if contents is None:
                self._packs.remove(pack)
                continue
            for number, (file, place) in enumerate(zip(group, hashes, strict=True)):
                raw = contents.get(file.blob_id)
                # The same bytes in another range do not count: a later segment with this file might not look there.
                covered = pack.first <= place <= pack.last
                if raw is not None and covered and content_id(raw) == file.content_id:
                    found[number] = raw
        return found


class _Writer:
    """Writes contents in small row groups, so that few wait in memory."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = [("blob_id", pa.string()), ("raw", pa.binary())]
        self._schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])
        self._writer: Any = pq.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=False, write_statistics=False
        )
        self._rows: list[dict[str, Any]] = []
        self._size = 0
        self.blobs: list[str] = []

    def add(self, blob: str, raw: bytes) -> None:
        """Write a content, now or later."""
        self._rows.append({"blob_id": blob, "raw": raw})
        self._size += len(raw)
        self.blobs.append(blob)
        if self._size >= BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._size = [], 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def _pack(path: Path) -> _Pack | None:
    """Read the range from a pack's name; None for another file."""
    named = _NAME.fullmatch(path.stem)
    return _Pack(int(named[1], 16), int(named[2], 16), path) if named else None


def _hash(file: Candidate) -> int:
    return int(stable_hash(file.repo_name) * 2**64)


def _contents_of(path: Path, wanted: set[str]) -> dict[str, bytes] | None:
    """Return the wanted contents of a pack that match their sha1; remove a damaged pack and return None."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, bytes] = {}
    try:
        with pq.ParquetFile(path) as reader:
            for group in range(reader.num_row_groups):
                blobs = reader.read_row_group(group, columns=["blob_id"]).column("blob_id").to_pylist()
                if wanted.isdisjoint(blobs):
                    continue
                raws = reader.read_row_group(group, columns=["raw"]).column("raw").to_pylist()
                for blob, raw in zip(blobs, raws, strict=True):
                    if blob in wanted and blob_id(raw) == blob:
                        found[blob] = raw
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        # An error of the system, such as too little memory, says nothing about the file.
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        print(f"{path}: damaged; its contents are fetched again")
        path.unlink(missing_ok=True)
        return None
    return found
