"""Open what ``ponderttt score`` and ``ponderttt complete`` read with: a model, fast weights and a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ponderttt.cli.studies import Adapter
from ponderttt.contexts import Context
from ponderttt.errors import CorruptFileError, PonderTTTError, unknown
from ponderttt.files.atomic import check_writable, sha256_file
from ponderttt.files.commands import rebuild
from ponderttt.files.folder import Folder
from ponderttt.files.manifest import check_facts, read_manifest
from ponderttt.names import NO_CONTEXT, SPENDING_RULES, FastWeightsName, MethodName
from ponderttt.settings.context import ContextConfig
from ponderttt.settings.experiment import Experiment
from ponderttt.settings.mapping import as_mapping
from ponderttt.settings.rules import RulesConfig
from ponderttt.workflow.layout import Layout

if TYPE_CHECKING:
    from ponderttt.fast_weights.base import FastWeights
    from ponderttt.loop.methods import Spending
    from ponderttt.models.backbone import Backbone
    from ponderttt.models.suffix import SuffixWeights

Notice = Callable[[str], None]
#: Digest of an adapter that was not trained.
UNTRAINED = "untrained"


@dataclass(frozen=True)
class Request:
    """What to read with, and how.

    Attributes:
        experiment: the configuration.
        model_name: a model of the configuration.
        fast_weights: fast weights with their context; None is the plain backbone.
        policy: a fixed action or a rule, or the folder of a trained policy.
        budget: mean nominal cost per chunk; None is the configuration's, or the one that the policy was trained with.
        seed: seed of the study's adapter and of random decisions.
        slow_weights: file of an adapter to use instead of the study's.
        context: what the backbone attends to while it reads a chunk.
    """

    experiment: Experiment
    model_name: str
    fast_weights: FastWeightsName | None
    policy: MethodName | Path
    budget: float | None
    seed: int
    slow_weights: Path | None
    context: Context


@dataclass(frozen=True)
class Reader:
    """A model, fast weights and a policy, ready to read.

    Attributes:
        backbone: the frozen model, with its tokenizer.
        module: fast weights; None is the plain backbone.
        method: what decides after each chunk.
        spending: the budget, and what the policy knows.
        suffix: frozen weights of the blocks after the split layer, for modules that read from there.
        chunk_size: tokens of a chunk.
        context: what the backbone attends to while it reads a chunk.
        ends: how the context ends.
        seed: seed of random decisions.
    """

    backbone: Backbone
    module: FastWeights | None
    method: MethodName
    spending: Spending
    suffix: SuffixWeights | None
    chunk_size: int
    context: Context
    ends: ContextConfig
    seed: int


def open_reader(request: Request, notice: Notice) -> Reader:
    """Open what a request names.

    Raises:
        PonderTTTError: a budget that no actions have, an unknown model, an adapter, calibration or
            policy that is missing, damaged or made for something else, or a chunk that does not fit the model's context.
    """
    from ponderttt.frozen.reading import check_context
    from ponderttt.models.suffix import suffix_weights
    from ponderttt.workflow.entry import compilation_cache
    from ponderttt.workflow.stages.arms import calibration_of

    experiment, name = request.experiment, request.fast_weights
    if name is not None and name.misses_context:
        raise PonderTTTError(
            f"--context {name.context}: {NO_CONTEXT}; use --context "
            f"window_{name.context.chunks}, or other fast weights"
        )
    # What can be refused is refused before the model is read, which takes seconds.
    method, spending, facts = _policy(request)
    adapter = None if name is None else Adapter(Layout.of(experiment), request.model_name, name, request.seed)
    if adapter is not None and method.is_calibrated:
        adapter.check_calibration(method)
    compilation_cache(Layout.of(experiment).programs)
    backbone = open_model(experiment, request.model_name, notice)
    check_context(backbone.config, experiment.chunk_size, request.context, experiment.context)
    module = None
    if adapter is not None:
        module, digest = _module(experiment, adapter, request.slow_weights, backbone, notice)
        digests = {"model_digest": backbone.digest, "module_digest": digest}
        if method.is_calibrated:
            spending = replace(spending, calibration=calibration_of(adapter.calibration, **digests))
        if isinstance(request.policy, Path):
            check_facts(request.policy, facts, rebuild(Folder(request.policy).manifest), **digests)
    return Reader(
        backbone,
        module,
        method,
        spending,
        suffix_weights(backbone) if name is not None and name.kind == "suffix" else None,
        experiment.chunk_size,
        request.context,
        experiment.context,
        request.seed,
    )


def open_model(experiment: Experiment, name: str, notice: Notice) -> Backbone:
    """Open a model of the configuration; fetch and convert it first if no study has done so.

    Raises:
        PonderTTTError: an unknown model, a source that cannot be read, or a folder that was converted from another one.
    """
    from ponderttt.models.weights import convert, open_configured
    from ponderttt.workflow import stamps
    from ponderttt.workflow.digests import stage_code
    from ponderttt.workflow.plans.parameters import Plan

    if name not in experiment.models:
        raise PonderTTTError(unknown("--model", name, experiment.models))
    layout, settings = Layout.of(experiment), experiment.models[name]
    folder = layout.model(name)
    if not folder.exists:
        check_writable(experiment.data_dir, "data_dir")
        notice(f"fetching and converting {name} into {folder} (once)")
        convert(settings, layout.downloads, folder.path)
        stamp = stamps.made_from("model", stage_code("model"), Plan(experiment).model(name), [], folder)
        stamps.write_stamp(folder, stamp)
    return open_configured(settings, folder.path, rebuild(folder.manifest))


def _policy(request: Request) -> tuple[MethodName, Spending, dict[str, Any]]:
    """Return the method and what it may spend; for a trained policy also the facts of its manifest."""
    from ponderttt.loop.methods import Spending, policy_for
    from ponderttt.policies.budget import NOMINAL_COSTS

    policy, experiment = request.policy, request.experiment
    if isinstance(policy, Path):
        return _trained_policy(policy, request)
    budget = experiment.grid.budget if request.budget is None else request.budget
    spending = Spending(budget, NOMINAL_COSTS, experiment.rules)
    if policy.base in SPENDING_RULES:
        # Every rule of a budget refuses what `random` refuses, which needs no calibration.
        policy_for(MethodName("random"), spending)
    return policy, spending, {}


def _trained_policy(folder: Path, request: Request) -> tuple[MethodName, Spending, dict[str, Any]]:
    """Open a trained policy; refuse other fast weights or another budget than it was trained for."""
    from ponderttt.loop.methods import Spending, policy_for
    from ponderttt.policies.budget import NOMINAL_COSTS
    from ponderttt.policies.trained import KIND, open_policy

    try:
        read_manifest(folder, KIND, "", verify=False)
    except CorruptFileError:
        raise PonderTTTError(
            f"--policy {folder}: no trained policy in this folder; give one such as results/policies/…/seed-0"
        ) from None
    trained, facts = open_policy(folder, rebuild(Folder(folder).manifest))
    name, fast_weights = trained.name, FastWeightsName.parse(facts["fast_weights"])
    own, where = name.budget or float(facts["budget"]["mean"]), f"--policy {folder}: trained for"
    if fast_weights.variant:
        raise PonderTTTError(
            f"{where} {fast_weights}, whose settings are a variant; choose a policy for fast weights without a variant"
        )
    if fast_weights != request.fast_weights:
        raise PonderTTTError(
            f"{where} {fast_weights}, not for {request.fast_weights or 'none'}; use --fast-weights {fast_weights.kind} "
            f"--context {fast_weights.context}"
        )
    if request.budget is not None and not name.is_budgeted:
        raise PonderTTTError(f"--policy {folder}: {name.base} has no budget; leave --budget out")
    if request.budget not in (None, own) and name.base == "ppo":
        raise PonderTTTError(
            f"{where} a budget of {own:g}; leave --budget out, or train one for {request.budget:g} "
            f"(grid.methods: [ppo@{request.budget:g}])"
        )
    budget = own if request.budget is None else request.budget
    spending = Spending(budget, NOMINAL_COSTS, RulesConfig(), None, {name: trained})
    policy_for(name, spending)
    return name, spending, facts


def _module(
    experiment: Experiment, adapter: Adapter, file: Path | None, backbone: Backbone, notice: Notice
) -> tuple[FastWeights, str]:
    """Return fast weights with their slow weights, and the sha256 of these.

    They are those of ``file`` or of the study; if there are none they are untrained, and ``notice`` says so.
    """
    from ponderttt.fast_weights.build import build, load_slow_weights
    from ponderttt.frozen.reading import suffix_cache
    from ponderttt.workflow.inputs import SLOW_WEIGHTS
    from ponderttt.workflow.modules import open_trained

    kind, config = adapter.fast_weights.kind, experiment.fast_weights
    shape, cache = backbone.config, None
    if kind == "suffix":
        context, layers = adapter.fast_weights.context, shape.layers - backbone.split_layer
        cache = suffix_cache(shape, experiment.chunk_size, context, experiment.context, layers)
    fresh = build(kind, shape.width, config, adapter.seed, shape, cache)
    folder = adapter.training if file is None else Folder.of(file)
    if file is not None and (file.name != SLOW_WEIGHTS or not folder.exists):
        # Nothing says what a file from elsewhere was trained on; its shapes are checked.
        return load_slow_weights(
            fresh, file, "run its study again, or leave --slow-weights out"
        ), sha256_file(file)
    if not folder.exists:
        notice(adapter.untrained())
        return fresh, UNTRAINED
    opened = open_trained(fresh, kind, as_mapping(getattr(config, kind)), backbone.digest, folder)
    return opened.module, opened.digest
