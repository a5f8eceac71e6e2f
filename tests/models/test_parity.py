"""The model equals the reference implementation: logits and gradients of tiny models that PyTorch computed."""

from __future__ import annotations

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


def test_parity_would_see_keys_rotated_as_neighbours_instead_of_halves() -> None:
    golden = goldens.read("tied")
    config, name = golden.config, "model.layers.0.self_attn.k_proj.weight"
    wrong = golden.weights[name].reshape(config.kv_heads, config.head_dim // 2, 2, config.width)
    swapped = wrong.swapaxes(1, 2).reshape(golden.weights[name].shape)
    logits, _ = goldens.own_results(
        goldens.Golden(
            config, golden.weights | {name: swapped}, golden.tokens, golden.logits, golden.gradients
        )
    )
    assert np.abs(logits - golden.logits).max() > 100 * goldens.LOGITS_TOLERANCE
