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
from typing import Any

from ponderttt.files.git import GitError, git

PACKAGE_ROOT = Path(__file__).resolve().parents[1]


def module_path(module: str) -> Path | None:
    """Return the source file of a module of this package without importing it; None for other modules."""
    parts = module.split(".")
    if parts[0] != PACKAGE_ROOT.name:
        return None
    base = PACKAGE_ROOT.joinpath(*parts[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imported_modules(path: Path) -> set[str]:
    """Return the modules of this package that a source file imports, at the top or in functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
    return {name for name in found if module_path(name)}


@cache
def stage_modules(*entry_modules: str) -> tuple[str, ...]:
    """Return the modules of this package that a stage runs, sorted: its entry modules and all their imports."""
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
    """Return the sha256 of a stage's code, which changes if and only if code that the stage can run changes.

    The syntax trees are hashed, so comments and blank lines do not count; docstrings do.  Modules imported for type
    checking count, since the stage receives their objects.
    """
    total = hashlib.sha256()
    for name in stage_modules(*entry_modules):
        path = module_path(name)
        assert path is not None
        total.update(f"{name}\n{ast.dump(ast.parse(path.read_text(encoding='utf-8')))}\n".encode())
    return total.hexdigest()


@cache
def code_digest() -> str:
    """Return the :func:`stage_digest` of the whole package."""
    names = (
        ".".join((PACKAGE_ROOT.name, *path.relative_to(PACKAGE_ROOT).with_suffix("").parts))
        for path in sorted(PACKAGE_ROOT.rglob("*.py"))
        if path.name != "__init__.py"
    )
    return stage_digest(*names)


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
