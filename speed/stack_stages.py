"""Peak memory and seconds of the stages for 1 and for 10 parts, and the speed of reading contents back out of a bucket.

    python speed/stack_stages.py memory [--files 4000]
    python speed/stack_stages.py read [--files 9000]
    python speed/stack_stages.py select [--parts 256]

``memory`` builds a training corpus out of one part and out of ten parts of the same size, and a held-out corpus beside it, each
stage in a process of its own; contents come along with the dataset (kind ``stack_v3``).  ``read`` has 20 files of every
repository, then one: repositories come in the order of their hash, so that then no two files that follow each other lay beside
each other.  ``select`` spreads 400 MB over so many buckets with 100 open files at most.  Needs the extra ``dev``.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from peak import peak_memory
from stack import sources

#: Repositories below this hash are the training corpus, the others the held-out one.
SPLIT = 0.9
STAGES = ("select", "contents", "merge")


def candidates(count: int, per_repository: int) -> list[Any]:
    """Files of a dataset that includes their contents."""
    from ponderttt.corpus.hub.candidates import Candidate
    from stack_data import StackFile

    found = []
    for number, file in enumerate(sources(count)):
        row = StackFile(f"owner/repository-{number // per_repository:06d}", file.path, file.content)
        found.append(
            Candidate(
                repo_name=row.repo_name,
                path=row.path,
                blob_id=row.blob_id,
                content_id=row.content_id,
                language="Python",
                license_type="permissive",
                detected_licenses=(),
                src_encoding="UTF-8",
                length_bytes=len(row.content),
                is_vendor=False,
                is_generated=False,
                stars=0,
                forks=0,
                changed=0,
                content=row.content.decode(),
            )
        )
    return found


def read(files: int) -> list[dict[str, Any]]:
    """Measure files per second of one job that writes a bucket, and of one that reads it."""
    from ponderttt.corpus.hub.buckets import BucketWriter, read_bucket

    rows = []
    for per_repository in (20, 1):
        wanted = candidates(files, per_repository)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            begin = time.process_time()
            with BucketWriter(folder, 1) as writer:
                for file in wanted:
                    writer.add(file)
            middle = time.process_time()
            count = sum(1 for _ in read_bucket([folder], 0, folder / "scratch", inline=True))
            end = time.process_time()
        assert count == files
        rate = {"write": files / (middle - begin), "read": files / (end - middle)}
        print(
            f"{per_repository:2d} files of a repository: written {rate['write']:.0f}, read {rate['read']:.0f} files per core-second"
        )
        rows.append({"per_repository": per_repository, **rate})
    return rows


def select(parts: int) -> list[dict[str, Any]]:
    """Measure the peak memory of spreading 400 MB over one and over many buckets, with 100 open files allowed."""
    rows = []
    for buckets in (1, parts):
        found = json.loads(own_process("spread", str(buckets)))
        print(f"{buckets} buckets: {found['peak'] / 1e6:.0f} MB in {found['seconds']:.1f} core-seconds")
        rows.append({"buckets": buckets, **found})
    return rows


def spread(buckets: int) -> dict[str, Any]:
    """Yield files of 10 kB."""
    import pyarrow.parquet as pq

    from ponderttt.corpus.hub.buckets import BucketWriter

    assert pq
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    (first,) = candidates(1, 1)
    noise = random.Random(0).randbytes(1 << 19).hex()
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as name, BucketWriter(Path(name), buckets) as writer:
        for number in range(40_000):
            start = random.Random(number).randrange(len(noise) - 10_000)
            content = noise[start : start + 10_000]
            writer.add(replace(first, repo_name=f"owner/{number}", length_bytes=10_000, content=content))
    return {"peak": peak_memory(), "seconds": time.process_time() - begin}


def own_process(*arguments: str) -> str:
    """Run this program with other arguments and return the last line that it prints."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
    ).stdout.splitlines()[-1]


