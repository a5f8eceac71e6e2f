"""Duplicates found on disk equal those found in memory, whatever the order of files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ponderttt.corpus.dedup import NearDuplicates, deduplicate
from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import SourceFile, blob_id, content_id
from ponderttt.corpus.hub.decontamination import Decontamination, shingles
from ponderttt.corpus.hub.duplicates import COMPARED, Copies, open_duplicates
from ponderttt.corpus.hub.segments import segment_schema
from ponderttt.corpus.hub.signatures import signature_row, signature_schema
from ponderttt.errors import PonderTTTError

THRESHOLD, PERMUTATIONS = 0.7, 250
TYPES = ("permissive", "no_license", "non_permissive")


def texts(draw: random.Random) -> list[str]:
    """Return texts of random words; most are copies of others with some words replaced."""
    words = [f"w{n}" for n in range(400)]
    found = [" ".join(draw.choices(words, k=draw.randint(30, 120))) for _ in range(12)]
    for _ in range(40):
        copy = draw.choice(found).split()
        for _ in range(draw.choice([0, 0, 1, 2, 4, 8])):
            copy[draw.randrange(len(copy))] = draw.choice(words)
        found.append(" ".join(copy))
    draw.shuffle(found)
    return found


def rows_of(draw: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "blob_id": blob_id(text.encode()),
            "content_id": content_id(text.encode()),
            "repo_name": f"o/r{draw.randrange(9)}",
            "path": f"{number:03d}.py",
            "language": "Python",
            "license_type": draw.choice(TYPES),
            "detected_licenses": [],
            "src_encoding": "UTF-8",
            "length_bytes": len(text),
            "content": text,
            "source": "",
            "split": "train",
            "hash": 0.0,
            "stars": draw.randrange(3),
            "forks": draw.randrange(2),
            "changed": draw.randrange(2),
        }
        for number, text in enumerate(texts(draw))
    ]


def written(folder: Path, rows: list[dict[str, Any]], parts: int) -> tuple[list[Path], list[Path]]:
    near = NearDuplicates(THRESHOLD, PERMUTATIONS)
    segments, signatures = [], []
    for part in range(parts):
        own = rows[part * len(rows) // parts : (part + 1) * len(rows) // parts]
        segments.append(folder / f"segment-{part}.parquet")
        signatures.append(folder / f"signatures-{part}.parquet")
        signed = [signature_row(near, str(row["blob_id"]), str(row["content"])) for row in own]
        pq.write_table(pa.Table.from_pylist(own, schema=segment_schema()), segments[-1])
        pq.write_table(pa.Table.from_pylist(signed, schema=signature_schema()), signatures[-1])
    return segments, signatures


def copies(
    segments: list[Path], signatures: list[Path], scratch: Path, training: Sequence[Path] = ()
) -> Copies:
    with open_duplicates(segments, signatures, THRESHOLD, scratch, training) as duplicates:
        return duplicates.copies()


def order(row: dict[str, Any]) -> tuple[object, ...]:
    """Return the rank of a file: by license, stars, forks, the newest, and name."""
    counts = (-int(str(row[name])) for name in ("stars", "forks", "changed"))
    return (TYPES.index(str(row["license_type"])), *counts, row["repo_name"], row["path"])


def in_memory(rows: list[dict[str, Any]]) -> set[str]:
    columns = SourceFile.__dataclass_fields__
    files = [SourceFile(**{name: row[name] for name in columns}) for row in sorted(rows, key=order)]
    kept = deduplicate(files, THRESHOLD, PERMUTATIONS, Drops())
    return {f"{file.repo_name}/{file.path}" for file in kept}


@pytest.mark.parametrize("seed", range(6))
def test_what_stays_is_what_stays_in_memory(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    rows = rows_of(draw)
    segments, signatures = written(tmp_path, rows, parts=3)
    dropped = copies(segments, signatures, tmp_path / "scratch").reasons
    assert set(dropped.values()) == {"exact_duplicate", "near_duplicate"}
    kept = {f"{row['repo_name']}/{row['path']}" for n, row in enumerate(rows) if n not in dropped}
    assert kept == in_memory(rows)


def test_copies_of_training_files_are_dropped_by_their_own_reasons(tmp_path: Path) -> None:
    rows = rows_of(random.Random(7))
    segments, signatures = written(tmp_path, rows, parts=2)
    alone = copies(segments, signatures, tmp_path / "one").reasons
    near = NearDuplicates(THRESHOLD, PERMUTATIONS)
    stays = next(n for n in range(len(rows)) if n not in alone)
    text = str(rows[stays]["content"])
    other = text + " and some more words"
    for name, copy in (("exact_copy_of_training", text), ("near_copy_of_training", other)):
        signed = [signature_row(near, blob_id(copy.encode()), copy)]
        pq.write_table(pa.Table.from_pylist(signed, schema=signature_schema()), tmp_path / "training.parquet")
        found = copies(segments, signatures, tmp_path / name, [tmp_path / "training.parquet"]).reasons
        assert found[stays] == name
        assert {n for n, reason in found.items() if not reason.endswith("training")} == set(alone)


CROWDED = 7


def crowd(draw: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Return signatures of files that share one band and nothing else."""
    values = draw.integers(0, 2**32, (count, PERMUTATIONS), dtype=np.uint32)
    return [
        {"blob_id": f"{n:040x}", "bands": [CROWDED, 2 * n + 100], "signature": row.tobytes()}
        for n, row in enumerate(values)
    ]


