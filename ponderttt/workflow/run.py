"""Run the stage that a rule of the workflow names."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ponderttt.files.folder import Folder
from ponderttt.files.manifest import MANIFEST
from ponderttt.settings.mapping import from_mapping
from ponderttt.workflow import stamps
from ponderttt.workflow.entry import job
from ponderttt.workflow.jobs import Job, Place, gather


def run_stage(snakemake: Any) -> None:
    """Build a stage's settings from the parameters of its rule alone, call it, and stamp what it made.

    Raises:
        SystemExit: the stage failed; one line on standard error says why.
    """
    params = snakemake.params
    with job(snakemake.log[0], snakemake.threads) as progress:
        # By name: an import would make the code of every stage a part of each one's digest.
        stage = importlib.import_module(f"ponderttt.workflow.stages.{params.stage}")
        inputs, outputs = _named(snakemake.input), _named(snakemake.output)
        made_by, folders = _folders(inputs), _folders(outputs)
        for folder in made_by:
            stamps.check(folder)
        written = {
            folder: stamps.made_from(params.stage, params.code, params.settings, made_by, folder)
            for folder in folders
        }
        stage.run(
            from_mapping(stage.Settings, params.settings, params.stage),
            gather(stage.Inputs, inputs),
            Job(
                folders,
                outputs,
                next(iter(written.values()), {"code": params.code}),
                from_mapping(Place, params.place, "place"),
                snakemake.threads,
                progress,
            ),
        )
        for folder, stamp in written.items():
            stamps.write_stamp(folder, stamp)


def _named(files: Any) -> dict[str, tuple[str, ...]]:
    """Name → paths of a rule's inputs or outputs."""
    return {
        name: (str(value),) if isinstance(value, str) else tuple(map(str, value))
        for name, value in files.items()
    }


def _folders(files: Mapping[str, tuple[str, ...]]) -> tuple[Folder, ...]:
    """The folders whose manifests are among the files, each once."""
    paths = [path for group in files.values() for path in group]
    return tuple(dict.fromkeys(Folder.of(path) for path in paths if path.endswith(f"/{MANIFEST}")))
