"""The display of a run: one line when a job ends, progress of the running job, time left.

The Snakefile starts it; Snakemake's own messages still go to its log file in ``.snakemake/log``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from ponderttt.settings.experiment import Experiment

#: Mean seconds of a unit of work of each rule in one run of the default study on 2 cores: the first guess, until a job of the
#: rule has ended.  A unit is a chunk for rules that read a corpus (:data:`BY_CHUNK`), and a job for others.
TYPICAL_SECONDS: Mapping[str, float] = {
    "model": 15,
    "shards": 11,
    "chunks": 0.03,
    "hidden": 2.0,
    "train": 0.35,
    "calibrate": 0.3,
    # Not in that study: a policy of a memory, with another policy at the same time.
    "policy": 1.6,
    "arms_ttt": 1.1,
    "arms_lora": 2.6,
    "arms_suffix": 4.6,
    "arms_memory": 0.4,
    "controls_ttt": 1.1,
    "controls_lora": 2.6,
    "controls_suffix": 4.6,
    "controls_memory": 0.7,
    "sequences_memory": 0.2,
    "plain": 0.02,
    "table": 12,
    "figures": 10,
}
BY_CHUNK = frozenset(TYPICAL_SECONDS) - {"model", "shards", "table", "figures"}
QUICK_SECONDS = 2.0
#: Seconds between two lines of progress in a log file, and between two refreshes of a terminal's last line.
LINE_SECONDS, REFRESH_SECONDS = 20.0, 1.0


def in_words(seconds: float) -> str:
    """Return a duration in words: ``40 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass
class Running:
    """A job that has started."""

    rule: str
    label: str
    log: str | None
    started: float
    #: Units of work.
    work: float = 1.0

    def progress(self) -> tuple[float, str]:
        """Return the share that is done, 0 if unknown, and the progress in words."""
        if self.log is None:
            return 0.0, ""
        with contextlib.suppress(OSError, ValueError, KeyError, ZeroDivisionError):
            found = json.loads(Path(f"{self.log}.progress").read_text(encoding="utf-8"))
            words = f"{found['done']} of {found['total']}"
            return found["done"] / found["total"], f"{words} ({found['what']})" if found["what"] else words
        return 0.0, ""


def typical_seconds(rule: str) -> float:
    """Return the seconds of a unit of a rule's work; variants, and fast weights on a context, take as long as their kind."""
    kind = _kind(rule)
    return QUICK_SECONDS if kind is None else TYPICAL_SECONDS[kind]


def _kind(rule: str) -> str | None:
    known = [name for name in TYPICAL_SECONDS if rule == name or rule.startswith(f"{name}_")]
    return max(known, key=len, default=None)


def work_of(experiment: Experiment, rule: str, wildcards: Mapping[str, str]) -> float:
    """Return the units of work of a job: the chunks that it reads at most, or 1."""
    if _kind(rule) not in BY_CHUNK:
        return 1.0
    grid = experiment.grid
    name = wildcards.get("corpus", grid.train_corpus if rule == "train" else grid.deciding_corpus)
    corpus = experiment.corpora[name]
    work = float((corpus.max_streams or 1) * (corpus.chunks_per_stream or 1))
    return work * experiment.training.epochs if rule == "train" else work


@dataclass
class Estimate:
    """Estimate of the time left, from the time of each rule so far."""

    #: Rule → work of the jobs that have not ended.
    left: dict[str, float]
    #: Rule → work and seconds of the jobs that have ended.
    done: dict[str, tuple[float, float]] = field(default_factory=dict)

    def ended(self, rule: str, seconds: float, work: float = 1.0) -> None:
        """Count a job that has ended after so many seconds."""
        self.dropped(rule, work)
        before, spent = self.done.get(rule, (0.0, 0.0))
        self.done[rule] = (before + work, spent + seconds)

    def dropped(self, rule: str, work: float) -> None:
        """Count a job that has failed."""
        self.left[rule] = max(0.0, self.left.get(rule, 0.0) - work)

    def of_rule(self, rule: str) -> float:
        """Return the expected seconds of a unit of a rule's work."""
        if rule in self.done:
            work, seconds = self.done[rule]
            return seconds / work
        return self._pace() * typical_seconds(rule)

    def _pace(self) -> float:
        """The ratio of measured to typical seconds of all jobs that have ended; 1 at the start."""
        typical = sum(work * typical_seconds(rule) for rule, (work, _) in self.done.items())
        return sum(seconds for _, seconds in self.done.values()) / typical if typical else 1.0

    def remaining(self, running: Sequence[Running], now: float) -> float:
        """Return the seconds until all jobs are done, if as many jobs run at a time as now."""
        total = sum(work * self.of_rule(rule) for rule, work in self.left.items())
        for job in running:
            expected, spent = job.work * self.of_rule(job.rule), now - job.started
            share, _ = job.progress()
            rest = spent * (1 - share) / share if share > 0.05 else max(expected - spent, 0.05 * expected)
            total += rest - expected
        return max(total, 0.0) / max(1, len(running))


