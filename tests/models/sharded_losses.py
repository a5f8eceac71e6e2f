"""Print the losses of tiny models of every family on a mesh: ``sharded_losses.py MESH [PORT PROCESS]``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import jax
import numpy as np

from ponderttt.models.backbone import random_backbone
from ponderttt.models.losses import linear_cross_entropy
from ponderttt.models.sharding import batch_sharding, make_mesh, on_mesh, parse_mesh
from tiny_families import TINY

if len(sys.argv) > 2:
    jax.distributed.initialize(f"localhost:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[3]))
mesh = make_mesh(parse_mesh(sys.argv[1]))
tokens = np.random.default_rng(0).integers(3, 60, (8, 130)).astype(np.int32)
found = {}
with jax.set_mesh(mesh):
    for family, tiny in TINY.items():
        # A vocabulary that the mesh divides, so that it is really cut.
        backbone = on_mesh(random_backbone(replace(tiny, vocab_size=64), jax.random.key(0)), mesh)
        placed = jax.make_array_from_callback(tokens.shape, batch_sharding(mesh), lambda index: tokens[index])
        hidden = backbone.hidden(placed[:, :-1])
        targets = placed[:, 1:]
        losses = jax.jit(linear_cross_entropy, out_shardings=jax.sharding.NamedSharding(mesh, jax.P()))
        mean = losses(hidden, backbone.unembedding, targets).mean(-1)
        found[family] = np.asarray(mean).tolist()
print(json.dumps(found))
