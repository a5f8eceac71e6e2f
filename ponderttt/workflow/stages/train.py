"""Stage ``train``: the slow weights of one kind of fast weights and one seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ponderttt.fast_weights.build import build, save_slow_weights
from ponderttt.files.atomic import write_json_lines
from ponderttt.files.checkpoints import checkpoints_of
from ponderttt.files.manifest import MANIFEST, write_manifest
from ponderttt.settings.fast_weights import FastWeightsConfig
from ponderttt.settings.mapping import as_mapping
from ponderttt.settings.model import ModelConfig
from ponderttt.settings.training import TrainingConfig
from ponderttt.training.slow_weights import train_slow_weights
from ponderttt.workflow.entry import Progress, compilation_cache
from ponderttt.workflow.inputs import CACHE_FOLDER, SLOW_WEIGHTS, TRAINING, open_inputs, split_validation

LOG = "log.jsonl"


def train(
    model: ModelConfig,
    kind: str,
    fast_weights: FastWeightsConfig,
    training: TrainingConfig,
    seed: int,
    model_dir: Path | str,
    chunks_dir: Path | str,
    hidden_dir: Path | str,
    output_dir: Path | str,
    checkpoint_root: Path | str,
    stage_digest: str,
    threads: int,
    progress: Progress,
) -> None:
    """Write ``results/training/{model}/{fast_weights}/seed-{seed}/``; goes on from a checkpoint of the same settings.

    Args:
        model: dtype and split of the backbone, for hidden states that were not kept.
        kind: of the fast weights, without context.
        fast_weights: settings of all kinds.
        training: settings.
        seed: of initialisation, order, actions and sampled tokens.
        model_dir: the converted model.
        chunks_dir: the training corpus in chunks.
        hidden_dir: its frozen pass, with the context that the fast weights are on top of.
        output_dir: folder of the slow weights.
        checkpoint_root: folder of all checkpoints.
        stage_digest: of the code; checkpoints of another version are not used.
        threads: for the manifest; sums may differ in the last bit between numbers of threads.
        progress: of the job, in training steps.
    """
    output = Path(output_dir)
    compilation_cache(Path(model_dir).parents[1] / CACHE_FOLDER)
    inputs = open_inputs(model, model_dir, chunks_dir, hidden_dir, kind)
    learning, validation = split_validation(inputs.streams, training.validation_share)
    own = getattr(fast_weights, kind)
    training = replace(training, learning_rate=getattr(own, "learning_rate", training.learning_rate))
    settings = {
        "kind": kind,
        "settings": as_mapping(own),
        "training": as_mapping(training),
        "seed": seed,
        "inputs": inputs.inputs,
        "stage_digest": stage_digest,
    }

    def report(step: int, total: int, loss: float) -> None:
        progress(step, total, f"loss {loss:.3f}")

    module = build(kind, inputs.width, fast_weights, seed, inputs.shape)
    module.prepare(np.concatenate([stream.hidden[stream.mask] for stream in learning]))
    name = "-".join(("train", *output.parts[-3:]))
    with checkpoints_of(checkpoint_root, name, settings) as checkpoints:
        module, log = train_slow_weights(
            module, learning, validation, inputs.readout, training, seed, checkpoints, report
        )
        (output / MANIFEST).unlink(missing_ok=True)
        save_slow_weights(module, output / SLOW_WEIGHTS)
        write_json_lines(output / LOG, log)
        facts = {
            **settings,
            "model_digest": inputs.model_digest,
            "threads": threads,
            "training_streams": sorted(stream.stream_id for stream in learning),
            "validation_streams": sorted(stream.stream_id for stream in validation),
        }
        write_manifest(output, TRAINING, {SLOW_WEIGHTS: None, LOG: len(log)}, facts)
