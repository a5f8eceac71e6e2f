"""Scripts outside the package start: those of ``speed/`` answer ``--help``, and all import what exists."""

from __future__ import annotations

import ast
import importlib
import os
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Imported by the others.
SHARED = {"peak.py", "reference.py", "setting.py"}
SPEED = sorted(path for path in (ROOT / "speed").glob("*.py") if path.name not in SHARED)
SCRIPTS = sorted(path for folder in ("speed", "workflow_scripts") for path in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("path", SPEED, ids=lambda path: path.name)
def test_a_speed_comparison_answers_help(path, monkeypatch, capsys):
    """Without torch."""
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: os.fspath(path.relative_to(ROOT)))
def test_a_script_imports_names_of_the_package_that_exist(path):
    """Also inside functions, which ``--help`` does not reach."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ponderttt"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")
