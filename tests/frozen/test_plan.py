"""A plan says what a model needs before anybody has the model, and refuses what does not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jaxtyping import Array

from ponderttt.cli.plan import describe
from ponderttt.errors import PonderTTTError
from ponderttt.frozen.plan import _AS_AN_ACCELERATOR, GIB, Plan, _empty, check_memory, parameter_count, plan
from ponderttt.models.backbone import random_backbone
from ponderttt.models.losses import linear_cross_entropy
from ponderttt.models.presets import preset
from ponderttt.models.quantised import Precision
from tiny_families import TINY

ONE = {"data": 1, "fsdp": 1, "tensor": 1}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``ponderttt plan`` in a process of its own, in which devices exist in name only."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    call = [sys.executable, "-c", "from ponderttt.cli.main import main; main()", "plan", *arguments]
    return subprocess.run(call, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("family", TINY)
def test_the_bytes_of_weights_are_those_of_the_model(family: str) -> None:
    shape = TINY[family]
    found = plan(shape, ONE, Precision(), chunk_size=64)
    params = random_backbone(shape, jax.random.key(0)).params
    leaves = jax.tree.leaves(params)
    assert found.weight_bytes == found.device_weight_bytes == sum(leaf.nbytes for leaf in leaves)
    assert found.parameters == parameter_count(shape) == sum(leaf.size for leaf in leaves)
    assert found.activation_bytes > 0
    blocks = jax.tree.leaves((params["blocks_before"], params["blocks_after"]))
    assert found.unstacked_bytes == sum(leaf.nbytes for leaf in blocks)
    half = plan(shape, ONE, Precision("bfloat16"), chunk_size=64)
    assert half.weight_bytes == found.weight_bytes / 2


@pytest.mark.parametrize("family", TINY)
def test_a_plan_for_one_device_is_of_the_program_that_one_device_runs(family: str) -> None:
    """It takes a vocabulary of several blocks block by block, and not at once as the devices of a mesh do."""
    shape = replace(TINY[family], vocab_size=20_000)
    graph, params = nnx.split(_empty(shape, Precision()))

    def read(params: Any, tokens: Array, targets: Array) -> Array:
        model = nnx.merge(graph, params)
        return linear_cross_entropy(model.hidden(tokens, 64), model.unembedding_matrix(), targets)

    tokens = jnp.zeros((1, 64 + (shape.bos_id is not None)), jnp.int32)
    compiled = (
        jax.jit(read).lower(params, tokens, tokens[:, -64:]).compile(compiler_options=_AS_AN_ACCELERATOR)
    )
    analysis: Any = compiled.memory_analysis()
    found = plan(shape, ONE, Precision(), chunk_size=64)
    assert found.activation_bytes == analysis.temp_size_in_bytes < 4 * 64 * 20_000


@pytest.mark.parametrize(
    ("name", "precision", "gigabytes"),
    [
        pytest.param("gemma3-12b", ("--dtype", "bfloat16"), (23.0, 24.5), marks=pytest.mark.slow),
        ("gemma3-12b", ("--quantize", "int4"), (6.2, 6.8)),
        # Published as 2.6 GB, which half a byte for each parameter of the language model and its scales do not give; a byte for each of
        # the encoder of images, which is not part of it, would.
        pytest.param("gemma3-4b", ("--quantize", "int4"), (2.13, 2.23), marks=pytest.mark.slow),
        pytest.param("gemma3-4b", ("--dtype", "bfloat16"), (7.6, 8.6), marks=pytest.mark.slow),
    ],
)
def test_known_sizes(name: str, precision: tuple[str, ...], gigabytes: tuple[float, float]) -> None:
    """Of the published models, in GB; eight devices have an eighth of the weights each."""
    ran = command("--model", name, "--mesh", "8", *precision)
    assert ran.returncode == 0, ran.stderr
    lines = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    whole, each = (float(part.split()[0]) for part in lines["weights"].split(", "))
    assert gigabytes[0] < whole < gigabytes[1]
    assert each == pytest.approx(whole / 8, rel=0.02)
    # A multiplication and an addition for each parameter and token, and little besides.
    flops = float(lines["FLOPs"].split()[0]) * 1e12
    assert flops == pytest.approx(2 * 512 * parameter_count(preset(name)), rel=0.05)
    assert float(lines["peak"].split()[0]) < each + 1.0


@pytest.mark.parametrize(
    ("name", "mesh", "says"),
    [
        ("gemma3-12", "8", "preset: unknown 'gemma3-12'; did you mean 'gemma3-12b'?"),
        ("gpt2-125m", "x", "mesh x: 'x' is not a number of devices"),
    ],
)
def test_an_unknown_preset_or_mesh_is_named(name: str, mesh: str, says: str) -> None:
    with pytest.raises(PonderTTTError) as error:
        describe(name, mesh, "bfloat16", None, 512, 0, None, None)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"context_chunks": 2}, "in context context_2 needs 1536 positions, the model's context holds 1024"),
        (
            {"batch": 3},
            "--batch must be a multiple of 2, the number of devices that share the streams; got 3",
        ),
    ],
)
def test_a_chunk_or_batch_that_cannot_be_read_is_named(changes: dict[str, int], says: str) -> None:
    with pytest.raises(PonderTTTError) as error:
        plan(preset("gpt2-125m"), ONE | {"data": 2}, Precision(), **changes)
    assert says in str(error.value)


def test_a_plan_beyond_the_memory_is_one_line() -> None:
    ran = command("--model", "smollm2-1.7b", "--dtype", "float32", "--memory-gib", "4")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("ponderttt: smollm2-1.7b in float32 on 1 device needs 6."), ran.stderr


def test_a_plan_that_does_not_fit_says_what_would() -> None:
    found = Plan(10, 24 * GIB, 24 * GIB, 1 * GIB, 0, 0, 0, 0)
    with pytest.raises(PonderTTTError) as error:
        check_memory(found, 9 * GIB, "big", "in bfloat16 on 1 device")
    said = str(error.value)
    assert "needs 25.0 GiB on each device, which has 9.0" in said
    assert "3 devices hold it" in said
    assert "gemma3-4b" in said and "gemma3-12b" not in said
    check_memory(replace(found, device_weight_bytes=8 * GIB), 9 * GIB, "big", "")


def refusal(found: Plan, gib: float) -> str:
    with pytest.raises(PonderTTTError) as error:
        check_memory(found, gib * GIB, "big", "")
    return str(error.value)


def test_a_plan_says_which_quantisation_would_fit() -> None:
    """The one of most bits, and none where weights are not what is too much."""
    found = Plan(10, 24 * GIB, 24 * GIB, 1 * GIB, 0, 0, 0, 0, 1, {"int8": 12 * GIB, "int4": 7 * GIB})
    assert "it fits with --quantize int8" in refusal(found, 14)
    assert "it fits with --quantize int4" in refusal(found, 9)
    assert "--quantize" not in refusal(found, 7)
    assert "--quantize" not in refusal(replace(found, activation_bytes=20 * GIB), 20)


def test_a_plan_offers_fewer_streams_only_where_there_are_several() -> None:
    found = Plan(10, 1 * GIB, 1 * GIB, 8 * GIB, 0, 0, 0, 0, 1)
    assert refusal(found, 4).endswith("8.0 GiB of that are not weights: read shorter chunks")
    assert "read fewer streams at once" in refusal(replace(found, device_streams=2), 4)


def test_a_plan_knows_what_quantised_weights_would_take() -> None:
    shape = TINY["llama"]
    found = plan(shape, ONE, Precision("bfloat16"), chunk_size=64)
    for kind, size in found.quantised_bytes.items():
        assert size == plan(shape, ONE, Precision("bfloat16", kind), chunk_size=64).device_weight_bytes
    assert found.device_weight_bytes > found.quantised_bytes["int8"] > found.quantised_bytes["int4"]
    narrow = plan(shape, ONE, Precision("bfloat16", "int8"), chunk_size=64)
    assert narrow.quantised_bytes.keys() == {"int4"}
