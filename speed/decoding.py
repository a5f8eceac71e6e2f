"""Decoded tokens per second: this package against transformers' ``generate`` with its cache, on this machine.

    python speed/decoding.py [--model gemma3-270m] [--dtype bfloat16] [--rounds 5] [--prompt 256] [--tokens 64]

Same weights, same prompts, greedy, same dtype, the same number of threads, rounds of both taken in turn.  Seconds are
those of all tokens after the first, so that reading the prompt does not count.  ``--memory`` measures the peak memory of
each in a process of its own instead, with the model from a safetensors folder.  Needs torch (the extra ``parity``).
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from peak import peak_memory
from setting import parser, read

from ponderttt.decoding.generate import Generator
from ponderttt.decoding.sampling import Sampling
from ponderttt.models.backbone import Backbone, make_backbone
from ponderttt.models.config_json import read_shape
from ponderttt.models.presets import preset
from ponderttt.models.safetensors_file import read_folder, write_folder
from ponderttt.models.tensors import assemble, random_tensors

BATCHES = (1, 16)
#: Decodes a number of tokens after prompts [B, T]; returns them and the seconds of all but the first.
Decode = Callable[[np.ndarray, int], tuple[list[list[int]], float]]


@dataclass(frozen=True)
class Row:
    """Result of one batch: tokens per second of each in its best round, and the median ratio of speeds."""

    batch: int
    ponderttt_tokens_per_second: float
    transformers_tokens_per_second: float
    speed_ratio: float
    same_tokens: float


def own(backbone: Backbone, clock: Callable[[], float] = time.perf_counter) -> Decode:
    """Return a decoder of this package."""
    generator = Generator(backbone)

    def decode(prompts: np.ndarray, tokens: int) -> tuple[list[list[int]], float]:
        found: list[list[int]] = [[] for _ in prompts]
        begin = 0.0
        for token in generator.tokens(prompts.tolist(), [Sampling()] * len(prompts), tokens):
            begin = begin or clock()
            found[token.row].append(token.token)
        return found, clock() - begin

    return decode


def own_of_folder(folder: Path) -> tuple[int, Decode]:
    """Return the bytes before anything is loaded, and a decoder of this package with a model from a file."""
    jax.block_until_ready(jax.numpy.zeros(1))
    imports = peak_memory()
    return imports, own(make_backbone(assemble(read_folder(folder))))


def theirs_of_folder(folder: Path) -> tuple[int, Decode]:
    """Do what :func:`own_of_folder` does with transformers, in a process that holds no other copy of the model."""
    import torch
    from transformers import AutoModelForCausalLM

    imports = peak_memory()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return imports, theirs(model, read_shape(folder).front)


def theirs(model: Any, front: Sequence[int], clock: Callable[[], float] = time.perf_counter) -> Decode:
    """Return a decoder of transformers; its first token is timed by decoding that token alone."""
    import torch

    def decode(prompts: np.ndarray, tokens: int) -> tuple[list[list[int]], float]:
        whole = np.concatenate([np.tile(front, (len(prompts), 1)), prompts], 1).astype(np.int64)
        ids = torch.from_numpy(whole)
        seconds = []
        with torch.inference_mode():
            for count in (1, tokens):
                begin = clock()
                out = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=count,
                    min_new_tokens=count,
                    do_sample=False,
                )
                seconds.append(clock() - begin)
        return out[:, ids.shape[1] :].tolist(), seconds[1] - seconds[0]

    return decode


def compare(ours: Decode, other: Decode, prompts: np.ndarray, tokens: int, rounds: int) -> Row:
    """Time both in turn; the first round compiles and does not count."""
    seconds: list[list[float]] = [[], []]
    answers: list[list[list[int]]] = [[], []]
    for number in range(rounds + 1):
        for index, decode in enumerate((ours, other)):
            answers[index], taken = decode(prompts, tokens)
            if number:
                seconds[index].append(taken)
    decoded = len(prompts) * (tokens - 1)
    same = np.mean(np.asarray(answers[0]) == np.asarray(answers[1]))
    return Row(
        len(prompts),
        decoded / min(seconds[0]),
        decoded / min(seconds[1]),
        statistics.median(b / a for a, b in zip(*seconds, strict=True)),
        float(same),
    )


def main() -> None:
    """Print a table, and write JSON with ``--json``."""
    options = parser(__doc__.splitlines()[0], 5)
    options.add_argument("--prompt", type=int, default=256, help="tokens of a prompt")
    options.add_argument("--tokens", type=int, default=64, help="tokens to decode")
    options.add_argument("--memory", nargs="*", help="memory instead of speed")
    options.add_argument("--folder", help="of a process whose memory is measured")
    given, setting = read(options)

    def prompts(batch: int) -> np.ndarray:
        return np.random.default_rng(batch).integers(3, 40_000, (batch, given.prompt))

    if given.memory is not None and not given.folder:
        shape = preset(given.model)
        with tempfile.TemporaryDirectory() as folder:
            arrays = random_tensors(shape, jax.random.key(0))
            write_folder(Path(folder), shape, arrays.__getitem__, "{}")
            del arrays
            for case in itertools.product(("ponderttt", "transformers"), map(str, BATCHES)):
                options_of_case = ["--memory", *case, "--folder", folder]
                subprocess.run([sys.executable, *sys.argv, *options_of_case], check=True)
        return
    if given.memory:
        who, batch = given.memory[0], int(given.memory[1])
        load = own_of_folder if who == "ponderttt" else theirs_of_folder
        imports, decode = load(Path(given.folder))
        decode(prompts(batch), given.tokens)
        peak = peak_memory()
        print(
            f"{who:12s} batch {batch:2d}: {peak / 1e9:.2f} GB at its peak, {(peak - imports) / 1e9:.2f} besides imports",
            flush=True,
        )
        return
    import torch
    from reference import reference

    torch.set_num_threads(setting.threads)
    backbone = setting.backbone()
    ours, other = (
        own(backbone, setting.clock),
        theirs(reference(backbone, setting.dtype), backbone.config.front, setting.clock),
    )
    print(f"{setting.heading}, {setting.clock_name} clock, {given.prompt} + {given.tokens} tokens, greedy")
    print("batch   tokens/s                   median speed   same")
    print("        ponderttt   transformers   ratio          tokens")
    rows = []
    for batch in BATCHES:
        row = compare(ours, other, prompts(batch), given.tokens, setting.rounds)
        rows.append(row)
        print(
            f"{row.batch:5d}   {row.ponderttt_tokens_per_second:<9.1f}   {row.transformers_tokens_per_second:<12.1f}   "
            f"{row.speed_ratio:<12.2f}   {row.same_tokens:.0%}",
            flush=True,
        )
    setting.write(rows, torch=str(torch.__version__))


if __name__ == "__main__":
    main()
