"""The measures of a text as code, by hand, in every language that a corpus can have."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderttt.features.text import CODE_METRICS, code_metrics

LANGUAGES = ("Python", "JavaScript", "Java", "Go")


def measure(text: str, language: str = "Python") -> dict[str, float]:
    return dict(zip(CODE_METRICS, code_metrics(text, language), strict=True))


def test_repetition_counts_runs_that_occurred_before() -> None:
    found = measure("f(x)\nf(x)\nf(x)\n")
    # Twelve tokens are ten runs of three, of which four differ.
    assert found["repetition"] == pytest.approx(6 / 10)
    assert found["distinct_token_ratio"] == pytest.approx(4 / 12)


def test_a_text_that_repeats_itself_is_small_after_compression() -> None:
    text = "x = 1\n" * 100
    assert measure(text)["compressibility"] == pytest.approx(len(zlib.compress(text.encode())) / 600)
    assert measure(text)["compressibility"] < 0.05


def test_brackets_that_the_chunk_closes_were_open_at_its_start() -> None:
    # Around x there are two, around ) one, around ] and y none.
    depth = (2 + 1 + 0 + 0) / 4
    assert measure("x)]y")["bracket_depth"] == pytest.approx(depth / (1 + depth))


def test_brackets_in_strings_are_text() -> None:
    assert measure("s = '((('\n")["bracket_depth"] == 0.0


def test_documentation_strings_are_comments_and_other_strings_are_not() -> None:
    text = 'def f():\n    """Say it."""\n    return "it"\n'
    assert measure(text)["comment_share"] == pytest.approx(len('"""Say it."""') / len(text))


def test_words_that_are_operators_are_keywords() -> None:
    # a not in b
    assert measure("a not in b")["keyword_share"] == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    ("language", "text", "names", "keywords", "comment"),
    [
        # let x = y ; and the comment
        ("JavaScript", "let x = y; // why", 2 / 6, 1 / 6, len("// why")),
        # return x + y ; and the comment
        ("Java", "return x + y; /* z */", 2 / 6, 1 / 6, len("/* z */")),
        # var x = y and the comment, whose line end is not part of it
        ("Go", "var x = y // why\n", 2 / 5, 1 / 5, len("// why")),
    ],
)
def test_each_language_is_read_by_its_own_lexer(
    language: str, text: str, names: float, keywords: float, comment: int
) -> None:
    found = measure(text, language)
    assert found["identifier_share"] == pytest.approx(names)
    assert found["keyword_share"] == pytest.approx(keywords)
    # One lexer counts the line end with the comment, another does not.
    assert comment <= found["comment_share"] * len(text) + 1e-9 <= comment + 1.1


def test_a_language_without_a_lexer_has_words_and_signs() -> None:
    found = measure("say hello (twice)", "Klingon of the third age")
    assert found["identifier_share"] == pytest.approx(3 / 5)
    assert found["bracket_depth"] == pytest.approx((1 / 5) / (6 / 5))
    assert found["keyword_share"] == found["comment_share"] == 0.0


@pytest.mark.parametrize("text", ["", "\n\n   \n"])
def test_an_empty_text_has_measures(text: str) -> None:
    assert (code_metrics(text, "Python") == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.sampled_from("ab1 \t\n()[]{}'\"#/*=.:é\\"), max_size=80),
    language=st.sampled_from(LANGUAGES),
)
def test_any_text_has_measures_between_0_and_1(text: str, language: str) -> None:
    found = code_metrics(text, language)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= 1).all()
