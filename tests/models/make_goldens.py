"""Compute the goldens with PyTorch and transformers, or check the committed ones and the real weights against them.

    python tests/models/make_goldens.py            writes tests/models/goldens/*.npz
    python tests/models/make_goldens.py --check    recomputes, compares the files and this package's model, and
                                                   compares the loss of the real model on real text

Needs torch (the extra ``parity``); nothing else in this project does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

import family_goldens as goldens
from compare_cached import same_with_a_cache
from ponderttt.models import losses, tensors, weights
from ponderttt.models.backbone import make_backbone
from ponderttt.models.config_json import shape_json
from ponderttt.models.families.family import Shape
from ponderttt.models.sources import TERMS
from ponderttt.settings import experiment as config

REAL_LOSS_TOLERANCE = 1e-3
#: Case of each family → tokens of a chunk when it is read with a cache.
CACHED = {"untied": 32, "gpt2": 32, "gemma3": 12}
#: Chunks of 512 tokens of real text that a real model reads with a cache.
CACHED_CHUNKS = 8


def reference_model(shape: Shape, arrays: dict[str, np.ndarray]) -> transformers.PreTrainedModel:
    """Return the transformers model of a shape with given weights, float32, from the config.json that this package writes."""
    settings = shape_json(shape)
    settings.pop("dtype")
    # A padding token would remove part of the gradient of one row of the embedding.
    settings |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    missing, unexpected = model.load_state_dict(
        {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, strict=False
    )
    assert not unexpected, unexpected
    assert set(missing) <= ({"lm_head.weight"} if shape.tied else set()), missing
    model.tie_weights()
    return model.float().eval()


def make(name: str) -> goldens.Golden:
    """Compute reference logits and gradients of a case, from weights drawn by its place in the list."""
    shape, (batch, length) = goldens.CASES[name]
    seed = list(goldens.CASES).index(name)
    arrays = tensors.random_tensors(shape, jax.random.key(seed))
    tokens = np.random.default_rng(seed).integers(0, shape.vocab_size, (batch, length))
    return refer(goldens.Golden(shape, arrays, tokens.astype(np.int32), np.empty(0), {}, {}))


def watch(model: transformers.PreTrainedModel, modules: dict[str, np.ndarray]) -> None:
    """Record inputs and outputs of the modules of a model, by the names of :func:`family_goldens.own_modules`."""

    def keep(name: str, tensor: object) -> None:
        modules[name] = (tensor[0] if isinstance(tensor, tuple) else tensor).detach().numpy()

    def read_by(module: torch.nn.Module, name: str) -> None:
        module.register_forward_pre_hook(lambda _, inputs: keep(name, inputs[0]))

    def given_by(module: torch.nn.Module, name: str) -> None:
        module.register_forward_hook(lambda _, inputs, output: keep(name, output))

    body = model.base_model
    layers, final_norm = (body.h, body.ln_f) if hasattr(body, "h") else (body.layers, body.norm)
    read_by(layers[0], "embedding")
    for number, layer in enumerate(layers):
        # In every family the norm before the MLP is the first module after attention.
        for norm in ("pre_feedforward_layernorm", "ln_2", "post_attention_layernorm"):
            if hasattr(layer, norm):
                read_by(getattr(layer, norm), f"{number}.attention")
                break
        down = layer.mlp.c_proj if hasattr(layer.mlp, "c_proj") else layer.mlp.down_proj
        read_by(down, f"{number}.inner")
        given_by(layer, f"{number}.block")
    given_by(final_norm, "final_norm")


def refer(golden: goldens.Golden) -> goldens.Golden:
    """Return the same weights and tokens with outputs of the reference's modules, its logits and gradients."""
    model = reference_model(golden.config, golden.weights)
    modules: dict[str, np.ndarray] = {}
    watch(model, modules)
    tokens = torch.from_numpy(golden.tokens).long()
    logits = model(tokens).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    gradients = {
        name: parameter.grad.numpy()
        for name, parameter in model.named_parameters()
        if name in golden.weights and parameter.grad is not None
    }
    assert gradients.keys() == golden.weights.keys()
    return replace(golden, logits=logits.detach().numpy(), gradients=gradients, modules=modules)


