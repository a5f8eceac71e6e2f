"""Find the adapter and the calibration that a study made; if it has none, name the command that makes or finds them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ponderttt.errors import ConfigError, PonderTTTError
from ponderttt.files.commands import again_with, workflow_command
from ponderttt.files.folder import Folder
from ponderttt.names import FastWeightsName, MethodName
from ponderttt.settings.experiment import load
from ponderttt.workflow.layout import Layout

#: What an adapter without training does.
_UNTRAINED = {
    "ttt": "its reads change nothing",
    "lora": "it starts as the plain backbone",
    "suffix": "it starts as the plain backbone",
    "memory": "it has the configuration's temperature and mixture weight, and no centre",
}


@dataclass(frozen=True)
class Adapter:
    """Where a study keeps one adapter.

    Attributes:
        layout: folders of the study.
        model: name of the backbone.
        fast_weights: the fast weights, with their context.
        seed: seed of its training.
    """

    layout: Layout
    model: str
    fast_weights: FastWeightsName
    seed: int

    @property
    def training(self) -> Folder:
        """The folder of its slow weights."""
        return self.layout.training(self.model, self.fast_weights, self.seed)

    @property
    def calibration(self) -> Folder:
        """The folder of the signals that rules rank by."""
        return self.layout.calibration(self.model, self.fast_weights, self.seed)

    def check_calibration(self, method: MethodName) -> None:
        """Raise PonderTTTError if a rule has no calibration."""
        if not self.calibration.exists:
            remedy = self._remedy(lambda adapter: adapter.calibration)
            raise PonderTTTError(f"--policy {method}: no calibration in {self.calibration}; {remedy}")

    def untrained(self) -> str:
        """Say that there is no trained adapter, what is used instead, and how to get one."""
        kind = self.fast_weights.kind
        remedy = self._remedy(lambda adapter: adapter.training)
        return (
            f"no trained adapter in {self.training}; using an untrained {kind} ({_UNTRAINED[kind]}); {remedy}"
        )

    def _remedy(self, folder: Callable[[Adapter], Folder]) -> str:
        for path in sorted([*Path().glob("*.yaml"), *Path("config").rglob("*.yaml")]):
            with contextlib.suppress(ConfigError):
                experiment = load(path)
                other = Adapter(Layout.of(experiment), self.model, self.fast_weights, self.seed)
                if self.model in experiment.models and folder(other).exists:
                    return f"the study {path} has one: {again_with(path)}"
        return f"make it: {workflow_command(folder(self).manifest)}"
