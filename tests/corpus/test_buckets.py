"""Buckets keep their files in one order, at a cost that does not grow with their number or with the data."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ponderttt.corpus.hub.buckets import BYTES, BucketWriter, bucket_file, bucket_of, read_bucket
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.selection import stable_hash

_NOISE = random.Random(0).randbytes(1 << 19).hex()


def candidate(number: int, per_repository: int = 3, size: int = 1_000) -> Candidate:
    """Return a file whose content does not compress well."""
    start = random.Random(number).randrange(len(_NOISE) - size)
    return Candidate(
        repo_name=f"o/r{number // per_repository}",
        path=f"{number}.py",
        blob_id=f"{number:040x}",
        content_id=f"{number:040x}",
        language="Python",
        license_type="permissive",
        detected_licenses=("MIT",),
        src_encoding="UTF-8",
        length_bytes=size,
        is_vendor=False,
        is_generated=False,
        stars=0,
        forks=0,
        changed=0,
        content=_NOISE[start : start + size],
    )


def put(folder: Path, files: Sequence[Candidate], buckets: int) -> Path:
    folder.mkdir(parents=True)
    with BucketWriter(folder, buckets) as writer:
        for file in files:
            writer.add(file)
    assert sum(writer.rows) == len(files)
    return folder


def in_order(files: Sequence[Candidate]) -> list[Candidate]:
    return sorted(files, key=lambda f: (stable_hash(f.repo_name), f.repo_name, f.path))


def test_a_bucket_gives_the_files_of_all_parts_in_order(tmp_path: Path) -> None:
    files = [candidate(number) for number in range(900)]
    mixed = random.Random(1).sample(files, len(files))
    parts = [put(tmp_path / str(n), mixed[n::3], 4) for n in range(3)]
    for bucket in range(4):
        wanted = [file for file in in_order(files) if bucket_of(file.repo_name, 4) == bucket]
        for inline in (True, False):
            assert list(read_bucket(parts, bucket, tmp_path / "scratch", inline=inline)) == wanted
    assert sorted(path.name for path in parts[0].iterdir()) == [bucket_file(n) for n in range(4)]


def test_files_without_contents_come_back_as_they_were(tmp_path: Path) -> None:
    files = [Candidate(**{**vars(candidate(n)), "content": None}) for n in range(50)]
    part = put(tmp_path / "part", files, 1)
    assert list(read_bucket([part], 0, tmp_path / "scratch", inline=False)) == in_order(files)


def test_buckets_share_the_range_of_a_corpus_and_keep_the_order_of_hashes(tmp_path: Path) -> None:
    """Otherwise a sample such as the last fiftieth would be one bucket."""
    files = [f for f in map(candidate, range(0, 30_000, 3)) if stable_hash(f.repo_name) >= 0.98]
    with BucketWriter(tmp_path, 8, 0.98, 1.0) as writer:
        for file in files:
            writer.add(file)
    assert min(writer.rows) > len(files) / 8 / 2
    found = [file for b in range(8) for file in read_bucket([tmp_path], b, tmp_path / "scratch", inline=True)]
    assert found == in_order(files)


@pytest.mark.slow
def test_more_than_waits_in_memory_comes_back_whole(tmp_path: Path) -> None:
    files = [candidate(number, size=100_000) for number in range(2_500)]
    part = put(tmp_path / "part", files, 2)
    found = [file for b in range(2) for file in read_bucket([part], b, tmp_path / "scratch", inline=True)]
    assert found == in_order(files)


def test_a_bucket_has_the_same_bytes_in_whatever_order_its_files_come(tmp_path: Path) -> None:
    files = [candidate(number) for number in range(300)]
    first = put(tmp_path / "first", files, 2)
    second = put(tmp_path / "second", files[::-1], 2)
    for bucket in range(2):
        assert (first / bucket_file(bucket)).read_bytes() == (second / bucket_file(bucket)).read_bytes()


def test_no_row_group_with_contents_is_large(tmp_path: Path) -> None:
    files = [candidate(n, size=BYTES + 1 if n % 50 == 0 else 9_000) for n in range(200)]
    reader = pq.ParquetFile(put(tmp_path / "part", files, 1) / bucket_file(0))
    for group in range(reader.num_row_groups):
        lengths = reader.read_row_group(group, columns=["length_bytes"]).column(0).to_pylist()
        assert len(lengths) == 1 or sum(lengths) <= BYTES
    assert reader.num_row_groups < 50


@pytest.mark.parametrize("per_repository", [20, 1])
def test_a_row_group_is_decoded_about_once_however_small_repositories_are(
    per_repository: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = 0
    original = pq.ParquetFile.read_row_group

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return original(*arguments, **more)

    files = [candidate(number, per_repository, 20_000) for number in range(1_000)]
    part = put(tmp_path / "part", files, 1)
    groups = pq.ParquetFile(part / bucket_file(0)).num_row_groups
    assert groups > 50
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    assert sum(1 for _ in read_bucket([part], 0, tmp_path / "scratch", inline=True)) == len(files)
    assert groups <= decoded < 1.5 * groups


_MANY = """
import resource, sys
from pathlib import Path
from ponderttt.corpus.hub.buckets import bucket_file, read_bucket
from test_buckets import candidate, put
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
folder, count, buckets = Path(sys.argv[1]), int(sys.argv[2]), 300
class Files:
    def __len__(self): return count
    def __iter__(self): return (candidate(number, 3, 50_000) for number in range(count))
written = put(folder / "many", Files(), buckets)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
# As if one bucket had come out of so many parts.
parts = [folder / f"part-{number}" for number in range(buckets)]
for number, part in enumerate(parts):
    part.mkdir()
    (part / bucket_file(0)).symlink_to(written / bucket_file(number))
assert sum(1 for _ in read_bucket(parts, 0, folder / "scratch", inline=True)) == count
print(peak)
"""


def many(folder: Path, count: int) -> int:
    """Return the peak memory of a process that may open 100 files and spreads files of 50 kB over 300 buckets."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
    }
    out = subprocess.run(
        [sys.executable, "-c", _MANY, str(folder), str(count)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return 1024 * int(out.split()[-1])


@pytest.mark.slow
def test_many_parts_need_neither_many_open_files_nor_memory_for_all(tmp_path: Path) -> None:
    small, large = (many(tmp_path / str(count), count) for count in (3_500, 8_000))
    # 175 and 400 MB of content.
    assert large - small < 100e6
