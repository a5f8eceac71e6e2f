"""The frame of every job: log, lock, threads, progress, one-line errors."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ponderttt.errors import PonderTTTError
from ponderttt.files.locks import lock
from ponderttt.workflow.devices import devices, ignore_variables

#: Seconds between two writes of a job's progress.
PROGRESS_SECONDS = 1.0
PROGRESS_SUFFIX = ".progress"
#: Start of the line that ends a failed job, and the rest of it after an interrupt.
PREFIX, INTERRUPTED = "ponderttt: ", "interrupted; run the same command again to continue"


class Progress:
    """Progress of a job, in a small file next to its log that the workflow's display reads."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, 0.0

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Report that ``done`` of ``total`` parts are finished; ``what`` names the part."""
        now = time.monotonic()
        if done < total and now - self._last < PROGRESS_SECONDS:
            return
        self._last = now
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"done": done, "total": total, "what": what}), encoding="utf-8")
        temporary.replace(self._path)

    def clear(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def job(log: str, threads: int) -> Iterator[Progress]:
    """Run a job: everything that it prints goes to ``log``, and only one job writes a result at a time.

    A :class:`PonderTTTError` is one line in the log and on standard error; anything else leaves its traceback in
    the log and one line on standard error.  Both end the process with status 1.

    Args:
        log: path of the log file.
        threads: processor threads that numeric libraries may use; set before they are imported.
    """
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w", encoding="locale", errors="backslashreplace")
    progress = Progress(path.with_name(path.name + PROGRESS_SUFFIX))
    try:
        with (
            lock(
                path.with_name(f".{path.name}.lock"),
                f"{path}: another process is still making this result; wait for it to end, or stop it, and run again",
            ),
            path.open("w", encoding="utf-8") as written,
        ):
            _limit_threads(threads)
            # Descriptors, not sys.stdout: compiled libraries write warnings too.
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(written.fileno(), 1)
            os.dup2(written.fileno(), 2)
            for line in ignore_variables():
                print(f"note: {line}")
            try:
                yield progress
            except PonderTTTError as error:
                _fail(f"{error}", terminal)
            except KeyboardInterrupt:
                _fail(INTERRUPTED, terminal)
            except Exception as error:
                traceback.print_exc()
                text = " ".join(f"{type(error).__name__}: {error}".split())
                _fail(f"unexpected {text[:300]} (traceback in {log})", terminal)
            finally:
                progress.clear()
    except PonderTTTError as error:
        terminal.write(f"{PREFIX}{error}\n")
        terminal.close()
        sys.exit(1)


def _fail(line: str, terminal: Any) -> None:
    message = f"{PREFIX}{line}\n"
    sys.stderr.write(message)
    sys.stderr.flush()
    terminal.write(message)
    terminal.close()
    sys.exit(1)


def _limit_threads(threads: int) -> None:
    # XLA's CPU client takes the size of its thread pool from NPROC; the others are for numpy's libraries.
    for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def compilation_cache(folder: Path | str) -> None:
    """Let JAX keep compiled programs in a folder that all jobs on this machine share.

    Raises:
        PonderTTTError: JAX finds no device.
    """
    import jax

    devices()
    jax.config.update("jax_compilation_cache_dir", str(Path(folder).resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
