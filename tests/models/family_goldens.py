"""Tiny models whose logits and gradients PyTorch and transformers computed once: the cases and how to read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ponderttt.models import tensors
from ponderttt.models.decoder import Decoder
from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import Gemma3Config
from ponderttt.models.families.gpt2 import GPT2Config
from ponderttt.models.families.llama import LlamaConfig

FOLDER = Path(__file__).parent / "goldens"
LOGITS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3

#: Grouped queries, tied and untied, a head size that is not width / heads, lengths around the attention block; windows
#: shorter and longer than that block, and positions of global blocks with and without a factor.
CASES: dict[str, tuple[Shape, tuple[int, int]]] = {
    "tied": (LlamaConfig(61, 2, 16, 4, 2, 4, 24, 1e4, 1e-5, 64, True), (2, 13)),
    "untied": (LlamaConfig(47, 3, 24, 6, 2, 8, 20, 1e5, 1e-6, 512, False), (1, 131)),
    "one_kv_head": (LlamaConfig(37, 1, 8, 4, 1, 4, 16, 5e5, 1e-5, 512, False), (1, 257)),
    "gpt2": (GPT2Config(53, 3, 24, 4, 40, 1e-5, 160), (2, 143)),
    "gpt2_untied": (GPT2Config(29, 1, 16, 2, 64, 1e-5, 32, tied=False), (3, 7)),
    "gemma3": (
        Gemma3Config(61, 4, 24, 4, 2, 8, 40, 1e-6, 512, 24, 9, 1e4, 1e6, global_every=3),
        (2, 45),
    ),
    "gemma3_scaled": (
        Gemma3Config(43, 2, 16, 2, 1, 8, 24, 1e-6, 512, 8, 140, 1e4, 1e6, 8.0, global_every=2),
        (1, 261),
    ),
}


@dataclass(frozen=True)
class Golden:
    """Weights, tokens and what the reference makes of them; gradients are of the mean next-token loss."""

    config: Shape
    weights: dict[str, np.ndarray]
    tokens: np.ndarray
    logits: np.ndarray
    gradients: dict[str, np.ndarray]


def save(path: Path, golden: Golden) -> None:
    """Write a golden as one compressed archive."""
    arrays = {f"weight/{name}": array for name, array in golden.weights.items()}
    arrays |= {f"gradient/{name}": array for name, array in golden.gradients.items()}
    np.savez_compressed(path, tokens=golden.tokens, logits=golden.logits, **arrays)


def read(name: str) -> Golden:
    """Read the committed golden of a case."""
    with np.load(FOLDER / f"{name}.npz") as archive:
        parts: dict[str, dict[str, np.ndarray]] = {"weight": {}, "gradient": {}}
        for key in archive.files:
            if "/" in key:
                kind, tensor = key.split("/")
                parts[kind][tensor] = archive[key]
        return Golden(
            CASES[name][0], parts["weight"], archive["tokens"], archive["logits"], parts["gradient"]
        )


def model_of(golden: Golden, split_layer: int | None = None) -> Decoder:
    """This package's model with the weights of a golden."""
    return tensors.assemble(tensors.in_memory(golden.config, golden.weights), split_layer=split_layer)


def own_results(golden: Golden) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits and gradients by this package's model."""
    graph, params = nnx.split(model_of(golden))
    tokens = jnp.asarray(golden.tokens)

    def loss(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graph, params)
        logits = model.unembed(model.hidden(tokens))
        chosen = jax.nn.log_softmax(logits[:, :-1])
        return -jnp.take_along_axis(chosen, tokens[:, 1:, None], axis=-1).mean(), logits

    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    return np.asarray(logits), tensors.disassemble(nnx.merge(graph, gradients))


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference, relative to the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
