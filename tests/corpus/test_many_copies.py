"""Finding duplicates takes no more memory if nearly all files are copies of each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: More copies than the search compares with each other.
GROUPS, COPIES = 100, 96

_JOIN = f"""
import sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from ponderttt.corpus.hub.duplicates import open_duplicates
from ponderttt.corpus.hub.segments import segment_schema
from ponderttt.corpus.hub.signatures import signature_schema
folder, count = Path(sys.argv[1]), {GROUPS * COPIES}
draw = np.random.default_rng(0)
group = np.arange(count) % {GROUPS}
values = draw.integers(0, 2**32, ({GROUPS}, 250), dtype=np.uint32)
bands = draw.integers(0, 2**63, ({GROUPS}, 25), dtype=np.uint64)
blobs = [f"{{number:040x}}" for number in range(count)]
signed = {{"blob_id": blobs, "bands": list(bands[group]), "signature": [row.tobytes() for row in values[group]]}}
pq.write_table(pa.table(signed, schema=signature_schema()), folder / "signatures.parquet")
blank = {{pa.string(): "", pa.int64(): 0, pa.float64(): 0.0}}
rows = {{field.name: [blank.get(field.type, [])] * count for field in segment_schema()}}
rows |= {{"blob_id": blobs, "license_type": ["permissive"] * count, "path": blobs}}
pq.write_table(pa.table(rows, schema=segment_schema()), folder / "segment.parquet")
status = lambda: int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = status()
files = [folder / "segment.parquet"], [folder / "signatures.parquet"]
with open_duplicates(*files, 0.7, folder / "scratch") as duplicates:
    found = duplicates.copies()
print(len(found.reasons), found.truncated_bands, 1024 * (status() - before))
"""


def test_four_hundred_thousand_pairs_of_copies_are_compared_in_little_memory(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    out = subprocess.run(
        [sys.executable, "-c", _JOIN, str(tmp_path)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    dropped, truncated, grown = map(int, out.split())
    # One of each group stays. All pairs with their signatures would take 800 MB.
    assert dropped == GROUPS * (COPIES - 1)
    assert truncated == 0
    assert grown < 400e6
