"""Shared parts of the speed comparisons of a backbone: options, cores and clock, the model, and writing results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from ponderttt.features.table import FROZEN
from ponderttt.files.code import run_metadata
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.models import weights
from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.presets import PRESETS, preset
from ponderttt.models.quantised import Precision

#: Speed does not depend on the values of the weights.
SMOLLM2_135M = preset("smollm2-135m")
TOKENS, WIDTH, VOCABULARY = 512, SMOLLM2_135M.width, SMOLLM2_135M.vocab_size


@dataclass(frozen=True)
class Setting:
    """Options of a speed comparison."""

    rounds: int
    threads: int
    clock_name: str
    model: str
    model_dir: str | None
    json: str | None
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def clock(self) -> Callable[[], float]:
        """Return wall-clock seconds, or seconds of this process on all its threads."""
        return time.perf_counter if self.clock_name == "wall" else time.process_time

    def backbone(self) -> Backbone:
        """Return the model of ``--model-dir``, or random weights of the preset's shape."""
        precision = Precision(self.dtype)
        if self.model_dir:
            return weights.open_backbone(self.model_dir, precision)
        return random_backbone(preset(self.model), jax.random.key(0), precision=precision)

    @property
    def heading(self) -> str:
        """Return what a table was measured with."""
        return f"{self.model_dir or self.model}: {processor()}, {self.threads} threads, {self.dtype}"

    def write(self, rows: Sequence[Any], **facts: Any) -> None:
        """Write the rows and their setting as JSON, with ``--json``."""
        if self.json:
            report = {
                "rows": [asdict(row) for row in rows],
                "threads": self.threads,
                "clock": self.clock_name,
                "dtype": self.dtype,
                "processor": processor(),
                **facts,
                "run": run_metadata(),
            }
            Path(self.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def processor() -> str:
    """Return the name of the processor, with the units that it has for bfloat16."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(re.findall(r"^(model name|flags)\s*:\s*(.*)$", text, re.MULTILINE))
    units = sorted({"avx512_bf16", "amx_bf16"} & set(facts.get("flags", "").split()))
    name = facts.get("model name", platform.machine())
    return f"{name} ({', '.join(units)})" if units else name


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the common options."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument(
        "--model", choices=PRESETS, default="smollm2-135m", help="a shape, with random weights"
    )
    options.add_argument("--model-dir", help="a converted model instead")
    options.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options.add_argument("--rounds", type=int, default=rounds)
    options.add_argument("--threads", type=int, help="as many cores as these; all by default")
    options.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options.add_argument("--json", help="write the results and the run's metadata to this file")
    return options


def read(options: argparse.ArgumentParser) -> tuple[argparse.Namespace, Setting]:
    """Parse the options and keep to the allowed cores, with one thread of JAX for each."""
    given = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    threads = given.threads or len(cores)
    os.sched_setaffinity(0, cores[-threads:])
    return given, Setting(
        given.rounds, threads, given.clock, given.model, given.model_dir, given.json, given.dtype
    )


def parse(description: str, rounds: int) -> Setting:
    """Parse the common options only, as :func:`read` does."""
    return read(parser(description, rounds))[1]


def random_stream(number: int, chunks: int) -> FrozenChunks:
    """Return random states, features and targets in the shapes of SmolLM2-135M, as the frozen pass writes them."""
    rng = np.random.default_rng(number)
    shape, ones = (chunks, TOKENS), np.ones(chunks)
    return FrozenChunks(
        stream_id=str(number),
        hidden=rng.normal(size=(*shape, WIDTH)).astype(np.float32),
        targets=rng.integers(0, VOCABULARY, shape, dtype=np.int32),
        mask=np.ones(shape, bool),
        entropy=rng.random(shape, dtype=np.float32),
        nll_frozen=rng.random(shape, dtype=np.float32),
        loss_frozen=ones,
        n_bytes=np.full(chunks, TOKENS),
        flops=0 * ones,
        seconds=0 * ones,
        suffix_flops=0 * ones,
        suffix_seconds=0 * ones,
        projection_flops=0 * ones,
        projection_seconds=0 * ones,
        feature_flops=0 * ones,
        feature_seconds=0 * ones,
        features=rng.normal(size=(chunks, len(FROZEN))),
    )
