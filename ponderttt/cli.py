"""The command line: ``ponderttt score``, ``ponderttt status``, ``ponderttt doctor``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ponderttt import __version__
from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def commands() -> None:
    """PonderTTT: when should a frozen code model spend compute on test-time training?

    The study itself is a Snakemake workflow: run `make table`, or `snakemake results/paper_table.csv`.
    """


@commands.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--config", "config_path", default="config.yaml", show_default=True, help="Where models are named."
)
@click.option(
    "--model", "model_name", default="smollm2-135m", show_default=True, help="A model of the config."
)
@click.option(
    "--fast-weights",
    "kind",
    type=click.Choice(["none", "ttt", "lora"]),
    default="lora",
    show_default=True,
    help="What may change while reading; none is the plain backbone.",
)
@click.option(
    "--action",
    type=click.Choice([action.name for action in Action], case_sensitive=False),
    default="UPDATE_1",
    show_default=True,
    help="What follows each chunk.",
)
@click.option("--seed", default=0, show_default=True, help="Which trained adapter of the study to use.")
@click.option(
    "--slow-weights", type=click.Path(path_type=Path), help="A trained adapter; default: the study's own."
)
@click.option(
    "--context-chunks", default=0, show_default=True, help="Chunks before each one that the backbone sees."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per chunk instead of a table.")
def score(paths: tuple[Path, ...], kind: str, action: str, **options: Any) -> None:
    """Read the code files of PATHS as one stream each and say what every 512-token chunk cost and scored.

    A chunk is scored before it is learned from.  Losses are nats per token.
    """
    if kind == "none" and Action[action] is not Action.SKIP:
        if (
            click.get_current_context().get_parameter_source("action")
            is click.core.ParameterSource.COMMANDLINE
        ):
            raise PonderTTTError(
                f"--fast-weights none has nothing to update; use --action SKIP instead of {action}"
            )
        action = Action.SKIP.name
    from ponderttt.jobs.score import score_paths

    as_json = options.pop("as_json")
    head = f"{'chunk':>5} {'tokens':>6} {'loss':>8} {'frozen':>8}  {'action':<8} {'seconds':>8}  stream"
    notice = lambda text: click.echo(f"ponderttt: {text}", err=True)  # noqa: E731
    steps = score_paths(paths, kind=kind, action=Action[action], notice=notice, **options)
    for number, step in enumerate(steps):
        if number == 0 and not as_json:
            click.echo(head)
        if as_json:
            fields = ("stream_id", "chunk_index", "n_tokens", "n_bytes", "loss", "loss_frozen")
            line = {name: getattr(step, name) for name in fields}
            line |= {
                "action": step.action.name,
                "steps": step.steps,
                "flops": step.flops,
                "seconds": step.seconds,
            }
            click.echo(json.dumps(line))
        else:
            click.echo(
                f"{step.chunk_index:>5} {step.n_tokens:>6} {step.loss:>8.4f} {step.loss_frozen:>8.4f}  "
                f"{step.action.name:<8} {step.seconds:>8.3f}  {step.stream_id}"
            )


@commands.command()
@click.option("--config", "config_path", default="config.yaml", show_default=True)
def status(config_path: str) -> None:
    """List the arms that are missing or failed, with the command that runs what is missing."""
    from ponderttt.status import report

    click.echo(report(config_path))


@commands.command()
def doctor() -> None:
    """Say what this machine can run (devices, memory, index, hub, Slurm) and what to do about what it can't."""
    from ponderttt.doctor import examine

    marks = {"ok": "ok", "no": "NO", "optional": "-"}
    failed = False
    for finding in examine():
        failed |= finding.verdict == "no"
        click.echo(f"{marks[finding.verdict]:>2}  {finding.topic:<14} {finding.detail}")
        if finding.remedy:
            click.echo(f"{'':>18} → {finding.remedy}")
    if failed:
        sys.exit(1)


def main() -> None:
    """Run a command; an error that users are meant to read is one line on standard error, with status 1."""
    try:
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
