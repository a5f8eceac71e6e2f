"""Importing the package is cheap: heavy libraries are loaded where they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "datasets",
    "torch",
    "transformers",
    "snakemake",
    "matplotlib",
    "pandas",
    "pyarrow",
    "orbax",
    "huggingface_hub",
}


def loaded_by(module: str) -> set[str]:
    """Names of the top-level packages that a fresh process has after importing ``module``."""
    program = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_the_package_itself_loads_nothing_heavy():
    assert not loaded_by("ponderttt") & (HEAVY | {"jax", "flax", "numpy", "optax", "scipy"})


@pytest.mark.parametrize(
    "module", ["ponderttt.cli.main", "ponderttt.settings.experiment", "ponderttt.files.manifest"]
)
def test_the_command_line_starts_without_numerics(module):
    """`ponderttt --help` and the workflow's planning answer at once."""
    assert not loaded_by(module) & (HEAVY | {"jax", "flax", "numpy", "scipy"})


@pytest.mark.parametrize("module", ["ponderttt.cli.main", "ponderttt.files.manifest"])
def test_what_needs_no_settings_does_not_load_their_checks(module):
    assert "pydantic" not in loaded_by(module)


def test_the_numeric_core_loads_numerics_only():
    assert not loaded_by("ponderttt.loop.stream, ponderttt.loop.running, ponderttt.loop.scoring") & HEAVY
