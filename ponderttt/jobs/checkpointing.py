"""How long checkpoints live: until their job has written its outputs, and no longer."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ponderttt.training.checkpoints import Checkpoints


@contextlib.contextmanager
def checkpoints_of(root: Path | str, name: str, settings: Mapping[str, Any]) -> Iterator[Checkpoints]:
    """The checkpoints of a job, removed when the block that writes its outputs ends without an error.

    Those that other settings of the same job left behind go with them, since nothing will resume from them.
    """
    with Checkpoints(root, name, settings) as checkpoints:
        yield checkpoints
    for folder in Path(root).glob(f"{name}-" + "[0-9a-f]" * 16):
        shutil.rmtree(folder, ignore_errors=True)
