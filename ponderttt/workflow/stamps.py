"""Stamps: what a folder was made from, written into its manifest, and whether it still holds.

A stamp has the stage, the digest of its code, its settings, and the digest of each input folder.  The workflow rebuilds a
folder whose stamp differs from what the study asks for; a job refuses inputs that changed after they were used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ponderttt.errors import CorruptFileError
from ponderttt.files.atomic import digest, write_json
from ponderttt.files.commands import rebuild
from ponderttt.files.folder import Folder

#: Key of the stamp in a manifest.
STAMP = "made_from"


def files_digest(folder: Folder) -> str:
    """Return one digest of all files in a manifest.

    Raises:
        CorruptFileError: the manifest is missing or not readable.
    """
    try:
        return digest(_manifest(folder)["files"])
    except (OSError, ValueError, KeyError):
        raise CorruptFileError(
            f"{folder.manifest}: missing or not a manifest. Rebuild it: {rebuild(folder.manifest)}"
        ) from None


def made_from(
    stage: str, code: str, settings: Mapping[str, Any], inputs: Iterable[Folder], output: Folder
) -> dict[str, Any]:
    """Return the stamp of an output folder.

    Paths of inputs are relative to the folder: it may be moved together with them, and spelled in any way.
    """
    digests = {os.path.relpath(folder, output): files_digest(folder) for folder in inputs}
    return {"stage": stage, "code": code, "settings": dict(settings), "inputs": digests}


def write_stamp(folder: Folder, stamp: Mapping[str, Any]) -> None:
    """Add a stamp to the manifest of a finished folder."""
    write_json(folder.manifest, {**_manifest(folder), STAMP: stamp})


def problem(folder: Folder, settings: Mapping[str, Any] | None = None, code: str | None = None) -> str | None:
    """Return what a finished folder was made from instead of what it should be; None if all holds.

    Args:
        folder: the folder; its manifest must exist.
        settings: what the stage would be given now; None to compare the inputs only.
        code: digest of the stage's code; None to accept any.
    """
    try:
        stamp = _manifest(folder)[STAMP]
        made_with, inputs, made_by = stamp["settings"], stamp["inputs"], stamp["code"]
    except (OSError, ValueError, KeyError, TypeError):
        return "its manifest does not say what it was made from"
    if settings is not None and made_with != (now := json.loads(json.dumps(settings))):
        return f"made with other settings ({', '.join(_differences(made_with, now)[:3])})"
    if code is not None and made_by != code:
        return "made by another version of the code"
    for path, before in inputs.items():
        source = Folder(os.path.normpath(folder.path / path))
        # Inputs may be deleted to save space.
        if source.exists and files_digest(source) != before:
            return f"made from another {source}"
    return None


def check(folder: Folder, settings: Mapping[str, Any] | None = None) -> None:
    """Refuse a folder that was made with other settings, or from inputs that have changed.

    Raises:
        CorruptFileError: the line names the folder and the command that rebuilds it.
    """
    found = problem(folder, settings) if folder.exists else "never finished"
    if found:
        raise CorruptFileError(f"{folder}: {found}. Rebuild it: {rebuild(folder.manifest)}")


def _manifest(folder: Folder) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(Path(folder.manifest).read_text(encoding="utf-8"))
    return manifest


def _differences(before: Any, now: Any, key: str = "") -> list[str]:
    """The keys whose values differ, as in ``chunk_size 64, now 32``."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for name in sorted(before.keys() | now.keys())
            for line in _differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
        ]
    if before == now:
        return []
    return [f"{key} {_short(before)}, now {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
