"""The command line: ``ponderttt score``, ``complete``, ``plan``, ``status``, ``doctor``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ponderttt import __version__
from ponderttt.actions import Action
from ponderttt.cli.output import checked_output
from ponderttt.errors import PonderTTTError
from ponderttt.files.commands import DEFAULT_CONFIG, study_of
from ponderttt.names import KINDS, NAMED_POLICIES, SPENDING_RULES, FastWeightsName, MethodName
from ponderttt.seeds import SEEDS

if TYPE_CHECKING:
    from ponderttt.cli.reader import Request
    from ponderttt.records.step import Step


SKIP = MethodName("skip")
_SEED = click.IntRange(0, SEEDS - 1)
_FROM_0, _FROM_1 = click.IntRange(min=0), click.IntRange(min=1)


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
                f"{value!r} is not one of {', '.join(NAMED_POLICIES)}, nor the folder of a trained policy",
                param,
                ctx,
            )
        return Path(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(NAMED_POLICIES)}|FOLDER]"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def commands() -> None:
    """PonderTTT: when should a frozen code model spend compute on test-time training?

    The study itself is a Snakemake workflow: run `make table`, or `snakemake results/paper_table.csv`.
    """


def _study(context: click.Context, _: click.Parameter, config_path: str) -> str:
    """Have messages name the commands of this study as long as the command runs."""
    context.with_resource(study_of(config_path))
    return config_path


_CONFIG = click.option(
    "--config",
    "config_path",
    default=DEFAULT_CONFIG,
    show_default=True,
    callback=_study,
    help="Configuration file of the study.",
)
_READING = (
    _CONFIG,
    click.option(
        "--model",
        "model_name",
        help="A model of the config; default: the first that its study reads with.",
    ),
    click.option(
        "--fast-weights",
        "kind",
        type=click.Choice(["none", *KINDS]),
        default="memory",
        show_default=True,
        help="What may change while reading; none is the plain backbone.",
    ),
    click.option(
        "--policy",
        type=_Policy(),
        default="update_1",
        show_default=True,
        help="What decides after each chunk: always the same action, a rule that holds the budget, or the folder of a "
        "trained policy (results/policies/…/seed-0).",
    ),
    click.option(
        "--budget",
        type=float,
        help="Mean nominal cost per chunk of a rule (SKIP 1, UPDATE_1 3, UPDATE_2 6, UPDATE_4 12); default: the config's.",
    ),
    click.option(
        "--seed",
        type=_SEED,
        default=0,
        show_default=True,
        help="Which trained adapter of the study to use.",
    ),
    click.option(
        "--slow-weights",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="A trained adapter; default: the study's own.",
    ),
    click.option(
        "--context-chunks",
        type=_FROM_0,
        default=0,
        show_default=True,
        help="Chunks before each one that the backbone sees.",
    ),
)


def _reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that reads with a model, fast weights and a policy."""
    return reduce(lambda inner, option: option(inner), reversed(_READING), command)


def _request(
    config_path: str,
    model_name: str | None,
    kind: str,
    policy: MethodName | Path,
    context_chunks: int,
    **options: Any,
) -> Request:
    """Return the request that the options of :data:`_READING` make; refuse options that contradict each other."""
    from ponderttt.cli.reader import Request
    from ponderttt.settings.experiment import load

    chosen = (
        click.get_current_context().get_parameter_source("policy") is click.core.ParameterSource.COMMANDLINE
    )
    if kind == "none" and policy != SKIP:
        if chosen:
            raise PonderTTTError(
                f"--fast-weights none has nothing to update; use --policy skip instead of {policy}"
            )
        policy = SKIP
    if options["budget"] is not None and isinstance(policy, MethodName) and not policy.is_budgeted:
        rules = ", ".join(SPENDING_RULES)
        raise PonderTTTError(f"--policy {policy} has no budget; leave --budget out, or choose one of {rules}")
    experiment = load(config_path)
    return Request(
        experiment=experiment,
        model_name=model_name or experiment.grid.models[0],
        fast_weights=None if kind == "none" else FastWeightsName(kind, context=context_chunks),
        policy=policy,
        context_chunks=context_chunks,
        **options,
    )


def _notice(text: str) -> None:
    click.echo(f"ponderttt: {text}", err=True)


