"""What ``ponderttt score`` and ``ponderttt complete`` read with: a model, fast weights and a policy, opened together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import sha256_file
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST
from ponderttt.names import (
    CALIBRATED_METHODS,
    NAMED_POLICIES,
    NO_CONTEXT,
    FastWeightsName,
    MethodName,
)
from ponderttt.settings import experiment as config
from ponderttt.settings.rules import RulesConfig
from ponderttt.workflow.layout import Layout

if TYPE_CHECKING:
    from ponderttt.fast_weights.base import FastWeights
    from ponderttt.loop.methods import Spending
    from ponderttt.models.backbone import Backbone
    from ponderttt.models.suffix import SuffixWeights
    from ponderttt.policies.trained import Trained


@dataclass(frozen=True)
class Request:
    """With what to read, and how.

    Attributes:
        kind: of the fast weights; ``none`` is the plain backbone.
        method: what decides after each chunk: a fixed action, a rule, or the folder of a trained policy.
        budget: of a rule, mean nominal cost per chunk; ``None`` is the configuration's.
        config_path: the configuration that names models and settings.
        model_name: a model of it.
        seed: which trained adapter of the study, and of random decisions.
        slow_weights: another trained adapter.
        context_chunks: chunks before each one that the backbone sees.
    """

    kind: str
    method: str
    budget: float | None
    config_path: str
    model_name: str
    seed: int
    slow_weights: Path | None
    context_chunks: int


@dataclass(frozen=True)
class Reader:
    """Everything that a request needs, ready.

    Attributes:
        backbone: the frozen model, with its tokenizer.
        module: fast weights; ``None`` is the plain backbone.
        method: what decides after each chunk.
        spending: the budget of rules, and what they know.
        suffix: frozen weights of the blocks after the split layer, for modules that read from there.
        chunk_size: tokens of a chunk.
    """

    backbone: Backbone
    module: FastWeights | None
    method: MethodName
    spending: Spending
    suffix: SuffixWeights | None
    chunk_size: int


def open_reader(experiment: config.Experiment, request: Request, notice: Callable[[str], None]) -> Reader:
    """Open what a request names of an experiment.

    Raises:
        PonderTTTError: see :func:`open_model`; suffix adaptation with context, a rule without its calibration, a budget that no actions have, a policy that
            was trained for something else, a chunk that does not fit the model's context.
    """
    from ponderttt.frozen.model import check_context
    from ponderttt.models.suffix import suffix_weights
    from ponderttt.workflow.entry import compilation_cache

    if _name(request).misses_context:
        raise PonderTTTError(
            f"--context-chunks {request.context_chunks}: {NO_CONTEXT}; leave it out, or use other fast weights"
        )
    trained = None if request.method in NAMED_POLICIES else _open_trained(request)
    spending = _spending(experiment, request) if trained is None else _learned_spending(request, *trained)
    backbone = open_model(experiment, request.model_name, notice)
    check_context(backbone.config, experiment.chunk_size, request.context_chunks)
    compilation_cache(Path(experiment.data_dir) / ".jax_cache")
    module = None if request.kind == "none" else _module(experiment, request, backbone, notice)
    if trained is not None:
        _check_fits(trained[1], experiment, request, backbone)
    return Reader(
        backbone,
        module,
        MethodName(request.method) if trained is None else trained[0].name,
        spending,
        suffix_weights(backbone) if request.kind == "suffix" else None,
        experiment.chunk_size,
    )


def open_model(experiment: config.Experiment, name: str, notice: Callable[[str], None]) -> Backbone:
    """A model of the configuration, fetched and converted now if the study has not done so yet."""
    from ponderttt.models.weights import convert, open_configured

    if name not in experiment.models:
        raise PonderTTTError(
            f"--model {name}: the configuration names no such model; known: {', '.join(experiment.models)}"
        )
    layout, settings = Layout.of(experiment), experiment.models[name]
    folder = layout.model(name).path
    if not (folder / MANIFEST).exists():
        notice(f"fetching and converting {name} into {folder} (once)")
        convert(settings, layout.downloads, folder)
    return open_configured(settings, folder, rebuild(folder / MANIFEST))


def _name(request: Request) -> FastWeightsName:
    return FastWeightsName(request.kind, context=request.context_chunks)


def _spending(experiment: config.Experiment, request: Request) -> Spending:
    """The budget, and for a rule that looks at a signal what the study's training streams say of it."""
    from ponderttt.loop.methods import Spending, policy_for
    from ponderttt.policies.budget import NOMINAL_COSTS
    from ponderttt.workflow.stages.arms import calibration_of

    calibration = None
    if request.method in CALIBRATED_METHODS and request.kind != "none":
        layout = Layout.of(experiment)
        folder = layout.calibration(request.model_name, _name(request), request.seed).path
        if not (folder / MANIFEST).exists():
            raise PonderTTTError(
                f"--policy {request.method}: no calibration of {_name(request)} at {folder}; `make table` makes it, or "
                f"{rebuild(folder / MANIFEST)}"
            )
        calibration = calibration_of(folder)
    budget = experiment.grid.budget if request.budget is None else request.budget
    spending = Spending(budget, NOMINAL_COSTS, experiment.rules, calibration)
    # A budget that no actions have is refused before the model is read.
    policy_for(MethodName(request.method), spending)
    return spending


