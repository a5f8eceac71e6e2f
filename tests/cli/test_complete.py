"""``ponderttt complete`` continues a file, reports the chunks it learned from, and answers bad input with one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

PROMPT = "def add(a, b):\n    return a + b\n" * 5
Result = tuple[int, str, str]


@pytest.fixture
def complete(inside: Path, run: Callable[..., Result]) -> Callable[..., Result]:
    """Run ``ponderttt complete`` with the random model."""
    return lambda *arguments: run("complete", "--model", "tiny", *arguments)


def test_a_continuation_is_written_and_chunks_are_reported(complete: Callable[..., Result]) -> None:
    """155 bytes are two full chunks of 64 tokens; with 60 more tokens there is a third."""
    status, out, err = complete("prompt.py", "--max-tokens", 60)
    assert status == 0
    assert out.endswith("\n") and len(out) > 10
    reported = [line for line in err.splitlines() if "chunk" in line]
    assert [line.split(":")[1].strip() for line in reported] == ["chunk 0", "chunk 1", "chunk 2"]
    assert all(line.endswith("UPDATE_1") for line in reported)
    assert f"60 tokens after {len(PROMPT)}" in err.splitlines()[-1]
    assert complete("prompt.py", "--max-tokens", 60)[1] == out


def test_a_repository_is_read_before_the_file(complete: Callable[..., Result]) -> None:
    _, _, alone = complete("prompt.py", "--max-tokens", 2)
    _, _, after = complete("prompt.py", "--max-tokens", 2, "--repository", "repository")
    assert alone.count("chunk") < after.count("chunk")


def test_the_text_ends_before_a_stop_string(complete: Callable[..., Result]) -> None:
    options = ("prompt.py", "--fast-weights", "none", "--max-tokens", 40, "--temperature", 1)
    _, out, _ = complete(*options)
    stop = out[10:13]
    _, stopped, _ = complete(*options, "--stop", stop)
    assert stopped == out[: out.index(stop)] + "\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("empty.py",), "the prompt is empty"),
        (("bytes.py",), "bytes.py: not UTF-8 (byte 0)"),
        (("repository",), "repository: a folder; give a file to continue"),
        (("missing.py",), "missing.py: no such file or directory"),
        (("prompt.py", "--stop", ""), "a stop string is empty"),
        (
            ("prompt.py", "--temperature", "-1"),
            "temperature must be 0 (greedy) or from 1e-06 to 1e+06, got -1.0",
        ),
        (("prompt.py", "--top-p", "0"), "top_p must be greater than 0 and at most 1, got 0.0"),
        (("prompt.py", "--max-tokens", "0"), "max_tokens must be from 1 to 1000000, got 0"),
        (("prompt.py", "--fast-weights", "none", "--max-tokens", "300"), "the model's context of 256"),
        (("prompt.py", "--context", "window_90"), "lower chunk_size or the number of chunks"),
        (("prompt.py", "--fast-weights", "suffix", "--context", "context_1"), "use --context window_1"),
        (("prompt.py", "--slow-weights", "nowhere"), "'nowhere' does not exist"),
        (("prompt.py", "--slow-weights", "prompt.py"), "prompt.py: damaged"),
        (("prompt.py", "--repository", "nowhere"), "'nowhere' does not exist"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], says: str, complete: Callable[..., Result]
) -> None:
    status, out, err = complete(*arguments)
    assert status != 0
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("ponderttt"), err
    assert says in err
