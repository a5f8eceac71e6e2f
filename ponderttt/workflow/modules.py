"""The trained module that arms and policies run with, checked against what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ponderttt.fast_weights.base import FastWeights
from ponderttt.fast_weights.build import build, load_slow_weights
from ponderttt.files.commands import rebuild
from ponderttt.files.folder import Folder
from ponderttt.files.manifest import MANIFEST, check_facts, read_manifest
from ponderttt.loop.running import Budget
from ponderttt.settings.mapping import as_mapping, settings
from ponderttt.settings.rules import RulesConfig
from ponderttt.workflow.inputs import SLOW_WEIGHTS, TRAINING, FrozenInputs, ModuleSettings


@settings
class SpendingSettings(ModuleSettings):
    """An adapter, and what rules and oracles may spend on it.

    Attributes:
        budget: mean cost per chunk.
        budget_unit: what a budget counts.
        budget_over: what its mean is over.
        rules: settings of the rules.
    """

    budget: float
    budget_unit: Literal["nominal", "flops"]
    budget_over: Literal["stream", "corpus"]
    rules: RulesConfig

    @property
    def spending(self) -> Budget:
        """The budget with its unit."""
        return Budget(self.budget, self.budget_unit, self.budget_over)


@dataclass(frozen=True)
class OpenModule:
    """A module with its trained slow weights.

    Attributes:
        module: ready to run.
        settings: settings of its kind.
        digest: sha256 of its file of slow weights.
        trained_by: digest of the code that trained it.
    """

    module: FastWeights
    settings: dict[str, Any]
    digest: str
    trained_by: str


def open_module(settings: ModuleSettings, inputs: FrozenInputs, training: Folder) -> OpenModule:
    """Read the slow weights.

    Raises:
        CorruptFileError: they are damaged, or were trained with other settings or on another model.
    """
    fresh = build(settings.kind, inputs.width, settings.config, settings.seed, inputs.shape, inputs.cache)
    own = as_mapping(getattr(settings.config, settings.kind))
    return open_trained(fresh, settings.kind, own, inputs.model_digest, training)


def open_trained(
    fresh: FastWeights, kind: str, settings: dict[str, Any], model_digest: str, training_dir: Path | str
) -> OpenModule:
    """Give a fresh module the slow weights of a folder.

    Args:
        fresh: the module.
        kind: of the module.
        settings: of its kind.
        model_digest: of the backbone that it is used with.
        training_dir: the folder of its slow weights.

    Raises:
        CorruptFileError: they are damaged, or were trained with other settings or on another model.
    """
    again = rebuild(Path(training_dir) / MANIFEST)
    manifest = read_manifest(training_dir, TRAINING, again)
    facts = manifest["facts"]
    check_facts(training_dir, facts, again, kind=kind, settings=settings, model_digest=model_digest)
    module = load_slow_weights(fresh, Path(training_dir) / SLOW_WEIGHTS, again)
    return OpenModule(module, settings, manifest["files"][SLOW_WEIGHTS]["sha256"], facts["stage_digest"])
