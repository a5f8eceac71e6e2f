"""Errors about a dataset on the hub are one line with a remedy, tested over the hub's protocol."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hub_server import HubServer, commit_of
from ponderttt.corpus.hub.rows import in_stable_order
from ponderttt.corpus.hub.selection import Selection
from ponderttt.errors import ConfigError, PonderTTTError
from ponderttt.settings.experiment import CorpusConfig
from ponderttt.settings.hub import ContentsConfig, HubConfig
from stack_builds import quiet, stack_corpus
from stack_data import planted_files, write_stack_v2

REPOSITORY = "bigcode/the-stack-v2-dedup"
#: In another process, since clients of the hub read their environment when imported.
_SELECT = """
import json, os, sys
from pathlib import Path
from ponderttt.settings.corpus import CorpusConfig
from ponderttt.corpus.hub.buckets import read_bucket
from ponderttt.errors import PonderTTTError
from ponderttt.workflow.stages.select import select
from ponderttt.settings.mapping import from_mapping
from stack_builds import quiet
answers = []
for number, (token, corpus) in enumerate(json.loads(sys.argv[1])):
    folder = Path(sys.argv[2]) / str(number)
    os.environ.pop("HF_TOKEN", None)
    if token is not None:
        os.environ["HF_TOKEN"] = token
    try:
        select(from_mapping(CorpusConfig, corpus), "stack", 0, folder / "part-0", quiet(folder))
    except PonderTTTError as error:
        answers.append({"error": str(error)})
    else:
        files = sum(1 for _ in read_bucket([folder / "part-0"], 0, folder / "scratch", inline=False))
        answers.append({"files": files})
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    root = tmp_path_factory.mktemp("hub")
    files = planted_files(count=30, copies=1).files
    write_stack_v2(root / REPOSITORY, files, ["Python"], parts=1)
    write_stack_v2(root / "group/open", files, ["Python"], parts=1)
    lines = (json.dumps({"text": f"text {n}", "repo": f"o/{n}"}) for n in range(40))
    (root / "group/lines").mkdir()
    (root / "group/lines/train.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    with HubServer(root, gated=[REPOSITORY]) as server:
        yield server


CASES: list[tuple[str | None, dict[str, object], str]] = [
    ("hf_accepted", {}, ""),
    (None, {}, "gated, and there is no token; accept its terms at https://huggingface.co/datasets/bigcode"),
    ("hf_other", {}, "your token has no access"),
    ("hf_nobody", {}, "the token in HF_TOKEN is not valid"),
    ("hf_accepted", {"revision": "0" * 40}, f"has no commit {'0' * 40}; check hub.revision"),
    (None, {"repository": "nobody/nothing"}, "no such dataset, or a private one; check hub.repository"),
    ("hf_accepted", {"language": "Klingon"}, "no configuration 'Klingon'; check the corpus' language"),
    ("hf_accepted", {"dataset_split": "test"}, "no split 'test', only train; check hub.dataset_split"),
    ("hf_accepted", {"parts": 4}, "has 1 files, fewer than hub.parts 4; set hub.parts to 1 or less"),
    (None, {"kind": "text", "repository": "group/lines", "repository_column": "repo"}, ""),
]
#: Those of them that fail.
REFUSED = [number for number, (_, _, says) in enumerate(CASES) if says]


@pytest.fixture(scope="module")
def answers(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    home = tmp_path_factory.mktemp("home")
    asked = []
    for token, settings, _ in CASES:
        commit = commit_of(str(settings.get("repository", REPOSITORY)))
        wanted = {"revision": commit, "accept_terms": True, **settings}
        own = {"kind": "stack_v2", "language": "Python", "split": "train"}
        own = {key: wanted.pop(key, usual) for key, usual in own.items()}
        asked.append((token, {**own, "hub": wanted}))
    environment = hub.environment(home) | {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    ran = subprocess.run(
        [sys.executable, "-c", _SELECT, json.dumps(asked), str(home / "out")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    found: list[dict[str, object]] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_with_an_accepted_token_rows_come_from_the_hub(
    hub: HubServer, answers: list[dict[str, object]]
) -> None:
    assert int(str(answers[0]["files"])) > 5
    assert answers[-1] == {"files": 40}
    assert hub.leaked == 0


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: CASES[case][2][:30])
def test_a_refusal_of_the_hub_names_the_remedy(case: int, answers: list[dict[str, object]]) -> None:
    message = str(answers[case]["error"])
    assert CASES[case][2] in message and "\n" not in message


def test_terms_that_are_not_accepted_are_shown(tmp_path: Path) -> None:
    from ponderttt.workflow.stages.select import select

    corpus = CorpusConfig("stack_v2", "Python", "train", hub=HubConfig(revision="0" * 40))
    with pytest.raises(PonderTTTError) as error:
        select(corpus, "stack", 0, tmp_path / "part-0", quiet(tmp_path))
    assert "set corpora.stack.hub.accept_terms to true" in str(error.value)
    assert "Software Heritage" in str(error.value)
    assert not (tmp_path / "part-0").exists()


def changed_snapshot(folder: Path, change: str) -> Path:
    """A snapshot of three files; the one read last has other columns."""
    snapshot = write_stack_v2(folder, planted_files(count=20, copies=1).files, ["Python"], parts=3)
    *_, path = in_stable_order(map(str, snapshot.glob("data/Python/*.parquet")))
    table = pq.read_table(path)
    if change == "missing":
        table = table.drop_columns(["blob_id"])
    elif change == "without licenses":
        table = table.drop_columns(["detected_licenses"])
    else:
        column = pa.array([str(n) for n in table.column("length_bytes").to_pylist()])
        table = table.set_column(table.column_names.index("length_bytes"), "length_bytes", column)
    pq.write_table(table, path)
    return snapshot


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing", "blob_id is missing"),
        ("without licenses", "detected_licenses is missing"),
        ("retyped", "length_bytes is string, not integer"),
    ],
)
def test_columns_that_drifted_are_named(change: str, says: str, tmp_path: Path) -> None:
    from ponderttt.workflow.stages.select import select

    corpus = stack_corpus(changed_snapshot(tmp_path / "v2", change))
    with pytest.raises(PonderTTTError) as error:
        select(corpus, "stack", 0, tmp_path / "part-0", quiet(tmp_path))
    assert says in str(error.value) and "\n" not in str(error.value)
    assert re.search(r"train-\d+.*\.parquet: its columns", str(error.value))


def test_an_opt_out_list_names_repositories_and_owners_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    corpus = CorpusConfig("stack_v2", "Python", "train", hub=HubConfig(path="x", opt_out=str(file)))
    names = ["owner/name", "Other/", "  # and later", "name_company/some.js.", "a-b/.github", "a/b.gitignore"]
    # As some editors save it, with a byte-order mark.
    file.write_text("\n".join([*names, "# whoever asked", ""]), encoding="utf-8-sig")
    known = {"owner/name", "other/", "name_company/some.js.", "a-b/.github", "a/b.gitignore"}
    assert Selection.of(corpus).opted_out == known


@pytest.mark.parametrize(
    "line",
    [
        "owner",
        "https://github.com/owner/name",
        "github.com/owner",
        "a b/c",
        "owner/*",
        "owner/name.git",
        "owner/name/",
        "owner/name # asked in May",
        "\N{KELVIN SIGN}elvin/name",
        "owner/na\N{ZERO WIDTH SPACE}me",
    ],
)
def test_a_line_that_could_opt_nobody_out_is_refused_by_its_number(line: str, tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    corpus = CorpusConfig("stack_v2", "Python", "train", hub=HubConfig(path="x", opt_out=str(file)))
    file.write_text(f"# whoever asked\nowner/name\n\n{line}\n", encoding="utf-8")
    with pytest.raises(PonderTTTError) as error:
        Selection.of(corpus)
    said = str(error.value)
    assert (
        f"{file}, line 4: {line!r} names neither a repository nor an owner; write owner/name or owner/"
        in said
    )
    assert "\n" not in said


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (lambda: HubConfig(revision="main"), "revision must be the commit of the dataset"),
        (lambda: HubConfig(path="x", parts=0), "parts must be at least 1, got 0"),
        (
            lambda: HubConfig(path="x", hash_from=0.5, hash_to=0.5),
            "hash_from must be less than hash_to, got 0.5 and 0.5",
        ),
        (lambda: ContentsConfig(connections=0), "connections must be at least 1, got 0"),
        (lambda: ContentsConfig(max_failures=1.0), "max_failures must be less than 1, got 1.0"),
        (
            lambda: CorpusConfig("stack_v2", "Python", "train"),
            "hub is missing: a corpus of kind stack_v2 needs it (the dataset)",
        ),
        (
            lambda: CorpusConfig("text", "English", "t", hub=HubConfig(revision="0" * 40)),
            "hub.repository is missing: a corpus of kind text needs it (or hub.path)",
        ),
        (lambda: CorpusConfig("files", "Cobol", "t", path=".", license="MIT"), "unknown 'Cobol'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings()
    assert says in str(error.value)
