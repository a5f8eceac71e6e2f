"""FLOPs agree with a count by hand and with XLA's own; seconds are those of the execution alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import ponderttt.costs
from ponderttt.costs import Program, count_flops

M, N, K = 6, 10, 7


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def product(x: jax.Array, y: jax.Array) -> jax.Array:
    return x @ y


def scanned(x: jax.Array) -> jax.Array:
    return lax.scan(lambda carry, _: (carry * 2.0, None), x, length=9)[0]


#: What is counted, its arguments, and the count by hand.
BY_HAND: dict[str, tuple[Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...], int]] = {
    "matrix product": (product, (shape(M, K), shape(K, N)), 2 * M * N * K),
    "matrix times vector": (product, (shape(M, K), shape(K)), 2 * M * K),
    "batched einsum": (
        lambda x, y: jnp.einsum("btd,bdf->btf", x, y),
        (shape(3, M, K), shape(3, K, N)),
        3 * 2 * M * N * K,
    ),
    "einsum over two axes": (
        lambda x, y: jnp.einsum("tnh,dnh->td", x, y),
        (shape(M, 2, K), shape(N, 2, K)),
        2 * M * N * 2 * K,
    ),
    "vmap": (jax.vmap(product, in_axes=(0, None)), (shape(5, M, K), shape(K, N)), 5 * 2 * M * N * K),
    "elementwise": (lambda x: jnp.exp(x) + x, (shape(M, N),), 2 * M * N),
    "reduction": (lambda x: x.sum(), (shape(M, N),), M * N),
    "moving data": (lambda x: jnp.concatenate([x.T, x.T])[1:].reshape(-1), (shape(M, N),), 0),
    "scan": (scanned, (shape(M),), 9 * M),
    "scan of a scan": (
        lambda x: lax.scan(lambda c, _: (scanned(c), None), x, length=4)[0],
        (shape(M),),
        4 * 9 * M,
    ),
    "loop of fixed length": (
        lambda x, y: lax.fori_loop(0, 5, lambda _, c: c @ y, x),
        (shape(M, K), shape(K, K)),
        5 * 2 * M * K * K,
    ),
    "jit": (jax.jit(product), (shape(M, K), shape(K, N)), 2 * M * N * K),
    "checkpoint": (jax.checkpoint(product), (shape(M, K), shape(K, N)), 2 * M * N * K),
    "what no output needs": (lambda x, y: (x @ y, x * 2.0)[1], (shape(M, K), shape(K, N)), M * K),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_flops_equal_a_count_by_hand(name):
    function, arguments, expected = BY_HAND[name]
    counted = count_flops(function, *arguments)
    # The index of a loop is one addition a turn.
    assert expected <= counted <= expected + (5 if name == "loop of fixed length" else 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
def test_a_scan_of_products_counts_every_turn(m, k, n, turns):
    def run(x: jax.Array, ys: jax.Array) -> jax.Array:
        return lax.scan(lambda carry, y: (carry, carry @ y), x, ys)[1]

    assert count_flops(run, shape(m, k), shape(turns, k, n)) == turns * 2 * m * n * k


def test_a_gradient_costs_one_product_for_each_factor():
    """The value of x·y is not needed for its gradient, so only the two backward products run."""
    gradient = jax.grad(lambda x, y: (x @ y).sum(), argnums=(0, 1))
    assert count_flops(gradient, shape(M, K), shape(K, N)) == 2 * 2 * M * N * K
    both = jax.value_and_grad(lambda x, y: (x @ y).sum(), argnums=(0, 1))
    assert count_flops(both, shape(M, K), shape(K, N)) == 3 * 2 * M * N * K + M * N


def test_a_branch_costs_what_the_most_expensive_one_costs():
    def choose(index: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return lax.switch(index, [lambda: x, lambda: x @ y, lambda: x @ y @ y])

    index = jax.ShapeDtypeStruct((), jnp.int32)
    counted = count_flops(choose, index, shape(M, K), shape(K, K))
    assert 0 <= counted - 2 * 2 * M * K * K <= 3  # the index is clamped


@jax.custom_vjp
def own_product(x: jax.Array, y: jax.Array) -> jax.Array:
    return x @ y


def _forward(x: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ y, (x, y)


def _backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, y = kept
    return gradient @ y.T, x.T @ gradient


own_product.defvjp(_forward, _backward)


def test_a_function_with_its_own_gradient_is_counted_once_forward_and_once_backward():
    arguments = shape(M, K), shape(K, N)
    assert count_flops(own_product, *arguments) == 2 * M * N * K
    loss = jax.value_and_grad(lambda x, y: own_product(x, y).sum(), argnums=(0, 1))
    assert count_flops(loss, *arguments) == 3 * 2 * M * N * K + M * N


def attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    scores = jnp.einsum("bnth,bnsh->bnts", query, key) / 8.0
    seen = jnp.tril(jnp.ones((scores.shape[-2], scores.shape[-1]), bool))
    return jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(jnp.where(seen, scores, -1e9)), value)


def chain(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jax.nn.silu(x @ a) @ b


HEADS = (shape(2, 4, 64, 64),) * 3
CHAIN = (shape(128, 64), shape(64, 256), shape(256, 64))
LOOP_FREE = {
    "products": (chain, CHAIN),
    "attention": (attention, HEADS),
    "gradient of products": (jax.grad(lambda *a: chain(*a).sum(), argnums=(0, 1, 2)), CHAIN),
    "gradient of attention": (jax.grad(lambda *a: attention(*a).sum(), argnums=(0, 1, 2)), HEADS),
}


@pytest.mark.parametrize("name", LOOP_FREE)
def test_the_count_agrees_with_the_compiler_on_programs_without_loops(name):
    function, arguments = LOOP_FREE[name]
    analysis = jax.jit(function).lower(*arguments).compile().cost_analysis()
    theirs = analysis["flops"] + analysis.get("transcendentals", 0.0)
    assert count_flops(function, *arguments) == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x), "while"),
        (lambda x: jnp.convolve(x, x), "conv_general_dilated"),
    ],
)
def test_what_cannot_be_counted_is_refused_not_guessed(function, names):
    with pytest.raises(ValueError, match=f"FLOPs of {names} cannot be counted"):
        count_flops(function, shape(M))


class Clock:
    """Stands in for ``time``: a reading takes no time, and is noted among the compilations."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def perf_counter(self) -> float:
        self.events.append("clock")
        return float(self.events.count("clock"))


