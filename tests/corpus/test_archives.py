"""Archives are read in path order without unpacking, and a hostile one does no harm."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from archive_makers import deb_bytes, make_wheel, tar_bytes
from ponderttt.corpus import archives
from ponderttt.corpus.archives import read_archive
from ponderttt.corpus.raw_files import RawFile
from ponderttt.errors import CorruptFileError, PonderTTTError

FILES = {"pkg/b.py": b"b = 2\n", "pkg/a.py": b"a = 1\n", "pkg/sub/c.py": b"c = 3\n", "LICENSE": b"MIT"}


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    "a-1-py3-none-any.whl": lambda path: make_wheel(path, FILES),
    "a-1.tgz": lambda path: write(path, tar_bytes(FILES, "w:gz")),
    "a_1.orig.tar.gz": lambda path: write(path, tar_bytes(FILES, "w:gz")),
    "a_1.orig.tar.xz": lambda path: write(path, tar_bytes(FILES, "w:xz")),
    "a_xz_all.deb": lambda path: write(path, deb_bytes(tar_bytes(FILES, "w:xz"), "data.tar.xz")),
    "a_gz_all.deb": lambda path: write(path, deb_bytes(tar_bytes(FILES, "w:gz"), "data.tar.gz")),
    "a_zst_all.deb": lambda path: write(path, deb_bytes(zstd(tar_bytes(FILES, "w")), "data.tar.zst")),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_kind_of_archive_gives_its_files_in_path_order(tmp_path: Path, name: str) -> None:
    path = MAKERS[name](tmp_path / name)
    found = list(read_archive(path))
    assert found == [RawFile(key, len(FILES[key]), FILES[key]) for key in sorted(FILES)]
    assert list(tmp_path.iterdir()) == [path], "reading leaves nothing behind"


@pytest.mark.parametrize("name", MAKERS)
def test_a_truncated_archive_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    path = MAKERS[name](tmp_path / name)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptFileError, match=name) as caught:
        list(read_archive(path))
    assert "\n" not in str(caught.value)


def test_files_that_are_unwanted_or_too_large_come_without_content(tmp_path: Path) -> None:
    path = make_wheel(tmp_path / "a.whl", {"a.py": b"x" * 10, "big.py": b"x" * 11, "image.png": b"x"})
    found = {
        raw.path: raw for raw in read_archive(path, lambda name: name.endswith(".py"), max_file_bytes=10)
    }
    assert found["a.py"].content == b"x" * 10
    assert (found["big.py"].size, found["big.py"].content) == (11, None)
    assert (found["image.png"].size, found["image.png"].content) == (1, None)


def test_links_are_not_followed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "soft.py"),
            (tarfile.LNKTYPE, "hard.py"),
            (tarfile.FIFOTYPE, "f.py"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert list(read_archive(write(tmp_path / "links.tgz", buffer.getvalue()))) == []
    with zipfile.ZipFile(tmp_path / "links.whl", "w") as wheel:
        info = zipfile.ZipInfo("soft.py")
        info.external_attr = 0o120777 << 16
        wheel.writestr(info, "/etc/passwd")
    assert list(read_archive(tmp_path / "links.whl")) == []


@pytest.mark.parametrize("name", ["../outside.py", "/etc/outside.py", "a/../../outside.py"])
def test_a_path_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    for path in (
        write(tmp_path / "bad.tgz", tar_bytes({name: b"x"})),
        make_wheel(tmp_path / "bad.whl", {name: b"x"}),
    ):
        with pytest.raises(PonderTTTError, match="unsafe path"):
            list(read_archive(path))


def test_an_archive_that_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = write(tmp_path / "bomb.tgz", tar_bytes({"zeros.bin": bytes(8 << 20)}))
    assert bomb.stat().st_size < 20_000
    assert [raw.content for raw in read_archive(bomb)] == [None], "too large to hold, but within the limit"
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 4 << 20)
    with pytest.raises(PonderTTTError, match="unpacks to more than"):
        list(read_archive(bomb))


def test_wanted_files_beyond_the_limit_of_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_WANTED_BYTES", 1_000)
    path = make_wheel(tmp_path / "many.whl", {f"{i}.py": bytes(100) for i in range(11)})
    with pytest.raises(PonderTTTError, match="of source files"):
        list(read_archive(path))
    assert len(list(read_archive(path, lambda name: name < "5"))) == 11


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    name = b"caf\xe9.py".decode("utf-8", "surrogateescape")
    archive = write(tmp_path / "a.tgz", tar_bytes({name: b"x"}))
    assert [file.path for file in read_archive(archive)] == [r"caf\xe9.py"]


def test_an_unknown_kind_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(PonderTTTError, match="unknown kind of archive"):
        list(read_archive(tmp_path / "a.rar"))
    with pytest.raises(PonderTTTError, match="no such archive"):
        list(read_archive(tmp_path / "a.whl"))