def memory(files: int) -> list[dict[str, Any]]:
    """Measure the peak memory of each stage for 1 part and for 10 parts of ``files`` files."""
    rows = []
    for parts in (1, 10):
        found = stages(parts, files)
        rows.append({"parts": parts, "files": parts * files, **found})
        for stage, of in found.items():
            print(
                f"{parts:2d} parts, {parts * files} files: {stage:16s} {of['peak'] / 1e6:4.0f} MB, "
                f"{of['seconds']:6.1f} core-seconds in {of['jobs']} jobs",
                flush=True,
            )
    return rows


def unlike(content: bytes) -> bytes:
    """Return a copy of a file with other words, so that it is no near duplicate of the first."""
    lap = re.search(rb"# lap (\d+)\n$", content)
    return re.sub(rb"\b[A-Za-z]{4,}\b", rb"\g<0>" + lap[1], content) if lap else content


def stages(parts: int, files: int) -> dict[str, Any]:
    """Return the largest peak and the sum of seconds of the jobs of each stage."""
    from stack_data import StackFile, write_stack_v3

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = parts * files
        rows = [StackFile(f.repo, f.path, unlike(f.content)) for f in sources(count)]
        # Files of a size, as a dataset has them.
        write_stack_v3(folder / "v3", rows, parts=max(parts, count // 1_000))
        del rows
        for stage in (
            "import train",
            *(f"{what} {split}" for split in ("train", "heldout") for what in STAGES),
        ):
            jobs = 1 if stage.split()[0] in ("import", "merge") else parts
            done = [
                json.loads(own_process("stage", *stage.split(), str(job), str(parts), name))
                for job in range(jobs)
            ]
            peak, seconds = max(of["peak"] for of in done), sum(of["seconds"] for of in done)
            found[stage] = {"peak": peak, "seconds": seconds, "jobs": jobs}
    return found


def stage(what: str, split: str, job: int, parts: int, folder: Path) -> dict[str, Any]:
    """Run one job of a stage."""
    import datasets
    import duckdb
    import pyarrow.parquet

    from ponderttt.settings.corpus import CorpusConfig
    from ponderttt.settings.hub import HubConfig
    from ponderttt.workflow.entry import Progress
    from ponderttt.workflow.stages.contents import fetch
    from ponderttt.workflow.stages.merge import merge_buckets
    from ponderttt.workflow.stages.select import select as select_part

    assert datasets and duckdb and pyarrow.parquet
    begin = time.process_time()
    low, high = (0.0, SPLIT) if split == "train" else (SPLIT, 1.0)
    hub = HubConfig(path=str(folder / "v3"), parts=parts, hash_from=low, hash_to=high)
    corpus = CorpusConfig("stack_v3", "Python", split, hub=hub)
    own = folder / split
    own.mkdir(exist_ok=True)
    selected = [own / f"part-{part}" for part in range(parts)]
    buckets = [own / f"bucket-{part}" for part in range(parts)]
    progress = Progress(own / "progress")
    if what == "select":
        select_part(corpus, "benchmark", job, selected[job], progress)
    elif what == "contents":
        fetch(corpus, "benchmark", job, selected, buckets[job], "code", progress)
    elif what == "merge":
        training = None if split == "train" else folder / "train" / "shards"
        merge_buckets(corpus, "benchmark", selected, buckets, own / "shards", training)
    return {"peak": peak_memory(), "seconds": time.process_time() - begin}


def main() -> None:
    """Run the measurement that is named."""
    if sys.argv[1:2] == ["stage"]:
        what, split, job, parts, folder = sys.argv[2:]
        print(json.dumps(stage(what, split, int(job), int(parts), Path(folder))))
        return
    if sys.argv[1:2] == ["spread"]:
        print(json.dumps(spread(int(sys.argv[2]))))
        return
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=("memory", "read", "select"))
    options.add_argument("--files", type=int, help="of a part, or of the bucket that is read")
    options.add_argument("--parts", type=int, default=256)
    options.add_argument("--json", help="write the results to this file")
    given = options.parse_args()
    rows = {
        "memory": lambda: memory(given.files or 4_000),
        "read": lambda: read(given.files or 9_000),
        "select": lambda: select(given.parts),
    }[given.what]()
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
