"""Text that the product reads or writes is UTF-8, whatever the locale says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
_OPENERS = ("open", "fdopen", "TextIOWrapper")
_OF_BYTES = ("tarfile", "lzma", "archive")
_PROCESSES = ("run", "Popen", "check_output")


def _calls_without_encoding(source: str) -> Iterator[int]:
    """Yield the line of each call that handles text in the locale's encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        module = getattr(getattr(node.func, "value", None), "id", "")
        keywords = {keyword.arg for keyword in node.keywords}
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        binary = any(isinstance(value, ast.Constant) and "b" in str(value.value) for value in given)
        text = (
            name in ("read_text", "write_text")
            or (name in _OPENERS and module not in _OF_BYTES and not binary)
            or (name in _PROCESSES and keywords & {"text", "universal_newlines"})
        )
        if text and "encoding" not in keywords:
            yield node.lineno


def test_the_check_finds_text_in_the_encoding_of_the_locale() -> None:
    bad = 'Path(a).read_text()\np.write_text("x")\nopen("f")\np.open("w")\nrun(["ls"], text=True)\n'
    assert list(_calls_without_encoding(bad)) == [1, 2, 3, 4, 5]
    good = 'p.read_text(encoding="utf-8")\np.open("rb")\nrun(["ls"], encoding="utf-8")\nlzma.open(p)\n'
    assert list(_calls_without_encoding(good)) == []


def test_no_text_depends_on_the_locale() -> None:
    files = [
        path for room in ("ponderttt", "workflow_scripts", "speed") for path in (ROOT / room).rglob("*.py")
    ]
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        for line in _calls_without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert not found, 'add encoding="utf-8"'
