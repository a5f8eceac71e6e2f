"""Turn a bucket of selected files into segments of a corpus: fetched, filtered, signed and written.

A segment is a fixed number of the bucket's files, in order.  It appears when it is complete, and states what was dropped
and what failed, so a job that was killed continues after its last segment and ends with the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ponderttt.corpus.dedup import NearDuplicates
from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import SourceFile, shard_schema
from ponderttt.corpus.filters import licenses_stated_in
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.contents import NOT_ASKED, UNREADABLE, Content
from ponderttt.corpus.hub.decontamination import Decontamination
from ponderttt.corpus.hub.selection import stable_hash
from ponderttt.corpus.hub.signatures import signature_row, signature_schema
from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import atomic_path
from ponderttt.files.manifest import start_or_continue
from ponderttt.settings.corpus import CorpusConfig

_FACTS = b"ponderttt"
#: Rows of a row group: what a reader holds in memory at once (measured by ``speed/stack.py``).
ROW_GROUP = 512
#: How many failures a message names.
_NAMED = 5
#: Columns besides those of a shard: they decide which of two duplicates stays.
KEEP_ORDER = ("hash", "stars", "forks", "changed")


class Segment(NamedTuple):
    """A finished segment."""

    path: Path
    signatures: Path
    facts: dict[str, Any]


def segment_schema() -> Any:
    """Return the Arrow schema of a segment: the columns of a shard and :data:`KEEP_ORDER`."""
    import pyarrow as pa

    schema = shard_schema()
    for name in KEEP_ORDER:
        kind = pa.float64() if name == "hash" else pa.int64()
        schema = schema.append(pa.field(name, kind, nullable=False))
    return schema


def build_segments(
    corpus: CorpusConfig,
    name: str,
    files: Iterable[Candidate],
    contents_of: Callable[[list[Candidate]], Iterable[tuple[Candidate, Content]]],
    folder: Path,
    source: str,
    settings: str,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Segment]:
    """Write the segments of a bucket.

    Args:
        corpus: the settings of the corpus.
        name: its name in the configuration.
        files: the files of the bucket, in order.
        contents_of: returns the files of a segment with their contents, in order.
        folder: where to write ``segment-*.parquet`` and ``signatures-*.parquet``; finished ones of the same settings stay.
        source: where the files come from, for the column of that name.
        settings: digest of everything that the result depends on.
        progress: called with the number of files done.

    Raises:
        PonderTTTError: more files than allowed could not be fetched, or too many attempts failed; the message and
            ``failures.json`` name them with their reasons.
    """
    assert corpus.hub is not None
    folder.mkdir(parents=True, exist_ok=True)
    start_or_continue(folder, settings, "*-*.parquet")
    maker = _SegmentMaker(corpus, contents_of, source)
    failures_file = folder / "failures.json"
    failures_file.unlink(missing_ok=True)
    segments: list[Segment] = []
    failures: list[dict[str, str]] = []
    done = 0
    for number, group in enumerate(_groups(files, corpus.hub.contents.segment_files)):
        path, signatures = (folder / f"{kind}-{number:05d}.parquet" for kind in ("segment", "signatures"))
        allowed = corpus.hub.contents.max_failures * len(group)
        facts = read_facts(path) if path.exists() else None
        # A segment appears after its signatures.  One that lacks more files than now allowed is rebuilt.
        if facts is None or len(facts["failures"]) > allowed:
            path.unlink(missing_ok=True)
            facts = maker.write(group, path, signatures)
        failed = facts["failures"]
        stopped = any(failure["reason"] == NOT_ASKED for failure in failed)
        if stopped or len(failed) > allowed:
            failures += failed
            path.unlink(missing_ok=True)
            if stopped or (len(failed) == len(group) and len(group) >= _NAMED):
                break  # nothing arrives at all
        else:
            segments.append(Segment(path, signatures, facts))
        done += len(group)
        progress(done)
    if failures:
        with atomic_path(failures_file) as temporary:
            temporary.write_text(json.dumps(failures, indent=1), encoding="utf-8")
        raise PonderTTTError(_missing(failures, failures_file, name))
    return segments


def _missing(failures: list[dict[str, str]], file: Path, name: str) -> str:
    """Return the message about contents that did not arrive."""
    reasons = Counter(failure["reason"] for failure in failures)
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    telling = sorted(failures, key=lambda failure: failure["reason"] == NOT_ASKED)
    shown = "; ".join(f"{f['blob_id']} ({f['reason']})" for f in telling[:_NAMED])
    keys = f"corpora.{name}.hub.contents"
    stopped = (
        f" Too many attempts failed ({keys}.retries), so the files after these were not requested."
        if reasons[NOT_ASKED]
        else ""
    )
    return (
        f"corpus {name}: {len(failures)} contents could not be fetched ({told}), for example {shown}; all of them are in "
        f"{file}.{stopped} Run the same command again to ask for them once more, or allow a share of missing files with "
        f"{keys}.max_failures"
    )


class _SegmentMaker:
    """Fetches, filters and signs the files of segments."""

    def __init__(
        self,
        corpus: CorpusConfig,
        contents_of: Callable[[list[Candidate]], Iterable[tuple[Candidate, Content]]],
        source: str,
    ) -> None:
        assert corpus.hub is not None
        self._corpus, self._contents_of, self._source = corpus, contents_of, source
        filters = corpus.filters
        self._near = NearDuplicates(filters.near_duplicate_threshold, filters.near_duplicate_permutations)
        self._decontamination = Decontamination.of(corpus.hub.decontaminate)

    def write(self, group: list[Candidate], path: Path, signatures: Path) -> dict[str, Any]:
        """Write a segment and its signatures; return its facts."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        drops, kept, signed = Drops(), list[dict[str, Any]](), list[dict[str, Any]]()
        failures: list[dict[str, str]] = []
        for file, content in self._contents_of(group):
            if content.failure in UNREADABLE:
                drops.add(content.failure, file.length_bytes)
                continue
            if content.failure is not None:
                drops.add(f"failed_{content.failure}", file.length_bytes)
                failures.append(
                    {
                        "blob_id": file.blob_id,
                        "repo_name": file.repo_name,
                        "path": file.path,
                        "reason": content.failure,
                    }
                )
                continue
            found = self._examine(file, content)
            if isinstance(found, str):
                drops.add(found, file.length_bytes)
                continue
            kept.append(
                {
                    **asdict(found),
                    "hash": stable_hash(file.repo_name),
                    **{k: getattr(file, k) for k in KEEP_ORDER[1:]},
                }
            )
            signed.append(signature_row(self._near, found.blob_id, found.content))
        facts = {"files": len(kept), "drops": drops.as_facts(), "failures": failures}
        with atomic_path(signatures) as temporary:
            schema = signature_schema()
            pq.write_table(pa.Table.from_pylist(signed, schema=schema), temporary, compression="zstd")
        schema = segment_schema().with_metadata({_FACTS: json.dumps(facts)})
        with atomic_path(path) as temporary:
            pq.write_table(
                pa.Table.from_pylist(kept, schema=schema),
                temporary,
                compression="zstd",
                row_group_size=ROW_GROUP,
            )
        return facts

    def _examine(self, file: Candidate, content: Content) -> SourceFile | str:
        """Return a file of the corpus, or the reason to drop it."""
        raw, text = content.raw, content.text
        assert raw is not None and text is not None
        stated: tuple[str, ...] = ()
        if self._corpus.kind != "text":
            found = licenses_stated_in(text, self._corpus.filters) if text else "empty"
            if isinstance(found, str):
                return found
            stated = found
        if self._decontamination.is_contaminated(text):
            return "benchmark"
        return SourceFile(
            blob_id=file.blob_id,
            content_id=file.content_id,
            repo_name=file.repo_name,
            path=file.path,
            language=file.language,
            license_type=file.license_type,
            detected_licenses=tuple(dict.fromkeys((*file.detected_licenses, *stated))),
            src_encoding=file.src_encoding,
            length_bytes=len(raw),
            content=text,
            source=self._source,
            split=self._corpus.split,
        )


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts of a segment: ``files`` (count), ``drops`` and ``failures``."""
    import pyarrow.parquet as pq

    facts: dict[str, Any] = json.loads(pq.read_schema(path).metadata[_FACTS])
    return facts


def _groups(files: Iterable[Candidate], size: int) -> Iterator[list[Candidate]]:
    iterator = iter(files)
    while group := list(islice(iterator, size)):
        yield group
