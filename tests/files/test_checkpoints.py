"""A long job resumes bit for bit, or starts from the beginning; two jobs never write one result."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.checkpoints import Checkpoints
from small_disk import small_disk

# After a failed read, orbax drops unfinished coroutines, which pytest would report in a later test.
pytestmark = [
    pytest.mark.optimised,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SETTINGS = {"rate": 0.1, "code": "abc"}


class State(NamedTuple):
    """A state with the kinds of leaves that training has."""

    weights: dict[str, jax.Array]
    step: jax.Array
    nothing: tuple[()]


def state(seed: int = 0) -> State:
    key = jax.random.key(seed)
    return State(
        {"a": jax.random.normal(key, (5, 3)), "b": jnp.full((2,), 1 / 3, jnp.bfloat16)}, jnp.asarray(seed), ()
    )


LIKE = state(99)
LOG = [{"step": 1, "loss": 0.1 + 0.2, "epoch": 0}, {"step": 2, "loss": 1e-300, "note": "x"}]


def opened(root: Path, settings: dict[str, Any] = SETTINGS) -> Checkpoints:
    return Checkpoints(root, "job", settings)


def assert_equal_bits(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with the checkpoints of steps 3 and 7, which tests only read."""
    root = tmp_path_factory.mktemp("checkpoints")
    with opened(root) as checkpoints:
        checkpoints.save(3, state(3), LOG[:1])
        checkpoints.save(7, state(7), LOG)
    return root


def test_the_newest_state_and_log_come_back_bit_for_bit(saved):
    with opened(saved) as checkpoints:
        step, restored, log = checkpoints.restore(LIKE)
    assert (step, log) == (7, LOG)
    assert_equal_bits(restored, state(7))


@pytest.mark.parametrize("other", [{**SETTINGS, "rate": 0.2}, {**SETTINGS, "code": "abd"}, {"rate": 0.1}])
def test_another_setting_or_code_version_starts_anew(saved, other):
    with opened(saved, other) as checkpoints:
        assert checkpoints.restore(LIKE) is None
        assert checkpoints.folder != opened(saved).folder


@pytest.mark.parametrize(
    "like",
    [
        LIKE._replace(weights={"a": LIKE.weights["a"]}),
        LIKE._replace(weights={**LIKE.weights, "c": jnp.zeros(2)}),
        LIKE._replace(weights={**LIKE.weights, "a": jnp.zeros((5, 4))}),
    ],
    ids=["one leaf more than asked for", "one leaf less", "another shape"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(saved, like):
    with opened(saved) as checkpoints, pytest.raises(CorruptFileError) as caught:
        checkpoints.restore(like)
    assert str(caught.value).startswith(f"{checkpoints.folder}: its checkpoint of step 7")
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, state(), LOG)
        for path in (checkpoints.folder / "steps" / "1" / "state").rglob("d/*"):
            path.write_bytes(path.read_bytes()[:10])
    with (
        opened(tmp_path) as checkpoints,
        pytest.raises(CorruptFileError, match="Delete this folder") as caught,
    ):
        checkpoints.restore(LIKE)
    assert "\n" not in str(caught.value)


def test_a_step_that_would_not_be_kept_is_an_error(saved):
    """Orbax ignores a step that is not after its newest."""
    with opened(saved) as checkpoints, pytest.raises(ValueError, match="step 5 is not after the newest"):
        checkpoints.save(5, state(5), LOG)


HOLDER = """
import sys, time
from ponderttt.files.checkpoints import Checkpoints
with Checkpoints(sys.argv[1], "job", {"rate": 0.1, "code": "abc"}):
    print("holding", flush=True)
    time.sleep(600)
"""


def test_a_second_job_is_refused_until_the_first_ends_even_by_sigkill(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(PonderTTTError) as caught, opened(tmp_path):
            pass
        assert "another job is writing this result" in str(caught.value)
        assert "\n" not in str(caught.value)
        with opened(tmp_path, {"rate": 0.3}) as other:
            assert other.restore(LIKE) is None
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    with opened(tmp_path) as checkpoints:
        assert checkpoints.restore(LIKE) is None


def test_the_lock_is_released_when_a_job_ends_or_fails(tmp_path):
    with pytest.raises(RuntimeError), opened(tmp_path):
        raise RuntimeError
    with opened(tmp_path):
        pass
    with opened(tmp_path):
        pass


KILLED = """
import os, signal, sys, jax.numpy as jnp
from pathlib import Path
import test_checkpoints as t

with t.opened(Path(sys.argv[1])) as checkpoints:
    checkpoints.save(1, t.state(1), t.LOG[:1])
    # The second save dies when all is written, at the very rename that makes it count.
    real = os.rename
    def rename(source, target, *rest, **more):
        if str(target).endswith("steps/2"):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(source, target, *rest, **more)
    os.rename = os.replace = rename
    checkpoints.save(2, t.state(2), t.LOG)
print("not killed")
"""


def test_a_save_that_was_killed_leaves_the_earlier_checkpoint_and_can_be_made_again(tmp_path):
    here = Path(__file__).parent
    path = {
        "PYTHONPATH": f"{here}:{here.parent}:{here.parent / 'workflow'}",
        "JAX_PLATFORMS": "cpu",
        "PATH": "/usr/bin:/bin",
    }
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env=path, capture_output=True, text=True
    )
    assert ran.returncode == -signal.SIGKILL, ran.stdout + ran.stderr
    with opened(tmp_path) as checkpoints:
        assert any(name.name.startswith("2.") for name in (checkpoints.folder / "steps").iterdir())
        step, restored, log = checkpoints.restore(LIKE)
        assert (step, log) == (1, LOG[:1])
        assert_equal_bits(restored, state(1))
        checkpoints.save(2, state(2), LOG)
    with opened(tmp_path) as checkpoints:
        step, restored, _ = checkpoints.restore(LIKE)
    assert step == 2
    assert_equal_bits(restored, state(2))


def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, capfd):
    with small_disk(tmp_path / "disk", kilobytes=96) as real, opened(tmp_path / "disk") as checkpoints:
        checkpoints.save(1, state(1), LOG)
        if not real:

            def refuse(*_: object, **__: object) -> None:
                raise ValueError("RESOURCE_EXHAUSTED: Failed to write 175 bytes: No space left on device")

            monkeypatch.setattr(checkpoints._manager, "save", refuse)
        noise = jax.random.normal(jax.random.key(0), (400, 400))
        with pytest.raises(PonderTTTError, match="the disk is full; earlier checkpoints are kept") as caught:
            checkpoints.save(2, {"weights": noise}, LOG)
        assert "\n" not in str(caught.value)
        monkeypatch.undo()
        step, restored, _ = checkpoints.restore(LIKE)
        assert step == 1
        assert_equal_bits(restored, state(1))
    assert "Traceback" not in capfd.readouterr().err
