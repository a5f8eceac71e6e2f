"""The user's pip fetches one pinned wheel without installing or running it."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from ponderttt.errors import PonderTTTError
from ponderttt.files.wheels import _explain, download_wheel
from small_disk import small_disk


def make_wheel(folder: Path, version: str, python: str = ">=3.8", size: int = 10) -> Path:
    """Make the smallest wheel that pip accepts, of a package called a-thing."""
    path = folder / f"a_thing-{version}-py3-none-any.whl"
    about = f"a_thing-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a_thing/data.bin", bytes(size))
        archive.writestr(
            f"{about}/METADATA",
            f"Metadata-Version: 2.1\nName: a-thing\nVersion: {version}\nRequires-Python: {python}\n",
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that replaces pip's index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_pinned_wheel_arrives_byte_for_byte_and_alone(index, tmp_path):
    make_wheel(index, "2.0")
    original = make_wheel(index, "1.0")
    got = download_wheel("a-thing", "1.0", tmp_path / "new" / "wheels")
    assert got.name == original.name
    assert got.read_bytes() == original.read_bytes()
    assert left_in(got.parent) == [got.name]


def test_a_wheel_for_a_newer_python_is_taken_only_when_its_files_are_just_read(index, tmp_path):
    make_wheel(index, "1.0", python=">=99")
    with pytest.raises(PonderTTTError, match=r"a-thing==1\.0: .*requires a different Python") as caught:
        download_wheel("a-thing", "1.0", tmp_path / "wheels")
    assert "\n" not in str(caught.value)
    assert left_in(tmp_path / "wheels") == []
    assert download_wheel("a-thing", "1.0", tmp_path / "wheels", ignore_requires_python=True).is_file()


def test_a_source_package_is_refused_and_none_of_its_code_runs(index, tmp_path):
    """Building it would run its code."""
    source, trace = tmp_path / "a_thing-1.0", tmp_path / "it ran"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (source / "backend.py").write_text(f"open({str(trace)!r}, 'w')\n")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: a-thing\nVersion: 1.0\n")
    with tarfile.open(index / "a_thing-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, source.name)
    with pytest.raises(PonderTTTError, match="has no wheel of this version"):
        download_wheel("a-thing", "1.0", tmp_path / "wheels")
    assert not trace.exists()


def test_no_network_is_one_line_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(PonderTTTError, match="the package index cannot be reached") as caught:
        download_wheel("a-thing", "1.0", tmp_path / "wheels")
    assert "\n" not in str(caught.value)
    assert left_in(tmp_path / "wheels") == []


def test_a_full_disk_is_one_line_and_leaves_nothing(index, tmp_path):
    make_wheel(index, "1.0", size=200_000)
    with small_disk(tmp_path / "disk", kilobytes=64) as real:
        with pytest.raises(PonderTTTError, match=r"a-thing==1\.0: the disk is full") as caught:
            if not real:
                raise PonderTTTError(_explain("a-thing==1.0", "ERROR: [Errno 28] No space left on device"))
            download_wheel("a-thing", "1.0", tmp_path / "disk")
        assert "\n" not in str(caught.value)
        assert left_in(tmp_path / "disk") == []


@pytest.mark.parametrize(
    ("stderr", "says"),
    [
        ("/bin/python: No module named pip", "has no pip to download with"),
        ("WARNING: odd\nERROR: first\nERROR: what went wrong\n", "pip download failed: what went wrong"),
        ("", "pip download failed: no message"),
    ],
)
def test_what_pip_says_becomes_one_line(stderr, says):
    message = _explain("a-thing==1.0", stderr)
    assert message.startswith("a-thing==1.0: ")
    assert says in message
    assert "\n" not in message
