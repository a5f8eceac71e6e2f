"""How the next token is drawn: greedy, by temperature, among the k most likely, among those that make up p.

A row's draws depend on its own seed and on how many tokens it has drawn, so that they do not change with the batch.
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

#: Drawn from logits that are not numbers.
NO_TOKEN = -1
_NEVER = -jnp.inf
#: Of a temperature that draws at all: logits divided by less, or by more, are no numbers of float32 any more.
_COLDEST, _HOTTEST = 1e-6, 1e6
#: What fits the devices' integers.
_MOST_K = 2**31 - 1


@dataclass(frozen=True)
class Sampling:
    """Of one request.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_k: only so many of the most likely tokens; 0 is all.
        top_p: only the most likely tokens that together have this probability (Holtzman et al. 2020, arXiv:1904.09751).
        seed: of the draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature != 0 and not _COLDEST <= self.temperature <= _HOTTEST:
            raise PonderTTTError(
                f"temperature is {self.temperature}; it is 0, which is greedy, or from {_COLDEST:g} to {_HOTTEST:g}"
            )
        if not 0 <= self.top_k <= _MOST_K:
            raise PonderTTTError(
                f"top_k is {self.top_k}; it is at least 1 and at most {_MOST_K}, or 0 for all tokens"
            )
        if not 0 <= self.seed < SEEDS:
            raise PonderTTTError(f"the seed of the draws is {self.seed}; it is from 0 to {SEEDS - 1}")
        if not 0 < self.top_p <= 1:
            raise PonderTTTError(f"top_p is {self.top_p}; it is greater than 0 and at most 1")


class Draws(NamedTuple):
    """:class:`Sampling` of B rows, on the device."""

    temperature: Float[Array, " B"]
    top_k: Int[Array, " B"]
    top_p: Float[Array, " B"]
    key: Key[Array, " B"]


def draws_of(requests: Sequence[Sampling]) -> Draws:
    """The settings of a batch."""
    return Draws(
        jnp.asarray(np.array([request.temperature for request in requests], np.float32)),
        jnp.asarray(np.array([request.top_k for request in requests], np.int32)),
        jnp.asarray(np.array([request.top_p for request in requests], np.float32)),
        jnp.stack([named_key(request.seed, "decoding") for request in requests]),
    )


def is_greedy(requests: Sequence[Sampling]) -> bool:
    """Whether nothing is drawn at all."""
    return all(request.temperature == 0 for request in requests)


def filters(requests: Sequence[Sampling]) -> bool:
    """Whether the vocabulary has to be sorted."""
    return any(request.top_k or request.top_p < 1 for request in requests)


def allowed(logits: Float[Array, " V"], top_k: Int[Array, ""], top_p: Float[Array, ""]) -> Float[Array, " V"]:
    """Logits of the tokens that may be drawn, −∞ elsewhere; the most likely token always may.

    k comes first; p is of what k left.
    """
    order = jnp.sort(logits, descending=True)
    place = jnp.arange(logits.shape[-1])
    kept = jnp.where(top_k > 0, place < top_k, True)
    probability = jax.nn.softmax(jnp.where(kept, order, _NEVER))
    # A token stays if those before it have less than p together.
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
        count: tokens that were drawn before.
        greedy: static; no row draws, whatever its settings.
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
    """Draws the tokens of one text in turn."""

    def __init__(self, request: Sampling) -> None:
        self._draws, self._count = draws_of([request]), 0
        self._draw = jax.jit(partial(draw, greedy=is_greedy([request]), filtered=filters([request])))

    def __call__(self, logits: Float[Array, " V"]) -> int:
        """The next token, given its logits or log-probabilities."""
        token = self._draw(logits[None], self._draws, jnp.asarray(self._count))
        self._count += 1
        return checked(int(token[0]))
