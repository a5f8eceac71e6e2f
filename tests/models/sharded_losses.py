"""Print what tiny models of every family say on a mesh: ``sharded_losses.py MESH [PORT PROCESS]``.

Losses by the blocked projection; and, with one process, those and the features of the frozen pass, which is what the
workflow runs when a configuration gives a model several devices.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import jax
import numpy as np

from ponderttt.corpus.streams import Tokens, cut_chunks
from ponderttt.frozen import FrozenModel
from ponderttt.models.backbone import random_backbone
from ponderttt.models.losses import linear_cross_entropy
from ponderttt.models.sharding import batch_sharding, make_mesh, parse_mesh
from tiny_families import TINY

if len(sys.argv) > 2:
    jax.distributed.initialize(f"localhost:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[3]))
mesh = make_mesh(parse_mesh(sys.argv[1]))
tokens = np.random.default_rng(0).integers(3, 60, (8, 130)).astype(np.int32)
text = Tokens(tokens.reshape(-1), np.ones(tokens.size, np.int32), np.zeros(1, np.int32), ("a.py",), ())
stream = cut_chunks(text, 64, 64, "text", "Python")
found = {}
for family, tiny in TINY.items():
    # A vocabulary that the mesh divides, so that it is really cut.
    backbone = random_backbone(replace(tiny, vocab_size=64), jax.random.key(0), mesh=mesh)
    with backbone.on_devices():
        placed = jax.make_array_from_callback(tokens.shape, batch_sharding(mesh), lambda index: tokens[index])
        hidden = backbone.hidden(placed[:, :-1])
        targets = placed[:, 1:]
        losses = jax.jit(linear_cross_entropy, out_shardings=jax.sharding.NamedSharding(mesh, jax.P()))
        mean = losses(hidden, backbone.unembedding, targets).mean(-1)
    found[family] = np.asarray(mean).tolist()
    if len(sys.argv) == 2:
        chunk = FrozenModel(backbone).run(stream, 1, 1, None)
        found[f"{family} in the frozen pass"] = [*chunk.nll.tolist(), *chunk.features.tolist()]
print(json.dumps(found))
