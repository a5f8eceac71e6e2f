"""Stage ``policy``: a learned policy of one trained module and seed."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ponderttt.features import normalise
from ponderttt.features.table import FEATURES
from ponderttt.files.checkpoints import Checkpoints, checkpoints_of
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.running import action_costs
from ponderttt.names import MethodName
from ponderttt.policies.budget import budget_tables
from ponderttt.policies.build import policy_of
from ponderttt.policies.calibration import Calibration
from ponderttt.policies.learned import GatePolicy, Linear, RegressionPolicy, inputs_of, without_budget
from ponderttt.policies.trained import Trained, open_policy, save_policy
from ponderttt.settings.learning import Learning
from ponderttt.settings.mapping import as_mapping
from ponderttt.settings.model import ModelConfig
from ponderttt.training.gate import train_gate
from ponderttt.training.ppo.train import train_ppo
from ponderttt.training.regression import fit_ridge, group_importance
from ponderttt.training.visits import Visits, visit
from ponderttt.training.world import World
from ponderttt.workflow.entry import Progress, compilation_cache
from ponderttt.workflow.inputs import CACHE_FOLDER, FrozenInputs, inputs_digest, open_inputs
from ponderttt.workflow.modules import ArmSettings, open_module
from ponderttt.workflow.stages.arms import calibration_of


def train_policy(
    model: ModelConfig,
    policy: MethodName,
    settings: ArmSettings,
    learned: Learning,
    model_dir: Path | str,
    chunks_dir: Path | str,
    hidden_dir: Path | str,
    training_dir: Path | str,
    calibration_dir: Path | str | None,
    taken_dir: Path | str | None,
    output_dir: Path | str,
    checkpoint_root: Path | str,
    stage_digest: str,
    threads: int,
    progress: Progress,
) -> None:
    """Write ``results/policies/{model}/{fast_weights}/{policy}/seed-{seed}/``; goes on from a checkpoint.

    Args:
        model: dtype and split of the backbone, for hidden states that were not kept.
        policy: a learned method, with its budget where it is trained for another one than the grid's.
        settings: of the fast weights, the seed and the budget.
        learned: settings of training.
        model_dir: the converted model.
        chunks_dir: the training corpus in chunks.
        hidden_dir: its frozen pass, with the context that the fast weights are on top of.
        training_dir: the trained slow weights.
        calibration_dir: signals of training streams, for a start as a rule that looks at one.
        taken_dir: the policy of another backbone whose network is taken over.
        output_dir: folder of the policy.
        checkpoint_root: folder of all checkpoints.
        stage_digest: of the code; checkpoints of another version are not used.
        threads: for the manifest.
        progress: of the job.
    """
    output = Path(output_dir)
    compilation_cache(Path(model_dir).parents[1] / CACHE_FOLDER)
    inputs = open_inputs(model, model_dir, chunks_dir, hidden_dir, settings.kind)
    opened = open_module(settings, inputs, training_dir)
    calibration = None
    if calibration_dir is not None:
        calibration = calibration_of(calibration_dir, inputs.model_digest, opened.digest)
    facts: dict[str, Any] = {
        "policy": str(policy),
        "fast_weights": str(settings.fast_weights),
        "settings": as_mapping(learned),
        "seed": settings.seed,
        "budget": asdict(settings.budget),
        "inputs": inputs.inputs
        | inputs_digest(training_dir, *(folder for folder in (calibration_dir, taken_dir) if folder)),
        "model_digest": inputs.model_digest,
        "module_digest": opened.digest,
        "stage_digest": stage_digest,
        "threads": threads,
    }
    name = "-".join(("policy", *output.parts[-4:]))
    with checkpoints_of(checkpoint_root, name, facts) as checkpoints:
        trained, log = _train(
            policy,
            opened.module,
            inputs,
            settings,
            learned,
            calibration,
            taken_dir,
            checkpoints,
            progress,
        )
        facts["training_streams"] = sorted(stream.stream_id for stream in inputs.streams)
        save_policy(trained, output, facts, log)


def _train(
    policy: MethodName,
    module: Any,
    inputs: FrozenInputs,
    settings: ArmSettings,
    learned: Learning,
    calibration: Calibration | None,
    taken_dir: Path | str | None,
    checkpoints: Checkpoints,
    progress: Progress,
) -> tuple[Trained, list[dict[str, Any]]]:
    method, count = policy.base, learned.features
    programs = ModulePrograms(module)
    world = World(
        programs,
        inputs.streams,
        inputs.unembedding,
        inputs.suffix,
        # Others go through each stream once, and have no use for logits afterwards.
        logits_bytes=learned.logits_gb * 1e9 if method == "ppo" else 0,
    )
    costs = action_costs(programs, inputs.streams, inputs.unembedding, inputs.suffix, settings.budget.unit)
    budget = policy.budget or settings.budget.mean

    visits = visit(
        world,
        budget_tables(costs, budget),
        costs,
        learned.sequences,
        settings.seed,
        with_gains=method == "regression" and taken_dir is None,
        shown_budget=budget if method == "ppo" else np.inf,
        progress=lambda done, total: progress(done, total, "random sequences"),
    )
    normaliser = normalise.blind(normalise.fit(visits.features), learned.leave_out)
    if taken_dir is not None:
        return _taken_over(policy, Path(taken_dir), visits, normaliser)
    if method == "ppo":
        teacher = None
        if learned.ppo.warm_start:
            rule, rules = learned.ppo.warm_start, settings.rules
            teacher = policy_of(rule, budget=budget, costs=costs, calibration=calibration, rules=rules)
        arguments = (world, normaliser, count, learned.ppo, budget, costs, settings.seed, checkpoints)
        network, shares, log = train_ppo(*arguments, teacher, learned.sequences, progress)
        return Trained(policy, normaliser, network, shares=shares), log
    if method == "regression":
        seen = np.asarray(_seen(visits, normaliser, count), np.float64)
        fitted = fit_ridge(seen, visits.gain, visits.stream, learned.regression.penalties)
        line = Linear(
            jnp.asarray(fitted.coefficients, jnp.float32), jnp.asarray(fitted.intercept, jnp.float32)
        )
        scores = RegressionPolicy.score_of(line, jnp.asarray(seen, jnp.float32))
        groups = [feature.group for feature in FEATURES[:count]]
        importance = group_importance(seen, visits.gain, visits.stream, groups, fitted.penalty, settings.seed)
        numbers = {
            "chunks": len(visits.gain),
            "mean_gain": float(visits.gain.mean()),
            "penalty": fitted.penalty,
            "explained_on_streams_left_out": fitted.explained,
            "lost_without": importance,
        }
        return Trained(policy, normaliser, line, tuple(np.asarray(scores, float).tolist())), [numbers]
    gate, log = train_gate(
        module,
        inputs.streams,
        inputs.readout,
        normaliser,
        learned.gate,
        "soft" if method == "gumbel_soft" else "hard",
        settings.seed,
        checkpoints,
        lambda done, total, loss: progress(done, total, f"loss {loss:.3f}"),
        costs,
        count,
        learned.logits_gb * 1e9,
    )
    scores = GatePolicy.score_of(gate, _seen(visits, normaliser, count))
    return Trained(policy, normaliser, gate, tuple(np.asarray(scores, float).tolist())), log


def _taken_over(
    policy: MethodName, source_dir: Path, visits: Visits, normaliser: normalise.Normaliser
) -> tuple[Trained, list[dict[str, Any]]]:
    """A network that was trained on another backbone, with the scale of features and the percentiles of this one."""
    source, facts = open_policy(source_dir, rebuild(source_dir / MANIFEST))
    scores: tuple[float, ...] = ()
    if source.calibration:
        score_of = (RegressionPolicy if source.name.base == "regression" else GatePolicy).score_of
        seen = _seen(visits, normaliser, inputs_of(source.network))
        scores = tuple(np.asarray(score_of(source.network, seen), float).tolist())
    taken = replace(source, name=policy, normaliser=normaliser, calibration=scores)
    return taken, [{"taken_from": str(source_dir), "its_training_streams": facts["training_streams"]}]


def _seen(visits: Visits, normaliser: normalise.Normaliser, count: int) -> Any:
    features = without_budget(jnp.asarray(visits.features, jnp.float32))
    return normalise.apply(normaliser, features)[:, :count]
