"""Contents per second from a local S3 server, and the recall of near duplicates.

    python speed/stack.py fetch [--files 2000] [--connections 64]
    python speed/stack.py duplicates [--files 400]
    python speed/stack.py parquet [--files 2000]

Files are those of the standard library, repeated with a line of their own where more are asked for.  ``fetch`` takes rounds of
verified and unverified contents in turn, and names the rate of the server alone; ``duplicates`` plants copies of known
similarity and counts those that the join on disk finds; ``parquet`` compares compressions and row groups.  Memory and speed of
the stages are in ``stack_stages.py``.  Needs the extra ``dev``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests" / "corpus")]


@dataclass(frozen=True)
class Written:
    """A file as the datasets describe it."""

    repo: str
    path: str
    content: bytes


def sources(count: int) -> list[Written]:
    """Return ``count`` different real files in repositories of twenty."""
    library = Path(os.__file__).parent
    paths = [p for p in sorted(library.rglob("*.py")) if "site-packages" not in p.parts and is_text(p)]
    found = []
    for number in range(count):
        path = paths[number % len(paths)]
        lap = number // len(paths)
        content = path.read_bytes() + (f"# lap {lap}\n".encode() if lap else b"")
        found.append(Written(f"owner/repository-{number // 20:05d}", f"src/{number:06d}.py", content))
    return found


def is_text(path: Path) -> bool:
    """Return True for a UTF-8 file of an ordinary size."""
    try:
        return 200 <= len(path.read_text(encoding="utf-8")) < 60_000
    except UnicodeDecodeError:
        return False


def fetch(files: int, connections: int, rounds: int) -> list[dict[str, Any]]:
    """Measure files per second with and without verification."""
    from ponderttt.corpus.files import blob_id, content_id
    from ponderttt.corpus.hub.candidates import Candidate
    from ponderttt.corpus.hub.contents import ContentClient, in_order, unzipped
    from ponderttt.settings.hub import ContentsConfig
    from s3_server import put_contents, s3_server
    from stack_data import StackFile

    rows = [StackFile(f.repo, f.path, f.content) for f in sources(files)]
    wanted = [
        Candidate(
            r.repo_name,
            r.path,
            r.blob_id,
            r.content_id,
            "Python",
            "permissive",
            (),
            "UTF-8",
            len(r.content),
            False,
            False,
            0,
            0,
            0,
            None,
        )
        for r in rows
    ]
    with s3_server() as endpoint:
        put_contents(endpoint, "softwareheritage", {r.blob_id: r.content for r in rows})
        client = ContentClient(ContentsConfig(endpoint=endpoint, connections=connections))
        seconds: dict[str, list[float]] = {"verified": [], "raw": []}
        cores: dict[str, list[float]] = {"verified": [], "raw": []}
        for _ in range(rounds):
            for name, function in (
                ("verified", client.content),
                ("raw", lambda file: client._fetch(file.blob_id)),
            ):
                begin, busy = time.perf_counter(), time.process_time()
                for _ in in_order(function, wanted, connections):
                    pass
                seconds[name].append(time.perf_counter() - begin)
                # Without the server, which is a process of its own.
                cores[name].append(time.process_time() - busy)
    size = sum(len(r.content) for r in rows)
    print(f"{files} files of {size / files / 1e3:.1f} kB, {connections} connections, {rounds} rounds")
    for name, taken in seconds.items():
        print(
            f"{name:10s} {files / min(taken):8.0f} files/s  {size / min(taken) / 1e6:6.1f} MB/s  "
            f"{files / min(cores[name]):8.0f} files per core-second of the client"
        )
    ratio = statistics.median(v / r for v, r in zip(seconds["verified"], seconds["raw"], strict=True))
    # What verification takes by itself: unzip, two sha1, decode.
    bodies = [gzip.compress(r.content) for r in rows]
    begin = time.perf_counter()
    for body in bodies:
        raw = unzipped(body)
        blob_id(raw), content_id(raw), raw.decode()
    alone = time.perf_counter() - begin
    print(f"verified takes {ratio:.3f} of the time of raw; verification alone {files / alone:.0f} files/s")
    return [
        {
            "seconds": seconds,
            "core_seconds": cores,
            "files": files,
            "bytes": size,
            "ratio": ratio,
            "verification_seconds": alone,
        }
    ]


def edited(content: bytes, every: int) -> bytes:
    """Return a copy in which one line in every few is different."""
    lines = content.decode("utf-8", "replace").split("\n")
    return "\n".join(
        f"changed = {n}  # here" if n % every == 0 else line for n, line in enumerate(lines)
    ).encode()


def duplicates(files: int) -> list[dict[str, Any]]:
    """Measure recall and precision of the join on disk against the true similarity of word 5-grams."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ponderttt.corpus.dedup import NearDuplicates
    from ponderttt.corpus.hub.duplicates import open_duplicates
    from ponderttt.corpus.hub.segments import segment_schema
    from ponderttt.corpus.hub.signatures import signature_row, signature_schema

    near = NearDuplicates(0.7, 250)
    originals = [f for f in sources(3 * files) if len(f.content) > 2_000][:files]
    rows, signed, pairs = [], [], []
    for number, file in enumerate(originals):
        copy = edited(file.content, 4 + number % 40)
        first, second = (
            set(near.shingles(c.decode("utf-8", "replace")).tolist()) for c in (file.content, copy)
        )
        pairs.append(len(first & second) / len(first | second))
        for which, content in enumerate((file.content, copy)):
            text = content.decode("utf-8", "replace")
            row: dict[str, Any] = dict.fromkeys(segment_schema().names, "")
            row |= {
                "blob_id": f"{number}-{which}",
                "content": text,
                "length_bytes": len(content),
                "detected_licenses": [],
            }
            row |= {
                "hash": 0.0,
                "stars": 1 - which,
                "forks": 0,
                "changed": 0,
                "repo_name": f"r{number}",
                "path": f"{which}",
            }
            rows.append({**row, "license_type": "permissive"})
            signed.append(signature_row(near, str(row["blob_id"]), text))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(pa.Table.from_pylist(rows, schema=segment_schema()), folder / "segment.parquet")
        pq.write_table(pa.Table.from_pylist(signed, schema=signature_schema()), folder / "signatures.parquet")
        begin = time.perf_counter()
        segments, signatures = [folder / "segment.parquet"], [folder / "signatures.parquet"]
        with open_duplicates(segments, signatures, 0.7, folder / "scratch") as joined:
            reasons = joined.copies().reasons
        taken = time.perf_counter() - begin
    # A copy of a file that was itself dropped as another one's copy says nothing of this pair.
    stays = [n for n in range(len(pairs)) if 2 * n not in reasons]
    truth = np.asarray([pairs[n] for n in stays])
    dropped = np.asarray([reasons.get(2 * n + 1) == "near_duplicate" for n in stays])
    similar = truth >= 0.7
    recall = (dropped & similar).sum() / similar.sum()
    precision = (dropped & similar).sum() / dropped.sum()
    clear = np.abs(truth - 0.7) > 0.05
    exact = (dropped == similar)[clear].mean()
    print(
        f"{len(stays)} planted copies, {similar.sum()} of a similarity of 0.7 or more; joined in {taken:.1f} s"
    )
    print(f"recall {recall:.3f}, precision {precision:.3f}")
    print(f"of those further than 0.05 from the threshold ({clear.sum()}): {exact:.3f} decided rightly")
    return [
        {"recall": float(recall), "precision": float(precision), "clear": float(exact), "pairs": len(stays)}
    ]


