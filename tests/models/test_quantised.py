"""A quantised model computes exactly with its quantised weights, and those are near what they were."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ponderttt.costs import Program
from ponderttt.decoding.generate import Generator
from ponderttt.decoding.sampling import Sampling
from ponderttt.models import parameter, suffix, tensors, weights
from ponderttt.models.backbone import Backbone, make_backbone
from ponderttt.models.losses import linear_cross_entropy
from ponderttt.models.quantised import Kind, Precision, is_quantised
from ponderttt.models.quantised import opened as opened_parameter
from ponderttt.models.sharding import make_mesh
from ponderttt.settings.model import ModelConfig, ModelSource
from study import write_model

KINDS: tuple[Kind, ...] = ("int8", "int4")
TOKENS = jnp.asarray(np.random.default_rng(0).integers(3, 61, (2, 40)), jnp.int32)


def quantised(tiny: Backbone, kind: Kind) -> Backbone:
    arrays = tensors.disassemble(nnx.merge(tiny.graph, tiny.params))
    return make_backbone(
        tensors.assemble(tensors.in_memory(tiny.config, arrays), Precision(kind=kind), tiny.split_layer)
    )


def opened(backbone: Backbone) -> Backbone:
    """Return a plain model with the weights that a quantised one computes with."""
    arrays = tensors.disassemble(nnx.merge(backbone.graph, backbone.params))
    return make_backbone(
        tensors.assemble(tensors.in_memory(backbone.config, arrays), split_layer=backbone.split_layer)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_quantised_some_rows_at_a_time_is_that_quantised_at_once(
    kind: Kind, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    precision = Precision(kind=kind)
    model = nnx.merge(tiny.graph, tiny.params)
    wanted = {
        name: precision.used(name, array, stacked=False) for name, array in model.outer.arrays().items()
    }
    wanted |= {
        name: precision.used(name, array, stacked=True)
        for name, array in model.blocks_before.arrays().items()
    }
    # Seven rows of the narrowest matrix, which divide the rows of no matrix.
    monkeypatch.setattr(parameter, "_QUANTISED_BYTES", 7 * 4 * tiny.config.width)
    narrow = quantised(tiny, kind)
    again = nnx.merge(narrow.graph, narrow.params)
    for name, value in {**again.outer.arrays(), **again.blocks_before.arrays()}.items():
        np.testing.assert_array_equal(opened_parameter(value), wanted[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_model_computes_with_its_quantised_weights(kind: Kind, tiny: Backbone) -> None:
    """States, losses and decoding equal those of the plain model with the same weights."""
    narrow = quantised(tiny, kind)
    plain = opened(narrow)
    assert narrow.digest == plain.digest != tiny.digest
    hidden = narrow.hidden(TOKENS)
    np.testing.assert_allclose(hidden, plain.hidden(TOKENS), rtol=2e-4, atol=2e-4)
    targets = jnp.roll(TOKENS, -1, 1)
    blocked = jax.jit(linear_cross_entropy)
    np.testing.assert_allclose(
        blocked(hidden, narrow.stored_unembedding, targets),
        blocked(hidden, plain.unembedding, targets),
        rtol=1e-5,
        atol=1e-5,
    )
    prompts = [TOKENS[0, :9].tolist()]
    assert Generator(narrow).continuations(prompts, [Sampling()], 6) == Generator(plain).continuations(
        prompts, [Sampling()], 6
    )


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.005), ("int4", 0.1)])
def test_quantised_weights_are_near_what_they_were(kind: Kind, share: float, tiny: Backbone) -> None:
    """Root mean square error as a share of the weights': int8 has 127 steps, int4 7."""
    narrow = quantised(tiny, kind)
    before = tensors.disassemble(nnx.merge(tiny.graph, tiny.params))
    after = tensors.disassemble(nnx.merge(narrow.graph, narrow.params))
    for name, array in before.items():
        error = np.sqrt(np.mean((after[name] - array) ** 2) / np.mean(array**2))
        if array.ndim < 2 or name.endswith("wpe.weight"):
            assert error == 0
        else:
            assert 0 < error < share * 1.5, name


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_take_a_quarter_and_an_eighth_of_the_memory(kind: Kind, tiny: Backbone) -> None:
    bits = {"int8": 8, "int4": 4}[kind]
    leaves = jax.tree.leaves(quantised(tiny, kind).params, is_leaf=is_quantised)
    matrices = [leaf for leaf in leaves if is_quantised(leaf)]
    assert matrices
    assert all(leaf.qvalue.dtype.name == kind for leaf in matrices)
    # One scale for each row, or for each 16 or 32 inputs.
    for leaf in matrices:
        scales = 32 * leaf.scale.size / leaf.qvalue.size
        assert scales <= {8: 32 / leaf.shape[-1], 4: 32 / 16}[bits]


@pytest.mark.parametrize("precision", [Precision("bfloat16"), Precision(kind="int4")])
def test_what_is_opened_alone_is_what_the_backbone_computes_with(
    precision: Precision, tmp_path: Path
) -> None:
    """Fast weights read with the same projection and the same last blocks as the frozen pass."""
    write_model(tmp_path / "model")
    source = ModelSource("path", path=str(tmp_path / "model"))
    config = ModelConfig("llama", source, precision.dtype, quantize=precision.kind)
    weights.convert(config, tmp_path, tmp_path / "out")
    whole = weights.open_backbone(tmp_path / "out", weights.precision_of(config, {}, ""), 1)
    alone = weights.open_unembedding(tmp_path / "out", precision=precision)
    np.testing.assert_array_equal(opened_parameter(alone.matrix), opened_parameter(whole.stored_unembedding))
    _, after = suffix.open_suffix(tmp_path / "out", 1, precision=precision)
    expected = suffix.suffix_weights(whole)
    for name, array in expected.blocks.items():
        np.testing.assert_array_equal(after.blocks[name], array)


def test_a_program_that_is_measured_takes_a_model_in_int4_from_a_mesh(tiny: Backbone) -> None:
    arrays = tensors.disassemble(nnx.merge(tiny.graph, tiny.params))
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1})
    checkpoint = tensors.in_memory(tiny.config, arrays)
    model = tensors.assemble(checkpoint, Precision(kind="int4"), tiny.split_layer, mesh)
    backbone = make_backbone(model, mesh=mesh)
    graph = backbone.graph
    program = Program(lambda params, tokens: nnx.merge(graph, params).hidden(tokens, None))
    with backbone.on_devices():
        measured = program(backbone.params, TOKENS)
    np.testing.assert_allclose(measured.value, quantised(tiny, "int4").hidden(TOKENS), rtol=2e-4, atol=2e-4)
