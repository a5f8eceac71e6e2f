"""Whatever faults occur, a corpus has the true bytes of all contents, or the job fails with a list."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fault_proxy import (
    DENIED,
    NOT_FOUND,
    NOT_GZIP,
    RESET,
    SLOW_DOWN,
    TRUNCATED,
    WRONG_BYTES,
    Fault,
    FaultProxy,
    Rule,
    always,
    first,
    randomly,
    slow,
)
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.contents import ContentClient
from ponderttt.errors import PonderTTTError
from ponderttt.settings.hub import ContentsConfig
from s3_server import content_key
from stack_builds import PATIENT, build, bytes_of, facts_of, stack_corpus
from stack_data import Planted, planted_files

#: ``--junitxml`` writes the counts of a run.
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def true_bytes(snapshot: Path, endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return bytes_of(build(stack_corpus(snapshot, endpoint, parts=1), tmp_path_factory.mktemp("true")))


TRANSIENT: dict[str, Rule] = {
    # Only a few, since boto3 slows down more with each.
    "503 SlowDown": first(
        3, SLOW_DOWN, [content_key(blob) for blob in sorted(planted_files(90, 4).contents)[::13]]
    ),
    "reset half-way": first(2, RESET),
    "truncated gzip": first(2, TRUNCATED),
    "wrong bytes": first(2, WRONG_BYTES),
    "no gzip": first(2, NOT_GZIP),
    "slow answer": first(1, slow(0.2)),
    "answers that hang": first(
        1, slow(2.0), [content_key(b) for b in sorted(planted_files(90, 4).contents)[::5]]
    ),
    "30 % of everything": randomly(0.3, 1, [RESET, TRUNCATED, WRONG_BYTES, NOT_GZIP]),
}


#: Seconds to wait for an answer.
TIMEOUTS = {"answers that hang": 0.3}
#: After refusals boto3 stays slow.
PATIENCE = ("503 SlowDown",)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in PATIENCE else n for n in TRANSIENT],
)
def test_faults_that_pass_change_no_byte_and_lose_no_row(
    name: str,
    snapshot: Path,
    endpoint: str,
    true_bytes: dict[str, str],
    tmp_path: Path,
    record_property: Record,
) -> None:
    with FaultProxy(endpoint, TRANSIENT[name]) as proxy:
        patience = replace(PATIENT, endpoint=proxy.url, timeout=TIMEOUTS.get(name, PATIENT.timeout))
        shards = build(stack_corpus(snapshot, parts=1, contents=patience), tmp_path)
        assert sum(proxy.injected.values()) >= 3
    assert bytes_of(shards) == true_bytes
    assert facts_of(shards)["failures"] == {}
    record_property("injected", dict(proxy.injected))
    record_property("requests", proxy.requests)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (NOT_FOUND, "not_found"),
        (WRONG_BYTES, "wrong_blob_id"),
        (TRUNCATED, "truncated"),
        (NOT_GZIP, "not_gzip"),
        (RESET, "network"),
        pytest.param(SLOW_DOWN, "throttled", marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_content_that_never_comes_fails_the_job_with_its_name_and_healed_ends_with_the_same_bytes(
    fault: Fault,
    reason: str,
    planted: Planted,
    snapshot: Path,
    endpoint: str,
    true_bytes: dict[str, str],
    tmp_path: Path,
    record_property: Record,
) -> None:
    broken = next(
        f for f in planted.files if f.license_type == "permissive" and not (f.is_vendor or f.is_generated)
    )
    contents = replace(PATIENT, attempts=3)
    with FaultProxy(endpoint, always(fault, [content_key(broken.blob_id)])) as proxy:
        corpus = stack_corpus(snapshot, parts=1, contents=replace(contents, endpoint=proxy.url))
        with pytest.raises(PonderTTTError) as error:
            build(corpus, tmp_path)
        message = str(error.value)
        assert f"{broken.blob_id} ({reason})" in message and "\n" not in message
        assert not (tmp_path / "shards").exists()
        asked = proxy.requests
        proxy.rule = always(fault, [])
        assert bytes_of(build(corpus, tmp_path)) == true_bytes
        # Nothing on disk was fetched again, not even in the same segment.
        assert proxy.requests - asked == 1 < asked
    record_property("injected", dict(proxy.injected))
    record_property("requests", f"{asked}, healed {proxy.requests - asked}")


def test_a_share_of_missing_files_can_be_allowed_and_is_on_record(
    planted: Planted, snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    broken = next(
        f for f in planted.files if f.license_type == "permissive" and not (f.is_vendor or f.is_generated)
    )
    with FaultProxy(endpoint, always(NOT_FOUND, [content_key(broken.blob_id)])) as proxy:
        contents = replace(PATIENT, endpoint=proxy.url, max_failures=0.1)
        shards = build(stack_corpus(snapshot, contents=contents), tmp_path)
    facts = facts_of(shards)
    assert facts["failures"] == {"not_found": 1}
    assert facts["drops"]["failed_not_found"]["files"] == 1
    assert facts["kept"]["files"] + sum(c["files"] for c in facts["drops"].values()) == len(planted.files)


def test_a_server_that_refuses_says_which_setting_to_change(
    snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    with FaultProxy(endpoint, always(DENIED)) as proxy:
        with pytest.raises(
            PonderTTTError, match=r"refuses \(AccessDenied\); set hub.contents.signed to true"
        ):
            build(stack_corpus(snapshot, proxy.url), tmp_path)
        assert proxy.requests < 60  # not for every file


def test_no_server_is_one_line(snapshot: Path, tmp_path: Path) -> None:
    contents = replace(PATIENT, endpoint="http://127.0.0.1:9", attempts=2)
    with pytest.raises(PonderTTTError, match=r"contents could not be fetched \(network"):
        build(stack_corpus(snapshot, contents=contents), tmp_path)


def test_encodings_that_nobody_knows_or_that_do_not_fit_are_reasons(planted: Planted, endpoint: str) -> None:
    file = planted.latin1[0]
    client = ContentClient(replace(PATIENT, endpoint=endpoint))

    def outcome(encoding: str) -> str | None:
        return client.content(candidate(file.blob_id, file.content_id, encoding)).failure

    assert outcome("ISO-8859-1") is None
    assert outcome("UTF-8") == "undecodable"
    assert outcome("klingon") == "unknown_encoding"
    assert outcome("hex") == "unknown_encoding"


def test_a_content_that_git_knows_by_another_name_is_refused(planted: Planted, endpoint: str) -> None:
    file = planted.files[0]
    client = ContentClient(ContentsConfig(endpoint=endpoint, attempts=2, longest_pause=0.01))
    assert client.content(candidate(file.blob_id, "0" * 40, "UTF-8")).failure == "wrong_content_id"


def candidate(blob: str, content: str, encoding: str) -> Candidate:
    return Candidate(
        "o/n", "a.py", blob, content, "Python", "permissive", (), encoding, 1, False, False, 0, 0, 0, None
    )


_BUILD = """
import sys, json
from pathlib import Path
from stack_builds import build, stack_corpus, PATIENT
from dataclasses import replace
contents = replace(PATIENT, endpoint=sys.argv[2], segment_files=5, connections=2)
build(stack_corpus(Path(sys.argv[1]), parts=1, contents=contents), Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_it_ends_with_the_same_bytes(
    snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(p) for p in sys.path if p)}
    with FaultProxy(endpoint, first(1, slow(0.1))) as proxy:

        def start(folder: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", _BUILD, str(snapshot), proxy.url, str(tmp_path / folder)]
            return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

        whole = start("whole")
        assert whole.wait(timeout=120) == 0
        moments = random.Random(0)
        for _ in range(3):
            proxy.attempts.clear()
            begun = proxy.requests
            job = start("killed")
            # At a random moment after it starts to fetch.
            while proxy.requests == begun and job.poll() is None:
                time.sleep(0.02)
            time.sleep(moments.uniform(0.05, 0.6))
            job.send_signal(signal.SIGKILL)
            job.wait()
        assert start("killed").wait(timeout=120) == 0
    assert bytes_of(tmp_path / "killed" / "shards") == bytes_of(tmp_path / "whole" / "shards")
    assert json.loads((tmp_path / "killed" / "shards" / "manifest.json").read_text())["files"]
