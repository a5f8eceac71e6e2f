"""The blocks after the split layer as a function of explicit weights, for those who adapt them.

:class:`~ponderttt.models.backbone.Backbone` runs the same blocks with weights of its own.  Here they are an argument,
always float32, and a block can be left before its MLP down-projection, for another one to take its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.models import safetensors_file
from ponderttt.models.attention import causal_attention, rotary_angles, rotate
from ponderttt.models.backbone import Backbone
from ponderttt.models.llama import BLOCK_WEIGHTS, LlamaConfig, block_shapes, rms_norm
from ponderttt.models.tensors import FINAL_NORM, LazyTensor, stacked_parts
from ponderttt.models.weights import KIND
from ponderttt.provenance import read_manifest, sha256_file


class SuffixWeights(NamedTuple):
    """Frozen float32 weights of the L blocks after the split layer."""

    #: Name → stacked parameters ``[L, ...]``, see :func:`ponderttt.models.llama.block_shapes`.
    blocks: dict[str, Float[Array, "L ..."]]
    final_norm: Float[Array, " D"]

    @property
    def layers(self) -> int:
        """L."""
        return self.blocks["mlp_norm"].shape[0]

    def block(self, index: int) -> dict[str, Array]:
        """Parameters of one block, counted from the split layer."""
        return {name: stack[index] for name, stack in self.blocks.items()}


def suffix_weights(backbone: Backbone) -> SuffixWeights:
    """The blocks after the split layer of an open backbone."""
    model = nnx.merge(backbone.graph, backbone.params)
    blocks = {name: getattr(model.blocks_after, name)[...].astype(jnp.float32) for name in BLOCK_WEIGHTS}
    return SuffixWeights(blocks, model.final_norm[...].astype(jnp.float32))


def open_suffix(
    model_dir: Path | str, split_layer: int, rebuild: str = "run the conversion of the model again"
) -> tuple[LlamaConfig, SuffixWeights]:
    """Read only the blocks after ``split_layer`` from a converted model, after checking their file.

    Args:
        model_dir: folder of :func:`ponderttt.models.weights.convert`.
        split_layer: number of blocks before them.
        rebuild: the command that makes the folder again, for error messages.

    Raises:
        CorruptFileError: the manifest or the file is missing, or they differ.
        PonderTTTError: ``split_layer`` lies outside the model.
    """
    folder, shard = Path(model_dir), safetensors_file.BLOCKS_SHARD
    manifest = read_manifest(folder, KIND, rebuild, verify=False)
    if not (folder / shard).is_file() or sha256_file(folder / shard) != manifest["files"][shard]["sha256"]:
        raise CorruptFileError(
            f"{folder / shard}: missing, or its sha256 differs from its manifest. Rebuild it: {rebuild}"
        )
    config = LlamaConfig(**manifest["facts"]["config"])
    if not 0 <= split_layer <= config.layers:
        raise PonderTTTError(
            f"split_layer is {split_layer}; {folder} has {config.layers} blocks, so 0 to {config.layers}"
        )
    stored = {tensor.name: tensor for tensor in safetensors_file.read_file(folder / shard)}
    layers = config.layers - split_layer
    blocks = {
        name: jnp.asarray(_last(stored, stacked_parts(config, name), layers, config).reshape(layers, *shape))
        for name, shape in block_shapes(config).items()
    }
    return config, SuffixWeights(blocks, jnp.asarray(stored[FINAL_NORM].read()))


def _last(stored: Mapping[str, LazyTensor], names: list[str], layers: int, config: LlamaConfig) -> np.ndarray:
    """The parts of the last ``layers`` blocks of one stacked parameter, row after row; the parts of a block are fused."""
    kept = names[len(names) - layers * (len(names) // config.layers) :]
    return np.concatenate([stored[name].read() for name in kept]) if kept else np.zeros(0, np.float32)


def run_suffix(
    config: LlamaConfig,
    weights: SuffixWeights,
    split: Float[Array, "T D"],
    mask: Bool[Array, " T"],
) -> Float[Array, "T D"]:
    """All blocks and the final norm: what :meth:`ponderttt.models.llama.Llama.suffix` gives for one sequence.

    ``mask`` is False where the prefix read padding.
    """
    hidden = split.astype(jnp.float32)
    for index in range(weights.layers):
        hidden = run_block(config, weights.block(index), hidden, mask)
    return rms_norm(hidden, weights.final_norm, config.norm_eps)


def run_block(
    config: LlamaConfig, block: Mapping[str, Array], hidden: Float[Array, "T D"], mask: Bool[Array, " T"]
) -> Float[Array, "T D"]:
    """One whole block."""
    residual, inner = before_down_projection(config, block, hidden, mask)
    return residual + jnp.einsum("TF,DF->TD", inner, block["mlp_down"])


def before_down_projection(
    config: LlamaConfig,
    block: Mapping[str, Array],
    hidden: Float[Array, "T D"],
    mask: Bool[Array, " T"],
    positions: Int[Array, " S"] | None = None,
) -> tuple[Float[Array, "S D"], Float[Array, "S F"]]:
    """One block but for its MLP down-projection, at some positions (all by default).

    Each position attends to all positions up to itself.

    Returns:
        The residual stream that the projection will add to, and what it reads.
    """
    c, (length, _) = config, hidden.shape
    normed = rms_norm(hidden, block["attention_norm"], c.norm_eps)
    fused = jnp.einsum("TD,FD->TF", normed, block["query_key_value"])
    heads = fused.reshape(length, c.heads + 2 * c.kv_heads, c.head_dim)
    query, key, value = jnp.split(heads, [c.heads, c.heads + c.kv_heads], axis=1)
    angles = rotary_angles(length, c.head_dim, c.rope_base)
    read = causal_attention(rotate(query, angles), rotate(key, angles), value, mask).reshape(length, -1)
    if positions is not None:
        # Behind attention every position goes its own way, so the others need not go on.
        read, hidden = read[positions], hidden[positions]
    hidden = hidden + jnp.einsum("TF,DF->TD", read, block["attention_out"])
    normed = rms_norm(hidden, block["mlp_norm"], c.norm_eps)
    gate, up = jnp.split(jnp.einsum("TD,FD->TF", normed, block["gate_up"]), 2, axis=-1)
    return hidden, jax.nn.silu(gate) * up
