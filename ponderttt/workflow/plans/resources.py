"""Threads, memory and time of every job, in one table by stage and, where it matters, by kind of fast weights.

``set-threads`` and ``set-resources`` of a profile may name a stage (``arms``), a kind (``arms_lora``) or a rule
(``arms_lora_rank_64``); the most specific entry wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ponderttt.names import FastWeightsName
from ponderttt.settings.experiment import Experiment

T = TypeVar("T")

#: Width of hidden states in estimates of memory; streams and chunks of a corpus without limits.
WIDTH, STREAMS, CHUNKS = 1024, 64, 64


@dataclass(frozen=True)
class Need:
    """Needs of one job.

    Attributes:
        cores: ``all`` for jobs whose seconds are reported, so that no other job slows them; ``half`` for jobs that run two at
            a time, one compiling while the other computes; ``one`` for the rest.
        cluster_threads: threads of a job that is submitted to a cluster.
        mem_mb: memory besides hidden states.
        seconds: time on two slow cores, besides the time per chunk.
        seconds_per_chunk: time per chunk of the corpus.
        states: whether it holds the hidden states of its corpus.
        accelerated: whether it takes an accelerator if there is one.
    """

    cores: Literal["all", "half", "one"]
    cluster_threads: int
    mem_mb: int
    seconds: float = 0.0
    seconds_per_chunk: float = 0.0
    states: bool = False
    accelerated: bool = False


def _heavy(
    threads: int, mem_mb: int, seconds_per_chunk: float, cores: Literal["all", "half"] = "all"
) -> Need:
    return Need(cores, threads, mem_mb, 0.0, seconds_per_chunk, states=True, accelerated=True)


def _light(mem_mb: int, seconds: float = 0.0, seconds_per_chunk: float = 0.0) -> Need:
    return Need("one", 1, mem_mb, seconds, seconds_per_chunk)


#: Stage, or stage and kind, → what a job needs.
NEEDS: Mapping[str, Need] = {
    "model": _light(4000, seconds=300),
    "shards": _light(3000, seconds=600),
    "select": _light(2000, seconds=6 * 3600),
    "contents": _light(3000, seconds=6 * 3600),
    "merge": _light(3000, seconds=3 * 3600),
    "chunks": _light(3000, seconds_per_chunk=0.2),
    "control_chunks": _light(2000, seconds=60),
    "mixed_chunks": _light(2000, seconds=60),
    "hidden": _heavy(8, 4000, 3),
    "train": _heavy(8, 4000, 2),
    "calibrate": _heavy(8, 4000, 1),
    "policy": _heavy(4, 3000, 20, cores="half"),
    "plain": _heavy(2, 2000, 0.1),
    "arms": _heavy(8, 4000, 15),
    "arms_suffix": _heavy(8, 6000, 25),
    "controls": _heavy(8, 4000, 15),
    "sequences": _heavy(8, 4000, 60),
    "sequences_memory": _heavy(8, 4000, 2),
    "controls_suffix": _heavy(8, 6000, 25),
    "table": _light(2000, seconds=60),
    "drops": _light(1000, seconds=60),
    "figures": _light(2000, seconds=60),
    "effective_config": _light(1000, seconds=60),
}


def need(stage: str, kind: str | None = None) -> Need:
    """Return what a job of a stage needs, for a kind of fast weights if the table has it."""
    return NEEDS.get(f"{stage}_{kind}", NEEDS[stage])


def threads(needed: Need, cores: int | None, cluster: bool) -> int:
    """Return a job's threads; the cores of a machine that submits to a cluster say nothing about its nodes."""
    if cluster:
        return needed.cluster_threads
    cores = cores or 1
    return {"all": cores, "half": max(1, cores // 2), "one": 1}[needed.cores]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a study's jobs."""

    experiment: Experiment

    def chunks(self, corpus: str) -> int:
        """Return the largest number of chunks that a corpus may have."""
        config = self.experiment.corpora[corpus]
        streams = config.max_streams or len(config.only) or STREAMS
        return streams * (config.chunks_per_stream or CHUNKS)

    def mem_mb(self, needed: Need, corpus: str | None = None, logits_gb: float = 0.0) -> int:
        """Return the memory of a job; ``logits_gb`` is what it may keep of frozen logits."""
        states = 0
        if needed.states and corpus is not None:
            states = self.chunks(corpus) * self.experiment.chunk_size * WIDTH * 4 // 2**20
        return needed.mem_mb + int(1000 * logits_gb) + states

    def minutes(self, needed: Need, corpus: str | None = None, repeats: int = 1) -> int:
        """Return the time limit of a job: four times what two slow cores take, at least a quarter of an hour."""
        chunks = 0 if corpus is None else self.chunks(corpus)
        return max(15, round(4 * (needed.seconds + needed.seconds_per_chunk * chunks * repeats) / 60))


def rule_name(stage: str, fast_weights: FastWeightsName) -> str:
    """Return the name of a generated rule, such as ``arms_lora_rank_64`` or ``controls_memory``."""
    return f"{stage}_{fast_weights}".replace("-", "_").replace("+", "_")


def spread(
    given: Mapping[str, T],
    rules: Iterable[tuple[str, FastWeightsName]],
    join: Callable[[T, T], T] = lambda general, specific: specific,
) -> dict[str, T]:
    """Give generated rules the overrides of their stage and kind.

    Args:
        given: rule, stage or kind → override.
        rules: stage and fast weights of each generated rule.
        join: joins a general override with a more specific one.
    """
    found: dict[str, Any] = dict(given)
    for stage, fast_weights in rules:
        rule = rule_name(stage, fast_weights)
        for key in dict.fromkeys((f"{stage}_{fast_weights.kind}", stage)):
            if key in given and key != rule:
                found[rule] = join(given[key], found[rule]) if rule in found else given[key]
    return found
