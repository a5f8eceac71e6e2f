"""Compute digests of the code that a stage runs, and the facts about a run."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import platform
import sys
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ponderttt.files.git import GitError, git

PACKAGE_ROOT = Path(__file__).resolve().parents[1]


def source_files() -> dict[str, Path]:
    """Return the source files of this package by the names of their modules, without importing any."""
    found = {}
    for path in sorted(PACKAGE_ROOT.rglob("*.py")):
        parts = path.relative_to(PACKAGE_ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


class _Source(NamedTuple):
    """What a digest needs of a source file."""

    #: sha256 of the syntax tree.
    digest: bytes
    #: What it may import, at the top or in functions: modules, their names, and their parent packages.
    imports: frozenset[str]


@cache
def _parsed(source: bytes) -> _Source:
    """Parse a source file; the stages share most of their modules, and parsing all takes a second."""
    tree = ast.parse(source)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    # Importing a module runs its parent packages.  The root is left out: it only holds the version, and a new version
    # alone should not rerun the study.
    for name in tuple(found):
        parts = name.split(".")
        found.update(".".join(parts[:depth]) for depth in range(2, len(parts)))
    return _Source(hashlib.sha256(ast.dump(tree).encode()).digest(), frozenset(found))


@cache
def stage_modules(*entry_modules: str) -> tuple[str, ...]:
    """Return the modules of this package that a stage runs, sorted: its entry modules and all their imports."""
    files = source_files()
    for name in entry_modules:
        if name not in files:
            raise ValueError(f"{name} is not a module of {PACKAGE_ROOT.name}")
    seen: set[str] = set()
    todo = set(entry_modules)
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= (_parsed(files[name].read_bytes()).imports & files.keys()) - seen
    return tuple(sorted(seen))


@cache
def stage_digest(*entry_modules: str) -> str:
    """Return the sha256 of a stage's code, which changes if and only if code that the stage can run changes.

    The syntax trees are hashed, so comments and blank lines do not count; docstrings do.  Modules imported for type
    checking count, since the stage receives their objects.
    """
    files, total = source_files(), hashlib.sha256()
    for name in stage_modules(*entry_modules):
        total.update(name.encode() + b"\n" + _parsed(files[name].read_bytes()).digest)
    return total.hexdigest()


@cache
def code_digest() -> str:
    """Return the sha256 of the names and contents of all source files of the package."""
    total = hashlib.sha256()
    for name, path in source_files().items():
        total.update(f"{name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


@cache
def _git_commit() -> str | None:
    # The second name fails unless the commit contains this package: a copy installed in a virtual environment inside
    # another repository must not state the commit of that repository.
    with contextlib.suppress(GitError):
        return git(PACKAGE_ROOT, "rev-parse", "HEAD", "HEAD:./__init__.py").decode().split()[0]
    return None


def run_metadata() -> dict[str, Any]:
    """Return the code digest, commit, versions, machine and UTC time of this run."""
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
