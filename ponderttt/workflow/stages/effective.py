"""The effective configuration: every setting of the study, the defaults included, as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ponderttt.files.atomic import atomic_path


def write_effective(config: dict[str, Any], output: Path | str) -> None:
    """Write ``results/config.yaml``."""
    import yaml

    with atomic_path(output) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
