"""Logs of training: one JSON object per line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ponderttt.errors import CorruptFileError
from ponderttt.files.commands import rebuild

Lines = list[dict[str, Any]]


def read_log(path: Path | str, keys: Callable[[dict[str, Any]], Iterable[str]]) -> Lines:
    """Read a log whose numbers must be finite.

    Args:
        path: ``log.jsonl``.
        keys: returns the keys that a line must have.

    Raises:
        CorruptFileError: the file is missing or empty, a line is no object with these keys, or training diverged.
    """
    remake = f"Rebuild it: {rebuild(Path(path).with_name('manifest.json'))}"
    try:
        texts = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise CorruptFileError(f"{path}: no such training log. {remake}") from None
    lines: Lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            numbers = {key: float(line[key]) for key in keys(line)}
        except (ValueError, KeyError, TypeError):
            raise CorruptFileError(f"{path}:{number}: not a line of a training log. {remake}") from None
        for key, value in numbers.items():
            if not math.isfinite(value):
                raise CorruptFileError(
                    f"{path}:{number}: {key} is {value}, so training diverged; lower its learning rate"
                )
        lines.append(line)
    if not lines:
        raise CorruptFileError(f"{path}: the log is empty. {remake}")
    return lines
