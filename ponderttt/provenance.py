"""Where every file came from: atomic writes, manifests with sha256, digests of the code of a stage.

A *manifest* is ``manifest.json`` beside the files that it covers.  It is written last, so a folder without
one is a folder that was never finished.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ponderttt.errors import CorruptFileError, PonderTTTError

MANIFEST = "manifest.json"
#: Of a job that writes many files and goes on where it was stopped.
SETTINGS = "settings.json"
PACKAGE_ROOT = Path(__file__).resolve().parent


def sha256_file(path: Path | str) -> str:
    """Hex sha256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON-serialisable value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def disk_is_full(error: Exception) -> bool:
    """Whether writing failed for want of space; libraries outside Python say so in the message only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))


@contextlib.contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """A temporary path beside ``target`` that becomes ``target`` on success and disappears on failure.

    Raises:
        PonderTTTError: the disk is full; ``target`` is left as it was.
    """
    target = Path(target)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes private files; results are meant to be shared like any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except Exception as error:
        if disk_is_full(error):
            raise PonderTTTError(
                f"{target}: the disk is full; nothing was written. Free some space and run the same command again."
            ) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def write_json_lines(path: Path | str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object for each line, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_manifest(
    folder: Path | str, kind: str, rows: Mapping[str, int | None], facts: Mapping[str, Any] | None = None
) -> None:
    """Describe the files of ``folder`` in its ``manifest.json``.

    Args:
        folder: where the files are.
        kind: what they are, for example ``"shards"``; consumers check it.
        rows: file name → number of rows (``None`` where rows mean nothing).
        facts: whatever a consumer must know to trust the files: settings, digests of inputs, counts.
    """
    folder = Path(folder)
    files = {
        name: {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size, "rows": count}
        for name, count in sorted(rows.items())
    }
    write_json(
        folder / MANIFEST, {"kind": kind, "files": files, "facts": dict(facts or {}), "run": run_metadata()}
    )


def read_manifest(folder: Path | str, kind: str, rebuild: str, *, verify: bool = True) -> dict[str, Any]:
    """Read a manifest and, unless told otherwise, check every file that it names.

    Args:
        folder: the folder that holds ``manifest.json``.
        kind: the kind that the caller expects.
        rebuild: the command that makes the folder again, for the error message.
        verify: compare sizes and sha256 (reads every byte once).

    Raises:
        CorruptFileError: the manifest or a file is missing, of another kind, or differs from what was written.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        files, found_kind, _ = manifest["files"], manifest["kind"], manifest["facts"]
    except FileNotFoundError:
        raise CorruptFileError(
            f"{path}: missing, so {folder} was never finished. Rebuild it: {rebuild}"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise CorruptFileError(f"{path}: not a readable manifest. Rebuild it: {rebuild}") from None
    if found_kind != kind:
        raise CorruptFileError(f"{path}: holds {found_kind}, expected {kind}. Rebuild it: {rebuild}")
    if verify:
        for name in files:
            verify_file(folder, manifest, name, rebuild)
    return manifest


def verify_file(folder: Path | str, manifest: Mapping[str, Any], name: str, rebuild: str) -> Path:
    """The path of one file that a manifest names, once it was compared with it.

    Raises:
        CorruptFileError: it is missing, or differs from what was written.
    """
    file, expected = Path(folder) / name, manifest["files"][name]
    if not file.is_file():
        raise CorruptFileError(f"{file}: missing, though its manifest names it. Rebuild it: {rebuild}")
    if file.stat().st_size != expected["bytes"] or sha256_file(file) != expected["sha256"]:
        raise CorruptFileError(f"{file}: its sha256 differs from its manifest. Rebuild it: {rebuild}")
    return file


def start_or_continue(folder: Path, settings: str, pattern: str) -> None:
    """Keep the files of a job under way that were made under the same settings, remove those of others.

    Args:
        folder: where the job writes, one file after the other.
        settings: digest of all that the files depend on.
        pattern: of the files.
    """
    marker = folder / SETTINGS
    if not marker.exists() or settings not in marker.read_text():
        for old in (*folder.glob(pattern), folder / MANIFEST, marker):
            old.unlink(missing_ok=True)
        write_json(marker, {"settings": settings})


def finished(folder: Path) -> None:
    """Once its manifest is written, a job is not continued but made anew: a forced rebuild replaces every file, the damaged
    one too."""
    (folder / SETTINGS).unlink(missing_ok=True)


def module_path(module: str) -> Path | None:
    """The source file of a module of this package, found without importing it."""
    parts = module.split(".")
    if parts[0] != PACKAGE_ROOT.name:
        return None
    base = PACKAGE_ROOT.joinpath(*parts[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imported_modules(path: Path) -> set[str]:
    """Names of this package's modules that a source file imports, at the top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    # Importing a module runs its parent packages.  The root is left out: it only holds the version, and a release
    # that changes nothing else should not rerun the study.
    for name in tuple(found):
        parts = name.split(".")
        found.update(".".join(parts[:depth]) for depth in range(2, len(parts)))
    return {name for name in found if module_path(name)}


@cache
def stage_modules(*entry_modules: str) -> tuple[str, ...]:
    """The modules of this package that a stage runs: its entry modules and all that they import, sorted."""
    seen: set[str] = set()
    todo = list(entry_modules)
    while todo:
        name = todo.pop()
        path = module_path(name)
        if path is None:
            raise ValueError(f"{name} is not a module of {PACKAGE_ROOT.name}")
        if name not in seen:
            seen.add(name)
            todo.extend(_imported_modules(path))
    return tuple(sorted(seen))


@cache
def stage_digest(*entry_modules: str) -> str:
    """sha256 over the sources of a stage: changes when code that the stage can run changes, and only then.

    Comments and blank lines do not count, since the syntax tree is what is hashed; docstrings do.  Modules imported
    for type checking count, since the stage is handed their objects.
    """
    total = hashlib.sha256()
    for name in stage_modules(*entry_modules):
        path = module_path(name)
        assert path is not None
        total.update(f"{name}\n{ast.dump(ast.parse(path.read_text()))}\n".encode())
    return total.hexdigest()


@cache
def code_digest() -> str:
    """:func:`stage_digest` of the whole package."""
    names = (
        ".".join((PACKAGE_ROOT.name, *path.relative_to(PACKAGE_ROOT).with_suffix("").parts))
        for path in sorted(PACKAGE_ROOT.rglob("*.py"))
        if path.name != "__init__.py"
    )
    return stage_digest(*names)


@cache
def _git_commit() -> str | None:
    # The second name fails unless this very file is in the commit: an installed copy in a virtual environment inside
    # somebody's repository must not carry that repository's commit.
    command = ["git", "-C", str(PACKAGE_ROOT), "rev-parse", "HEAD", f"HEAD:./{Path(__file__).name}"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    return None


def run_metadata() -> dict[str, Any]:
    """What was running: code digest, commit, versions, machine, UTC time."""
    packages = ("jax", "jaxlib", "flax", "numpy", "optax", "pyarrow", "snakemake")
    versions = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "code_digest": code_digest(),
        "git_commit": _git_commit(),
        "python": sys.version.split()[0],
        "packages": versions,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "time_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