def nearly(file: dict[str, Any], blob: str) -> dict[str, Any]:
    """Return the signature of a copy with a tenth changed that keeps only the common band."""
    values = np.frombuffer(file["signature"], np.uint32).copy()
    values[::10] += 1
    return {"blob_id": blob, "bands": [CROWDED, 1], "signature": values.tobytes()}


def with_signatures(folder: Path, signed: list[dict[str, Any]], name: str) -> tuple[Path, Path]:
    """Write a segment of files, by name, and their signatures."""
    blank: dict[pa.DataType, Any] = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0}
    rows = [
        {field.name: blank.get(field.type, []) for field in segment_schema()}
        | {"blob_id": row["blob_id"], "license_type": "permissive", "path": f"{number:05d}"}
        for number, row in enumerate(signed)
    ]
    segment, signatures = folder / f"{name}.parquet", folder / f"{name}-signatures.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=segment_schema()), segment)
    pq.write_table(pa.Table.from_pylist(signed, schema=signature_schema()), signatures)
    return segment, signatures


def test_a_held_out_copy_of_any_training_file_of_a_crowded_band_is_found(tmp_path: Path) -> None:
    training = crowd(np.random.default_rng(0), 200)
    own = crowd(np.random.default_rng(1), 3)
    for number, file in enumerate(own):
        file["blob_id"] = f"{number + 1_000:040x}"
    _, trained = with_signatures(tmp_path, training, "training")
    held_out = [own[0], nearly(training[99], "a" * 40), own[1], nearly(training[100], "b" * 40), own[2]]
    segment, signatures = with_signatures(tmp_path, held_out, "held-out")
    found = copies([segment], [signatures], tmp_path / "scratch", [trained])
    assert found == Copies(dict.fromkeys((1, 3), "near_copy_of_training"), truncated_bands=0)


def test_a_band_that_more_files_share_than_are_compared_is_counted(tmp_path: Path) -> None:
    """A copy of a later file may then stay; files that the first ones drop do not count."""
    files = crowd(np.random.default_rng(0), COMPARED)
    for name, more, dropped, truncated in (
        ("first", nearly(files[3], "a" * 40), {COMPARED: "near_duplicate"}, 0),
        ("other", crowd(np.random.default_rng(1), COMPARED + 1)[-1], {}, 1),
    ):
        segment, signatures = with_signatures(tmp_path, [*files, more], name)
        assert copies([segment], [signatures], tmp_path / name) == Copies(dropped, truncated)


PROBLEM = "def has_close_elements(numbers, threshold):\n    for idx, elem in enumerate(numbers):\n        for idx2, elem2 in enumerate(numbers):\n            if idx != idx2 and abs(elem - elem2) < threshold:\n                return True\n    return False\n"


@pytest.fixture
def problems(tmp_path: Path) -> Decontamination:
    import gzip
    import json

    records = [{"task_id": "a", "prompt": PROBLEM}, {"task_id": "b", "prompt": "Sum the first n numbers."}]
    with gzip.open(tmp_path / "problems.jsonl.gz", "wt") as handle:
        handle.writelines(json.dumps(record) + "\n" for record in records)
    return Decontamination.of([str(tmp_path / "problems.jsonl.gz")])


def test_a_problem_is_found_inside_a_file_and_a_few_common_words_are_not(problems: Decontamination) -> None:
    assert problems.is_contaminated(f"import os\n\n\n{PROBLEM}\n\nprint(os.name)\n")
    # A reformatted text has the same tokens; three shingles are one too few.
    assert problems.is_contaminated(PROBLEM.replace("    ", "\t"))
    tokens = PROBLEM.split()
    assert not problems.is_contaminated(" ".join(tokens[:6]))
    assert not problems.is_contaminated("for idx, elem in enumerate(numbers):\n    print(elem)\n")


def test_shingles_without_four_different_words_do_not_count() -> None:
    assert not list(shingles(", ".join(str(n) for n in range(100))))
    assert not list(shingles("a b c " * 20))
    assert len(list(shingles("alpha beta gamma delta " * 5))) == 20 - 12


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.jsonl", None, "no such file of benchmark problems"),
        ("broken.jsonl", "{", "not readable as JSON"),
        ("other.jsonl", '{"id": 1, "body": "x"}', "none of the fields prompt"),
        ("empty.json", "[]", "holds no problems"),
    ],
)
def test_a_file_that_holds_no_problems_is_one_line(
    name: str, content: str | None, says: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(PonderTTTError) as error:
        Decontamination.of([str(tmp_path / name)])
    assert says in str(error.value) and "\n" not in str(error.value)
