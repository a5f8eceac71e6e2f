"""A folder is filled completely or not at all, and the next build removes remains of a killed one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ponderttt.files.staging import staged_folder

_KILLED = """
import os, signal, sys
from pathlib import Path
from ponderttt.files.staging import staged_folder
with staged_folder(sys.argv[1], "shard-*") as staged:
    (staged / "scratch").mkdir()
    (staged / "scratch" / "large").write_bytes(bytes(1 << 20))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_build_left_is_gone_after_the_next(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
        assert killed.returncode == -9
        # The second attempt removed the remains of the first one, though it was killed too.
        assert len(list(tmp_path.glob(".building-*"))) == 1
    with staged_folder(tmp_path, "shard-*") as staged:
        (staged / "shard-0").write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "shard-0"]


def test_a_failure_leaves_the_old_files_whole(tmp_path: Path) -> None:
    (tmp_path / "shard-0").write_text("old")
    with pytest.raises(RuntimeError), staged_folder(tmp_path, "shard-*") as staged:
        (staged / "shard-0").write_text("new")
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("shard-0", "old")]