class Display(logging.Handler):
    """Handler that turns Snakemake's events into a few readable lines."""

    def __init__(
        self,
        jobs: Sequence[tuple[str, Mapping[str, str]]],
        work: Callable[[str, Mapping[str, str]], float] = lambda rule, wildcards: 1.0,
        stream: TextIO = sys.stderr,
    ) -> None:
        """Start to display.

        Args:
            jobs: rule and wildcards of each job to run.
            work: the units of work of a job.
            stream: where lines go.
        """
        super().__init__(logging.INFO)
        self._stream, self._terminal, self._work = stream, stream.isatty(), work
        self._estimate = Estimate({})
        for rule, wildcards in jobs:
            self._estimate.left[rule] = self._estimate.left.get(rule, 0.0) + work(rule, wildcards)
        self._total, self._done, self._failed = len(jobs), 0, 0
        self._running: dict[int, Running] = {}
        self._shown = time.monotonic()
        self._writing = threading.RLock()
        self._closed = threading.Event()
        threading.Thread(target=self._tick, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Handle one event of Snakemake; see ``snakemake_interface_logger_plugins.common.LogEvent``."""
        event = str(getattr(record, "event", None) or "")
        with self._writing:
            if event == "job_info":
                self._job_started(record.__dict__)
            elif event == "job_finished":
                self._job_ended(record.__dict__.get("job_id", -1))
            elif event == "job_error":
                self._job_failed(record.__dict__)
            elif (event == "error" and "CalledProcessError" not in record.getMessage()) or (
                not event and record.levelno >= logging.WARNING
            ):
                self._line(record.getMessage().strip())

    def close(self) -> None:
        """Stop refreshing and clear the last line of the terminal."""
        self._closed.set()
        with self._writing, contextlib.suppress(ValueError, OSError):
            self._clear()
        super().close()

    def _job_started(self, job: Mapping[str, Any]) -> None:
        logs = job["log"] or []
        wildcards = " ".join(str(value) for value in job["wildcards"].values())
        label = f"{job['rule_name'].removeprefix('arms_')} {wildcards}".strip()
        if job["rule_name"].startswith("arms_"):
            label = f"arms {label}"
        rule, log = job["rule_name"], logs[0] if logs else None
        running = Running(rule, label, log, time.monotonic(), self._work(rule, job["wildcards"]))
        self._running[job["jobid"]] = running

    def _job_ended(self, number: int) -> None:
        job = self._running.pop(number, None)
        if job is None:
            return
        self._done += 1
        spent = time.monotonic() - job.started
        self._estimate.ended(job.rule, spent, job.work)
        if job.rule != "all":
            self._line(f"{self._count()} {job.label}: done in {in_words(spent)}{self._left()}")

    def _job_failed(self, job: Mapping[str, Any]) -> None:
        running = self._running.pop(job["jobid"], None)
        # Snakemake repeats its failures at the end.
        if running is None:
            return
        self._failed += 1
        self._estimate.dropped(running.rule, running.work)
        where = f"; log: {running.log}" if running.log else ""
        self._line(f"{self._count()} {running.label}: FAILED{where}")

    def _tick(self) -> None:
        pause = REFRESH_SECONDS if self._terminal else LINE_SECONDS
        while not self._closed.wait(pause):
            with self._writing:
                busy = [job for job in self._running.values() if job.rule != "all"]
                if not busy or (not self._terminal and time.monotonic() - self._shown < LINE_SECONDS):
                    continue
                # If several jobs run, show the one that has run longest.
                words = busy[0].progress()[1]
                more = f" and {len(busy) - 1} more" if len(busy) > 1 else ""
                text = f"{self._count()} {busy[0].label}{': ' + words if words else ''}{more}{self._left()}"
                if self._terminal:
                    self._clear()
                    self._stream.write(text[: _columns(self._stream) - 1])
                    self._stream.flush()
                else:
                    self._line(text)

    def _count(self) -> str:
        return f"[{self._done}/{self._total}]"

    def _left(self) -> str:
        rest = self._estimate.remaining(list(self._running.values()), time.monotonic())
        return (
            f", about {in_words(rest)} left" if self._done + self._failed < self._total and rest > 1 else ""
        )

    def _clear(self) -> None:
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _line(self, text: str) -> None:
        self._clear()
        self._stream.write(text + "\n")
        self._stream.flush()
        self._shown = time.monotonic()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 80


def show(workflow: Any, experiment: Experiment) -> None:
    """Replace Snakemake's own stream of messages by a :class:`Display`; ``PONDERTTT_PROGRESS=snakemake`` keeps it."""
    from snakemake.logging import logger

    if os.environ.get("PONDERTTT_PROGRESS") == "snakemake":
        return
    jobs = [(job.rule.name, dict(job.wildcards_dict)) for job in workflow.dag.needrun_jobs()]
    for handler in list(logger.handlers):
        if handler.name == "DefaultStreamHandler":
            logger.removeHandler(handler)
            logger.addHandler(Display(jobs, partial(work_of, experiment)))
