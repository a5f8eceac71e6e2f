"""Stage ``policy``: a learned policy of one trained module and seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from ponderttt.features import normalise
from ponderttt.features.table import FEATURES
from ponderttt.files.checkpoints import Checkpoints, checkpoints_of
from ponderttt.files.commands import rebuild
from ponderttt.files.folder import Folder
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.running import action_costs
from ponderttt.names import MethodName
from ponderttt.policies.budget import budget_tables
from ponderttt.policies.build import policy_of
from ponderttt.policies.calibration import Calibration
from ponderttt.policies.learned import GatePolicy, Linear, RegressionPolicy, inputs_of, without_budget
from ponderttt.policies.trained import Trained, open_policy, save_policy
from ponderttt.settings.learning import Learning
from ponderttt.settings.mapping import as_mapping, settings
from ponderttt.training.gate import train_gate
from ponderttt.training.ppo.train import train_ppo
from ponderttt.training.regression import fit_ridge, group_importance
from ponderttt.training.visits import Visits, visit
from ponderttt.training.world import World
from ponderttt.workflow.entry import Progress, compilation_cache
from ponderttt.workflow.inputs import FrozenInputs, open_inputs
from ponderttt.workflow.jobs import Job, ModuleFolders
from ponderttt.workflow.modules import SpendingSettings, open_module
from ponderttt.workflow.stages.arms import calibration_of


@settings
class Settings(SpendingSettings):
    """A learned policy, and how it is trained.

    Attributes:
        policy: a learned method, with its variant, and with a budget if it is trained for another one than the grid's.
        learned: settings of its training.
    """

    policy: str
    learned: Learning


@dataclass(frozen=True)
class Inputs(ModuleFolders):
    """The corpus of policies with the adapter, and the policy of another backbone whose network is taken over."""

    taken_from: Folder | None


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``results/policies/{model}/{fast_weights}/{policy}/seed-{seed}/``; continue from a checkpoint."""
    compilation_cache(job.place.programs)
    corpus = open_inputs(settings.model, inputs, settings.kind)
    opened = open_module(settings, corpus, inputs.training)
    digests = {"model_digest": corpus.model_digest, "module_digest": opened.digest}
    calibration = None
    if inputs.calibration is not None:
        calibration = calibration_of(inputs.calibration, **digests)
    facts: dict[str, Any] = {
        **digests,
        "policy": settings.policy,
        "fast_weights": settings.fast_weights,
        "settings": as_mapping(settings.learned),
        "seed": settings.seed,
        "budget": asdict(settings.spending),
        "stage_digest": job.code,
        "threads": job.threads,
    }
    name = "-".join(("policy", *job.folder.path.parts[-4:]))
    belongs_to = {**job.made_from, "threads": job.threads}
    with checkpoints_of(job.place.checkpoints, name, belongs_to) as checkpoints:
        trained, log = _train(
            settings, opened.module, corpus, calibration, inputs.taken_from, checkpoints, job.progress
        )
        facts["training_streams"] = sorted(stream.stream_id for stream in corpus.streams)
        save_policy(trained, job.folder, facts, log)


def _train(
    settings: Settings,
    module: Any,
    inputs: FrozenInputs,
    calibration: Calibration | None,
    taken_from: Folder | None,
    checkpoints: Checkpoints,
    progress: Progress,
) -> tuple[Trained, list[dict[str, Any]]]:
    policy, learned = MethodName.parse(settings.policy), settings.learned
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
    costs = action_costs(programs, inputs.streams, inputs.unembedding, inputs.suffix, settings.budget_unit)
    budget = policy.budget or settings.budget

    visits = visit(
        world,
        budget_tables(costs, budget),
        costs,
        learned.sequences,
        settings.seed,
        with_gains=method == "regression" and taken_from is None,
        shown_budget=budget if method == "ppo" else np.inf,
        progress=lambda done, total: progress(done, total, "random sequences"),
    )
    normaliser = normalise.blind(normalise.fit(visits.features), learned.leave_out)
    if taken_from is not None:
        return _taken_over(policy, taken_from, visits, normaliser)
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
    policy: MethodName, folder: Folder, visits: Visits, normaliser: normalise.Normaliser
) -> tuple[Trained, list[dict[str, Any]]]:
    """A network that was trained on another backbone, with the scale of features and the percentiles of this one."""
    source, facts = open_policy(folder, rebuild(folder.manifest))
    scores: tuple[float, ...] = ()
    if source.calibration:
        score_of = (RegressionPolicy if source.name.base == "regression" else GatePolicy).score_of
        seen = _seen(visits, normaliser, inputs_of(source.network))
        scores = tuple(np.asarray(score_of(source.network, seen), float).tolist())
    taken = replace(source, name=policy, normaliser=normaliser, calibration=scores)
    return taken, [{"taken_from": str(folder), "its_training_streams": facts["training_streams"]}]


def _seen(visits: Visits, normaliser: normalise.Normaliser, count: int) -> Any:
    features = without_budget(jnp.asarray(visits.features, jnp.float32))
    return normalise.apply(normaliser, features)[:, :count]
