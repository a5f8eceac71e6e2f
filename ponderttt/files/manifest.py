"""Write and read manifests: ``manifest.json`` describes the files of a folder, with their sha256.

A manifest is written last, so a folder without one was never finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ponderttt.errors import CorruptFileError
from ponderttt.files.atomic import sha256_file, write_json
from ponderttt.files.code import run_metadata

MANIFEST = "manifest.json"
#: The settings of an unfinished job that writes many files and continues after an interruption.
SETTINGS = "settings.json"


def write_manifest(
    folder: Path | str, kind: str, rows: Mapping[str, int | None], facts: Mapping[str, Any] | None = None
) -> None:
    """Describe the files of ``folder`` in its ``manifest.json``.

    Args:
        folder: folder of the files.
        kind: what they are, for example ``"shards"``; readers check it.
        rows: file name → number of rows; None for files without rows.
        facts: what a reader must know to trust the files: settings, digests of inputs, counts.
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
    """Read a manifest and check the files that it names.

    Args:
        folder: folder of ``manifest.json``.
        kind: the kind that the caller expects.
        rebuild: the command that rebuilds the folder, for the error message.
        verify: whether to compare sizes and sha256 (reads every byte once).

    Raises:
        CorruptFileError: the manifest or a file is missing, of another kind, or differs from what was written.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
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


def check_facts(folder: Path | str, facts: Mapping[str, Any], rebuild: str, **expected: Any) -> None:
    """Refuse a folder that was made from something else than what it is opened for.

    Args:
        folder: the folder, for the message.
        facts: of its manifest.
        rebuild: the command that makes the folder again.
        expected: facts and the values that they must have.

    Raises:
        CorruptFileError: a fact differs; the message names the first one.
    """
    for name, value in expected.items():
        found = _difference(name, facts.get(name), json.loads(json.dumps(value, default=str)))
        if found is not None:
            raise CorruptFileError(f"{folder}: made {found}. Rebuild it: {rebuild}")


def _difference(name: str, found: Any, expected: Any) -> str | None:
    """Say how a fact differs from what is expected; None if it does not."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        parts = (
            _difference(f"{name}.{key}", found.get(key), expected.get(key)) for key in (*expected, *found)
        )
        return next((part for part in parts if part is not None), None)
    if found == expected:
        return None
    return _OTHER.get(name, f"with {name} {found!r}, but {expected!r} is configured")


#: Facts whose values mean nothing to a reader.
_OTHER = {
    "features_digest": "with another version of the features",
    "model_digest": "with another model",
    "module_digest": "with another trained adapter",
}


def verify_file(folder: Path | str, manifest: Mapping[str, Any], name: str, rebuild: str) -> Path:
    """Compare one file with its manifest and return its path.

    Raises:
        CorruptFileError: the file is missing, or differs from what was written.
    """
    file, expected = Path(folder) / name, manifest["files"][name]
    if not file.is_file():
        raise CorruptFileError(f"{file}: missing, though its manifest names it. Rebuild it: {rebuild}")
    if file.stat().st_size != expected["bytes"] or sha256_file(file) != expected["sha256"]:
        raise CorruptFileError(f"{file}: its sha256 differs from its manifest. Rebuild it: {rebuild}")
    return file


def start_or_continue(folder: Path, settings: str, pattern: str) -> None:
    """Keep the files of an unfinished job with the same settings; remove those of other settings.

    Args:
        folder: where the job writes its files, one after the other.
        settings: digest of everything that the files depend on.
        pattern: glob of the files.
    """
    marker = folder / SETTINGS
    if not marker.exists() or settings not in marker.read_text(encoding="utf-8"):
        for old in (*folder.glob(pattern), folder / MANIFEST, marker):
            old.unlink(missing_ok=True)
        write_json(marker, {"settings": settings})


def finished(folder: Path) -> None:
    """Mark a job as finished, after its manifest is written: the next run rebuilds all files instead of continuing."""
    (folder / SETTINGS).unlink(missing_ok=True)
