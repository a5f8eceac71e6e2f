"""Duplicates joined on disk are those that are found in memory, whatever the order in which files come."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ponderttt.corpus.dedup import NearDuplicates, deduplicate
from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import SourceFile, blob_id, content_id
from ponderttt.corpus.hub.decontamination import Decontamination, shingles
from ponderttt.corpus.hub.duplicates import find_duplicates
from ponderttt.corpus.hub.segments import segment_schema
from ponderttt.corpus.hub.signatures import signature_row, signature_schema
from ponderttt.errors import PonderTTTError

THRESHOLD, PERMUTATIONS = 0.7, 250
TYPES = ("permissive", "no_license", "non_permissive")


def texts(draw: random.Random) -> list[str]:
    """Texts of random words; most of them are copies of others in which some words were replaced."""
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


def order(row: dict[str, Any]) -> tuple[object, ...]:
    """In which files are kept: by license, stars, forks, the newest, and name."""
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
    dropped = find_duplicates(segments, signatures, THRESHOLD, tmp_path / "scratch")
    assert set(dropped.values()) == {"exact_duplicate", "near_duplicate"}
    kept = {f"{row['repo_name']}/{row['path']}" for n, row in enumerate(rows) if n not in dropped}
    assert kept == in_memory(rows)


def test_copies_of_training_files_are_dropped_by_their_own_reasons(tmp_path: Path) -> None:
    rows = rows_of(random.Random(7))
    segments, signatures = written(tmp_path, rows, parts=2)
    alone = find_duplicates(segments, signatures, THRESHOLD, tmp_path / "one")
    near = NearDuplicates(THRESHOLD, PERMUTATIONS)
    stays = next(n for n in range(len(rows)) if n not in alone)
    text = str(rows[stays]["content"])
    other = text + " and some more words"
    for name, copy in (("exact_copy_of_training", text), ("near_copy_of_training", other)):
        signed = [signature_row(near, blob_id(copy.encode()), copy)]
        pq.write_table(pa.Table.from_pylist(signed, schema=signature_schema()), tmp_path / "training.parquet")
        found = find_duplicates(
            segments, signatures, THRESHOLD, tmp_path / name, [tmp_path / "training.parquet"]
        )
        assert found[stays] == name
        assert {n for n, reason in found.items() if not reason.endswith("training")} == set(alone)


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
    # Reformatted it is the same tokens; three shingles are one too few.
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