def _open_trained(request: Request) -> tuple[Trained, dict[str, Any]]:
    """A trained policy, for the fast weights that were asked for."""
    from ponderttt.policies.trained import open_policy

    trained, facts = open_policy(request.method, rebuild(Path(request.method) / MANIFEST))
    fast_weights = FastWeightsName.parse(facts["fast_weights"])
    if fast_weights != _name(request):
        if fast_weights.variant:
            raise PonderTTTError(
                f"--policy {request.method}: trained for {fast_weights}, a variant of a study; here modules have the "
                "settings of fast_weights, so use a policy that was trained with those"
            )
        raise PonderTTTError(
            f"--policy {request.method}: trained for {fast_weights}, not for {_name(request)}; use "
            f"--fast-weights {fast_weights.kind} --context-chunks {fast_weights.context}"
        )
    return trained, facts


def _learned_spending(request: Request, trained: Trained, facts: dict[str, Any]) -> Spending:
    """The budget of a trained policy: what was asked for, or what it was trained with."""
    from ponderttt.loop.methods import Spending, policy_for
    from ponderttt.policies.budget import NOMINAL_COSTS

    own = trained.name.budget or float(facts["budget"]["mean"])
    if request.budget is not None and not trained.name.is_budgeted:
        raise PonderTTTError(
            f"--policy {request.method}: {trained.name.base} holds no budget; leave --budget out"
        )
    if request.budget is not None and trained.name.base == "ppo" and request.budget != own:
        raise PonderTTTError(
            f"--policy {request.method}: trained for a budget of {own:g}, so leave --budget out or train one for "
            f"{request.budget:g} (grid.methods: [ppo@{request.budget:g}])"
        )
    budget = own if request.budget is None else request.budget
    spending = Spending(budget, NOMINAL_COSTS, RulesConfig(), None, {trained.name: trained})
    policy_for(trained.name, spending)
    return spending


def _check_fits(
    facts: dict[str, Any], experiment: config.Experiment, request: Request, backbone: Backbone
) -> None:
    """Refuse a policy that was trained on another model or another trained module."""
    from ponderttt.policies.trained import check_facts

    layout = Layout.of(experiment)
    default = layout.training(request.model_name, _name(request), request.seed).path
    weights = request.slow_weights or default / "slow_weights.safetensors"
    digest = sha256_file(weights) if weights.is_file() else "untrained"
    again = rebuild(Path(request.method) / MANIFEST)
    check_facts(request.method, facts, again, model_digest=backbone.digest, module_digest=digest)


def _module(
    experiment: config.Experiment, request: Request, backbone: Backbone, notice: Callable[[str], None]
) -> FastWeights:
    """The fast weights with the slow weights of the study, or untrained ones with a notice."""
    from ponderttt.fast_weights.build import build, load_slow_weights

    kind, layout = request.kind, Layout.of(experiment)
    module = build(kind, backbone.config.width, experiment.fast_weights, request.seed, backbone.config)
    folder = layout.training(request.model_name, _name(request), request.seed).path
    trained = folder / "slow_weights.safetensors"
    if request.slow_weights is None and not trained.exists():
        notice(f"no trained adapter at {trained}: using {_UNTRAINED[kind]}; `make table` trains it")
        return module
    return load_slow_weights(module, request.slow_weights or trained, rebuild(folder / MANIFEST))


_UNTRAINED = {
    "ttt": "an untrained one (its reads change nothing)",
    "lora": "an untrained one (it starts from the plain backbone)",
    "suffix": "an untrained one (it starts from the plain backbone)",
    "memory": "the temperature and weight of the configuration, and no centre",
}
