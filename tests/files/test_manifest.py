"""Files appear whole or not at all, say where they came from, and are trusted only while they match that."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files import code
from ponderttt.files.atomic import atomic_path, digest, disk_is_full, sha256_file
from ponderttt.files.code import code_digest, run_metadata, stage_digest, stage_modules
from ponderttt.files.manifest import MANIFEST, read_manifest, write_manifest
from small_disk import small_disk

REBUILD = "make again"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- atomic writes -----------------------------------------------------------------------------------------------


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "made" / "on" / "the way" / "out.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("all of it")
        assert not target.exists()
        assert (temporary.parent, temporary.suffix) == (target.parent, ".txt")
    assert target.read_text() == "all of it"
    assert names(target.parent) == ["out.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, error):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def write_bytes(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": np.random.default_rng(0).normal(size=100_000)}), path)


@pytest.mark.parametrize("write", [write_bytes, write_parquet])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, write):
    """The kernel's own full device stands in for the disk: every write to it ends in ENOSPC, in any library."""
    target = tmp_path / "out.bin"
    target.write_text("old")
    with pytest.raises(PonderTTTError) as caught, atomic_path(target) as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        write(temporary)
    assert str(caught.value).startswith(f"{target}: the disk is full; nothing was written.")
    assert "\n" not in str(caught.value)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.bin"]


def test_a_full_disk_is_one_line_from_a_library_with_errors_of_its_own(tmp_path):
    """safetensors replaces whatever it writes to, so it needs a real small disk, where one may be mounted."""
    with small_disk(tmp_path / "disk", kilobytes=64) as real:
        target = tmp_path / "disk" / "out.safetensors"
        target.write_text("old")
        with pytest.raises(PonderTTTError, match="the disk is full"), atomic_path(target) as temporary:
            if not real:
                raise SafetensorError(
                    "Error while serializing: I/O error: No space left on device (os error 28)"
                )
            save_file({"a": np.zeros(100_000)}, temporary)
        assert target.read_text() == "old"
        assert names(target.parent) == ["out.safetensors"]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EACCES, "No space left on device"), False),
        (
            ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [os_error_code='28']"),
            True,
        ),
        (ValueError("shape mismatch"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, full):
    assert disk_is_full(error) is full


def test_files_are_shared_as_the_umask_says(tmp_path):
    """A temporary file is private; a result is not."""
    program = (
        "import os, sys; from ponderttt.files.manifest import write_json\n"
        "os.umask(int(sys.argv[2], 8)); write_json(sys.argv[1], {})"
    )
    for mask, mode in (("022", 0o644), ("077", 0o600), ("002", 0o664)):
        path = tmp_path / f"{mask}.json"
        subprocess.run([sys.executable, "-c", program, str(path), mask], check=True)
        assert path.stat().st_mode & 0o777 == mode


def test_equal_values_have_equal_digests_whatever_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1, "b": [1, 2]}) != digest({"a": 1, "b": [2, 1]})


# --- manifests ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two files and their manifest."""
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "b.bin").write_bytes(b"b" * 100)
    write_manifest(tmp_path, "things", {"a.bin": 3, "b.bin": None}, {"setting": 1})
    return tmp_path


def refusal(folder: Path, kind: str = "things") -> str:
    with pytest.raises(CorruptFileError) as caught:
        read_manifest(folder, kind, REBUILD)
    message = str(caught.value)
    assert message.endswith(REBUILD)
    assert "\n" not in message
    return message


def test_a_manifest_gives_back_what_was_written(folder):
    manifest = read_manifest(folder, "things", REBUILD)
    assert manifest["facts"] == {"setting": 1}
    assert manifest["files"]["a.bin"] == {
        "sha256": sha256_file(folder / "a.bin"),
        "bytes": 256,
        "rows": 3,
    }
    assert manifest["run"]["code_digest"] == code_digest()


def test_one_flipped_bit_is_found(folder):
    content = bytearray((folder / "a.bin").read_bytes())
    content[77] ^= 1
    (folder / "a.bin").write_bytes(content)
    assert str(folder / "a.bin") in refusal(folder)


def test_a_truncated_file_is_found(folder):
    os.truncate(folder / "b.bin", 99)
    assert str(folder / "b.bin") in refusal(folder)


def test_a_missing_file_is_found(folder):
    (folder / "b.bin").unlink()
    assert f"{folder / 'b.bin'}: missing" in refusal(folder)


def test_a_folder_without_a_manifest_was_never_finished(folder):
    (folder / MANIFEST).unlink()
    assert "never finished" in refusal(folder)


def test_a_manifest_of_another_kind_is_refused(folder):
    assert "holds things, expected shards" in refusal(folder, "shards")


@pytest.mark.parametrize(
    "content", [b"", b'{"kind": "things", "fil', b"\xff\xfe", b"[]", b"null", b'{"kind": "things"}']
)
def test_an_unreadable_manifest_is_refused(folder, content):
    (folder / MANIFEST).write_bytes(content)
    assert "not a readable manifest" in refusal(folder)


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
    # Set in a hook of another repository.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert subprocess.run(ask, cwd=installed.parent, capture_output=True, text=True).stdout == head


# --- digests of code ---------------------------------------------------------------------------------------------

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
    """A package of a few lines in place of this one; call it with (file, text) to edit and get the digest."""
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
    """Also what is imported inside a function, two imports away, or as the parent of a module."""
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
    """So an edited model does not recompute the table from the same records."""
    assert stage_modules("ponderttt.reporting.numbers.statistics") == (
        "ponderttt.errors",
        "ponderttt.reporting.numbers.statistics",
    )
    heavy = {"ponderttt.models", "ponderttt.corpus", "ponderttt.fast_weights", "ponderttt.training"}
    for light in (
        "ponderttt.records.record",
        "ponderttt.settings.experiment",
        "ponderttt.reporting.numbers.rows",
    ):
        assert not heavy & {".".join(name.split(".")[:2]) for name in stage_modules(light)}


def test_the_loop_depends_on_the_fast_weights_it_runs():
    assert {"ponderttt.loop.stream", "ponderttt.costs", "ponderttt.fast_weights.base"} <= set(
        stage_modules("ponderttt.loop.running")
    )


def test_the_package_imports_in_ways_that_a_digest_follows():
    """Relative imports and imports by a computed name would escape it."""
    for path in code.PACKAGE_ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "attr", getattr(called, "id", None))
            assert name not in ("import_module", "__import__"), path
