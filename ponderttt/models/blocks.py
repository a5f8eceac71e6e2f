"""One block of any family on one sequence, whole or without its MLP down-projection."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Array, Bool, Float

from ponderttt.models.attention import AttentionStatistics, causal_attention, observed_attention
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Place, Shape
from ponderttt.models.projection import project


def run_block(
    config: Shape,
    block: Mapping[str, Array],
    hidden: Float[Array, "T D"],
    place: Place,
    mask: Bool[Array, " T"],
) -> Float[Array, "T D"]:
    """Run one block; ``mask`` is False where a key must not be attended to."""
    return finish_block(config, block, *before_down_projection(config, block, hidden, place, mask))


def observed_block(
    config: Shape,
    block: Mapping[str, Array],
    hidden: Float[Array, "T D"],
    place: Place,
    mask: Bool[Array, " T"],
    observe: int,
) -> tuple[Float[Array, "T D"], AttentionStatistics]:
    """Return :func:`run_block` and statistics [N, ``observe``] of how its last ``observe`` positions attend."""
    heads = heads_of(config, block, hidden, place)
    read, statistics = observed_attention(*heads, mask, observe, config.query_scale, place.window)
    return finish_block(config, block, *after_attention(config, block, hidden, read)), statistics


def heads_of(
    config: Shape, block: Mapping[str, Array], hidden: Float[Array, "T D"], place: Place
) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"], Float[Array, "T K H"]]:
    """Return float32 queries, and keys and values as a cache holds them: in the dtype of the block's matrices."""
    query, key, value = family_of(config).heads(config, block, hidden, place.angles)
    kept = block["query_key_value"].dtype
    return query, key.astype(kept), value.astype(kept)


def before_down_projection(
    config: Shape,
    block: Mapping[str, Array],
    hidden: Float[Array, "T D"],
    place: Place,
    mask: Bool[Array, " T"],
) -> tuple[Float[Array, "T D"], Float[Array, "T F"]]:
    """Run one block up to its MLP down-projection.

    Returns:
        The residual stream after attention, and the input of the projection.
    """
    heads = heads_of(config, block, hidden, place)
    read = causal_attention(*heads, mask, config.query_scale, place.window)
    return after_attention(config, block, hidden, read)


def after_down_projection(
    config: Shape,
    block: Mapping[str, Array],
    residual: Float[Array, "S D"],
    projected: Float[Array, "S D"],
) -> Float[Array, "S D"]:
    """Return the output of the block, given the output ``projected`` of its down-projection (or of an adapted one)."""
    return family_of(config).add_mlp(config, block, residual, projected)


def after_attention(
    config: Shape, block: Mapping[str, Array], hidden: Float[Array, "S D"], read: Float[Array, "S N H"]
) -> tuple[Float[Array, "S D"], Float[Array, "S F"]]:
    """Run what is between attention and the down-projection; see :func:`before_down_projection`."""
    family = family_of(config)
    residual = family.add_attention(config, block, hidden, read)
    return residual, family.mlp_inner(config, block, residual)


def finish_block(
    config: Shape, block: Mapping[str, Array], residual: Float[Array, "T D"], inner: Float[Array, "T F"]
) -> Float[Array, "T D"]:
    """Run the rest of a block from its down-projection on."""
    projected = project(inner, block["mlp_down"])
    return after_down_projection(config, block, residual, projected)
