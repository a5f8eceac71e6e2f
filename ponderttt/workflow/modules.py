"""The trained module that arms and policies run with, checked against what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponderttt.fast_weights.base import FastWeights
from ponderttt.fast_weights.build import build, load_slow_weights
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST, check_facts, read_manifest
from ponderttt.loop.running import Budget
from ponderttt.names import FastWeightsName
from ponderttt.settings.fast_weights import FastWeightsConfig
from ponderttt.settings.mapping import as_mapping
from ponderttt.settings.rules import RulesConfig
from ponderttt.workflow.inputs import SLOW_WEIGHTS, TRAINING, FrozenInputs


@dataclass(frozen=True)
class ArmSettings:
    """What the records of a trained module depend on besides its inputs.

    Attributes:
        fast_weights: its name in the grid, such as ``memory+context_1``.
        config: settings of all kinds.
        seed: of the trained module and of random decisions.
        budget: of the rules and oracles.
        rules: settings of the rules.
    """

    fast_weights: FastWeightsName
    config: FastWeightsConfig
    seed: int
    budget: Budget
    rules: RulesConfig

    @property
    def kind(self) -> str:
        """The kind, without context."""
        return self.fast_weights.kind


@dataclass(frozen=True)
class OpenModule:
    """A module with its trained slow weights.

    Attributes:
        module: ready to run.
        settings: of its kind.
        digest: sha256 of the file of its slow weights.
        trained_by: digest of the code that trained it.
    """

    module: FastWeights
    settings: dict[str, Any]
    digest: str
    trained_by: str


def open_module(settings: ArmSettings, inputs: FrozenInputs, training_dir: Path | str) -> OpenModule:
    """Read the slow weights.

    Raises:
        CorruptFileError: they are damaged, or were trained with other settings or on another model.
    """
    fresh = build(settings.kind, inputs.width, settings.config, settings.seed, inputs.shape)
    own = as_mapping(getattr(settings.config, settings.kind))
    return open_trained(fresh, settings.kind, own, inputs.model_digest, training_dir)


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