def check(name: str) -> bool:
    """Compare the committed golden and this package's model with a fresh computation of the reference."""
    committed = goldens.read(name)
    fresh = refer(committed)
    own_logits, own_gradients = goldens.own_results(committed)
    own_modules = goldens.own_modules(replace(committed, modules=fresh.modules))
    passed = True
    for label, logits, gradients, modules in (
        ("committed", committed.logits, committed.gradients, committed.modules),
        ("ponderttt", own_logits, own_gradients, own_modules),
    ):
        off = float(np.abs(logits - fresh.logits).max())
        worst = largest(gradients, fresh.gradients)
        module = largest(modules, fresh.modules)
        good = (
            off <= goldens.LOGITS_TOLERANCE
            and worst <= goldens.GRADIENT_TOLERANCE
            and module <= goldens.MODULE_TOLERANCE
        )
        passed &= good
        print(
            f"{name:14s} {label:10s} logits {off:.1e}  gradients {worst:.1e}  modules {module:.1e}  {'ok' if good else 'DIFFERS'}"
        )
    return passed


def check_cached(name: str, chunk_size: int) -> bool:
    """Compare a tiny model that reads chunks with a cache with the reference and its cache."""
    golden = goldens.read(name)
    model = goldens.model_of(golden, split_layer=golden.config.layers - 1)
    reference = reference_model(golden.config, golden.weights)
    return same_with_a_cache(name, make_backbone(model), reference, golden.tokens[0], chunk_size)


def largest(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Return the largest relative difference of all; infinite if one is missing."""
    if found.keys() != expected.keys():
        return float("inf")
    return max(goldens.largest_difference(found[name], expected[name]) for name in expected)


def check_real(model: config.ModelConfig, name: str, cache_dir: Path) -> bool:
    """Compare the mean next-token loss of the real model on real text with transformers on the same weights."""
    with tempfile.TemporaryDirectory() as scratch:
        weights.convert(model, cache_dir, scratch)
        backbone = weights.open_backbone(scratch)
        reference = transformers.AutoModelForCausalLM.from_pretrained(scratch, dtype=torch.float32).eval()
        reader = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{scratch}/tokenizer.json")
    assert backbone.tokenizer is not None
    front = backbone.config.front
    passed = True
    for module in (argparse, tempfile):
        text = Path(module.__file__ or "").read_text()
        ids = backbone.tokenizer.encode(text)[:513]
        same_ids = reader(text, split_special_tokens=True)["input_ids"][:513] == ids
        own = losses.linear_cross_entropy(
            backbone.hidden(jnp.asarray([[*front, *ids[:-1]]]), keep_last=len(ids) - 1),
            backbone.unembedding,
            jnp.asarray([ids[1:]]),
        )
        with torch.no_grad():
            logits = reference(torch.tensor([[*front, *ids[:-1]]])).logits[0, len(front) :]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).item()
        off = abs(float(own.mean()) - expected)
        good = same_ids and off <= REAL_LOSS_TOLERANCE
        passed &= good
        print(
            f"{name} on {module.__name__}.py: {float(own.mean()):.5f} nats per token, transformers {expected:.5f}, same tokens {same_ids}  {'ok' if good else 'DIFFERS'}"
        )
    ids = np.asarray(
        backbone.tokenizer.encode(Path(argparse.__file__).read_text())[: CACHED_CHUNKS * 512 + 1]
    )
    return same_with_a_cache(name, backbone, reference, ids, 512) and passed


def main() -> int:
    """Write or check; the exit status is 0 if everything agrees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--config", default="config.yaml", help="experiment that names real models")
    parser.add_argument(
        "--accept-terms", action="store_true", help="of models that have any: then those are compared as well"
    )
    parser.add_argument("--cache-dir", default="data/sources/models", help="where downloads are kept")
    options = parser.parse_args()
    if not options.check:
        goldens.FOLDER.mkdir(exist_ok=True)
        for name in goldens.CASES:
            goldens.save(goldens.FOLDER / f"{name}.npz", make(name))
        return 0
    experiment = config.load(options.config)
    passed = [check(case) for case in goldens.CASES]
    passed += [check_cached(case, chunk_size) for case, chunk_size in CACHED.items()]
    for name, model in experiment.models.items():
        if options.accept_terms:
            model = replace(model, source=replace(model.source, accept_terms=True))
        if model.family in TERMS and not model.source.accept_terms:
            print(f"{name}: not compared; --accept-terms says that you accept {TERMS[model.family]}")
            continue
        passed.append(check_real(model, name, Path(options.cache_dir)))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
