"""The blocks after the split layer, run in the simplest way: what faster paths are compared with."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ponderttt.models.blocks import run_block
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Shape
from ponderttt.models.suffix import SuffixWeights, suffix_places


def run_suffix(
    config: Shape,
    weights: SuffixWeights,
    split: Float[Array, "T D"],
    mask: Bool[Array, " T"],
) -> Float[Array, "T D"]:
    """Run all blocks and the final norm on one sequence, like :meth:`ponderttt.models.decoder.Decoder.suffix`.

    ``mask`` is False where the prefix read padding.
    """
    hidden = split.astype(jnp.float32)
    for index, place in enumerate(suffix_places(config, weights, jnp.arange(len(hidden)))):
        hidden = run_block(config, weights.block(index), hidden, place, mask)
    return family_of(config).final_norm(config, weights.outer, hidden)
