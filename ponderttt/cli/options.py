"""Options that several commands of ``ponderttt`` share, and the request that they make."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ponderttt.contexts import FULL, Context
from ponderttt.errors import PonderTTTError
from ponderttt.files.commands import DEFAULT_CONFIG, study_of
from ponderttt.names import KINDS, NAMED_POLICIES, SPENDING_RULES, FastWeightsName, MethodName
from ponderttt.seeds import SEEDS

if TYPE_CHECKING:
    from ponderttt.cli.reader import Request
    from ponderttt.settings.grid import GridConfig

SKIP = MethodName("skip")
SEED = click.IntRange(0, SEEDS - 1)
FROM_0, FROM_1 = click.IntRange(min=0), click.IntRange(min=1)


class _Policy(click.ParamType[MethodName | Path]):
    """The name of a policy that needs no training, or the folder of a trained one."""

    name = "policy"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> MethodName | Path:
        if value.lower() in NAMED_POLICIES:
            return MethodName(value.lower())
        if not Path(value).is_dir():
            self.fail(
                f"{value!r} is neither one of {', '.join(NAMED_POLICIES)} nor the folder of a trained policy",
                param,
                ctx,
            )
        return Path(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(NAMED_POLICIES)}|FOLDER]"


class _Context(click.ParamType[Context]):
    """The name of a context."""

    name = "context"

    def convert(
        self, value: str | Context, param: click.Parameter | None, ctx: click.Context | None
    ) -> Context:
        if isinstance(value, Context):
            return value
        try:
            return Context.parse(value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "[alone|window_n|full|context_n]"


def _study(context: click.Context, _: click.Parameter, config_path: str) -> str:
    """Have messages name the commands of this study as long as the command runs."""
    context.with_resource(study_of(config_path))
    return config_path


CONFIG = click.option(
    "--config",
    "config_path",
    metavar="FILE",
    default=DEFAULT_CONFIG,
    show_default=True,
    callback=_study,
    help="Configuration file of the study.",
)
_READING = (
    CONFIG,
    click.option(
        "--model",
        "model_name",
        metavar="NAME",
        help="A model of the configuration.  [default: the first of grid.models]",
    ),
    click.option(
        "--fast-weights",
        "kind",
        type=click.Choice(["none", *KINDS]),
        default="memory",
        show_default=True,
        help="What learns while reading; none is the frozen model alone.",
    ),
    click.option(
        "--policy",
        type=_Policy(),
        default="update_1",
        show_default=True,
        help="What decides after each chunk: a fixed action, a rule, or a trained policy "
        "(its folder, such as results/policies/…/seed-0).",
    ),
    click.option(
        "--budget",
        type=float,
        help="Mean cost per chunk that a rule or a trained policy may spend; SKIP costs 1, UPDATE_1 3, "
        "UPDATE_2 6, UPDATE_4 12.  [default: grid.budget, or the policy's own]",
    ),
    click.option(
        "--seed",
        type=SEED,
        default=0,
        show_default=True,
        help="Seed of the study's adapter and of random decisions.",
    ),
    click.option(
        "--slow-weights",
        metavar="FILE",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="A trained adapter to use instead of the study's.",
    ),
    click.option(
        "--context",
        type=_Context(),
        help="What the frozen model sees of the text before each chunk: nothing, the n chunks before it, or all of "
        "it up to the model's limit.  [default: full, or what the study's grid has for these fast weights]",
    ),
)


def reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all commands that read with a model, fast weights and a policy."""
    return reduce(lambda inner, option: option(inner), reversed(_READING), command)


def default_context(kind: str, grid: GridConfig) -> Context:
    """Return ``full`` unless the study has these fast weights in other contexts only."""
    own = [name.context for name in grid.all_fast_weights if name.kind == kind]
    return FULL if not own or FULL in own else own[0]


def request_of(
    config_path: str,
    model_name: str | None,
    kind: str,
    policy: MethodName | Path,
    context: Context | None,
    **options: Any,
) -> Request:
    """Return the request that the options of :data:`_READING` make; refuse options that contradict each other."""
    from ponderttt.cli.reader import Request
    from ponderttt.settings.experiment import load

    chosen = click.get_current_context().get_parameter_source("policy")
    if kind == "none" and policy != SKIP:
        if chosen is click.core.ParameterSource.COMMANDLINE:
            raise PonderTTTError(
                f"--fast-weights none has nothing to update; use --policy skip instead of {policy}"
            )
        policy = SKIP
    if options["budget"] is not None and isinstance(policy, MethodName) and not policy.is_budgeted:
        rules = ", ".join(SPENDING_RULES)
        raise PonderTTTError(f"--policy {policy} has no budget; leave --budget out, or choose one of {rules}")
    experiment = load(config_path)
    context = context or default_context(kind, experiment.grid)
    return Request(
        experiment=experiment,
        model_name=model_name or experiment.grid.models[0],
        fast_weights=None if kind == "none" else FastWeightsName(kind, context=context),
        policy=policy,
        context=context,
        **options,
    )