def parquet(files: int) -> list[dict[str, Any]]:
    """Measure bytes, and seconds of writing and reading, by compression and row group size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.table({"content": [f.content.decode("utf-8", "replace") for f in sources(files)]})
    found = []
    print("compression  rows of a group   MB     write MB/s   read MB/s")
    raw = texts.nbytes
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "texts.parquet"
        for compression, level in (("none", None), ("snappy", None), ("zstd", 1), ("zstd", 3), ("zstd", 9)):
            for group in (128, 512, 4096):
                begin = time.perf_counter()
                pq.write_table(
                    texts, path, compression=compression, compression_level=level, row_group_size=group
                )
                middle = time.perf_counter()
                pq.read_table(path, use_threads=False)
                end = time.perf_counter()
                title = compression if level is None else f"{compression} {level}"
                size = path.stat().st_size
                print(
                    f"{title:11s}  {group:<16d}  {size / 1e6:<6.1f} {raw / (middle - begin) / 1e6:<12.0f} {raw / (end - middle) / 1e6:.0f}"
                )
                found.append({"compression": title, "group": group, "bytes": size})
    return found


def main() -> None:
    """Run the measurement that is named."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=("fetch", "duplicates", "parquet"))
    options.add_argument("--files", type=int, default=2_000)
    options.add_argument("--connections", type=int, default=64)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", help="write the results to this file")
    given = options.parse_args()
    rows = {
        "fetch": lambda: fetch(given.files, given.connections, given.rounds),
        "duplicates": lambda: duplicates(given.files),
        "parquet": lambda: parquet(given.files),
    }[given.what]()
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
