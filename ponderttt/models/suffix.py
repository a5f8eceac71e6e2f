"""The blocks after the split layer as a function of explicit weights, which can be adapted.

:class:`~ponderttt.models.backbone.Backbone` runs the same blocks with weights of its own.  Here weights are an argument,
always float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from ponderttt.errors import PonderTTTError
from ponderttt.files.manifest import read_manifest, verify_file
from ponderttt.models import safetensors_file
from ponderttt.models.backbone import Backbone
from ponderttt.models.families import family_of, shape_from_facts
from ponderttt.models.families.family import Place, Shape
from ponderttt.models.parameter import LazyTensor
from ponderttt.models.quantised import EXACT, Precision, opened
from ponderttt.models.streaming import Ring
from ponderttt.models.tensors import stacked_parts
from ponderttt.models.weights import KIND


class SuffixWeights(NamedTuple):
    """Frozen float32 weights of the L blocks after the split layer."""

    #: Name → stacked parameters ``[L, ...]``, see :meth:`ponderttt.models.families.family.Family.block_shapes`.
    blocks: dict[str, Float[Array, "L ..."]]
    #: Parameters of the final norm.
    outer: dict[str, Float[Array, " D"]]

    @property
    def layers(self) -> int:
        """Number of blocks, L."""
        return self.blocks["mlp_down"].shape[0]

    def block(self, index: int) -> dict[str, Array]:
        """Return the parameters of one block, counted from the split layer."""
        return {name: stack[index] for name, stack in self.blocks.items()}


@dataclass(frozen=True)
class SuffixCache:
    """The static shape of a cache of the blocks after the split layer.

    Attributes:
        ring: shape of the cache of one block.
        layers: number of blocks after the split layer.
    """

    ring: Ring
    layers: int


def suffix_weights(backbone: Backbone) -> SuffixWeights:
    """Return the blocks after the split layer of an open backbone."""
    model = nnx.merge(backbone.graph, backbone.params)
    blocks = {name: opened(array).astype(jnp.float32) for name, array in model.blocks_after.arrays().items()}
    outer = model.outer.arrays()
    return SuffixWeights(blocks, {name: outer[name].astype(jnp.float32) for name in _norms(outer)})


def _norms(outer: Iterable[str]) -> list[str]:
    """Return the parameters of the final norm."""
    return [name for name in outer if name.startswith("final_norm")]


def open_suffix(
    model_dir: Path | str,
    split_layer: int,
    rebuild: str = "run the conversion of the model again",
    precision: Precision = EXACT,
) -> tuple[Shape, SuffixWeights]:
    """Read only the blocks after ``split_layer`` from a converted model, after checking their file.

    Args:
        model_dir: folder that :func:`ponderttt.models.weights.convert` wrote.
        split_layer: number of blocks before them.
        rebuild: command that rebuilds the folder, for error messages.
        precision: precision of the backbone, to whose values the blocks are rounded.

    Raises:
        CorruptFileError: the manifest or the file is missing, or they differ.
        PonderTTTError: ``split_layer`` is larger than the model.
    """
    folder, shard = Path(model_dir), safetensors_file.BLOCKS_SHARD
    manifest = read_manifest(folder, KIND, rebuild, verify=False)
    path = verify_file(folder, manifest, shard, rebuild)
    config = shape_from_facts(manifest["facts"])
    if not 0 <= split_layer <= config.layers:
        raise PonderTTTError(
            f"split_layer must be from 0 to {config.layers}, the number of blocks of {folder}, got {split_layer}"
        )
    stored = {tensor.name: tensor for tensor in safetensors_file.read_file(path)}
    layers = config.layers - split_layer
    family = family_of(config)
    blocks = {
        name: precision.used(name, _last(stored, config, name, layers).reshape(layers, *shape), stacked=True)
        for name, shape in family.block_shapes(config).items()
    }
    outer = {
        name: precision.used(name, stored[family.OUTER[name]].read(), stacked=False)
        for name in _norms(family.outer_shapes(config))
    }
    return config, SuffixWeights(blocks, outer)


def _last(stored: Mapping[str, LazyTensor], config: Shape, name: str, layers: int) -> np.ndarray:
    """Return one stacked parameter of the last ``layers`` blocks; the parts of each block are joined by rows."""
    names = stacked_parts(config, name)
    kept = names[len(names) - layers * (len(names) // config.layers) :]
    transposed = name in family_of(config).TRANSPOSED
    parts = [stored[part].read().T if transposed else stored[part].read() for part in kept]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def suffix_places(config: Shape, weights: SuffixWeights, positions: Int[Array, " T"]) -> list[Place]:
    """Return the positions of tokens as each block after the split sees them."""
    family = family_of(config)
    places = family.places(config, positions)
    return [places.of(kind) for kind in family.kinds(config)[config.layers - weights.layers :]]
