"""Arguments of a stage besides its settings: input folders, output folders, and places to keep files."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ponderttt.files.folder import Folder
from ponderttt.settings.mapping import settings
from ponderttt.workflow.entry import Progress

T = TypeVar("T")


@dataclass(frozen=True)
class FrozenFolders:
    """A corpus after the frozen pass.

    Attributes:
        model: the converted backbone.
        chunks: the corpus in chunks.
        hidden: its frozen pass.
    """

    model: Folder
    chunks: Folder
    hidden: Folder


@dataclass(frozen=True)
class ModuleFolders(FrozenFolders):
    """A corpus with an adapter that reads it.

    Attributes:
        training: the slow weights.
        calibration: signals of training chunks; None if no rule ranks by them.
    """

    training: Folder
    calibration: Folder | None


@settings
class Place:
    """Places where a job keeps files, and access to datasets.  No result may depend on these.

    Attributes:
        downloads: archives and wheels, shared by studies.
        checkpoints: checkpoints of all jobs of a study.
        programs: compiled programs, shared by all jobs on this machine.
        access: keys of ``hub`` that say who may read a dataset and how contents are fetched.
    """

    downloads: str
    checkpoints: str
    programs: str
    access: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One job of a stage.

    Attributes:
        folders: output folders in the order of the rule.
        files: name of an output → its paths.
        made_from: stage, code, settings and digests of input folders: all that the outputs depend on.
        place: places where it keeps files.
        threads: processor threads.
        progress: called with (done, total, what).
    """

    folders: tuple[Folder, ...]
    files: Mapping[str, tuple[str, ...]]
    made_from: Mapping[str, Any]
    place: Place
    threads: int
    progress: Progress

    @property
    def folder(self) -> Folder:
        """The only output folder."""
        (folder,) = self.folders
        return folder

    @property
    def code(self) -> str:
        """Digest of the stage's code."""
        return str(self.made_from["code"])

    def file(self, name: str) -> str:
        """Return the only path of a named output."""
        (path,) = self.files[name]
        return path


def gather(kind: type[T], files: Mapping[str, tuple[str, ...]]) -> T:
    """Build a dataclass of inputs from the named inputs of a rule.

    A field of type :class:`Folder` takes the folder of a file, a field of type :class:`Path` the file itself; each may be
    optional or a tuple.  Inputs without a field are tracked by Snakemake only.
    """
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(typing.cast(Any, kind))]
    return kind(**{name: _gathered(hints[name], files.get(name, ())) for name in names})


def _gathered(hint: Any, files: tuple[str, ...]) -> Any:
    if typing.get_origin(hint) is tuple:
        return tuple(_gathered(typing.get_args(hint)[0], (file,)) for file in files)
    if typing.get_origin(hint) is types.UnionType:
        return _gathered(typing.get_args(hint)[0], files) if files else None
    (file,) = files
    return Folder.of(file) if hint is Folder else Path(file)
