"""Memory and FLOPs that a frozen pass needs, lowered and compiled from shapes alone, without weights.

Bytes of parameters follow from shapes, precision and mesh.  Bytes of intermediate values are the compiler's analysis of
the partitioned program for virtual CPU devices.  Other compilers fuse differently, so an accelerator needs about as much,
not exactly as much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from ponderttt.costs import count_flops
from ponderttt.errors import PonderTTTError
from ponderttt.models.decoder import Decoder, default_split
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Shape
from ponderttt.models.losses import linear_cross_entropy
from ponderttt.models.presets import PRESETS
from ponderttt.models.quantised import BITS, Kind, Precision
from ponderttt.models.sharding import BATCH, batch_sharding, make_mesh, parameter_shardings

GIB = 1 << 30
#: A CPU multiplies bfloat16 as float32, and would convert the parameters of all blocks before the loop over blocks.
_AS_AN_ACCELERATOR: dict[str, str | bool] = {
    "xla_disable_hlo_passes": "while-loop-invariant-code-motion,while-loop-expensive-invariant-code-motion"
}


@dataclass(frozen=True)
class Plan:
    """What reading one chunk of every stream of a batch needs; bytes are per device unless stated otherwise.

    Attributes:
        parameters: numbers in the model.
        weight_bytes: parameters on all devices together, each counted once.
        device_weight_bytes: parameters on one device.
        activation_bytes: intermediate values of the compiled program.
        transfer_bytes: tokens in, losses out.
        cache_bytes: keys and values of one stream over a chunk in its context, for decoding.
        unstacked_bytes: a second copy of the blocks, one by one, which decoding reads.
        flops: FLOPs of one chunk of one stream.
        device_streams: streams that one device reads at once.
        quantised_bytes: parameters on one device if matrices are quantised to fewer bits than now.
    """

    parameters: int
    weight_bytes: float
    device_weight_bytes: float
    activation_bytes: float
    transfer_bytes: float
    cache_bytes: float
    unstacked_bytes: float
    flops: float
    device_streams: int = 1
    quantised_bytes: Mapping[Kind, float] = field(default_factory=dict)

    @property
    def peak_bytes(self) -> float:
        """Bytes that one device needs."""
        return self.device_weight_bytes + self.activation_bytes + self.transfer_bytes


def plan(
    shape: Shape,
    mesh_sizes: Mapping[str, int],
    precision: Precision,
    *,
    chunk_size: int = 512,
    context_chunks: int = 0,
    batch: int = 1,
) -> Plan:
    """Lower and compile the frozen pass of a model without its weights.

    Args:
        shape: shape of the model.
        mesh_sizes: devices along each axis of the mesh; they must exist.
        precision: precision of the computation and of the stored matrices.
        chunk_size: tokens per chunk.
        context_chunks: preceding chunks that are read with each chunk.
        batch: streams at once; a multiple of the devices that share them.

    Raises:
        PonderTTTError: there are too few devices, they cannot share the batch evenly, or a chunk is longer than the model's
            context.
    """
    from ponderttt.contexts import Context
    from ponderttt.frozen.reading import check_context
    from ponderttt.settings.context import ContextConfig

    context = Context("context" if context_chunks else "alone", context_chunks)
    check_context(shape, chunk_size, context, ContextConfig())
    sharing = math.prod(mesh_sizes[axis] for axis in BATCH)
    if batch % sharing:
        raise PonderTTTError(
            f"--batch must be a multiple of {sharing}, the number of devices that share the streams; got {batch}"
        )
    mesh = make_mesh(mesh_sizes)
    graph, params = nnx.split(nnx.eval_shape(lambda: _empty(shape, precision)))
    length = (context_chunks + 1) * chunk_size + (shape.bos_id is not None)
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    targets = jax.ShapeDtypeStruct((batch, chunk_size), jnp.int32)

    def read(params: Any, tokens: Array, targets: Array) -> Array:
        model = nnx.merge(graph, params)
        return linear_cross_entropy(model.hidden(tokens, chunk_size), model.unembedding_matrix(), targets)

    def device_bytes(params: Any, part: str = "") -> float:
        places = jax.tree.leaves(parameter_shardings(params, mesh))
        leaves = jax.tree.leaves_with_path(params)
        return sum(
            _bytes(place.shard_shape(leaf.shape), leaf.dtype)
            for (path, leaf), place in zip(leaves, places, strict=True)
            if part in jax.tree_util.keystr(path)
        )

    def quantised_bytes(kind: Kind) -> float:
        return device_bytes(
            nnx.state(nnx.eval_shape(lambda: _empty(shape, Precision(precision.dtype, kind))))
        )

    shardings = parameter_shardings(params, mesh)
    streams = batch_sharding(mesh)
    with jax.set_mesh(mesh):
        program = jax.jit(read, in_shardings=(shardings, streams, streams), out_shardings=streams)
        lowered = program.lower(params, tokens, targets)
        analysis: Any = lowered.compile(compiler_options=_AS_AN_ACCELERATOR).memory_analysis()
    moved = 4 * (tokens.size + 2 * targets.size) / sharing
    heads = 2 * shape.layers * shape.kv_heads * shape.head_dim
    return Plan(
        parameters=parameter_count(shape),
        weight_bytes=sum(_bytes(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(params)),
        device_weight_bytes=device_bytes(params),
        activation_bytes=float(analysis.temp_size_in_bytes),
        transfer_bytes=moved,
        unstacked_bytes=device_bytes(params, "blocks_"),
        cache_bytes=heads * length * jnp.dtype(precision.dtype).itemsize,
        flops=count_flops(read, params, tokens, targets) / batch,
        device_streams=batch // sharing,
        quantised_bytes={
            kind: quantised_bytes(kind)
            for kind, bits in BITS.items()
            if precision.kind is None or bits < BITS[precision.kind]
        },
    )


def check_memory(found: Plan, device_bytes: float, name: str, how: str) -> None:
    """Raise PonderTTTError, with advice on what would fit, if a device has less memory than a plan needs."""
    if found.peak_bytes <= device_bytes:
        return
    raise PonderTTTError(
        f"{name} {how} needs {found.peak_bytes / GIB:.1f} GiB on each device, which has {device_bytes / GIB:.1f}; "
        f"{'; '.join(_advice(found, device_bytes))}"
    )


def _advice(found: Plan, device_bytes: float) -> list[str]:
    """Return what would fit, if all but the weights needs the same memory as now."""
    besides = found.peak_bytes - found.device_weight_bytes
    room = device_bytes - besides
    if room <= 0:
        fewer = (
            "read fewer streams at once, or shorter chunks"
            if found.device_streams > 1
            else "read shorter chunks"
        )
        return [f"{besides / GIB:.1f} GiB of that are not weights: {fewer}"]
    share = found.device_weight_bytes / found.weight_bytes
    quantised = [kind for kind, size in found.quantised_bytes.items() if size <= room]
    smaller = [other for other, shape in PRESETS.items() if 2 * parameter_count(shape) * share <= room]
    advice = [f"{math.ceil(found.weight_bytes / room)} devices hold it"]
    if quantised:
        advice.append(f"it fits with --quantize {quantised[0]}")
    if smaller:
        advice.append(f"in bfloat16 as it is: {', '.join(smaller)}")
    return advice


def parameter_count(shape: Shape) -> int:
    """Return the number of parameters of a model."""
    family = family_of(shape)
    blocks = sum(math.prod(size) for size in family.block_shapes(shape).values())
    outer = sum(math.prod(size) for size in family.outer_shapes(shape).values())
    return shape.layers * blocks + outer


def _empty(shape: Shape, precision: Precision) -> Decoder:
    family = family_of(shape)

    def blocks(layers: int) -> dict[str, Any]:
        return {
            name: precision.kept(name, jnp.zeros((layers, *size)), stacked=True)
            for name, size in family.block_shapes(shape).items()
        }

    outer = {
        name: precision.kept(name, jnp.zeros(size), stacked=False)
        for name, size in family.outer_shapes(shape).items()
    }
    split = default_split(shape.layers)
    return Decoder(shape, outer, blocks(split), blocks(shape.layers - split))


def _bytes(shape: tuple[int, ...], dtype: Any) -> float:
    """Return bytes on an accelerator, where an int4 takes half a byte; on a CPU it takes a whole one."""
    kind = jnp.dtype(dtype)
    return math.prod(shape) * (0.5 if kind == jnp.int4 else kind.itemsize)
