"""Read the files in a package archive without unpacking it to disk and without trusting it.

Nothing in a package is executed.  Links and devices are not followed, a name that leads out of the archive is an
error, and sizes are limited, so that a hostile archive costs only time.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ponderttt.corpus.raw_files import RawFile, every_path, utf8_name
from ponderttt.errors import CorruptFileError, PonderTTTError

MAX_UNPACKED_BYTES = 2 << 30
MAX_WANTED_BYTES = 1 << 30
MAX_MEMBERS = 500_000

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60
_ZIP_SUFFIXES = (".whl", ".zip")
_TAR_SUFFIXES = (".tgz", ".tar.gz", ".tar.xz", ".tar")


def read_archive(
    path: Path | str, wanted: Callable[[str], bool] = every_path, max_file_bytes: int = 1 << 20
) -> Iterator[RawFile]:
    """Yield the regular files of an archive in path order; of two members with one name the later one counts.

    Args:
        path: a wheel or zip, a ``.tar``, ``.tar.gz``, ``.tgz`` or ``.tar.xz``, or a Debian package.
        wanted: whether to read the content of a path; others come with ``content=None``.
        max_file_bytes: larger files come with ``content=None`` and are never held in memory.

    Raises:
        CorruptFileError: the archive is damaged.
        PonderTTTError: the kind of archive is unknown, it unpacks to more than 2 GiB (or more than 1 GiB of it is
            wanted), or a member's name is absolute or leads out with ``..``.
    """
    path = Path(path)
    reader: Callable[[Path, _Collector], None]
    if path.name.endswith(_ZIP_SUFFIXES):
        reader = _read_zip
    elif path.name.endswith(".deb"):
        reader = _read_deb
    elif path.name.endswith(_TAR_SUFFIXES):
        reader = _read_tar
    else:
        raise PonderTTTError(
            f"{path}: unknown kind of archive; known: {', '.join((*_ZIP_SUFFIXES, *_TAR_SUFFIXES, '.deb'))}"
        )
    collector = _Collector(path, wanted, max_file_bytes)
    try:
        reader(path, collector)
    except FileNotFoundError:
        raise PonderTTTError(f"{path}: no such archive") from None
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
        gzip.BadGzipFile,
        EOFError,
        NotImplementedError,  # zipfile: an unknown compression method
        RuntimeError,  # zipfile: an encrypted member
        UnicodeDecodeError,
    ) as error:
        raise CorruptFileError(
            f"{path}: damaged archive ({' '.join(str(error).split())}). Delete it and run the same command again."
        ) from None
    yield from (collector.files[name] for name in sorted(collector.files))


class _Collector:
    """Collects the members of an archive, within the limits."""

    def __init__(self, archive: Path, wanted: Callable[[str], bool], max_file_bytes: int) -> None:
        self.archive = archive
        self.wanted = wanted
        self.max_file_bytes = max_file_bytes
        self.files: dict[str, RawFile] = {}
        self.held_bytes = 0

    def add(self, name: str, size: int, read: Callable[[], bytes]) -> None:
        path = PurePosixPath(utf8_name(name))
        if path.is_absolute() or ".." in path.parts:
            raise PonderTTTError(f"{self.archive}: refused, since it holds the unsafe path {name!r}")
        key = str(path)
        content = None
        if size <= self.max_file_bytes and self.wanted(key):
            self.held_bytes += size
            if self.held_bytes > MAX_WANTED_BYTES:
                raise PonderTTTError(
                    f"{self.archive}: refused, since it holds more than 1 GiB of source files"
                )
            content = read()
            size = len(content)
        self.files[key] = RawFile(key, size, content)
        if len(self.files) > MAX_MEMBERS:
            raise PonderTTTError(f"{self.archive}: refused, since it holds more than {MAX_MEMBERS} files")


def _read_zip(path: Path, collector: _Collector) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            unix_mode = info.external_attr >> 16
            is_link = unix_mode & 0o170000 == 0o120000
            if not info.is_dir() and not is_link:
                # ZipFile never returns more than the size that the directory of the archive states.
                collector.add(info.filename, info.file_size, lambda info=info: archive.read(info))  # type: ignore[misc]


def _read_tar(path: Path, collector: _Collector) -> None:
    with path.open("rb") as handle:
        _collect_tar(handle, path.name, collector)


def _collect_tar(handle: io.BufferedReader | io.BytesIO, name: str, collector: _Collector) -> None:
    """Collect the members of a tar file, compressed according to the suffix of ``name``."""
    plain: Any
    if name.endswith((".gz", ".tgz")):
        plain = gzip.GzipFile(fileobj=handle)
    elif name.endswith(".xz"):
        plain = lzma.open(handle)  # noqa: SIM115 - the caller closes the file below it
    elif name.endswith(".zst"):
        import pyarrow

        plain = pyarrow.CompressedInputStream(pyarrow.PythonFile(handle, mode="r"), "zstd")
    else:
        plain = handle
    bounded = _BoundedReader(plain, collector.archive)
    with tarfile.open(fileobj=bounded, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            if member.isfile():

                def read(member: tarfile.TarInfo = member) -> bytes:
                    source = archive.extractfile(member)
                    assert source is not None, "regular files have content"
                    return source.read()

                collector.add(member.name, member.size, read)
    # tarfile stops at the end mark; read on to the checksum of the compressed stream.
    while bounded.read(1 << 20):
        pass


class _BoundedReader:
    """A stream that ends in an error after ``MAX_UNPACKED_BYTES``: the defence against archive bombs."""

    def __init__(self, stream: Any, archive: Path) -> None:
        self._stream = stream
        self._archive = archive
        self._seen = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._seen += len(data)
        if self._seen > MAX_UNPACKED_BYTES:
            raise PonderTTTError(f"{self._archive}: refused, since it unpacks to more than 2 GiB")
        return data


def _read_deb(path: Path, collector: _Collector) -> None:
    """Read a Debian package: an ``ar`` archive whose member ``data.tar.*`` holds the files."""
    with path.open("rb") as handle:
        if handle.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise tarfile.ReadError("not a Debian package")
        while header := handle.read(_AR_HEADER_BYTES):
            name = header[:16].decode("ascii").strip().rstrip("/")
            try:
                size = int(header[48:58])
            except ValueError:
                raise tarfile.ReadError("a broken header in the Debian package") from None
            if name.startswith("data.tar"):
                member = handle.read(size)
                if len(member) < size:
                    raise EOFError("the Debian package ends early")
                _collect_tar(io.BytesIO(member), name, collector)
                return
            handle.seek(size + size % 2, io.SEEK_CUR)
    raise tarfile.ReadError("a Debian package without data.tar")
