"""Stage ``arms``: the records of every method, with fast weights and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ponderttt.features.table import index
from ponderttt.files.checkpoints import checkpoints_of
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST, check_facts
from ponderttt.loop.methods import protocol_of
from ponderttt.loop.running import run_arms
from ponderttt.names import MethodName
from ponderttt.policies.calibration import Calibration, calibrate
from ponderttt.policies.trained import features_digest, open_policy
from ponderttt.records.record import read_records
from ponderttt.records.steps import frozen_steps, write_steps
from ponderttt.settings.mapping import as_mapping
from ponderttt.settings.model import ModelConfig
from ponderttt.workflow.entry import Progress, compilation_cache
from ponderttt.workflow.inputs import CACHE_FOLDER, inputs_digest, open_inputs
from ponderttt.workflow.modules import ArmSettings, open_module


def score_arms(
    model: ModelConfig,
    settings: ArmSettings,
    names: Mapping[str, str],
    model_dir: Path | str,
    chunks_dir: Path | str,
    hidden_dir: Path | str,
    training_dir: Path | str,
    calibration_dir: Path | str | None,
    policy_dirs: Mapping[MethodName, Path | str],
    output_dirs: Mapping[MethodName, Path | str],
    checkpoint_root: Path | str,
    stage_digest: str,
    threads: int,
    progress: Progress,
    purpose: str = "arms",
) -> None:
    """Run methods side by side over a corpus and write the records of each.

    Args:
        model: dtype and split of the backbone, for hidden states that were not kept.
        settings: of the fast weights, the seed and the rules.
        names: what the configuration calls the ``model`` and the ``corpus``.
        model_dir: the converted model.
        chunks_dir: the corpus in chunks.
        hidden_dir: its frozen pass, with the context that the fast weights are on top of.
        training_dir: the trained slow weights.
        calibration_dir: records of the same module on training streams, for rules that look at signals.
        policy_dirs: name of a learned policy → its folder.
        output_dirs: method → folder of its records.
        checkpoint_root: folder of all checkpoints.
        stage_digest: of the code that makes records.
        threads: processor threads of this job, for the manifest.
        progress: of the job, in streams.
        purpose: names the job's checkpoints.
    """
    compilation_cache(Path(model_dir).parents[1] / CACHE_FOLDER)
    kind, seed = settings.kind, settings.seed
    inputs = open_inputs(model, model_dir, chunks_dir, hidden_dir, kind)
    opened = open_module(settings, inputs, training_dir)
    needed = [training_dir, *policy_dirs.values()]
    if calibration_dir is not None:
        needed.append(calibration_dir)
    learned = {
        name: open_policy(
            folder,
            rebuild(Path(folder) / MANIFEST),
            model_digest=inputs.model_digest,
            module_digest=opened.digest,
        )[0]
        for name, folder in policy_dirs.items()
    }
    calibration = None
    if calibration_dir is not None:
        calibration = calibration_of(calibration_dir, inputs.model_digest, opened.digest)
    facts = {
        "stage_digest": stage_digest,
        "fast_weights": opened.settings,
        "budget": asdict(settings.budget),
        "rules": as_mapping(settings.rules),
        "seed": seed,
        "inputs": inputs.inputs | inputs_digest(*needed),
        "model_digest": inputs.model_digest,
        "module_digest": opened.digest,
        "features_digest": features_digest(),
        "trained_by": opened.trained_by,
        "threads": threads,
    }
    methods = list(output_dirs)
    name = f"{purpose}-{names['corpus']}-{names['model']}-{settings.fast_weights}-seed-{seed}"
    with checkpoints_of(
        checkpoint_root, name, facts | {"methods": [str(method) for method in methods]}
    ) as checkpoints:
        steps = run_arms(
            opened.module,
            inputs.streams,
            inputs.unembedding,
            methods,
            budget=settings.budget,
            seed=seed,
            suffix=inputs.suffix,
            rules=settings.rules,
            calibration=calibration,
            learned=learned,
            checkpoints=checkpoints,
            progress=progress,
        )
        for method, folder in output_dirs.items():
            write_steps(
                folder,
                steps[str(method)],
                model=names["model"],
                corpus=names["corpus"],
                fast_weights=str(settings.fast_weights),
                method=str(method),
                protocol=protocol_of(method),
                seed=seed,
                language=inputs.language,
                facts=facts,
            )


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


def score_plain(
    model: ModelConfig,
    context: int,
    names: Mapping[str, str],
    model_dir: Path | str,
    chunks_dir: Path | str,
    hidden_dir: Path | str,
    output_dir: Path | str,
    stage_digest: str,
    threads: int,
) -> None:
    """Write the records of the backbone without fast weights, which are all in its frozen pass.

    Its nominal cost is the number of chunks that it reads for each: 1, and 1 more for each chunk of context that there is.

    Args:
        model: dtype and split of the backbone, for hidden states that were not kept.
        context: preceding chunks that it sees.
        names: what the configuration calls the ``model`` and the ``corpus``.
        model_dir: the converted model.
        chunks_dir: the held-out corpus in chunks.
        hidden_dir: its frozen pass with that context.
        output_dir: folder of the records.
        stage_digest: of the code that makes records.
        threads: processor threads of this job, for the manifest.
    """
    inputs = open_inputs(model, model_dir, chunks_dir, hidden_dir)
    facts: dict[str, Any] = {
        "stage_digest": stage_digest,
        "context_chunks": context,
        "seed": 0,
        "deterministic": True,
        "inputs": inputs.inputs,
        "model_digest": inputs.model_digest,
        "threads": threads,
    }
    write_steps(
        output_dir,
        frozen_steps(inputs.streams),
        model=names["model"],
        corpus=names["corpus"],
        fast_weights="none",
        method=str(MethodName.plain(context)),
        protocol="score_first",
        seed=0,
        language=inputs.language,
        nominal_cost=lambda step: 1.0 + min(context, step.chunk_index),
        facts=facts,
    )


def folders(paths: Sequence[str]) -> dict[MethodName, Path]:
    """Method → folder, for manifests at ``…/{method}/seed-{seed}/manifest.json``."""
    return {MethodName.parse(Path(path).parts[-3]): Path(path).parent for path in paths}
