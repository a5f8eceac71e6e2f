"""A dataset becomes a corpus with the right files in a fixed order, for each edition and any number of jobs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ponderttt.corpus.dedup import deduplicate
from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import SourceFile
from ponderttt.corpus.filters import licenses_stated_in, path_reason
from ponderttt.corpus.hub.buckets import bucket_file
from ponderttt.corpus.hub.rows import open_rows
from ponderttt.corpus.hub.selection import stable_hash
from ponderttt.errors import PonderTTTError
from ponderttt.files.manifest import read_manifest
from ponderttt.settings.experiment import CorpusConfig
from ponderttt.settings.hub import HubConfig
from ponderttt.workflow.stages.contents import fetch
from ponderttt.workflow.stages.select import select
from stack_builds import build, bytes_of, facts_of, files_of, quiet, stack_corpus
from stack_data import Planted, write_stack_v2, write_stack_v2_ids, write_stack_v3


@pytest.fixture(scope="module")
def shards(snapshot: Path, endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(stack_corpus(snapshot, endpoint), tmp_path_factory.mktemp("one"))


def places(files: list[SourceFile]) -> set[tuple[str, str]]:
    return {(file.repo_name, file.path) for file in files}


def wanted(planted: Planted) -> list[SourceFile]:
    """Return the files of a corpus by definition: permissive, neither vendored nor generated, without copies."""
    filters = CorpusConfig.__dataclass_fields__["filters"].default
    kept = [
        f
        for f in planted.files
        if f.license_type == "permissive"
        and not (f.is_vendor or f.is_generated)
        # Paths and heads of files: the filters of every corpus.
        and path_reason(f.path) is None
        and isinstance(licenses_stated_in(f.text, filters), tuple)
    ]
    kept.sort(key=lambda f: (-f.stars, -f.forks, f.repo_name, f.path))
    files = [
        SourceFile(
            f.blob_id,
            f.content_id,
            f.repo_name,
            f.path,
            "Python",
            "permissive",
            f.detected_licenses,
            f.src_encoding,
            len(f.content),
            f.text,
            "",
            "train",
        )
        for f in kept
    ]
    return deduplicate(files, 0.7, 250, Drops())


def test_a_corpus_is_the_wanted_files_with_their_true_contents(planted: Planted, shards: Path) -> None:
    found = files_of(shards)
    texts = {file.blob_id: file.text for file in planted.files}
    assert len(found) > 30
    assert all(file.content == texts[file.blob_id] for file in found)
    assert places(found) == places(wanted(planted))
    assert any(file.src_encoding == "ISO-8859-1" for file in found)


def test_every_file_is_kept_or_dropped_for_a_reason(planted: Planted, shards: Path) -> None:
    facts = facts_of(shards)
    assert facts["kept"]["files"] + sum(c["files"] for c in facts["drops"].values()) == len(planted.files)
    assert facts["drops"]["license"]["files"] == sum(f.license_type != "permissive" for f in planted.files)
    assert facts["failures"] == {}


def test_of_two_copies_the_one_with_more_stars_stays(planted: Planted, shards: Path) -> None:
    found = places(files_of(shards))
    pairs = [
        (first, second)
        for first, second in (*planted.exact, *planted.near)
        if {first.license_type, second.license_type} == {"permissive"}
    ]
    assert pairs
    for first, second in pairs:
        better, worse = sorted((first, second), key=lambda f: -f.stars)
        assert (better.repo_name, better.path) in found
        assert (worse.repo_name, worse.path) not in found


def test_repositories_are_whole_and_in_the_order_of_their_hash(shards: Path) -> None:
    names = list(dict.fromkeys(file.repo_name for file in files_of(shards)))
    assert names == sorted(names, key=stable_hash)
    runs = [file.repo_name for file in files_of(shards)]
    assert sum(a != b for a, b in pairwise(runs)) == len(names) - 1


@pytest.mark.parametrize("parts", [2, 3])
def test_any_number_of_jobs_gives_the_same_corpus(
    parts: int, snapshot: Path, endpoint: str, shards: Path, tmp_path: Path
) -> None:
    again = build(stack_corpus(snapshot, endpoint, parts=parts), tmp_path)
    assert files_of(again) == files_of(shards)
    assert facts_of(again)["drops"] == facts_of(shards)["drops"]


def test_rows_by_repository_give_the_same_files(
    planted: Planted, endpoint: str, shards: Path, tmp_path: Path
) -> None:
    snapshot = write_stack_v2_ids(tmp_path / "ids", planted.files, parts=2)
    found = files_of(build(stack_corpus(snapshot, endpoint, config="default", parts=2), tmp_path / "out"))
    assert places(found) == places(files_of(shards))


def test_contents_that_come_along_need_no_server(planted: Planted, shards: Path, tmp_path: Path) -> None:
    missing = next(f for f in planted.files if f.license_type == "permissive" and not f.is_vendor)
    snapshot = write_stack_v3(tmp_path / "v3", planted.files, parts=2, without_content=[missing.content_id])
    corpus = stack_corpus(snapshot, kind="stack_v3", parts=2)
    found = build(corpus, tmp_path / "out")
    # The third edition does not mark generated files.
    unsaid = {(f.repo_name, f.path) for f in planted.files if f.is_generated}
    assert facts_of(found)["drops"]["no_content"]["files"] >= 1
    differing = places(files_of(found)) ^ places(files_of(shards))
    stars_decide = {(f.repo_name, f.path) for pair in (*planted.exact, *planted.near) for f in pair}
    assert differing <= unsaid | stars_decide | {(missing.repo_name, missing.path)}


def test_splits_by_hash_share_no_repository_and_together_are_all(
    snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    halves = [
        places(
            files_of(
                build(stack_corpus(snapshot, endpoint, hash_from=low, hash_to=high), tmp_path / str(low))
            )
        )
        for low, high in ((0.0, 0.5), (0.5, 1.0))
    ]
    names = [{repository for repository, _ in half} for half in halves]
    assert names[0] and names[1] and not names[0] & names[1]


def test_every_job_has_files_of_a_corpus_that_is_a_small_range_of_hashes(
    snapshot: Path, tmp_path: Path
) -> None:
    corpus = stack_corpus(snapshot, hash_from=0.1, hash_to=0.3, parts=2)
    parts = [tmp_path / str(part) for part in range(2)]
    for number, part in enumerate(parts):
        select(corpus, "stack", number, part, quiet(tmp_path))
    counts = [read_manifest(part, "selected", "again")["files"] for part in parts]
    for bucket in range(2):
        assert sum(files[bucket_file(bucket)]["rows"] for files in counts) > 3


def test_who_opted_out_is_out_by_name_or_by_owner(
    planted: Planted, snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    (tmp_path / "out.txt").write_text("# asked for\nACORN/\nbirch/net-tools\n")
    corpus = stack_corpus(snapshot, endpoint, opt_out=str(tmp_path / "out.txt"))
    shards = build(corpus, tmp_path / "out")
    assert not {f.repo_name for f in files_of(shards)} & {"acorn/collections", "birch/net-tools"}
    expected = sum(f.repo_name in ("acorn/collections", "birch/net-tools") for f in planted.files)
    assert facts_of(shards)["drops"]["opted_out"]["files"] == expected


def test_a_file_that_holds_a_benchmark_problem_is_dropped(
    shards: Path, snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    victim = max(files_of(shards), key=lambda file: len(file.content))
    lines = victim.content.splitlines()
    start = len(lines) // 3
    problem = {
        "task_id": "X/0",
        "prompt": "\n".join(lines[start : start + 12]),
        "canonical_solution": "\n".join(lines[start + 12 : start + 30]),
    }
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    corpus = stack_corpus(snapshot, endpoint, decontaminate=(str(tmp_path / "problems.jsonl"),))
    found = build(corpus, tmp_path / "out")
    assert (victim.repo_name, victim.path) not in places(files_of(found))
    assert facts_of(found)["drops"]["benchmark"]["files"] >= 1
    assert len(files_of(found)) > 0.8 * len(files_of(shards))


def test_held_out_files_repeat_none_of_the_training_corpus(
    planted: Planted, snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    pairs = [
        sorted(stable_hash(file.repo_name) for file in pair)
        for pair in (*planted.exact, *planted.near)
        if {file.license_type for file in pair} == {"permissive"}
    ]
    # A hash between the repositories of a file and of its copy.
    cut = sum(pairs[0]) / 2
    train = build(stack_corpus(snapshot, endpoint, hash_to=cut), tmp_path / "train", "train")
    corpus = stack_corpus(snapshot, endpoint, hash_from=cut, split="heldout")
    held_out = build(corpus, tmp_path / "heldout", "heldout", train)
    blobs = {file.blob_id for file in files_of(train)}
    assert not blobs & {file.blob_id for file in files_of(held_out)}
    everything = build(corpus, tmp_path / "alone", "heldout")
    dropped = facts_of(held_out)["drops"]
    copies = [dropped.get(f"{kind}_copy_of_training", {"files": 0})["files"] for kind in ("exact", "near")]
    assert len(files_of(everything)) - len(files_of(held_out)) == sum(copies) > 0
    with pytest.raises(PonderTTTError, match="is also in the training corpus"):
        build(stack_corpus(snapshot, endpoint), tmp_path / "same", "heldout", train)


def test_a_sample_of_a_sorted_dataset_comes_from_all_of_its_files(planted: Planted, tmp_path: Path) -> None:
    """Files of The Stack v3 are sorted by repository; the first rows would be one end of the alphabet."""
    snapshot = write_stack_v3(tmp_path / "v3", planted.files, parts=6)
    hub = HubConfig(path=str(snapshot), parts=2, rows_per_part=3)
    corpus = CorpusConfig("stack_v3", "Python", "train", hub=hub)
    rows = [[row for table in open_rows(corpus, part) for row in table.to_pylist()] for part in (0, 1)]
    assert [len(part) for part in rows] == [3, 3]
    whole = CorpusConfig("stack_v3", "Python", "train", hub=HubConfig(path=str(snapshot)))
    names = sorted(row["repo_name"] for table in open_rows(whole, 0) for row in table.to_pylist())
    sixths = [names[len(names) * i // 6 : len(names) * (i + 1) // 6] for i in range(6)]
    for sixth in sixths:
        assert any(row["repo_name"] in sixth for part in rows for row in part)


def with_cell(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    """Return a table with one cell changed."""
    values = table.column(column).to_pylist()
    values[row] = value
    field = table.schema.field(column)
    return table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))


def test_a_file_without_its_name_or_its_content_s_name_is_a_counted_drop(
    planted: Planted, endpoint: str, tmp_path: Path
) -> None:
    snapshot = write_stack_v2(tmp_path / "v2", planted.files, ["Python"], parts=1)
    (file,) = (snapshot / "data" / "Python").glob("*.parquet")
    table = pq.read_table(file)
    for row, column in enumerate(("path", "repo_name", "blob_id", "content_id")):
        table = with_cell(table, column, row, None)
    pq.write_table(table, file)
    facts = facts_of(build(stack_corpus(snapshot, endpoint), tmp_path / "out"))
    assert facts["drops"]["incomplete"]["files"] == 4


def test_a_license_without_a_name_is_none_that_is_allowed(
    planted: Planted, endpoint: str, tmp_path: Path
) -> None:
    snapshot = write_stack_v2(tmp_path / "v2", planted.files, ["Python"], parts=1)
    (file,) = (snapshot / "data" / "Python").glob("*.parquet")
    table = pq.read_table(file)
    kept = places(wanted(planted))
    named = [(row["repo_name"], row["path"].lstrip("/")) for row in table.to_pylist()]
    row = next(n for n, place in enumerate(named) if place in kept)
    pq.write_table(with_cell(table, "detected_licenses", row, [None, "MIT"]), file)
    found = places(files_of(build(stack_corpus(snapshot, endpoint), tmp_path / "out")))
    assert named[row] not in found
    assert len(found) > 30


def test_the_same_build_has_the_same_bytes(
    snapshot: Path, endpoint: str, shards: Path, tmp_path: Path
) -> None:
    assert bytes_of(build(stack_corpus(snapshot, endpoint), tmp_path)) == bytes_of(shards)


def test_a_damaged_segment_is_made_anew_when_its_bucket_is_rebuilt(
    snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    corpus = stack_corpus(snapshot, endpoint)
    build(corpus, tmp_path)
    bucket = tmp_path / "contents" / "bucket-0"
    segment = bucket / "segment-00001.parquet"
    whole = segment.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 3] ^= 1
    segment.write_bytes(damaged)
    fetch(corpus, "stack", 0, [tmp_path / "selected" / "part-0"], bucket, "code", quiet(tmp_path))
    assert segment.read_bytes() == whole
    assert sorted(path.name for path in bucket.iterdir() if path.suffix != ".parquet") == ["manifest.json"]
