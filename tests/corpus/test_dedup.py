"""Planted duplicates are found, different files stay, and held-out code does not repeat training code."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ponderttt.corpus import dedup
from ponderttt.corpus.dedup import NearDuplicates, deduplicate, drop_overlap, overlap
from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import SourceFile
from ponderttt.corpus.filters import Origin, filter_files
from ponderttt.corpus.raw_files import RawFile
from ponderttt.settings.corpus import FilterConfig

THRESHOLD, PERMUTATIONS = 0.7, 250


def source_file(text: str, path: str, repo_name: str = "pond") -> SourceFile:
    raw = RawFile(path, len(text.encode()), text.encode())
    origin = Origin(repo_name, "Python", "MIT", "wheel:pond==1", "train")
    filters = FilterConfig(min_bytes=1, min_alphanumeric_share=0.0)
    return next(iter(filter_files([raw], origin, filters, Drops())))


@pytest.fixture(scope="module")
def library(code_files: list[Path]) -> list[SourceFile]:
    return [source_file(path.read_text(), path.name, path.stem) for path in code_files[:12]]


def edited(file: SourceFile) -> str:
    """Return the text with one word in fifty replaced: a near duplicate."""
    words = iter(range(10**9))
    return re.sub(r"\w+", lambda m: f"new{m.start()}" if next(words) % 50 == 25 else m.group(), file.content)


def jaccard(first: str, second: str) -> float:
    """Compute the similarity by its definition, without hashes."""
    sets = []
    for text in (first, second):
        words = re.findall(r"\w+", text)
        sets.append({tuple(words[i : i + 5]) for i in range(len(words) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_planted_duplicates_are_dropped_and_the_first_in_order_stays(library: list[SourceFile]) -> None:
    exact = replace(library[3], repo_name="copycat", path="copied.py")
    near = source_file(edited(library[5]), "nearly.py", "copycat")
    assert jaccard(library[5].content, near.content) > THRESHOLD + 0.05
    drops = Drops()
    kept = deduplicate([*library, exact, near], THRESHOLD, PERMUTATIONS, drops)
    assert kept == library, "real modules are no duplicates of each other"
    assert drops["exact_duplicate"] == (1, exact.length_bytes)
    assert drops["near_duplicate"] == (1, near.length_bytes)
    other_order = deduplicate([exact, near, *library], THRESHOLD, PERMUTATIONS, Drops())
    assert exact in other_order and near in other_order
    assert library[3] not in other_order and library[5] not in other_order


def test_files_that_share_less_than_the_threshold_stay(library: list[SourceFile]) -> None:
    half = source_file(library[2].content[: len(library[2].content) // 2], "half.py")
    assert 0.3 < jaccard(half.content, library[2].content) < THRESHOLD - 0.1
    assert half in deduplicate([*library, half], THRESHOLD, PERMUTATIONS, Drops())


def test_the_estimated_similarity_is_the_jaccard_similarity_of_word_5_grams(
    library: list[SourceFile],
) -> None:
    index = NearDuplicates(THRESHOLD, PERMUTATIONS)
    for file in library[:6]:
        for other in (edited(file), file.content[: len(file.content) // 2], library[-1].content):
            estimate = index.signature(file.content).jaccard(index.signature(other))
            # Four standard errors of a mean over 250 permutations.
            assert abs(estimate - jaccard(file.content, other)) < 4 * 0.5 / PERMUTATIONS**0.5


def test_order_of_words_counts() -> None:
    index = NearDuplicates(THRESHOLD, PERMUTATIONS)
    forward = " ".join(f"w{i}" for i in range(100))
    backward = " ".join(f"w{i}" for i in reversed(range(100)))
    assert not set(index.shingles(forward)) & set(index.shingles(backward))
    assert len(index.shingles(forward)) == 96


def test_texts_of_few_or_no_words_are_handled() -> None:
    files = [
        source_file(text, f"{i}.py") for i, text in enumerate(["a b", "a b\n", "a c", "+ -", "+ +", "b a"])
    ]
    drops = Drops()
    kept = deduplicate(files, THRESHOLD, PERMUTATIONS, drops)
    assert [file.path for file in kept] == ["0.py", "2.py", "3.py", "4.py", "5.py"]
    assert drops["near_duplicate"].files == 1


def test_signatures_are_the_same_in_every_process() -> None:
    code = (
        "from ponderttt.corpus.dedup import NearDuplicates;"
        "print(NearDuplicates(0.7, 16).signature('def f(a, b, c): return a + b').hashvalues.tolist())"
    )
    here = NearDuplicates(0.7, 16).signature("def f(a, b, c): return a + b").hashvalues.tolist()
    there = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == str(here)


def test_words_that_are_remembered_have_an_end_and_signatures_do_not_depend_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = random.Random(0)
    texts = [" ".join(f"w{draw.randrange(2_000)}" for _ in range(60)) for _ in range(50)]
    texts.append(" ".join(letter * 10_000 for letter in "abcdefgh"))
    whole, bounded = NearDuplicates(THRESHOLD, PERMUTATIONS), NearDuplicates(THRESHOLD, PERMUTATIONS)
    wanted = [whole.signature(text).hashvalues.tolist() for text in texts]
    monkeypatch.setattr(dedup, "CACHED_WORDS", 100)
    for text, signature in zip(texts, wanted, strict=True):
        assert bounded.signature(text).hashvalues.tolist() == signature
        assert len(bounded._words) <= 100
    assert len(whole._words) > 1_000
    # A word can be as long as a file.
    assert max(map(len, whole._words)) < 100


def test_overlap_finds_equal_files_near_files_and_shared_repositories(library: list[SourceFile]) -> None:
    train, heldout = library[:6], library[6:]
    assert not overlap(train, heldout, THRESHOLD, PERMUTATIONS)
    exact = replace(train[1], repo_name="other", path="same.py")
    near = source_file(edited(train[4]), "close.py", "other")
    moved = replace(heldout[0], repo_name=train[0].repo_name)
    found = overlap(train, [exact, near, moved], THRESHOLD, PERMUTATIONS)
    assert found
    assert found.exact == ((f"{train[1].repo_name}/{train[1].path}", "other/same.py"),)
    assert found.near == ((f"{train[4].repo_name}/{train[4].path}", "other/close.py"),)
    assert found.repositories == (train[0].repo_name,)


def test_held_out_files_that_repeat_training_files_are_dropped_and_counted(library: list[SourceFile]) -> None:
    train, heldout = library[:6], library[6:]
    exact = replace(train[1], repo_name="other", path="same.py")
    near = source_file(edited(train[4]), "close.py", "other")
    drops = Drops()
    kept = drop_overlap([exact, *heldout, near], train, THRESHOLD, PERMUTATIONS, drops)
    assert kept == heldout
    assert drops["exact_copy_of_training"] == (1, exact.length_bytes)
    assert drops["near_copy_of_training"] == (1, near.length_bytes)
    assert not overlap(train, kept, THRESHOLD, PERMUTATIONS)
