"""Read the list of pinned packages: name, version, license and the sha256 of the archive."""

from __future__ import annotations

import csv
import difflib
import re
from dataclasses import dataclass, fields
from pathlib import Path

from ponderttt.errors import ConfigError
from ponderttt.settings.corpus import PACKAGE_KINDS, CorpusConfig

# Names and versions reach the command line of a package client, so they must not look like an option.
_NAME = re.compile(r"@?[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)?")
_VERSION = re.compile(r"[A-Za-z0-9][\w.+~:!-]*")
_ARCHIVE = re.compile(r"[A-Za-z0-9][\w.+~-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Package:
    """One line of the list; ``package`` also names its repository."""

    language: str
    split: str
    package: str
    version: str
    registry_kind: str
    #: SPDX expression, checked against the license text of the archive.
    license: str
    #: sha256 of the archive, as lower-case hex.
    sha256: str
    #: File name of the archive in its registry.
    archive: str

    @property
    def pinned(self) -> str:
        """Package and version, for messages and provenance."""
        return f"{self.package}=={self.version}"


def read_packages(path: Path | str) -> list[Package]:
    """Read a CSV list of pinned packages, in the order of the file.

    Raises:
        ConfigError: the file is missing or unreadable, lacks a column, or a line has a bad value.
    """
    path = Path(path)
    names = [field.name for field in fields(Package)]
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            missing = [name for name in names if name not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(
                    f"{path}: the column '{missing[0]}' is missing; a list needs {','.join(names)}"
                )
            packages = []
            for row in reader:
                package = Package(**{name: (row[name] or "").strip() for name in names})
                _check(package, f"{path}, line {reader.line_num}")
                packages.append(package)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such list of packages") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: not readable as a CSV list: {error}") from None
    return packages


def _check(package: Package, where: str) -> None:
    if package.registry_kind not in PACKAGE_KINDS:
        raise ConfigError(
            f"{where}: registry_kind must be one of {', '.join(PACKAGE_KINDS)}, got {package.registry_kind!r}"
        )
    for name, pattern in (
        ("package", _NAME),
        ("version", _VERSION),
        ("archive", _ARCHIVE),
        ("sha256", _SHA256),
    ):
        value = getattr(package, name)
        if not pattern.fullmatch(value):
            raise ConfigError(f"{where}: {name} is not valid: {value!r}")
    for name in ("language", "split", "license"):
        if not getattr(package, name):
            raise ConfigError(f"{where}: {name} is empty")


def select_packages(config: CorpusConfig) -> list[Package]:
    """Return the packages of a corpus' kind, language and split, limited by ``only`` and ``max_streams``.

    Raises:
        ConfigError: nothing matches, a package is listed twice, or ``only`` names one that does not match.
    """
    assert config.packages is not None, "corpora of kind 'files' have no list of packages"
    matching = [
        package
        for package in read_packages(config.packages)
        if (package.registry_kind, package.language, package.split)
        == (config.kind, config.language, config.split)
    ]
    names = [package.package for package in matching]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"{config.packages}: {twice} is listed twice for {config.language}, {config.split}")
    for name in config.only:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ConfigError(
                f"{config.packages}: no {config.kind} package '{name}' for {config.language}, {config.split}{hint}"
            )
    if config.only:
        matching = [package for package in matching if package.package in config.only]
    if not matching:
        raise ConfigError(
            f"{config.packages}: no package of kind {config.kind} for language {config.language}, split {config.split}"
        )
    return matching[: config.max_streams]
