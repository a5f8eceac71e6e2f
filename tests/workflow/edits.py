"""Changes to the files of a checkout that a test can take back."""

from __future__ import annotations

from pathlib import Path


class Edit:
    """Changes to files that can be undone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: dict[Path, bytes] = {}

    def append(self, name: str, text: str) -> None:
        """Add text at the end of a file."""
        self.replace(name, (self._folder / name).read_bytes() + text.encode())

    def replace(self, name: str, content: bytes) -> None:
        """Give a file another content."""
        path = self._folder / name
        self._before.setdefault(path, path.read_bytes())
        path.write_bytes(content)

    def undo(self) -> None:
        """Give every file its content back."""
        for path, content in self._before.items():
            path.write_bytes(content)
