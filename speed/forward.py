"""Tokens per second of the frozen forward pass: this package against transformers + torch, on this machine.

    python speed/forward.py [--model gemma3-270m] [--model-dir data/models/smollm2-135m] [--dtype bfloat16] [--rounds 9] [--json forward.json]

Same weights, same tokens, same number of threads, same dtype, rounds of both taken in turn so that whatever else the
machine does falls on both.  A case is the final hidden states of `batch` rows of `length` tokens.  The peak is the
best matrix product among the shapes of the model in that dtype, by either library.  Needs torch (the extra ``parity``).

On a busy machine, ``--threads 1 --clock cpu`` measures the CPU time of one thread instead, which others do not change.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from setting import Setting, parse

from ponderttt.models.backbone import Backbone
from ponderttt.models.families import family_of, reading_flops
from ponderttt.models.families.family import Shape

#: rows, tokens per row, positions kept: a chunk; a batch of chunks; a chunk with one chunk of context.
CASES = ((1, 512, 512), (4, 512, 512), (1, 1024, 512))


@dataclass(frozen=True)
class Row:
    """Result of one case: best and median seconds of each, their ratio, and the best one's share of peak FLOP/s."""

    batch: int
    length: int
    keep_last: int
    ponderttt_first_call_seconds: float
    ponderttt_seconds: float
    ponderttt_median_seconds: float
    torch_seconds: float
    torch_median_seconds: float
    ponderttt_tokens_per_second: float
    torch_tokens_per_second: float
    speed_ratio: float
    ponderttt_share_of_peak: float
    torch_share_of_peak: float
    largest_difference: float


def best_of(run: Callable[[], Any], clock: Callable[[], float], repeats: int = 30) -> float:
    """Return the least seconds of several calls, after one that does not count."""
    run()
    seconds = []
    for _ in range(repeats):
        start = clock()
        run()
        seconds.append(clock() - start)
    return min(seconds)


def matrix_product_peak(config: Shape, dtype: str, clock: Callable[[], float]) -> float:
    """Measure the best FLOP/s of the model's own matrix products on 512 tokens, by either library."""
    import torch

    product = jax.jit(lambda a, b: jnp.einsum("TD,FD->TF", a, b, preferred_element_type=jnp.float32))
    best = 0.0
    for shape in family_of(config).block_shapes(config).values():
        if len(shape) != 2:
            continue
        a, b = (np.random.default_rng(0).standard_normal((n, shape[1]), np.float32) for n in (512, shape[0]))
        ours = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
        theirs = tuple(torch.from_numpy(array).to(getattr(torch, dtype)) for array in (a, b))
        flops = 2 * 512 * shape[0] * shape[1]
        for run in (
            lambda ours=ours: product(*ours).block_until_ready(),
            lambda theirs=theirs: torch.nn.functional.linear(*theirs),
        ):
            best = max(best, flops / best_of(run, clock))
    return best


def compare(
    backbone: Backbone,
    model: Any,
    case: tuple[int, int, int],
    setting: Setting,
) -> Row:
    """Time one case, rounds of both in turn."""
    import torch

    clock = setting.clock
    batch, length, keep = case
    tokens = np.random.default_rng(0).integers(0, backbone.config.vocab_size, (batch, length))
    own_tokens, torch_tokens = jnp.asarray(tokens), torch.from_numpy(tokens)

    def own() -> np.ndarray:
        return np.asarray(backbone.hidden(own_tokens, keep))

    def theirs() -> np.ndarray:
        with torch.inference_mode():
            return model(torch_tokens, use_cache=False).last_hidden_state[:, -keep:].float().numpy()

    start = clock()
    found = own()
    first = clock() - start
    difference = float(np.abs(found - theirs()).max())
    own_seconds: list[float] = []
    torch_seconds: list[float] = []
    for _ in range(setting.rounds):
        for run, seconds in ((own, own_seconds), (theirs, torch_seconds)):
            start = clock()
            run()
            seconds.append(clock() - start)
    peak = matrix_product_peak(backbone.config, setting.dtype, clock)
    flops = batch * reading_flops(backbone.config, length)
    return Row(
        batch=batch,
        length=length,
        keep_last=keep,
        ponderttt_first_call_seconds=first,
        ponderttt_seconds=min(own_seconds),
        ponderttt_median_seconds=statistics.median(own_seconds),
        torch_seconds=min(torch_seconds),
        torch_median_seconds=statistics.median(torch_seconds),
        ponderttt_tokens_per_second=batch * length / min(own_seconds),
        torch_tokens_per_second=batch * length / min(torch_seconds),
        speed_ratio=statistics.median(t / o for t, o in zip(torch_seconds, own_seconds, strict=True)),
        ponderttt_share_of_peak=flops / min(own_seconds) / peak,
        torch_share_of_peak=flops / min(torch_seconds) / peak,
        largest_difference=difference,
    )


def main() -> None:
    """Print a table, and write JSON with ``--json``."""
    setting = parse(__doc__.splitlines()[0], 9)
    import torch
    from reference import reference

    torch.set_num_threads(setting.threads)
    backbone = setting.backbone()
    model = reference(backbone, setting.dtype).base_model
    print(f"{setting.heading}, {setting.clock_name} clock; seconds are the best of {setting.rounds} rounds")
    print(
        "batch length kept   ponderttt  torch    tokens/s          median speed   share of peak      largest"
    )
    print(
        "                    s          s        ponderttt  torch  ratio          ponderttt  torch   difference"
    )
    rows = []
    for case in CASES:
        row = compare(backbone, model, case, setting)
        rows.append(row)
        print(
            f"{row.batch:5d} {row.length:6d} {row.keep_last:4d}   {row.ponderttt_seconds:<9.3f}  {row.torch_seconds:<7.3f}  "
            f"{row.ponderttt_tokens_per_second:<9.0f}  {row.torch_tokens_per_second:<5.0f}  {row.speed_ratio:<13.2f}  "
            f"{row.ponderttt_share_of_peak:<9.0%}  {row.torch_share_of_peak:<6.0%}  {row.largest_difference:.1e}",
            flush=True,
        )
    setting.write(rows, torch=str(torch.__version__))


if __name__ == "__main__":
    main()
