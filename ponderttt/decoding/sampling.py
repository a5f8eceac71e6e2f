"""Draw the next token: greedy, with a temperature, from the k most likely tokens, or from those with probability p.

A row's draws depend on its own seed and on the number of tokens it has drawn, so they do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ponderttt.errors import PonderTTTError
from ponderttt.seeds import SEEDS, named_key

#: The token that is drawn from logits that are not numbers.
NO_TOKEN = -1
_NEVER = -jnp.inf
#: Temperatures outside of this range turn float32 logits into infinities or zeros.
_COLDEST, _HOTTEST = 1e-6, 1e6
#: Largest int32.
_MOST_K = 2**31 - 1


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one request are drawn.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_k: number of most likely tokens to draw from; 0 is all.
        top_p: probability that the most likely tokens to draw from have together (Holtzman et al. 2020, arXiv:1904.09751).
        seed: seed of the draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature != 0 and not _COLDEST <= self.temperature <= _HOTTEST:
            raise PonderTTTError(
                f"temperature must be 0 (greedy) or from {_COLDEST:g} to {_HOTTEST:g}, got {self.temperature}"
            )
        if not 0 <= self.top_k <= _MOST_K:
            raise PonderTTTError(f"top_k must be 0 (all tokens) or from 1 to {_MOST_K}, got {self.top_k}")
        if not 0 <= self.seed < SEEDS:
            raise PonderTTTError(f"the seed of the draws must be from 0 to {SEEDS - 1}, got {self.seed}")
        if not 0 < self.top_p <= 1:
            raise PonderTTTError(f"top_p must be greater than 0 and at most 1, got {self.top_p}")


class Draws(NamedTuple):
    """:class:`Sampling` of B rows, on the device."""

    temperature: Float[Array, " B"]
    top_k: Int[Array, " B"]
    top_p: Float[Array, " B"]
    key: Key[Array, " B"]


def draws_of(requests: Sequence[Sampling]) -> Draws:
    """Return the settings of a batch as arrays."""
    return Draws(
        jnp.asarray(np.array([request.temperature for request in requests], np.float32)),
        jnp.asarray(np.array([request.top_k for request in requests], np.int32)),
        jnp.asarray(np.array([request.top_p for request in requests], np.float32)),
        jnp.stack([named_key(request.seed, "decoding") for request in requests]),
    )


def is_greedy(requests: Sequence[Sampling]) -> bool:
    """Return whether no row draws."""
    return all(request.temperature == 0 for request in requests)


def filters(requests: Sequence[Sampling]) -> bool:
    """Return whether some row draws from a part of the vocabulary, which must then be sorted."""
    return any(request.top_k or request.top_p < 1 for request in requests)


def allowed(logits: Float[Array, " V"], top_k: Int[Array, ""], top_p: Float[Array, ""]) -> Float[Array, " V"]:
    """Return the logits of the tokens to draw from, and −∞ for all others; the most likely token is always kept.

    ``top_k`` is applied first, ``top_p`` to the tokens that it keeps.
    """
    order = jnp.sort(logits, descending=True)
    place = jnp.arange(logits.shape[-1])
    kept = jnp.where(top_k > 0, place < top_k, True)
    probability = jax.nn.softmax(jnp.where(kept, order, _NEVER))
    # A token stays if the tokens before it have less than p together.
    before = jnp.cumsum(probability) - probability
    kept &= (before < top_p) | (place == 0)
    smallest = order[jnp.sum(kept) - 1]
    return jnp.where(logits >= smallest, logits, _NEVER)


def draw(
    logits: Float[Array, "B V"], draws: Draws, count: Int[Array, ""], *, greedy: bool, filtered: bool
) -> Int[Array, " B"]:
    """Draw the next token of each row; :data:`NO_TOKEN` if its logits are not numbers.

    Args:
        logits: nats.
        draws: settings of each row.
        count: number of tokens drawn so far.
        greedy: static; take the most likely token in all rows.
        filtered: static; some row has a ``top_k`` or a ``top_p``.
    """
    # Single logits may be −∞; NaN anywhere makes the largest NaN.
    known = jnp.isfinite(logits.max(-1))
    likeliest = jnp.where(known, logits.argmax(-1).astype(jnp.int32), NO_TOKEN)
    if greedy:
        return likeliest

    def one(row: Array, temperature: Array, top_k: Array, top_p: Array, key: Array) -> Array:
        scaled = row / jnp.where(temperature > 0, temperature, 1.0)
        if filtered:
            scaled = allowed(scaled, top_k, top_p)
        return jax.random.categorical(jax.random.fold_in(key, count), scaled)

    drawn = jax.vmap(one)(logits, *draws).astype(jnp.int32)
    return jnp.where(known & (draws.temperature > 0), drawn, likeliest)


def checked(token: int) -> int:
    """Return a token that :func:`draw` drew.

    Raises:
        PonderTTTError: it is :data:`NO_TOKEN`.
    """
    if token == NO_TOKEN:
        raise PonderTTTError(
            "the prediction of the next token is not finite; check the model's weights, or lower the inner rate of the "
            "fast weights"
        )
    return token


class Chooser:
    """Draw the tokens of one text, one after the other."""

    def __init__(self, request: Sampling) -> None:
        self._draws, self._count = draws_of([request]), 0
        self._draw = jax.jit(partial(draw, greedy=is_greedy([request]), filtered=filters([request])))

    def __call__(self, logits: Float[Array, " V"]) -> int:
        """Return the next token, given its logits or log-probabilities."""
        token = self._draw(logits[None], self._draws, jnp.asarray(self._count))
        self._count += 1
        return checked(int(token[0]))
