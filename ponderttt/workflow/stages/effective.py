"""The effective configuration: every setting of the study, the defaults included, as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ponderttt.files.atomic import atomic_path
from ponderttt.settings.experiment import Experiment
from ponderttt.settings.mapping import as_mapping


def _plain(value: Any) -> Any:
    """Tuples as lists, which is what YAML reads."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def effective(experiment: Experiment) -> dict[str, Any]:
    """The whole configuration as plain YAML values; :func:`ponderttt.settings.experiment.load` reads it back to an equal one."""
    plain: dict[str, Any] = _plain(as_mapping(experiment))
    return plain


def write_effective(config: dict[str, Any], output: Path | str) -> None:
    """Write ``results/config.yaml``."""
    import yaml

    with atomic_path(output) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