@pytest.fixture
def events(monkeypatch):
    """Compilations and readings of the clock, in order, as JAX itself reports them."""
    noted: list[str] = []

    def listen(event: str, seconds: float, **_: object) -> None:
        if event.endswith("backend_compile_duration"):
            noted.append("compile")

    jax.monitoring.register_event_duration_secs_listener(listen)
    monkeypatch.setattr(ponderttt.costs, "time", Clock(noted))
    yield noted
    jax.monitoring.unregister_event_duration_listener(listen)


def test_compilation_is_outside_of_the_reported_seconds(events):
    program = Program(lambda x: jnp.tanh(x) * 3.0)
    measured = program(np.ones((M, 3), np.float32))
    assert events[-2:] == ["clock", "clock"]
    assert "compile" in events[:-2]
    assert "compile" not in events[-2:]
    assert measured.seconds == 1.0
    assert measured.flops == 2 * M * 3


def test_equal_shapes_compile_once_and_other_shapes_once_more(events):
    program = Program(lambda x: jnp.cos(x) - 1.0)
    program(np.zeros(M, np.float32))
    compiled = events.count("compile")
    again = program(np.ones(M, np.float32))
    assert events.count("compile") == compiled
    assert len(program._flops) == 1
    np.testing.assert_allclose(again.value, np.cos(1.0) - 1.0, rtol=1e-6)
    other = program(np.ones(2 * M, np.float32))
    assert events.count("compile") > compiled
    assert other.flops == 2 * again.flops


def test_the_seconds_cover_the_whole_execution(monkeypatch):
    """JAX returns before it has calculated: the clock is read only after the result is ready."""
    order: list[str] = []
    wait = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda value: (order.append("ready"), wait(value))[1])
    monkeypatch.setattr(ponderttt.costs, "time", Clock(order))
    Program(lambda x: x + 1.0)(np.zeros(M, np.float32))
    # The first execution only warms up.
    assert order == ["ready", "clock", "ready", "clock"]
