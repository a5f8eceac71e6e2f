"""What every job of the workflow does around its work: log, lock, threads, progress, one-line errors."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ponderttt.errors import PonderTTTError
from ponderttt.workflow.devices import devices, ignore_variables

#: Seconds between two writes of a job's progress.
PROGRESS_SECONDS = 1.0
PROGRESS_SUFFIX = ".progress"


class Progress:
    """How far a job is, in a small file beside its log that the workflow's display reads."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, 0.0

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """``done`` of ``total`` parts are finished; ``what`` names the part."""
        now = time.monotonic()
        if done < total and now - self._last < PROGRESS_SECONDS:
            return
        self._last = now
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"done": done, "total": total, "what": what}), encoding="utf-8")
        temporary.replace(self._path)

    def clear(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def job(log: str, threads: int) -> Iterator[Progress]:
    """Run a job: everything that it prints goes to ``log``, and only one job writes a result at a time.

    A :class:`PonderTTTError` is one line in the log and on standard error; anything else leaves its traceback in
    the log and one line on standard error.  Either ends the process with status 1.

    Args:
        log: path of the log file.
        threads: processor threads that numeric libraries may use; set before they are imported.
    """
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w", encoding="locale", errors="backslashreplace")
    progress = Progress(path.with_name(path.name + PROGRESS_SUFFIX))
    try:
        with _only_one(path), path.open("w", encoding="utf-8") as written:
            _limit_threads(threads)
            # Descriptors, not sys.stdout: compiled libraries write warnings too.
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(written.fileno(), 1)
            os.dup2(written.fileno(), 2)
            for line in ignore_variables():
                print(f"ponderttt: {line}")
            try:
                yield progress
            except PonderTTTError as error:
                _fail(f"{error}", terminal)
            except KeyboardInterrupt:
                _fail("interrupted; run the same command again to go on", terminal)
            except Exception as error:
                traceback.print_exc()
                text = " ".join(f"{type(error).__name__}: {error}".split())
                _fail(f"unexpected {text[:300]} (traceback in {log})", terminal)
            finally:
                progress.clear()
    except PonderTTTError as error:
        terminal.write(f"ponderttt: {error}\n")
        terminal.close()
        sys.exit(1)


def _fail(line: str, terminal: Any) -> None:
    message = f"ponderttt: {line}\n"
    sys.stderr.write(message)
    sys.stderr.flush()
    terminal.write(message)
    terminal.close()
    sys.exit(1)


@contextlib.contextmanager
def _only_one(log: Path) -> Iterator[None]:
    """Hold the job's lock.  A killed process leaves none, but one that outlived its controller still has it."""
    with log.with_name(f".{log.name}.lock").open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PonderTTTError(
                f"{log}: another process is still making this result; wait for it to end, or stop it, and run again"
            ) from None
        yield


def _limit_threads(threads: int) -> None:
    # XLA's CPU client takes the size of its thread pool from NPROC; the others are for numpy's libraries.
    for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def compilation_cache(folder: Path | str) -> None:
    """Let JAX keep compiled programs in ``folder``, shared by all jobs on this machine.

    Raises:
        PonderTTTError: JAX finds no device.
    """
    import jax

    devices()
    jax.config.update("jax_compilation_cache_dir", str(Path(folder).resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def counter(progress: Progress, what: str = "") -> Callable[..., None]:
    """``progress`` for callers that report (done, total, …)."""

    def report(done: int, total: int, *_: object) -> None:
        progress(done, total, what)

    return report
