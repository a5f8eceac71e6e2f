"""Find and read the repositories of a corpus, from packages or folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ponderttt.corpus.archives import read_archive
from ponderttt.corpus.filters import Origin, path_reason
from ponderttt.corpus.folders import git_commit, is_file, read_folder, subfolders
from ponderttt.corpus.packages import select_packages
from ponderttt.corpus.raw_files import RawFile, utf8_name
from ponderttt.corpus.sources import Progress, fetch_packages, silent
from ponderttt.errors import PonderTTTError
from ponderttt.settings.corpus import CorpusConfig


@dataclass(frozen=True)
class Repository:
    """One repository; all its files belong to one stream and one split."""

    origin: Origin
    #: An archive, a folder or a single file.
    path: Path
    #: Release of a package, commit of a checkout, or None.
    version: str | None
    #: sha256 of the archive; None for a folder.
    sha256: str | None
    #: Top-level folders to leave out, since they are repositories themselves.
    without: frozenset[str] = frozenset()

    def raw_files(self, max_file_bytes: int) -> Iterator[RawFile]:
        """Yield every file in path order, with the content of those whose paths may be wanted."""

        def wanted(path: str) -> bool:
            return path_reason(path, self.origin.language, self.origin.content) is None

        if self.sha256 is not None:
            yield from read_archive(self.path, wanted, max_file_bytes)
            return
        for raw in read_folder(self.path, wanted, max_file_bytes):
            if raw.path.split("/", 1)[0] not in self.without:
                yield raw

    def facts(self) -> dict[str, str | None]:
        """Return the facts of the repository for a manifest."""
        return {
            "name": self.origin.repo_name,
            "version": self.version,
            "license": self.origin.license,
            "sha256": self.sha256,
            "source": self.origin.source,
        }


def find_repositories(
    config: CorpusConfig, cache_dir: Path | str, progress: Progress = silent
) -> list[Repository]:
    """Return the repositories of a corpus in a fixed order; fetch packages that are not in ``cache_dir``.

    Packages have the order of the list, folders that of their names; ``max_streams`` keeps the first ones.

    Raises:
        PonderTTTError: a package cannot be fetched, or the folder cannot be read.
        ConfigError: the list of packages has an error, or nothing in it matches.
    """
    if config.kind == "files":
        return _folders(config)[: config.max_streams]
    packages = select_packages(config)
    paths = fetch_packages(packages, cache_dir, progress=progress)
    return [
        Repository(
            Origin(
                repo_name=package.package,
                language=package.language,
                license=package.license,
                source=f"{package.registry_kind}:{package.pinned}",
                split=package.split,
                content=config.content,
            ),
            path,
            package.version,
            package.sha256,
        )
        for package, path in zip(packages, paths, strict=True)
    ]


def _folders(config: CorpusConfig) -> list[Repository]:
    assert config.path is not None and config.license is not None, "the configuration checks both"
    top = Path(config.path)
    try:
        single = is_file(top) or config.single_repository
    except PonderTTTError as error:
        raise PonderTTTError(f"{error}; check the key 'path' of the corpus") from None
    if single:
        return [_folder(top, config)]
    inner = subfolders(top)
    repositories = [_folder(path, config) for path in inner]
    loose = _folder(top, config, frozenset(utf8_name(path.name) for path in inner))
    has_loose_files = any(path.is_file() for path in top.iterdir())
    return [*repositories, loose] if has_loose_files else repositories


def _folder(path: Path, config: CorpusConfig, without: frozenset[str] = frozenset()) -> Repository:
    # "." has no name of its own.
    name = utf8_name(path.resolve().name)
    commit = git_commit(path)
    origin = Origin(
        repo_name=name,
        language=config.language,
        license=config.license or "",
        source=f"files:{name}" + (f"@{commit}" if commit else ""),
        split=config.split,
        content=config.content,
    )
    return Repository(origin, path, commit, None, without)
