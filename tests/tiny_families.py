"""Tiny models of every family, with three blocks."""

from __future__ import annotations

from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import Gemma3Config
from ponderttt.models.families.gpt2 import GPT2Config
from tiny_llama import tiny_llama

TINY: dict[str, Shape] = {
    "llama": tiny_llama(vocab_size=61, layers=3),
    "gpt2": GPT2Config(
        vocab_size=61, layers=3, width=32, heads=4, mlp_width=48, norm_eps=1e-5, max_context=512
    ),
    # Local, global, local; a window that is shorter than what the tests read.
    "gemma3": Gemma3Config(
        vocab_size=61,
        layers=3,
        width=32,
        heads=4,
        kv_heads=2,
        head_dim=8,
        mlp_width=48,
        norm_eps=1e-6,
        max_context=512,
        query_scalar=8,
        window=100,
        local_rope_base=1e4,
        global_rope_base=1e6,
        global_rope_factor=8.0,
        global_every=2,
    ),
}
