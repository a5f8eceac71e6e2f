"""Stage ``arms``: the records of every method, with fast weights and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ponderttt.arms import frozen_steps, run_arms, write_steps
from ponderttt.config import FastWeightsConfig, ModelConfig, as_mapping
from ponderttt.errors import CorruptFileError
from ponderttt.fast_weights.build import build, load_slow_weights
from ponderttt.jobs.checkpointing import checkpoints_of
from ponderttt.jobs.entry import Progress, compilation_cache
from ponderttt.jobs.inputs import CACHE_FOLDER, SLOW_WEIGHTS, TRAINING, inputs_digest, open_inputs
from ponderttt.layout import plain_method, rebuild
from ponderttt.provenance import MANIFEST, read_manifest


def score_arms(
    model: ModelConfig,
    kind: str,
    fast_weights: FastWeightsConfig,
    budget: float,
    seed: int,
    names: Mapping[str, str],
    model_dir: Path | str,
    chunks_dir: Path | str,
    hidden_dir: Path | str,
    training_dir: Path | str,
    output_dirs: Mapping[str, Path | str],
    checkpoint_root: Path | str,
    stage_digest: str,
    threads: int,
    progress: Progress,
) -> None:
    """Run methods side by side over a corpus and write the records of each.

    Args:
        model: dtype and split of the backbone, for hidden states that were not kept.
        kind: of the fast weights.
        fast_weights: settings of all kinds.
        budget: mean nominal cost per chunk that ``random`` is matched to.
        seed: of the trained module and of random decisions.
        names: what the configuration calls the ``model`` and the ``corpus``.
        model_dir: the converted model.
        chunks_dir: the held-out corpus in chunks.
        hidden_dir: its frozen pass without context.
        training_dir: the trained slow weights.
        output_dirs: method → folder of its records.
        checkpoint_root: folder of all checkpoints.
        stage_digest: of the code that makes records.
        threads: processor threads of this job, for the manifest.
        progress: of the job, in streams.
    """
    compilation_cache(Path(model_dir).parents[1] / CACHE_FOLDER)
    inputs = open_inputs(model, model_dir, chunks_dir, hidden_dir)
    again = rebuild(Path(training_dir) / MANIFEST)
    trained = read_manifest(training_dir, TRAINING, again)["facts"]
    if (
        trained["settings"] != as_mapping(getattr(fast_weights, kind))
        or trained["model_digest"] != inputs.model_digest
    ):
        raise CorruptFileError(
            f"{training_dir}: trained with other settings or on another model. Rebuild it: {again}"
        )
    module = load_slow_weights(
        build(kind, inputs.width, fast_weights, seed), Path(training_dir) / SLOW_WEIGHTS, again
    )
    facts = {
        "stage_digest": stage_digest,
        "fast_weights": as_mapping(getattr(fast_weights, kind)),
        "budget": budget,
        "seed": seed,
        "inputs": inputs.inputs | inputs_digest(training_dir),
        "model_digest": inputs.model_digest,
        "trained_by": trained["stage_digest"],
        "threads": threads,
    }
    methods = list(output_dirs)
    name = f"arms-{names['corpus']}-{names['model']}-{kind}-seed-{seed}"
    with checkpoints_of(checkpoint_root, name, facts | {"methods": methods}) as checkpoints:
        steps = run_arms(
            module,
            inputs.streams,
            inputs.unembedding,
            methods,
            budget=budget,
            seed=seed,
            checkpoints=checkpoints,
            progress=progress,
        )
        for method, folder in output_dirs.items():
            write_steps(
                folder,
                steps[method],
                model=names["model"],
                corpus=names["corpus"],
                fast_weights=kind,
                method=method,
                seed=seed,
                language=inputs.language,
                facts=facts,
            )


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
        seed=0,
        language=inputs.language,
        nominal_cost=lambda step: 1.0 + min(context, step.chunk_index),
        facts=facts,
    )


def folders(paths: Sequence[str]) -> dict[str, Path]:
    """Method → folder, for manifests at ``…/{method}/seed-{seed}/manifest.json``."""
    return {Path(path).parts[-3]: Path(path).parent for path in paths}
