"""A stage's digest changes with the code that the stage can run, and a run is on record."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys

import pytest

from ponderttt.files import code
from ponderttt.files.code import run_metadata, stage_digest, stage_modules
from ponderttt.workflow.digests import entry_modules

SOURCES = {
    "__init__.py": '__version__ = "1"\n',
    "entry.py": "import os\nfrom fake.sub.near import value\n\n\ndef run():\n    import fake.late\n\n    return value\n",
    "late.py": "LATE = 1\n",
    "far.py": "FAR = 1\n",
    "unrelated.py": "import fake.entry\n\nOTHER = 1\n",
    "sub/__init__.py": "SETTING = 1\n",
    "sub/near.py": "from fake import far\n\nvalue = far.FAR\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Replace the package with one of a few lines; call the fixture with (file, text) to edit and get the digest."""
    root = tmp_path / "fake"
    for name, text in SOURCES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(code, "PACKAGE_ROOT", root)

    def edited(name: str | None = None, text: str = "") -> str:
        if name:
            (root / name).write_text(text)
        stage_modules.cache_clear()
        stage_digest.cache_clear()
        return stage_digest("fake.entry")

    yield edited
    stage_modules.cache_clear()
    stage_digest.cache_clear()


def test_a_stage_is_its_module_and_all_that_it_imports(package):
    package()
    modules = stage_modules("fake.entry")
    assert modules == ("fake", "fake.entry", "fake.far", "fake.late", "fake.sub", "fake.sub.near")


@pytest.mark.parametrize("name", ["entry.py", "late.py", "far.py", "sub/near.py", "sub/__init__.py"])
def test_code_that_a_stage_can_run_changes_its_digest(package, name):
    """Also code imported in a function, two imports away, or as the parent of a module."""
    before = package()
    assert package(name, SOURCES[name] + "NEW = 2\n") != before
    assert package(name, SOURCES[name]) == before


@pytest.mark.parametrize("name", ["entry.py", "far.py", "sub/near.py"])
def test_comments_and_blank_lines_do_not_change_a_digest(package, name):
    before = package()
    assert package(name, "# why this is here\n\n" + SOURCES[name].replace("\n", "  # more\n\n", 1)) == before


def test_a_module_that_a_stage_does_not_import_does_not_change_its_digest(package):
    before = package()
    assert package("unrelated.py", "OTHER = 2\n") == before


def test_a_stage_that_does_not_exist_is_refused(package):
    with pytest.raises(ValueError, match=r"fake\.entri is not a module of fake"):
        stage_modules("fake.entri")


def test_statistics_do_not_depend_on_models():
    """So an edited model does not recompute the table."""
    assert stage_modules("ponderttt.reporting.numbers.statistics") == (
        "ponderttt.errors",
        "ponderttt.reporting.numbers.statistics",
    )
    heavy = {"ponderttt.models", "ponderttt.corpus", "ponderttt.fast_weights", "ponderttt.training"}
    for light in (
        "ponderttt.records.record",
        "ponderttt.settings.experiment",
        "ponderttt.reporting.numbers.results",
    ):
        assert not heavy & {".".join(name.split(".")[:2]) for name in stage_modules(light)}


def test_the_loop_depends_on_the_fast_weights_it_runs():
    assert {"ponderttt.loop.stream", "ponderttt.costs", "ponderttt.fast_weights.base"} <= set(
        stage_modules("ponderttt.loop.running")
    )


def test_the_package_imports_in_ways_that_a_digest_follows():
    """Relative imports and imports by a computed name would escape the digest; the only one is of an entry module."""
    by_name = code.PACKAGE_ROOT / "workflow" / "run.py"
    assert {"ponderttt.workflow.run", "ponderttt.workflow.stages.train"} <= set(entry_modules("train"))
    for path in set(code.PACKAGE_ROOT.rglob("*.py")) - {by_name}:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "attr", getattr(called, "id", None))
            assert name not in ("import_module", "__import__"), path


def test_the_run_that_made_a_file_is_on_record():
    run = run_metadata()
    assert re.fullmatch(r"[0-9a-f]{64}", run["code_digest"])
    assert run["packages"]["jax"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", run["time_utc"])
    json.dumps(run)


def test_an_installed_copy_does_not_claim_the_commit_of_the_repository_around_it(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "theirs"], check=True)
    installed = tmp_path / "site-packages" / "ponderttt"
    installed.mkdir(parents=True)
    for name in ("__init__.py", "files/__init__.py", "files/code.py", "files/git.py"):
        (installed / name).parent.mkdir(exist_ok=True)
        shutil.copy(code.PACKAGE_ROOT / name, installed / name)
    program = "import ponderttt.files.code as p; print(p._git_commit())"
    ask = [sys.executable, "-c", program]
    assert subprocess.run(ask, cwd=installed.parent, capture_output=True, text=True).stdout == "None\n"
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "ours"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    # As in a hook of another repository.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert subprocess.run(ask, cwd=installed.parent, capture_output=True, text=True).stdout == head