@commands.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@_reading
@click.option("--json", "as_json", is_flag=True, help="One JSON object per chunk instead of a table.")
def score(paths: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Read the code files of PATHS as one stream each and say what every 512-token chunk cost and scored.

    A chunk is scored before it is learned from.  Losses are nats per token.  A rule says why it decided: its signal, the
    rank of that among chunks of training streams, and the ranks from which each update begins.
    """
    request = _request(**options)
    from ponderttt.cli.score import score_paths

    signal = str(request.policy) if isinstance(request.policy, MethodName) else "score"
    for number, step in enumerate(score_paths(paths, request, _notice)):
        if as_json:
            click.echo(json.dumps(_as_json(step), allow_nan=False))
            continue
        if number == 0:
            click.echo(
                f"{'chunk':>5} {'tokens':>6} {'loss':>8} {'frozen':>8}  {'action':<8} {'seconds':>8}  stream"
            )
        click.echo(
            f"{step.chunk_index:>5} {step.n_tokens:>6} {step.loss:>8.4f} {step.loss_frozen:>8.4f}  "
            f"{step.action.name:<8} {step.seconds:>8.3f}  {step.stream_id}{_why(step, signal)}"
        )


def _as_json(step: Step) -> dict[str, Any]:
    left_out = ("nll", "features", "look_ahead")
    fields = {name: value for name, value in step._asdict().items() if name not in left_out}
    return fields | {"action": step.action.name}


def _why(step: Step, method: str) -> str:
    """The signal against what it had to reach; nothing where nothing was looked at."""
    if step.gate_rank is None or step.gate_cuts is None:
        return "" if step.gate_score is None else f"  ({method} {step.gate_score:.3f})"
    signal = "drew" if step.gate_score is None else f"{method} {step.gate_score:.3f}, rank"
    # An update whose interval is empty could not be taken, or not without missing the budget.
    starts = [*step.gate_cuts, 1.0]
    updates = [
        f"{action.name} from {low:.2f}"
        for action, low, high in zip(list(Action)[1:], starts, starts[1:], strict=False)
        if high > low
    ]
    return f"  ({signal} {step.gate_rank:.2f}; {', '.join(updates) or 'nothing left to spend'})"


@commands.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--repository",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="A folder or file to read, and learn from, before FILE; may be given more than once.",
)
@_reading
@click.option("--max-tokens", default=128, show_default=True, help="Of the continuation.")
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", default=0, show_default=True, help="Only the k most likely tokens; 0 is all.")
@click.option("--top-p", default=1.0, show_default=True, help="Only the likeliest tokens that make up p.")
@click.option("--stop", "stops", multiple=True, help="End before this string; may be given more than once.")
@click.option("--draw-seed", type=_SEED, default=0, show_default=True, help="Of the draws.")
def complete(
    file: Path,
    repository: tuple[Path, ...],
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    stops: tuple[str, ...],
    draw_seed: int,
    **options: Any,
) -> None:
    """Continue FILE (- is standard input), token by token.

    The repository and FILE are read chunk by chunk; after each chunk the policy decides how much the fast weights learn from
    it, also from chunks that are generated.  With --fast-weights none the whole text is the model's context instead.
    """
    request = _request(**options)
    from ponderttt.cli.complete import Continuation, Summary, complete_text
    from ponderttt.decoding.sampling import Sampling

    sampling = Sampling(temperature, top_k, top_p, draw_seed)
    prompt = _text_of(file)
    summary = Summary()
    pieces = complete_text(
        prompt,
        file,
        repository,
        request,
        Continuation(max_tokens, sampling, stops),
        _notice,
        lambda step: _notice(f"chunk {step.chunk_index}: loss {step.loss:.3f}, {step.action.name}"),
        summary,
    )
    for piece in pieces:
        click.echo(piece, nl=False)
        sys.stdout.flush()
    click.echo()
    rate = (summary.tokens - 1) / summary.seconds if summary.seconds else 0.0
    _notice(f"{summary.tokens} tokens after {summary.prompt_tokens}, {rate:.1f} tokens/s")


def _text_of(file: Path) -> str:
    """The text to continue."""
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PonderTTTError(
            f"{file}: not UTF-8 (byte {error.start}); convert it, for example with iconv"
        ) from None
    except OSError as error:
        raise PonderTTTError(f"{file}: {(error.strerror or str(error)).lower()}") from None


@commands.command()
@_CONFIG
def status(config_path: str) -> None:
    """List the arms that are missing or failed, with the command that runs what is missing."""
    from ponderttt.cli.status import report

    click.echo(report(config_path))


@commands.command()
def doctor() -> None:
    """Say what this machine can run (devices, memory, index, hub, Slurm) and what to do about what it can't."""
    from ponderttt.cli.doctor import examine

    marks = {"ok": "ok", "no": "NO", "optional": "-"}
    failed = False
    for finding in examine():
        failed |= finding.verdict == "no"
        click.echo(f"{marks[finding.verdict]:>2}  {finding.topic:<14} {finding.detail}")
        if finding.remedy:
            click.echo(f"{'':>18} → {finding.remedy}")
    if failed:
        sys.exit(1)


@commands.command()
@click.option("--model", "name", required=True, help="A preset, such as gemma3-12b.")
@click.option("--mesh", default="1", show_default=True, help="Devices: 8, or data=2,fsdp=2,tensor=2.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16", show_default=True)
@click.option("--quantize", type=click.Choice(["int8", "int4"]), help="How matrices are kept.")
@click.option("--chunk-size", type=_FROM_1, default=512, show_default=True, help="Tokens of a chunk.")
@click.option(
    "--context-chunks",
    type=_FROM_0,
    default=0,
    show_default=True,
    help="Chunks before it that are read with it.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 1_000_000),
    help="Streams at once; default: one for each device that shares them.",
)
@click.option(
    "--memory-gib",
    type=click.FloatRange(min=0, min_open=True),
    help="Of a device; fail if the plan does not fit.",
)
def plan(**options: Any) -> None:
    """Say what a frozen pass of a model needs, from shapes alone: bytes per device and FLOPs per chunk."""
    from ponderttt.cli.plan import describe

    for line in describe(**options):
        click.echo(line)


def main() -> None:
    """Run a command; an error that users are meant to read is one line on standard error, with status 1."""
    try:
        with checked_output():
            commands(standalone_mode=False, prog_name="ponderttt")
    except PonderTTTError as error:
        click.echo(f"ponderttt: {error}", err=True)
        sys.exit(1)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "ponderttt")
        click.echo(f"{where}: {' '.join(error.format_message().split())} (see {where} --help)", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("ponderttt: interrupted", err=True)
        sys.exit(130)
