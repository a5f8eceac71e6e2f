"""Stage ``arms``: the records of every method, with fast weights and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ponderttt.config import FastWeightsConfig, ModelConfig, RulesConfig
from ponderttt.errors import CorruptFileError
from ponderttt.fast_weights.build import build, load_slow_weights
from ponderttt.features.table import NAMES, index
from ponderttt.jobs.checkpointing import checkpoints_of
from ponderttt.jobs.entry import Progress, compilation_cache
from ponderttt.jobs.inputs import CACHE_FOLDER, SLOW_WEIGHTS, TRAINING, inputs_digest, open_inputs
from ponderttt.layout import plain_method, rebuild
from ponderttt.loop.methods import protocol_of
from ponderttt.loop.running import Budget, run_arms
from ponderttt.mapping import as_mapping
from ponderttt.names import kind_and_context
from ponderttt.policies.calibration import Calibration, calibrate
from ponderttt.provenance import MANIFEST, read_manifest
from ponderttt.records import read_records
from ponderttt.step_records import frozen_steps, write_steps


@dataclass(frozen=True)
class ArmSettings:
    """What the records of a trained module depend on besides its inputs.

    Attributes:
        fast_weights: its name in the grid, such as ``memory+context_1``.
        config: settings of all kinds.
        seed: of the trained module and of random decisions.
        budget: of the rules and oracles.
        rules: settings of the rules.
    """

    fast_weights: str
    config: FastWeightsConfig
    seed: int
    budget: Budget
    rules: RulesConfig

    @property
    def kind(self) -> str:
        """The kind, without context."""
        return kind_and_context(self.fast_weights)[0]


def score_arms(
    model: ModelConfig,
    settings: ArmSettings,
    names: Mapping[str, str],
    model_dir: Path | str,
    chunks_dir: Path | str,
    hidden_dir: Path | str,
    training_dir: Path | str,
    calibration_dir: Path | str | None,
    output_dirs: Mapping[str, Path | str],
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
    again = rebuild(Path(training_dir) / MANIFEST)
    trained = read_manifest(training_dir, TRAINING, again)["facts"]
    own = as_mapping(getattr(settings.config, kind))
    if trained["settings"] != own or trained["model_digest"] != inputs.model_digest:
        raise CorruptFileError(
            f"{training_dir}: trained with other settings or on another model. Rebuild it: {again}"
        )
    module = load_slow_weights(
        build(kind, inputs.width, settings.config, seed, inputs.shape),
        Path(training_dir) / SLOW_WEIGHTS,
        again,
    )
    needed = [training_dir] if calibration_dir is None else [training_dir, calibration_dir]
    facts = {
        "stage_digest": stage_digest,
        "fast_weights": own,
        "budget": asdict(settings.budget),
        "rules": as_mapping(settings.rules),
        "seed": seed,
        "inputs": inputs.inputs | inputs_digest(*needed),
        "model_digest": inputs.model_digest,
        "trained_by": trained["stage_digest"],
        "threads": threads,
    }
    methods = list(output_dirs)
    name = f"{purpose}-{names['corpus']}-{names['model']}-{settings.fast_weights}-seed-{seed}"
    with checkpoints_of(checkpoint_root, name, facts | {"methods": methods}) as checkpoints:
        steps = run_arms(
            module,
            inputs.streams,
            inputs.unembedding,
            methods,
            budget=settings.budget,
            seed=seed,
            suffix=inputs.suffix,
            rules=settings.rules,
            calibration=None if calibration_dir is None else calibration_of(calibration_dir),
            checkpoints=checkpoints,
            progress=progress,
        )
        for method, folder in output_dirs.items():
            write_steps(
                folder,
                steps[method],
                model=names["model"],
                corpus=names["corpus"],
                fast_weights=settings.fast_weights,
                method=method,
                protocol=protocol_of(method),
                seed=seed,
                language=inputs.language,
                facts=facts,
            )


def calibration_of(folder: Path | str) -> Calibration:
    """What the records of a module on training streams tell the rules.

    Raises:
        CorruptFileError: they are missing or damaged.
    """
    table, _ = read_records(folder, rebuild(Path(folder) / MANIFEST))
    features = np.array(table["features"].to_pylist(), np.float64)
    signals = {
        "entropy": features[:, index("entropy_mean")],
        "loss": table["loss"].to_numpy(),
        "reconstruction": table["reconstruction_loss"].to_numpy(),
    }
    return calibrate(signals, dict(zip(NAMES, features.T, strict=True)))


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
        method=plain_method(context),
        protocol="score_first",
        seed=0,
        language=inputs.language,
        nominal_cost=lambda step: 1.0 + min(context, step.chunk_index),
        facts=facts,
    )


def folders(paths: Sequence[str]) -> dict[str, Path]:
    """Method → folder, for manifests at ``…/{method}/seed-{seed}/manifest.json``."""
    return {Path(path).parts[-3]: Path(path).parent for path in paths}
