"""A folder is trusted only while it matches its manifest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ponderttt.errors import CorruptFileError
from ponderttt.files.atomic import sha256_file
from ponderttt.files.code import code_digest
from ponderttt.files.manifest import MANIFEST, read_manifest, write_manifest

REBUILD = "make again"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two files and their manifest."""
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "b.bin").write_bytes(b"b" * 100)
    write_manifest(tmp_path, "things", {"a.bin": 3, "b.bin": None}, {"setting": 1})
    return tmp_path


def refusal(folder: Path, kind: str = "things") -> str:
    with pytest.raises(CorruptFileError) as caught:
        read_manifest(folder, kind, REBUILD)
    message = str(caught.value)
    assert message.endswith(REBUILD)
    assert "\n" not in message
    return message


def test_a_manifest_gives_back_what_was_written(folder):
    manifest = read_manifest(folder, "things", REBUILD)
    assert manifest["facts"] == {"setting": 1}
    assert manifest["files"]["a.bin"] == {
        "sha256": sha256_file(folder / "a.bin"),
        "bytes": 256,
        "rows": 3,
    }
    assert manifest["run"]["code_digest"] == code_digest()


def test_one_flipped_bit_is_found(folder):
    content = bytearray((folder / "a.bin").read_bytes())
    content[77] ^= 1
    (folder / "a.bin").write_bytes(content)
    assert str(folder / "a.bin") in refusal(folder)


def test_a_truncated_file_is_found(folder):
    os.truncate(folder / "b.bin", 99)
    assert str(folder / "b.bin") in refusal(folder)


def test_a_missing_file_is_found(folder):
    (folder / "b.bin").unlink()
    assert f"{folder / 'b.bin'}: missing" in refusal(folder)


def test_a_folder_without_a_manifest_was_never_finished(folder):
    (folder / MANIFEST).unlink()
    assert "never finished" in refusal(folder)


def test_a_manifest_of_another_kind_is_refused(folder):
    assert "holds things, expected shards" in refusal(folder, "shards")


@pytest.mark.parametrize(
    "content", [b"", b'{"kind": "things", "fil', b"\xff\xfe", b"[]", b"null", b'{"kind": "things"}']
)
def test_an_unreadable_manifest_is_refused(folder, content):
    (folder / MANIFEST).write_bytes(content)
    assert "not a readable manifest" in refusal(folder)
