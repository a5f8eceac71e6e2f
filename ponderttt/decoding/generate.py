"""Continue a batch of prompts with a frozen model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from ponderttt.decoding.cache import (
    CACHE_BUCKET,
    PROMPT_BUCKET,
    Cache,
    Fresh,
    Unstacked,
    bucket,
    left_padded,
    logits_of,
    prefill,
    step,
    unstack,
    write,
)
from ponderttt.decoding.sampling import Draws, Sampling, checked, draw, draws_of, filters, is_greedy
from ponderttt.errors import PonderTTTError
from ponderttt.models.backbone import Backbone
from ponderttt.models.families.family import Shape


class Token(NamedTuple):
    """One more token of a row."""

    row: int
    token: int


@partial(jax.jit, static_argnums=(0, 3))
def _prefill(shape: Shape, weights: Unstacked, tokens: Array, slots: int) -> tuple[Array, Cache]:
    read, cache = prefill(shape, weights, tokens, slots)
    return logits_of(weights, read.hidden[:, -1]), cache


@partial(jax.jit, static_argnums=(0,), static_argnames=("greedy", "filtered"))
def _next(
    shape: Shape,
    weights: Unstacked,
    tokens: Array,
    cache: Cache,
    draws: Draws,
    count: Array,
    *,
    greedy: bool,
    filtered: bool,
) -> tuple[Array, Fresh]:
    read, fresh = step(shape, weights, tokens, cache)
    return draw(logits_of(weights, read.hidden), draws, count, greedy=greedy, filtered=filtered), fresh


_draw = jax.jit(draw, static_argnames=("greedy", "filtered"))


class Generator:
    """A frozen model that continues prompts."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.shape = backbone, backbone.config
        self.weights = unstack(nnx.merge(backbone.graph, backbone.params))

    def tokens(
        self,
        prompts: Sequence[Sequence[int]],
        requests: Sequence[Sampling],
        max_tokens: int,
        ends: Collection[int] = (),
    ) -> Iterator[Token]:
        """Continue each prompt until an end token or ``max_tokens``.

        Args:
            prompts: token ids, without a beginning-of-sequence token.
            requests: how the tokens of each prompt are drawn.
            max_tokens: tokens of a continuation at most.
            ends: tokens that finish a row; they are not yielded.

        Yields:
            Tokens as they are drawn, row by row.

        Raises:
            PonderTTTError: no prompt, one without tokens, a length beyond the model's context, or a prediction that is
                not finite.
        """
        check_prompts(prompts, max_tokens, self.shape)
        whole = [[*self.shape.front, *prompt] for prompt in prompts]
        length = min(bucket(max(map(len, whole)), PROMPT_BUCKET), self.shape.max_context)
        slots = bucket(length + max_tokens, CACHE_BUCKET)
        draws = draws_of(requests)
        how = {"greedy": is_greedy(requests), "filtered": filters(requests)}
        tokens = jnp.asarray(left_padded(whole, self.shape.pad_id, length))
        with self.backbone.on_devices():
            logits, cache = _prefill(self.shape, self.weights, tokens, slots)
        drawn: Any = _draw(logits, draws, jnp.asarray(0), **how)
        going = set(range(len(prompts)))
        for count in range(1, max_tokens + 1):
            current = np.asarray(drawn)
            # The device runs the next step while this one's tokens are copied.
            if count < max_tokens:
                place = jnp.asarray(count)
                with self.backbone.on_devices():
                    drawn, fresh = _next(self.shape, self.weights, drawn, cache, draws, place, **how)
                cache = write(cache, fresh)
            for row in sorted(going):
                if (token := checked(int(current[row]))) in ends:
                    going.discard(row)
                else:
                    yield Token(row, token)
            if not going:
                return

    def continuations(
        self,
        prompts: Sequence[Sequence[int]],
        requests: Sequence[Sampling],
        max_tokens: int,
        ends: Collection[int] = (),
    ) -> list[list[int]]:
        """Return the tokens of :meth:`tokens` by prompt."""
        found: list[list[int]] = [[] for _ in prompts]
        for row, token in self.tokens(prompts, requests, max_tokens, ends):
            found[row].append(token)
        return found


def check_prompts(prompts: Sequence[Sequence[int]], max_tokens: int, shape: Shape) -> None:
    """Raise PonderTTTError unless every prompt has a token and fits the model's context with its continuation."""
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise PonderTTTError("a prompt has no tokens, so there is nothing to continue")
    if max_tokens < 1:
        raise PonderTTTError(f"max_tokens must be at least 1, got {max_tokens}")
    longest = len(shape.front) + max(map(len, prompts))
    if longest + max_tokens > shape.max_context:
        raise PonderTTTError(
            f"a prompt of {longest} tokens and {max_tokens} more exceed the model's context of {shape.max_context}; "
            "shorten the prompt or lower max_tokens"
        )
