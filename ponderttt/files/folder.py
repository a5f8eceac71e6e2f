"""The folder of one stage's output."""

from __future__ import annotations

from pathlib import Path

from ponderttt.files.manifest import MANIFEST


class Folder(str):
    """Path of a folder with a manifest; for a rule it keeps wildcards such as ``{model}``."""

    __slots__ = ()

    @classmethod
    def of(cls, file: Path | str) -> Folder:
        """Return the folder of a file, such as a manifest."""
        return cls(Path(file).parent)

    @property
    def manifest(self) -> str:
        """Path of its manifest."""
        return self.file(MANIFEST)

    @property
    def path(self) -> Path:
        """The folder as a path."""
        return Path(self)

    @property
    def exists(self) -> bool:
        """True once a job has finished it."""
        return Path(self.manifest).exists()

    def file(self, name: str) -> str:
        """Return the path of one of its files."""
        return f"{self}/{name}"
