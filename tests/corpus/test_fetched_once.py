"""Contents are fetched once, whatever filters, opt-outs or cuts come later."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fault_proxy import NOT_FOUND, FaultProxy, always
from ponderttt.corpus.hub.buckets import read_bucket
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.contents import ContentClient
from ponderttt.corpus.hub.fetched import FetchedContents
from ponderttt.errors import PonderTTTError
from ponderttt.settings.corpus import FilterConfig
from ponderttt.workflow.stages.select import select
from s3_server import content_key
from stack_builds import PATIENT, build, bytes_of, facts_of, files_of, quiet, stack_corpus
from stack_data import Planted


@pytest.fixture(scope="module")
def proxy(endpoint: str) -> Iterator[FaultProxy]:
    with FaultProxy(endpoint) as server:
        yield server


@pytest.fixture(scope="module")
def finished(snapshot: Path, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    build(stack_corpus(snapshot, proxy.url, parts=2), folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copied"))


CHANGES: dict[str, dict[str, Any]] = {
    "filters and benchmarks": {
        "filters": FilterConfig(max_line_length=90, near_duplicate_threshold=0.5),
        "decontaminate": ("problems.jsonl",),
    },
    # The repository with the smallest hash, so that all segments begin elsewhere.
    "opted out": {"opt_out": "out.txt"},
    "range and number of buckets": {"hash_from": 0.2, "hash_to": 0.9, "parts": 3},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_corpus_of_the_same_files_asks_for_nothing_and_is_as_if_fetched_anew(
    change: str,
    snapshot: Path,
    endpoint: str,
    proxy: FaultProxy,
    finished: Path,
    copied: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out.txt").write_text("birch/net-tools\n")
    text = files_of(finished / "shards")[0].content
    Path("problems.jsonl").write_text(json.dumps({"prompt": text}) + "\n")
    changes = {"parts": 2, **CHANGES[change]}
    asked = proxy.requests
    shards = build(stack_corpus(snapshot, proxy.url, **changes), copied, code="other code")
    assert proxy.requests == asked > 0
    assert bytes_of(shards) == bytes_of(build(stack_corpus(snapshot, endpoint, **changes), tmp_path / "anew"))
    assert bytes_of(shards) != bytes_of(finished / "shards")


def cut(path: Path) -> int:
    """Truncate a file; return how many contents it had."""
    rows: int = pq.read_metadata(path).num_rows
    path.write_bytes(path.read_bytes()[:-100])
    return rows


def change_one(path: Path) -> int:
    """Change the bytes of one content in a file."""
    table = pq.read_table(path)
    raws = table.column("raw").to_pylist()
    raws[1] = raws[1] + b"\n"
    pq.write_table(table.set_column(1, table.schema.field("raw"), pa.array(raws, pa.binary())), path)
    return 1


@pytest.mark.parametrize("damage", [cut, change_one])
def test_what_was_damaged_on_disk_is_asked_for_again(
    damage: Callable[[Path], int], snapshot: Path, proxy: FaultProxy, finished: Path, copied: Path
) -> None:
    lost = damage(sorted((copied / "contents" / "fetched").iterdir())[1])
    corpus = stack_corpus(snapshot, proxy.url, parts=2)
    for wanted in (lost, 0):
        asked = proxy.requests
        assert bytes_of(build(corpus, copied)) == bytes_of(finished / "shards")
        assert proxy.requests - asked == wanted


def test_files_of_somebody_else_are_no_contents(snapshot: Path, proxy: FaultProxy, copied: Path) -> None:
    folder = copied / "contents" / "fetched"
    first = sorted(folder.iterdir())[0]
    shutil.copyfile(first, folder / f"{first.stem}-copy.parquet")
    asked = proxy.requests
    build(stack_corpus(snapshot, proxy.url, parts=2), copied, code="other code")
    assert proxy.requests == asked


def test_bytes_that_are_no_text_are_not_asked_for_again(
    planted: Planted, proxy: FaultProxy, tmp_path: Path
) -> None:
    utf8 = next(file for file in planted.files if file.src_encoding == "UTF-8")
    named = [(file.blob_id, file.content_id) for file in (planted.latin1[0], utf8)]
    group = [
        Candidate(
            "o/n", "a", blob, content, "Python", "permissive", (), "UTF-8", 1, False, False, 0, 0, 0, None
        )
        for blob, content in named
    ]

    def outcome() -> list[str | None]:
        client = ContentClient(replace(PATIENT, endpoint=proxy.url))
        fetched = FetchedContents(client, tmp_path / "fetched", tmp_path / "scratch")
        return [content.failure for _, content in fetched.contents(group)]

    asked = proxy.requests
    assert outcome() == outcome() == ["undecodable", None]
    assert proxy.requests - asked == 2


def test_speed_and_place_of_a_server_are_no_part_of_a_corpus(
    snapshot: Path, endpoint: str, finished: Path, tmp_path: Path
) -> None:
    contents = replace(PATIENT, endpoint=endpoint, connections=2, max_failures=0.5)
    shards = build(stack_corpus(snapshot, parts=2, contents=contents), tmp_path)
    assert bytes_of(shards) == bytes_of(finished / "shards")
    assert facts_of(shards) == facts_of(finished / "shards")


def test_a_segment_that_misses_more_than_is_allowed_by_now_asks_for_it_again(
    snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    """The first segment of a stopped job was finished under a larger allowance."""
    part = tmp_path / "part"
    select(stack_corpus(snapshot), "stack", 0, part, quiet(tmp_path))
    blobs = [file.blob_id for file in read_bucket([part], 0, tmp_path / "scratch", inline=False)]
    segments = [blobs[:10], blobs[10:20]]
    once = [[blob for blob in segment if Counter(blobs)[blob] == 1] for segment in segments]
    missing = [content_key(blob) for blob in (*once[0][:1], *once[1][:3])]
    with FaultProxy(endpoint, always(NOT_FOUND, missing)) as proxy:
        contents = replace(PATIENT, endpoint=proxy.url, max_failures=0.1)
        with pytest.raises(PonderTTTError, match="3 contents could not be fetched"):
            build(stack_corpus(snapshot, contents=contents), tmp_path)
        proxy.rule = always(NOT_FOUND, [])
        asked = proxy.requests
        contents = replace(contents, max_failures=0.0)
        assert facts_of(build(stack_corpus(snapshot, contents=contents), tmp_path))["failures"] == {}
        assert proxy.requests - asked == len(missing)
