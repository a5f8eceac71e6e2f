"""The commands ``ponderttt score``, ``complete``, ``plan``, ``status`` and ``doctor``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ponderttt import __version__
from ponderttt.cli.options import CONFIG, FROM_0, FROM_1, SEED, reading, request_of
from ponderttt.cli.output import checked_output
from ponderttt.errors import PonderTTTError
from ponderttt.names import MethodName
from ponderttt.workflow.devices import ignore_variables


def _notice(text: str) -> None:
    click.echo(f"ponderttt: {text}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def commands() -> None:
    """Decide when a frozen code model should spend compute on test-time training.

    These commands read your own code. The study itself is a Snakemake workflow: run `make table`, or
    `make smoke` for a first look.
    """
    for line in ignore_variables():
        _notice(line)


@commands.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@reading
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per chunk instead of a table.")
def score(paths: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Read the code files of each of PATHS as one stream, and print one line per chunk.

    A chunk is scored first and learned from afterwards. Losses are in nats per token; `frozen` is the
    loss of the frozen model alone. A rule gives its reason in brackets: its signal, the rank of the
    signal among training chunks, and the rank from which it takes each update.
    """
    request = request_of(**options)
    from ponderttt.cli.score import fields_of, score_paths, why

    signal = str(request.policy) if isinstance(request.policy, MethodName) else "score"
    for number, step in enumerate(score_paths(paths, request, _notice)):
        if as_json:
            click.echo(json.dumps(fields_of(step), allow_nan=False))
            continue
        if number == 0:
            click.echo(
                f"{'chunk':>5} {'tokens':>6} {'loss':>8} {'frozen':>8}  {'action':<8} {'seconds':>8}  stream"
            )
        click.echo(
            f"{step.chunk_index:>5} {step.n_tokens:>6} {step.loss:>8.4f} {step.loss_frozen:>8.4f}  "
            f"{step.action.name:<8} {step.seconds:>8.3f}  {step.stream_id}{why(step, signal)}"
        )


@commands.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--repository",
    metavar="PATH",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="A folder or file to read, and learn from, before FILE; may be repeated.",
)
@reading
@click.option("--max-tokens", default=128, show_default=True, help="Tokens to write at most.")
@click.option("--temperature", default=0.0, show_default=True, help="0 takes the most likely token.")
@click.option("--top-k", default=0, show_default=True, help="Draw from the k most likely tokens; 0 is all.")
@click.option(
    "--top-p",
    default=1.0,
    show_default=True,
    help="Draw from the most likely tokens that together have probability p.",
)
@click.option("--stop", "stops", metavar="TEXT", multiple=True, help="End before this text; may be repeated.")
@click.option("--draw-seed", type=SEED, default=0, show_default=True, help="Seed of drawing tokens.")
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

    The repository and FILE are read chunk by chunk. After each chunk, also after generated ones, the
    policy decides how much the fast weights learn from it. With --fast-weights none the whole text is
    the model's context instead.
    """
    request = request_of(**options)
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
    click.echo()
    rate = (summary.tokens - 1) / summary.seconds if summary.seconds else 0.0
    _notice(
        f"wrote {summary.tokens} tokens after {summary.prompt_tokens} tokens of prompt, {rate:.1f} tokens/s"
    )


def _text_of(file: Path) -> str:
    """Return the text to continue."""
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PonderTTTError(
            f"{file}: not UTF-8 (byte {error.start}); convert it, for example with iconv"
        ) from None
    except IsADirectoryError:
        raise PonderTTTError(f"{file}: a folder; give a file to continue") from None
    except OSError as error:
        raise PonderTTTError(f"{file}: {(error.strerror or str(error)).lower()}") from None


@commands.command()
@CONFIG
def status(config_path: str) -> None:
    """List missing and failed runs of the study, with the command that makes them."""
    from ponderttt.cli.status import report

    click.echo(report(config_path))


@commands.command()
def doctor() -> None:
    """Check what this machine can run, and say what to do about the rest.

    Looks at devices, memory, disk, package index, model hub, Slurm and tools. Changes nothing.
    """
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
@click.option("--model", "name", required=True, metavar="NAME", help="A preset, such as gemma3-12b.")
@click.option("--mesh", default="1", show_default=True, help="Number of devices, or data=2,fsdp=2,tensor=2.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="bfloat16",
    show_default=True,
    help="Type of the computation.",
)
@click.option("--quantize", type=click.Choice(["int8", "int4"]), help="Keep matrices in this type.")
@click.option("--chunk-size", type=FROM_1, default=512, show_default=True, help="Tokens per chunk.")
@click.option(
    "--context-chunks",
    type=FROM_0,
    default=0,
    show_default=True,
    help="Chunks that are read again with each chunk (context_n).",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 1_000_000),
    help="Streams at once.  [default: one for each group of devices that shares a stream]",
)
@click.option(
    "--memory-gib",
    type=click.FloatRange(min=0, min_open=True),
    help="Memory of a device; fail if the plan does not fit.",
)
def plan(**options: Any) -> None:
    """Say what a model's frozen pass needs: bytes per device and FLOPs per chunk.

    Computed from shapes alone; neither the model nor the devices need be here.
    """
    from ponderttt.cli.plan import describe

    for line in describe(**options):
        click.echo(line)


def main() -> None:
    """Run a command; print an error for users as one line on standard error and exit with status 1."""
    try:
        with checked_output():
            commands(standalone_mode=False, prog_name="ponderttt")
    except PonderTTTError as error:
        _notice(str(error))
        sys.exit(1)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "ponderttt")
        click.echo(f"{where}: {' '.join(error.format_message().split())} (see {where} --help)", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _notice("interrupted")
        sys.exit(130)
