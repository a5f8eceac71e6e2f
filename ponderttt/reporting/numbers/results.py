"""The result files of a study as frames, with the manifest that vouches for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ponderttt.errors import CorruptFileError
from ponderttt.files.atomic import atomic_path
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST, read_manifest, write_manifest
from ponderttt.reporting.numbers.columns import as_text, dtypes, frame_of, read_options
from ponderttt.reporting.numbers.rows import (
    ConfirmatoryRow,
    FrontierRow,
    ReferenceRow,
    SeedRow,
    SignalRow,
    TableRow,
)

KIND = "table"
#: Name in :class:`Results` → file name and kind of its rows.
FILES: dict[str, tuple[str, type]] = {
    "table": ("paper_table.csv", TableRow),
    "confirmatory": ("confirmatory.csv", ConfirmatoryRow),
    "seeds": ("seeds.csv", SeedRow),
    "frontier": ("frontier.csv", FrontierRow),
    "signals": ("signals.csv", SignalRow),
    "references": ("references.csv", ReferenceRow),
}


@dataclass(frozen=True)
class Results:
    """The files of a results folder, see :mod:`ponderttt.reporting.numbers.rows` for their columns.

    Attributes:
        table: one row per arm.
        confirmatory: one row per declared comparison, backbone and held-out corpus.
        seeds: one row per arm and seed.
        frontier: one row per arm and measure of cost.
        signals: one row per arm, feature and update.
        references: one row per policy and exact reference.
        manifest: their manifest; its ``facts`` hold the settings and the provenance.
        path: path of the table, for messages.
    """

    table: pd.DataFrame
    confirmatory: pd.DataFrame
    seeds: pd.DataFrame
    frontier: pd.DataFrame
    signals: pd.DataFrame
    references: pd.DataFrame
    manifest: dict[str, Any]
    path: Path

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the manifest."""
        return self.manifest["facts"]

    @property
    def without_controls(self) -> Results:
        """The same without control corpora, which no figure shows."""
        controls = list(self.facts["control_corpora"])
        return self._only(lambda frame: ~frame.corpus.isin(controls))

    def groups(self) -> list[tuple[str, str, Results]]:
        """Return (corpus, model, their results) for each pair; arms of different pairs are never compared."""
        pairs = self.table[["corpus", "model"]].drop_duplicates().itertuples(index=False, name=None)
        return [(corpus, model, self._group(corpus, model)) for corpus, model in pairs]

    def _group(self, corpus: str, model: str) -> Results:
        return self._only(lambda frame: (frame.corpus == corpus) & (frame.model == model))

    def _only(self, keep: Callable[[pd.DataFrame], pd.Series]) -> Results:
        frames = {name: getattr(self, name) for name in FILES}
        return replace(self, **{name: frame[keep(frame)] for name, frame in frames.items()})


def write_results(folder: Path | str, rows: Mapping[str, Sequence[Any]], facts: dict[str, Any]) -> None:
    """Write the files of a results folder and, last, their manifest.

    Args:
        folder: the results folder.
        rows: rows by name of a file in :data:`FILES`; they may be empty.
        facts: facts of the manifest.

    Raises:
        PonderTTTError: the disk is full.
    """
    folder = Path(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, (file, kind) in FILES.items():
        with atomic_path(folder / file) as temporary:
            temporary.write_text(as_text(frame_of(kind, rows[name])), encoding="utf-8")
    write_manifest(folder, KIND, {file: len(rows[name]) for name, (file, _) in FILES.items()}, facts)


def read_results(table: Path | str) -> Results:
    """Read and verify the files beside a table.

    Args:
        table: path of ``paper_table.csv``.

    Raises:
        CorruptFileError: a file is missing, damaged, edited by hand, or has other columns.
    """
    table = Path(table)
    manifest = read_manifest(table.parent, KIND, rebuild(table))
    frames = {}
    for name, (file, kind) in FILES.items():
        path = table.with_name(file)
        columns = list(pd.read_csv(path, nrows=0)) if file in manifest["files"] else None
        if columns != list(dtypes(kind)):
            raise CorruptFileError(
                f"{path}: its columns are not those of this version. Rebuild it: {rebuild(path)}"
            )
        frames[name] = pd.read_csv(path, **read_options(kind))
    return Results(**frames, manifest=manifest, path=table)
