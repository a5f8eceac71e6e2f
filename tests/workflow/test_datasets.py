"""A study on a dataset of the hub: planned before anything of it is read, run to its table, and nothing fetched twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fault_proxy import SLOW_DOWN, FaultProxy, first
from s3_server import put_contents, s3_server
from stack_data import Planted, planted_files, write_stack_v2
from study import Study

PARTS = 2


def corpora(snapshot: str, endpoint: str) -> dict[str, Any]:
    """Half of the repositories to learn from, the other half held out."""

    def corpus(split: str, low: float, high: float) -> dict[str, Any]:
        hub = {"path": snapshot, "accept_terms": True, "parts": PARTS, "hash_from": low, "hash_to": high}
        contents = {"endpoint": endpoint, "connections": 8, "longest_pause": 0.1}
        return {
            "kind": "stack_v2",
            "language": "Python",
            "split": split,
            "chunks_per_stream": 4,
            "max_streams": 3,
            "hub": {**hub, "contents": contents},
        }

    return {"learn": corpus("train", 0.0, 0.5), "test": corpus("heldout", 0.5, 1.0)}


def test_the_number_of_jobs_is_that_of_the_configuration(study: Study) -> None:
    study.configure(corpora=corpora("nowhere", "http://127.0.0.1:9"))
    jobs = study.plan()
    assert (jobs["select"], jobs["contents"], jobs["merge"]) == (2 * PARTS, 2 * PARTS, 2)
    assert "shards" not in jobs


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_files(count=60, copies=2)


@pytest.fixture(scope="module")
def snapshot(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stack_v2(tmp_path_factory.mktemp("hub") / "v2", planted.files, ["Python"], parts=PARTS)


@pytest.fixture(scope="module")
def proxy(planted: Planted) -> Iterator[FaultProxy]:
    refused = [f"content/{blob}" for blob in sorted(planted.contents)[:3]]
    with s3_server() as endpoint:
        put_contents(endpoint, "softwareheritage", planted.contents)
        with FaultProxy(endpoint, first(1, SLOW_DOWN, refused)) as server:
            yield server


@pytest.mark.slow
def test_from_snapshot_and_server_to_the_table(snapshot: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    study = Study.create(tmp_path)
    settings = corpora(str(snapshot), proxy.url)
    opted_out = tmp_path / "opted_out.txt"
    opted_out.write_text("# nobody yet\n")
    for corpus in settings.values():
        corpus["hub"]["opt_out"] = str(opted_out)
    study.configure(corpora=settings, grid__seeds=[0])
    ran = study.run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = (study.folder / "results/paper_table.csv").read_text()
    assert "update_1" in table and ",test," in table
    asked = proxy.requests
    assert study.plan() == {}
    rows = (study.folder / "results/drops.csv").read_text()
    assert "learn,kept," in rows and "test,license," in rows

    def plan(**contents: Any) -> dict[str, int]:
        for corpus in settings.values():
            corpus["hub"]["contents"].update(contents)
        study.configure(corpora=settings, grid__seeds=[0])
        return study.plan()

    def change(**changes: Any) -> dict[str, int]:
        for corpus in settings.values():
            corpus.update(changes)
        return plan()

    # A faster connection to another server changes nothing but the record of all settings.
    faster = {"connections": 16, "timeout": 30.0, "retries": 90, "attempts": 9, "region": "eu-west-1"}
    assert plan(**faster) == {"effective_config": 1}
    # Fewer streams are chosen from what is there.
    jobs = change(max_streams=2)
    assert "select" not in jobs and "contents" not in jobs and jobs["merge"] == 2
    # Whoever allows fewer failures wants what is missing.
    jobs = plan(max_failures=0.01)
    assert "select" not in jobs and jobs["contents"] == 2 * PARTS
    # Other filters look at what was fetched, and ask for nothing.
    jobs = change(filters={"near_duplicate_threshold": 0.8, "max_line_length": 500})
    assert "select" not in jobs and jobs["contents"] == 2 * PARTS
    ran = study.run("--until", "merge")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert proxy.requests == asked
    # Whoever opts out later is left out of the next run.
    opted_out.write_text("somebody/project\n")
    assert study.plan()["select"] == 2 * PARTS
