"""Stage ``table``: the table and its seeds, and the guide that says how to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST, read_manifest
from ponderttt.reporting.guide.guide import write_reading_guide
from ponderttt.reporting.numbers.tables import write_table
from ponderttt.settings.statistics import StatisticsConfig


def make_table(
    run_folders: Sequence[Path | str],
    records_code: str,
    statistics: StatisticsConfig,
    table: Path | str,
    seeds: Path | str,
    guide: Path | str,
    command: str,
    control_corpora: Mapping[str, str] | None = None,
    model_manifests: Sequence[Path | str] = (),
) -> None:
    """Write ``paper_table.csv``, ``seeds.csv``, ``frontier.csv``, ``signals.csv``, their manifest and ``README.md``.

    Args:
        run_folders: every arm and seed of the grid.
        records_code: the stage digest that all records must carry.
        statistics: bootstrap samples, confidence and seed.
        table: path of the table.
        seeds: path of the seeds' values.
        guide: path of the reading guide.
        command: what remakes the table, for the manifest.
        control_corpora: control corpus → its kind, ``random_tokens`` or ``repeated``.
        model_manifests: of the converted models, for the sizes of their vocabularies.
    """
    write_table(
        run_folders,
        records_code,
        statistics,
        table,
        seeds,
        command=command,
        control_corpora=control_corpora,
        vocabularies={Path(path).parent.name: _vocabulary(Path(path).parent) for path in model_manifests},
    )
    write_reading_guide(table, guide)


def _vocabulary(model_dir: Path) -> int:
    facts = read_manifest(model_dir, "model", rebuild(model_dir / MANIFEST), verify=False)["facts"]
    return int(facts["vocab_size"])
