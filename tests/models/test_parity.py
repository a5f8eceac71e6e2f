"""The model equals the reference implementation: tiny models that PyTorch ran, module by module and whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import family_goldens as goldens


@pytest.mark.parametrize("name", goldens.CASES)
def test_logits_and_gradients_equal_the_reference(name: str) -> None:
    golden = goldens.read(name)
    logits, gradients = goldens.own_results(golden)
    np.testing.assert_allclose(logits, golden.logits, atol=goldens.LOGITS_TOLERANCE, rtol=0)
    assert gradients.keys() == golden.gradients.keys()
    for tensor, expected in golden.gradients.items():
        assert np.abs(expected).max() > 0, tensor
        assert goldens.largest_difference(gradients[tensor], expected) <= goldens.GRADIENT_TOLERANCE, tensor


@pytest.mark.parametrize("name", goldens.CASES)
def test_every_module_gives_what_the_reference_gives_from_the_same_input(name: str) -> None:
    golden = goldens.read(name)
    found = goldens.own_modules(golden)
    assert found.keys() == golden.modules.keys()
    for module, expected in golden.modules.items():
        assert goldens.largest_difference(found[module], expected) <= goldens.MODULE_TOLERANCE, module


def test_parity_would_see_keys_rotated_as_neighbours_instead_of_halves() -> None:
    golden = goldens.read("tied")
    config, name = golden.config, "model.layers.0.self_attn.k_proj.weight"
    wrong = golden.weights[name].reshape(config.kv_heads, config.head_dim // 2, 2, config.width)
    swapped = wrong.swapaxes(1, 2).reshape(golden.weights[name].shape)
    rotated_wrongly = replace(golden, weights=golden.weights | {name: swapped})
    logits, _ = goldens.own_results(rotated_wrongly)
    assert np.abs(logits - golden.logits).max() > 100 * goldens.LOGITS_TOLERANCE
    modules = goldens.own_modules(rotated_wrongly)
    differing = {
        module
        for module, expected in golden.modules.items()
        if goldens.largest_difference(modules[module], expected) > goldens.MODULE_TOLERANCE
    }
    assert differing == {"0.attention", "0.inner"}
