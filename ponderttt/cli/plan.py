"""``ponderttt plan``: what a model's frozen pass needs on a mesh of devices, which need not be here."""

from __future__ import annotations

import math

from ponderttt.errors import PonderTTTError
from ponderttt.models.presets import preset
from ponderttt.models.quantised import Dtype, Kind, Precision
from ponderttt.models.sharding import AXES, BATCH, parse_mesh


def describe(
    name: str,
    mesh: str,
    dtype: Dtype,
    quantize: Kind | None,
    chunk_size: int,
    context_chunks: int,
    batch: int | None,
    memory_gib: float | None,
) -> list[str]:
    """Return the lines of a plan.

    Raises:
        PonderTTTError: an unknown preset or mesh, a chunk beyond the model's context, or a plan that needs more than
            ``memory_gib``.
    """
    import jax

    from ponderttt.frozen.plan import GIB, check_memory, plan

    shape, sizes = preset(name), parse_mesh(mesh)
    devices = math.prod(sizes.values())
    try:
        # Devices that exist in name only; JAX accepts their number only before it starts.
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError as error:
        raise PonderTTTError(f"plan needs a process of its own ({error})") from None
    streams = math.prod(sizes[axis] for axis in BATCH) if batch is None else batch
    precision = Precision(dtype, quantize)
    found = plan(
        shape,
        sizes,
        precision,
        chunk_size=chunk_size,
        context_chunks=context_chunks,
        batch=streams,
    )
    how = f"in {quantize or dtype} on {devices} device{'s' if devices > 1 else ''}"
    if memory_gib is not None:
        check_memory(found, memory_gib * GIB, name, how)
    axes = ", ".join(f"{axis} {sizes[axis]}" for axis in AXES)
    read = (context_chunks + 1) * chunk_size
    rows = [
        ("model", f"{name}: {found.parameters:,} parameters, {shape.layers} blocks, width {shape.width}"),
        (
            "mesh",
            f"{devices} device{'s' if devices > 1 else ''} ({axes}), {streams} stream{'s' if streams > 1 else ''}",
        ),
        ("precision", dtype if quantize is None else f"{quantize} matrices, computed in {dtype}"),
        ("weights", f"{_gb(found.weight_bytes)}, {_gb(found.device_weight_bytes)} per device"),
        (
            "activations",
            f"{_gb(found.activation_bytes)} per device while it reads {read} tokens of each stream",
        ),
        ("peak", f"{_gb(found.peak_bytes)} per device"),
        (
            "decoding",
            f"{_gb(found.unstacked_bytes)} more per device for unstacked blocks, and a cache of {_gb(found.cache_bytes)} per stream of {read} tokens",
        ),
        ("FLOPs", f"{found.flops / 1e12:.3f} T per chunk of one stream"),
    ]
    return [f"{title:<12} {text}" for title, text in rows]


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
