"""Stage ``arms``: the records of every method on one adapter; also of rule ``calibrate``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ponderttt.features.table import index
from ponderttt.files.checkpoints import checkpoints_of
from ponderttt.files.commands import rebuild
from ponderttt.files.folder import Folder
from ponderttt.files.manifest import MANIFEST, check_facts
from ponderttt.loop.methods import protocol_of
from ponderttt.loop.running import run_arms
from ponderttt.names import MethodName
from ponderttt.policies.calibration import Calibration, calibrate
from ponderttt.policies.trained import features_digest, open_policy
from ponderttt.records.record import read_records
from ponderttt.records.steps import write_steps
from ponderttt.settings.mapping import as_mapping, settings
from ponderttt.workflow.entry import compilation_cache
from ponderttt.workflow.inputs import open_inputs
from ponderttt.workflow.jobs import Job, ModuleFolders
from ponderttt.workflow.modules import SpendingSettings, open_module


@settings
class Settings(SpendingSettings):
    """An adapter, its budget, and names for its records.

    Attributes:
        purpose: ``arms`` or ``calibrate``; names the job's checkpoints.
        names: names of the ``model`` and the ``corpus`` in the configuration.
    """

    purpose: str
    names: dict[str, str]


@dataclass(frozen=True)
class Inputs(ModuleFolders):
    """The corpus with its adapter, and the learned policies."""

    policies: tuple[Folder, ...]


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Run methods side by side over a corpus and write the records of each into its own folder."""
    compilation_cache(job.place.programs)
    corpus = open_inputs(settings.model, inputs, settings.kind)
    opened = open_module(settings, corpus, inputs.training)
    digests = {"model_digest": corpus.model_digest, "module_digest": opened.digest}
    learned = {
        _method_of(folder): open_policy(folder, rebuild(folder.manifest), **digests)[0]
        for folder in inputs.policies
    }
    calibration = None
    if inputs.calibration is not None:
        calibration = calibration_of(inputs.calibration, **digests)
    # Calibration makes no update, whatever rules there are.
    outputs = {
        MethodName("skip") if settings.purpose == "calibrate" else _method_of(folder): folder
        for folder in job.folders
    }
    facts = {
        **digests,
        "stage_digest": job.code,
        "fast_weights": opened.settings,
        "budget": asdict(settings.spending),
        "rules": as_mapping(settings.rules),
        "seed": settings.seed,
        "features_digest": features_digest(),
        "trained_by": opened.trained_by,
        "threads": job.threads,
    }
    model, on = settings.names["model"], settings.names["corpus"]
    name = f"{settings.purpose}-{on}-{model}-{settings.fast_weights}-seed-{settings.seed}"
    belongs_to = {**job.made_from, "methods": [str(method) for method in outputs], "threads": job.threads}
    with checkpoints_of(job.place.checkpoints, name, belongs_to) as checkpoints:
        steps = run_arms(
            opened.module,
            corpus.streams,
            corpus.unembedding,
            list(outputs),
            budget=settings.spending,
            seed=settings.seed,
            suffix=corpus.suffix,
            rules=settings.rules,
            calibration=calibration,
            learned=learned,
            checkpoints=checkpoints,
            progress=job.progress,
        )
        for method, folder in outputs.items():
            write_steps(
                folder,
                steps[str(method)],
                model=model,
                corpus=on,
                fast_weights=settings.fast_weights,
                method=str(method),
                protocol=protocol_of(method),
                seed=settings.seed,
                language=corpus.language,
                facts=facts,
            )


def _method_of(folder: Folder) -> MethodName:
    """The method of a folder ``…/{method}/seed-{seed}``."""
    return MethodName.parse(folder.path.parent.name)


def calibration_of(folder: Path | str, model_digest: str, module_digest: str) -> Calibration:
    """Return the signals of training chunks that rules rank by, from the records of a trained module at 0 updates.

    Args:
        folder: of the records.
        model_digest: of the backbone that the rules are used with.
        module_digest: sha256 of the slow weights that they are used with.

    Raises:
        CorruptFileError: the records are missing or damaged, or of another model, module or table of features.
    """
    again = rebuild(Path(folder) / MANIFEST)
    table, manifest = read_records(folder, again)
    digests = {"model_digest": model_digest, "module_digest": module_digest}
    check_facts(folder, manifest["facts"], again, features_digest=features_digest(), **digests)
    features = np.array(table["features"].to_pylist(), np.float64)
    signals = {
        "entropy": features[:, index("entropy_mean")],
        "loss": table["loss"].to_numpy(),
        "reconstruction": table["reconstruction_loss"].to_numpy(),
    }
    return calibrate(signals)
