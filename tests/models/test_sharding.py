"""One program on one device or on many: the same losses, and every parameter knows where it goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import optimised
from ponderttt.errors import PonderTTTError
from ponderttt.models.families import family_of
from ponderttt.models.presets import PRESETS
from ponderttt.models.sharding import logical_axes, parse_mesh

SCRIPT = Path(__file__).with_name("sharded_losses.py")
TESTS = SCRIPT.parents[1]


def losses(mesh: str, devices: int, *process: str) -> subprocess.Popen[str]:
    """Compute losses of tiny models of every family on virtual CPU devices, in a new process."""
    # Each program runs once.
    flags = f"{optimised.HURRY} --xla_force_host_platform_device_count={devices}"
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        # The tested code, even if another copy is installed.
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent))),
    }
    command = [sys.executable, str(SCRIPT), mesh, *process]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


Answer = dict[str, list[float] | str]


def answer(process: subprocess.Popen[str]) -> Answer:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    found: Answer = json.loads(out.splitlines()[-1])
    return found


def check_same(found: Answer, wanted: Answer) -> None:
    """Losses are equal up to rounding, digests exactly."""
    for name, values in found.items():
        if isinstance(values, str):
            assert values == wanted[name], name
        else:
            # bfloat16 rounds more.
            rounding = 2e-3 if "int4" in name else 1e-5
            assert values == pytest.approx(wanted[name], rel=rounding), name


@pytest.fixture(scope="module")
def on_one_device() -> Answer:
    return answer(losses("1", 1))


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param("data=8", marks=pytest.mark.slow),
        pytest.param("fsdp=4,tensor=2", marks=pytest.mark.slow),
        pytest.param("data=2,fsdp=2,tensor=2", marks=pytest.mark.slow),
    ],
)
def test_eight_devices_have_the_losses_and_the_parameters_of_one(mesh: str, on_one_device: Answer) -> None:
    found = answer(losses(mesh, 8))
    assert found.keys() == on_one_device.keys()
    check_same(found, on_one_device)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "port"), [("data=2,fsdp=2,tensor=2", "18765"), ("fsdp=4,tensor=2", "18766")]
)
def test_two_processes_of_four_devices_have_the_losses_of_one(
    mesh: str, port: str, on_one_device: Answer
) -> None:
    """With the second mesh, no process has all of the model."""
    both = [losses(mesh, 4, port, str(index)) for index in range(2)]
    for found in [answer(process) for process in both]:
        assert found
        check_same(found, on_one_device)


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_has_logical_axes(name: str) -> None:
    shape = PRESETS[name]
    family = family_of(shape)
    for parameter, size in family.block_shapes(shape).items():
        assert len(logical_axes(parameter, len(size) + 1, stacked=True)) == len(size) + 1
    for parameter, size in family.outer_shapes(shape).items():
        assert len(logical_axes(parameter, len(size), stacked=False)) == len(size)


@pytest.mark.parametrize(
    ("text", "sizes"), [("8", (1, 1, 8)), ("data=2,tensor=4", (2, 1, 4)), ("fsdp=3", (1, 3, 1))]
)
def test_a_mesh_is_read(text: str, sizes: tuple[int, ...]) -> None:
    assert tuple(parse_mesh(text).values()) == sizes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model=2", "unknown 'model'"),
        ("tensor=0", "'0' is not a number"),
        ("x", "'x' is not"),
        ("\u00b2", "'\u00b2' is not"),
        ("tensor=2,tensor=4", "tensor is named twice"),
    ],
)
def test_what_is_no_mesh_is_one_line(text: str, says: str) -> None:
    with pytest.raises(PonderTTTError) as error:
        parse_mesh(text)
    assert says in str(error.value) and "\n" not in str(error.value)
