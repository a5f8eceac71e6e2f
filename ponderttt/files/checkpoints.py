"""Checkpoints of long jobs, in a folder that the workflow does not declare and so does not delete.

The folder's name has a digest of everything that the job depends on, so other settings or other code start from the
beginning.  A lock keeps a second job out of the folder.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ponderttt.errors import CorruptFileError
from ponderttt.files.atomic import digest, full_disk_named
from ponderttt.files.locks import lock


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence orbax, which logs a traceback from each thread before it raises."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


class Checkpoints:
    """The checkpoints of one job; a context manager that holds the job's lock.

    Args:
        root: folder of all checkpoints.
        name: readable name of the job's result.
        settings: everything that the result depends on (configuration, digests of inputs and code).

    Raises:
        PonderTTTError: another process holds the lock.
    """

    def __init__(self, root: Path | str, name: str, settings: Mapping[str, Any]) -> None:
        self.folder = (Path(root) / f"{name}-{digest(settings)[:16]}").resolve()
        self._lock: TextIO | None = None
        self._manager: Any = None

    def __enter__(self) -> Checkpoints:
        import orbax.checkpoint as ocp

        message = f"{self.folder}: another job is writing this result; wait for it to end, or stop it, and run again"
        self._lock = lock(self.folder / "lock", message)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.folder / "steps", options=options)
        return self

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            self._manager.close()
        if self._lock is not None:
            self._lock.close()

    def save(self, step: int, state: Any, log: list[dict[str, Any]]) -> None:
        """Write a pytree of arrays and the log so far, completely or not at all.

        Raises:
            PonderTTTError: the disk is full; earlier checkpoints are unchanged.
            ValueError: ``step`` is not after the newest checkpoint.
        """
        import orbax.checkpoint as ocp

        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state), log=ocp.args.JsonSave({"lines": log})
        )
        with full_disk_named(self.folder, "earlier checkpoints are kept"), _quiet():
            saved = self._manager.save(step, args=arguments)
        if not saved:
            raise ValueError(f"step {step} is not after the newest checkpoint, {self._manager.latest_step()}")

    def restore(self, like: Any) -> tuple[int, Any, list[dict[str, Any]]] | None:
        """Return the newest checkpoint (step, state, log), or None if there is none.

        Args:
            like: a pytree with the structure, shapes and dtypes of the state.

        Raises:
            CorruptFileError: the checkpoint is damaged, or its leaves or shapes differ from those of ``like``.
        """
        import orbax.checkpoint as ocp

        step = self._manager.latest_step()
        if step is None:
            return None
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(like), log=ocp.args.JsonRestore())
        try:
            with _quiet():
                restored = self._manager.restore(step, args=arguments)
        except Exception as error:  # orbax raises many types for a damaged or different checkpoint
            reason = " ".join(str(error).split())[:160]
            raise CorruptFileError(
                f"{self.folder}: its checkpoint of step {step} does not fit or is damaged ({reason}). "
                "Delete this folder and run the same command again."
            ) from error
        return step, restored["state"], restored["log"]["lines"]


@contextlib.contextmanager
def checkpoints_of(root: Path | str, name: str, settings: Mapping[str, Any]) -> Iterator[Checkpoints]:
    """Open the checkpoints of a job; remove them when the block that writes its outputs succeeds.

    Checkpoints of the same job with other settings are removed too, since no job will resume from them.
    """
    with Checkpoints(root, name, settings) as checkpoints:
        yield checkpoints
    for folder in Path(root).glob(f"{name}-" + "[0-9a-f]" * 16):
        shutil.rmtree(folder, ignore_errors=True)
