"""Files of benchmark problems are read as editors and exporters write them; a damaged one is an error of one line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ponderttt.corpus.hub.decontamination import Decontamination, problem_texts
from ponderttt.errors import PonderTTTError

PROMPT = "def has_close_elements(numbers, threshold):  # as soon as two numbers are near to each other it is true\n"


def packed() -> bytes:
    """Return the problems of a benchmark as it is published."""
    lines = (json.dumps({"task_id": f"X/{n}", "prompt": f"{PROMPT} number {n}"}) for n in range(200))
    return gzip.compress("\n".join(lines).encode())


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:40] + b"\xff" * 20 + raw[60:],
        lambda raw: raw[:-8] + bytes(8),
        lambda raw: raw[:5],
        lambda raw: b"<html>" + raw,
    ],
    ids=["cut", "overwritten", "other sum", "a piece of its head", "no gzip"],
)
def test_a_damaged_file_of_problems_is_one_line_that_names_it(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    file = tmp_path / "problems.jsonl.gz"
    file.write_bytes(damage(packed()))
    with pytest.raises(PonderTTTError) as error:
        Decontamination.of([str(file)])
    assert str(error.value).startswith(f"{file}: not readable as JSON, JSON Lines or Parquet (")
    assert str(error.value).endswith("); fetch it again") and "\n" not in str(error.value)


def test_a_separator_of_unicode_ends_no_line_and_a_mark_at_the_head_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    prompts = ["first\N{LINE SEPARATOR}line\x85", "second"]
    lines = [json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts]
    file.write_text("\r\n".join(lines), encoding="utf-8-sig", newline="")
    assert list(problem_texts(file)) == prompts
