"""Print results of tiny models of every family on a mesh: ``sharded_losses.py MESH [PORT PROCESS]``.

Results are losses by the blocked projection, of exact and of quantised models, and digests.  With one process, they
include losses and features of the frozen pass, which the workflow runs if a model has several devices, and scores and
continuations of a quantised model with fast weights.

The script also checks that each device holds its part of every parameter, and that no copy stays on the host.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import jax
import numpy as np

from ponderttt.contexts import ALONE, FULL, Context
from ponderttt.corpus.streams import Tokens, cut_chunks
from ponderttt.decoding.adaptive import AdaptiveText
from ponderttt.decoding.generate import Generator
from ponderttt.decoding.sampling import Sampling
from ponderttt.fast_weights.build import build
from ponderttt.frozen.model import FrozenModel
from ponderttt.frozen.reading import StreamReader
from ponderttt.loop.methods import Spending
from ponderttt.loop.scoring import score_stream
from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.losses import linear_cross_entropy
from ponderttt.models.quantised import EXACT, Precision
from ponderttt.models.sharding import batch_sharding, make_mesh, parse_mesh
from ponderttt.names import MethodName
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.settings.context import ContextConfig
from ponderttt.settings.fast_weights import FastWeightsConfig, LoRAConfig
from ponderttt.settings.rules import RulesConfig
from tiny_families import TINY

if len(sys.argv) > 2:
    jax.distributed.initialize(f"localhost:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[3]))
mesh = make_mesh(parse_mesh(sys.argv[1]))
tokens = np.random.default_rng(0).integers(3, 60, (8, 130)).astype(np.int32)
text = Tokens(tokens.reshape(-1), np.ones(tokens.size, np.int32), np.zeros(1, np.int32), ("a.py",))
stream = cut_chunks(text, 64, 64, "text", "Python")
few = Tokens(tokens[0], text.n_bytes[:130], text.document_starts, ("a.py",))
short = cut_chunks(few, 64, 64, "few", "Python")
fast_weights = FastWeightsConfig(lora=LoRAConfig(rank=4, inner_rate=0.02, token_share=0.25))
precisions = {"": EXACT, " in int8": Precision(kind="int8"), " in int4": Precision("bfloat16", "int4")}


def check_parameters(shared: Backbone, alone: Backbone) -> None:
    """Check that every device has its part of every parameter, and the host no copy of one that is split."""
    for cut, whole in zip(jax.tree.leaves(shared.params), jax.tree.leaves(alone.params), strict=True):
        assert cut._npy_value is None or cut.sharding.num_devices == 1
        for shard in cut.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), np.asarray(whole)[shard.index])


#: GPT-2 cannot slide.
ends = ContextConfig(at_limit="reread_half")
found: dict[str, list[float] | str] = {}
for family, how in [*((family, "") for family in TINY), ("gemma3", " in int8"), ("gpt2", " in int4")]:
    # A vocabulary that the mesh divides evenly, so that it is split.
    shape = replace(TINY[family], vocab_size=64)
    backbone = random_backbone(shape, jax.random.key(0), precision=precisions[how], mesh=mesh)
    check_parameters(backbone, random_backbone(shape, jax.random.key(0), precision=precisions[how]))
    with backbone.on_devices():
        placed = jax.make_array_from_callback(tokens.shape, batch_sharding(mesh), lambda index: tokens[index])
        hidden = backbone.hidden(placed[:, :-1])
        targets = placed[:, 1:]
        losses = jax.jit(linear_cross_entropy, out_shardings=jax.sharding.NamedSharding(mesh, jax.P()))
        mean = losses(hidden, backbone.stored_unembedding, targets).mean(-1)
    found[f"{family}{how}"] = np.asarray(mean).tolist()
    found[f"{family}{how}: digest"] = backbone.digest
    if len(sys.argv) == 2 and not how:
        for context in (Context("context", 1), FULL):
            chunk = StreamReader(FrozenModel(backbone), stream, context, ends).chunk(1, None)
            values = [*chunk.nll_frozen.tolist(), *chunk.features.tolist()]
            found[f"{family}{how} in the frozen pass, {context}"] = values
    if len(sys.argv) == 2 and "int8" in how:
        written = Generator(backbone).continuations([tokens[0, :9].tolist()], [Sampling()], 4)
        found[f"{family}{how} goes on"] = [float(token) for token in written[0]]
        module = build("lora", shape.width, fast_weights, 0)
        spending = Spending(3.0, NOMINAL_COSTS, RulesConfig())
        model = FrozenModel(backbone)
        scored = score_stream(model, short, module, MethodName("update_1"), spending)
        found[f"{family}{how} scored"] = [step.loss for step in scored]
        adapted = AdaptiveText(
            model,
            module,
            MethodName("update_1"),
            spending,
            chunk_size=64,
            context=ALONE,
            ends=ends,
            max_tokens=90,
        )
        list(adapted.read(tokens[0, :70].tolist()))
        found[f"{family}{how} adapted"] = np.asarray(adapted.next_token()).tolist()
print(json.dumps(found))
