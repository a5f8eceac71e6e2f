"""Stage ``train``: the slow weights of one kind of fast weights and one seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ponderttt.fast_weights.build import build, save_slow_weights
from ponderttt.files.atomic import write_json_lines
from ponderttt.files.checkpoints import checkpoints_of
from ponderttt.files.manifest import MANIFEST, write_manifest
from ponderttt.settings.mapping import as_mapping, settings
from ponderttt.settings.training import TrainingConfig
from ponderttt.training.slow_weights import train_slow_weights
from ponderttt.workflow.entry import compilation_cache
from ponderttt.workflow.inputs import SLOW_WEIGHTS, TRAINING, ModuleSettings, open_inputs, split_validation
from ponderttt.workflow.jobs import FrozenFolders, Job

LOG = "log.jsonl"
Inputs = FrozenFolders


@settings
class Settings(ModuleSettings):
    """An adapter, and how it is trained."""

    training: TrainingConfig


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``results/training/{model}/{fast_weights}/seed-{seed}/``; continue from a checkpoint."""
    compilation_cache(job.place.programs)
    kind, seed, folder = settings.kind, settings.seed, job.folder.path
    opened = open_inputs(settings.model, inputs, kind)
    learning, validation = split_validation(opened.streams, settings.training.validation_share)
    own = getattr(settings.config, kind)
    learning_rate = getattr(own, "learning_rate", settings.training.learning_rate)
    training = replace(settings.training, learning_rate=learning_rate)

    def report(step: int, total: int, loss: float) -> None:
        job.progress(step, total, f"loss {loss:.3f}")

    module = build(kind, opened.width, settings.config, seed, opened.shape, opened.cache)
    module.prepare(np.concatenate([stream.hidden[stream.mask] for stream in learning]))
    name = "-".join(("train", *folder.parts[-3:]))
    with checkpoints_of(job.place.checkpoints, name, job.made_from) as checkpoints:
        module, log = train_slow_weights(
            module, learning, validation, opened.readout, training, seed, checkpoints, report
        )
        (folder / MANIFEST).unlink(missing_ok=True)
        save_slow_weights(module, folder / SLOW_WEIGHTS)
        write_json_lines(folder / LOG, log)
        facts = {
            "kind": kind,
            "settings": as_mapping(own),
            "training": as_mapping(training),
            "seed": seed,
            "stage_digest": job.code,
            "model_digest": opened.model_digest,
            # Sums may differ in their last bits between numbers of threads.
            "threads": job.threads,
            "training_streams": sorted(stream.stream_id for stream in learning),
            "validation_streams": sorted(stream.stream_id for stream in validation),
        }
        write_manifest(folder, TRAINING, {SLOW_WEIGHTS: None, LOG: len(log)}, facts)
