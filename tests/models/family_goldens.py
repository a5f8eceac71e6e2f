"""Cases of tiny models that PyTorch and transformers ran once, module by module and whole, and readers of the results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ponderttt.models import blocks, tensors
from ponderttt.models.decoder import Decoder, embedded
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import Gemma3Config
from ponderttt.models.families.gpt2 import GPT2Config
from ponderttt.models.families.llama import LlamaConfig

FOLDER = Path(__file__).parent / "goldens"
LOGITS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
#: Tolerance of one module's output, relative to its largest value.
MODULE_TOLERANCE = 1e-5

#: Grouped queries, tied and untied, a head size that is not width / heads, lengths around the attention block; windows
#: shorter and longer than that block, and positions of global blocks with and without a factor.
CASES: dict[str, tuple[Shape, tuple[int, int]]] = {
    "tied": (
        LlamaConfig(
            vocab_size=61,
            layers=2,
            width=16,
            heads=4,
            kv_heads=2,
            head_dim=4,
            mlp_width=24,
            rope_base=1e4,
            norm_eps=1e-5,
            max_context=64,
            tied=True,
        ),
        (2, 13),
    ),
    "untied": (
        LlamaConfig(
            vocab_size=47,
            layers=3,
            width=24,
            heads=6,
            kv_heads=2,
            head_dim=8,
            mlp_width=20,
            rope_base=1e5,
            norm_eps=1e-6,
            max_context=512,
            tied=False,
        ),
        (1, 131),
    ),
    "one_kv_head": (
        LlamaConfig(
            vocab_size=37,
            layers=1,
            width=8,
            heads=4,
            kv_heads=1,
            head_dim=4,
            mlp_width=16,
            rope_base=5e5,
            norm_eps=1e-5,
            max_context=512,
            tied=False,
        ),
        (1, 257),
    ),
    "gpt2": (
        GPT2Config(vocab_size=53, layers=3, width=24, heads=4, mlp_width=40, norm_eps=1e-5, max_context=160),
        (2, 143),
    ),
    "gpt2_untied": (
        GPT2Config(
            vocab_size=29,
            layers=1,
            width=16,
            heads=2,
            mlp_width=64,
            norm_eps=1e-5,
            max_context=32,
            tied=False,
        ),
        (3, 7),
    ),
    "gemma3": (
        Gemma3Config(
            vocab_size=61,
            layers=4,
            width=24,
            heads=4,
            kv_heads=2,
            head_dim=8,
            mlp_width=40,
            norm_eps=1e-6,
            max_context=512,
            query_scalar=24,
            window=9,
            local_rope_base=1e4,
            global_rope_base=1e6,
            global_every=3,
        ),
        (2, 45),
    ),
    "gemma3_scaled": (
        Gemma3Config(
            vocab_size=43,
            layers=2,
            width=16,
            heads=2,
            kv_heads=1,
            head_dim=8,
            mlp_width=24,
            norm_eps=1e-6,
            max_context=512,
            query_scalar=8,
            window=140,
            local_rope_base=1e4,
            global_rope_base=1e6,
            global_rope_factor=8.0,
            global_every=2,
        ),
        (1, 261),
    ),
}


@dataclass(frozen=True)
class Golden:
    """Weights, tokens and the reference's results; gradients are those of the mean next-token loss.

    ``modules`` holds outputs of the reference's modules, by the names of :func:`own_modules`.
    """

    config: Shape
    weights: dict[str, np.ndarray]
    tokens: np.ndarray
    logits: np.ndarray
    gradients: dict[str, np.ndarray]
    modules: dict[str, np.ndarray]


def save(path: Path, golden: Golden) -> None:
    """Write a golden as one compressed archive."""
    arrays = {f"weight/{name}": array for name, array in golden.weights.items()}
    arrays |= {f"gradient/{name}": array for name, array in golden.gradients.items()}
    arrays |= {f"module/{name}": array for name, array in golden.modules.items()}
    np.savez_compressed(path, tokens=golden.tokens, logits=golden.logits, **arrays)


def read(name: str) -> Golden:
    """Read the committed golden of a case."""
    with np.load(FOLDER / f"{name}.npz") as archive:
        parts: dict[str, dict[str, np.ndarray]] = {"weight": {}, "gradient": {}, "module": {}}
        for key in archive.files:
            if "/" in key:
                kind, tensor = key.split("/")
                parts[kind][tensor] = archive[key]
        return Golden(
            CASES[name][0],
            parts["weight"],
            archive["tokens"],
            archive["logits"],
            parts["gradient"],
            parts["module"],
        )


def model_of(golden: Golden, split_layer: int | None = None) -> Decoder:
    """Return this package's model with the weights of a golden."""
    return tensors.assemble(tensors.in_memory(golden.config, golden.weights), split_layer=split_layer)


def own_results(golden: Golden) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return logits and gradients of this package's model."""
    graph, params = nnx.split(model_of(golden))
    tokens = jnp.asarray(golden.tokens)

    def loss(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graph, params)
        logits = model.unembed(model.hidden(tokens))
        chosen = jax.nn.log_softmax(logits[:, :-1])
        return -jnp.take_along_axis(chosen, tokens[:, 1:, None], axis=-1).mean(), logits

    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    return np.asarray(logits), tensors.disassemble(nnx.merge(graph, gradients))


def own_modules(golden: Golden) -> dict[str, np.ndarray]:
    """Return the output of each module of this package's model, given the outputs of the reference's modules before it.

    Names are ``embedding`` [B, T, D]; for each block ``N.attention``, the residual stream after attention [B, T, D],
    ``N.inner``, the input of the down-projection [B, T, F], and ``N.block``, the output; and ``final_norm``.
    """
    graph, params = nnx.split(model_of(golden))
    found = jax.jit(lambda *of: _modules(golden.config, nnx.merge(graph, of[0]), *of[1:]))(
        params, jnp.asarray(golden.tokens), jax.tree.map(jnp.asarray, golden.modules)
    )
    return {name: np.asarray(array) for name, array in found.items()}


def _modules(
    shape: Shape, model: Decoder, tokens: jax.Array, given: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    family, outer = family_of(shape), model.outer.arrays()
    places = family.places(shape, jnp.arange(tokens.shape[1]))
    unmasked = jnp.ones(tokens.shape[1], dtype=bool)
    stacks = [model.blocks_before.arrays(), model.blocks_after.arrays()]
    rows = [(stack, row) for stack in stacks for row in range(len(next(iter(stack.values()))))]
    found, stream = {"embedding": embedded(shape, outer, tokens)}, given["embedding"]
    for layer, ((stack, row), kind) in enumerate(zip(rows, family.kinds(shape), strict=True)):
        block, place = {name: array[row] for name, array in stack.items()}, places.of(kind)
        before = jax.vmap(
            lambda hidden, block=block, place=place: blocks.before_down_projection(
                shape, block, hidden, place, unmasked
            )
        )
        found[f"{layer}.attention"], found[f"{layer}.inner"] = before(stream)
        finish = jax.vmap(
            lambda residual, inner, block=block: blocks.finish_block(shape, block, residual, inner)
        )
        found[f"{layer}.block"] = finish(given[f"{layer}.attention"], given[f"{layer}.inner"])
        stream = given[f"{layer}.block"]
    found["final_norm"] = family.final_norm(shape, outer, stream)
    return found


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest absolute difference, relative to the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
