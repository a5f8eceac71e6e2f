"""Files appear whole or not at all; a full disk is one line."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import atomic_path, check_folder, check_writable, digest, disk_is_full
from small_disk import small_disk


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "made" / "on" / "the way" / "out.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("all of it")
        assert not target.exists()
        assert (temporary.parent, temporary.suffix) == (target.parent, ".txt")
    assert target.read_text() == "all of it"
    assert names(target.parent) == ["out.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, error):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def write_bytes(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": np.random.default_rng(0).normal(size=100_000)}), path)


@pytest.mark.parametrize("write", [write_bytes, write_parquet])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, write):
    """The kernel's full device replaces the disk: every write ends in ENOSPC, in any library."""
    target = tmp_path / "out.bin"
    target.write_text("old")
    with pytest.raises(PonderTTTError) as caught, atomic_path(target) as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        write(temporary)
    assert str(caught.value).startswith(f"{target}: the disk is full; nothing was written.")
    assert "\n" not in str(caught.value)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.bin"]


def test_a_full_disk_is_one_line_from_a_library_with_errors_of_its_own(tmp_path):
    """safetensors replaces the file that it writes, so it needs a real small disk, if one may be mounted."""
    with small_disk(tmp_path / "disk", kilobytes=64) as real:
        target = tmp_path / "disk" / "out.safetensors"
        target.write_text("old")
        with pytest.raises(PonderTTTError, match="the disk is full"), atomic_path(target) as temporary:
            if not real:
                raise SafetensorError(
                    "Error while serializing: I/O error: No space left on device (os error 28)"
                )
            save_file({"a": np.zeros(100_000)}, temporary)
        assert target.read_text() == "old"
        assert names(target.parent) == ["out.safetensors"]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EACCES, "No space left on device"), False),
        (
            ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [os_error_code='28']"),
            True,
        ),
        (ValueError("shape mismatch"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, full):
    assert disk_is_full(error) is full


def test_files_are_shared_as_the_umask_says(tmp_path):
    """A temporary file is private; a result is not."""
    program = (
        "import os, sys; from ponderttt.files.atomic import write_json\n"
        "os.umask(int(sys.argv[2], 8)); write_json(sys.argv[1], {})"
    )
    for mask, mode in (("022", 0o644), ("077", 0o600), ("002", 0o664)):
        path = tmp_path / f"{mask}.json"
        subprocess.run([sys.executable, "-c", program, str(path), mask], check=True)
        assert path.stat().st_mode & 0o777 == mode


def test_equal_values_have_equal_digests_whatever_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1, "b": [1, 2]}) != digest({"a": 1, "b": [2, 1]})


def test_a_folder_that_cannot_be_written_is_named_with_its_key(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("/nowhere/x")
    for folder, reason in (
        (tmp_path / "file", "a file, not a folder"),
        (tmp_path / "file" / "inside", "cannot be written (not a directory)"),
        (tmp_path / "link", "a link to a folder that is missing"),
        (Path("/proc/nowhere"), "cannot be written (no such file or directory)"),
    ):
        with pytest.raises(PonderTTTError) as caught:
            check_writable(folder, "data_dir")
        assert str(caught.value) == f"{folder}: {reason}; set data_dir to a folder that can be written"


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "a" / "b", "data_dir")
    check_writable(tmp_path / "a" / "b", "data_dir")
    assert names(tmp_path / "a" / "b") == []


def test_a_folder_that_can_become_one_is_not_made(tmp_path):
    check_folder(tmp_path / "a" / "b", "data_dir")
    assert names(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(PonderTTTError, match="file: a file, not a folder; set data_dir"):
        check_folder(tmp_path / "file" / "inside", "data_dir")
    (tmp_path / "link").symlink_to("/nowhere/x")
    with pytest.raises(PonderTTTError, match="link: a link to a folder that is missing; set data_dir"):
        check_folder(tmp_path / "link" / "inside", "data_dir")
