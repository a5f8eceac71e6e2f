"""Files in any encoding become text; a file that is not text is dropped without failing the job."""

from __future__ import annotations

from pathlib import Path

import pytest

from ponderttt.corpus.filters import content_reason
from ponderttt.corpus.hub.contents import Failed, decoded
from ponderttt.settings.corpus import FilterConfig
from s3_server import put_contents
from stack_builds import build, facts_of, files_of, stack_corpus
from stack_data import StackFile, write_stack_v2

SOURCE = '''"""How deep {} water is."""


def depth(stones):
    """Of a pond with so many stones in it, in metres."""
    return sum(stone.height for stone in stones) / max(1, len(stones))


print(depth([]), "étang {}")
'''
ENCODINGS = ["UTF-16", "UTF-16LE", "UTF-16BE", "UTF-32", "UTF-32LE", "UTF-7", "ISO-8859-1", "windows-1252"]


def source(number: int, more: str = "") -> str:
    """Return the source of one file; no two are near duplicates."""
    words = [f"value_{number}_{line} = {number * line} + {line}" for line in range(40)]
    return "\n".join([SOURCE.format(number, number), *words, more])


def file_in(encoding: str, content: bytes, number: int) -> StackFile:
    return StackFile(f"owner{number}/pond", f"{number}.py", content, src_encoding=encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_a_file_says_is_judged_and_not_how_its_bytes_look(encoding: str) -> None:
    text = source(0)
    assert content_reason(decoded(text.encode(encoding), encoding), FilterConfig()) is None
    assert content_reason(decoded((text + "\0").encode(encoding), encoding), FilterConfig()) == "binary"


def test_letters_count_as_letters_whatever_bytes_they_are() -> None:
    text = "ab" + "+-" * 3  # a quarter of the characters are letters, but far fewer of the bytes in UTF-32
    for encoding in ("UTF-8", "UTF-32LE"):
        assert content_reason(decoded(text.encode(encoding), encoding), FilterConfig()) is None
    assert content_reason("ab" + "+-" * 4, FilterConfig()) == "few_alphanumeric"


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (b"abc+2AA-", "UTF-7"),
        (b"abc\\ud800", "unicode_escape"),
        (b"a\xff", "UTF-8"),
        (b"abc", "UTF-16"),
        (b"xn--999999999", "punycode"),
    ],
)
def test_a_text_that_cannot_be_written_as_utf8_is_none(raw: bytes, encoding: str) -> None:
    with pytest.raises(Failed, match="undecodable"):
        decoded(raw, encoding)


def test_a_job_keeps_texts_of_all_encodings_and_counts_what_is_no_text_by_reason(
    endpoint: str, tmp_path: Path
) -> None:
    good = [file_in(name, source(i).encode(name), i) for i, name in enumerate(ENCODINGS)]
    no_text = [
        file_in("UTF-8", source(20).encode("latin-1"), 20),
        file_in("ASCII", source(21).encode(), 21),
        file_in("UTF-7", b"# half of a pair: +2AA-\n" + source(22).encode("UTF-7"), 22),
    ]
    unknown = [file_in("EUC-TW", source(30).encode(), 30), file_in("hex", b"61" * 40, 31)]
    binary = file_in("UTF-16", source(40, "\0").encode("UTF-16"), 40)
    files = [*good, *no_text, *unknown, binary]
    put_contents(endpoint, "softwareheritage", {file.blob_id: file.content for file in files})
    snapshot = write_stack_v2(tmp_path / "v2", files, ["Python"], parts=1)
    shards = build(stack_corpus(snapshot, endpoint), tmp_path)

    assert {file.repo_name: file.content for file in files_of(shards)} == {f.repo_name: f.text for f in good}
    facts = facts_of(shards)
    assert facts["failures"] == {}
    size = sum(len(file.content) for file in no_text)
    assert facts["drops"]["undecodable"] == {"files": 3, "bytes": size}
    assert facts["drops"]["unknown_encoding"]["files"] == 2
    assert facts["drops"]["binary"]["files"] == 1
