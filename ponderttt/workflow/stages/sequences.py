"""Stage ``sequences``: the losses of every sequence of actions on one adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ponderttt.files.folder import Folder
from ponderttt.loop.running import action_costs
from ponderttt.loop.tree import Enumerator
from ponderttt.policies.sequences import Allowance
from ponderttt.records.sequences import write_sequences
from ponderttt.settings.mapping import settings
from ponderttt.workflow.entry import compilation_cache
from ponderttt.workflow.inputs import ModuleSettings, open_inputs
from ponderttt.workflow.jobs import FrozenFolders, Job
from ponderttt.workflow.modules import open_module


@settings
class Settings(ModuleSettings):
    """An adapter, budgets, and the size of the search.

    Attributes:
        budgets: mean costs per chunk.
        budget_unit: what a budget counts.
        max_nodes: largest number of chunks to score per stream.
        beam_width: width of the first beam.
        names: names of the ``model`` and the ``corpus`` in the configuration.
    """

    budgets: tuple[float, ...]
    budget_unit: Literal["nominal", "flops"]
    max_nodes: int
    beam_width: int
    names: dict[str, str]


@dataclass(frozen=True)
class Inputs(FrozenFolders):
    """A corpus with the slow weights of an adapter that reads it."""

    training: Folder


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``results/sequences/{corpus}/{model}/{fast_weights}/seed-{seed}/sequences.parquet``."""
    compilation_cache(job.place.programs)
    corpus = open_inputs(settings.model, inputs, settings.kind)
    opened = open_module(settings, corpus, inputs.training)
    enumerator = Enumerator(
        opened.module, corpus.unembedding, corpus.suffix, settings.max_nodes, settings.beam_width
    )
    unit = settings.budget_unit
    costs = action_costs(enumerator.programs, corpus.streams, corpus.unembedding, corpus.suffix, unit)
    found = []
    for number, stream in enumerate(corpus.streams, start=1):
        chunks = len(stream.hidden)
        allowances = [Allowance.of(costs, budget, chunks) for budget in settings.budgets]
        found.append(enumerator.losses(stream, allowances))
        job.progress(number, len(corpus.streams), f"{len(found[-1].sequences)} sequences")
    write_sequences(
        job.folder,
        found,
        {
            **settings.names,
            "fast_weights": settings.fast_weights,
            "seed": settings.seed,
            "unit": unit,
            "costs": costs,
            "budgets": settings.budgets,
            "model_digest": corpus.model_digest,
            "module_digest": opened.digest,
            "stage_digest": job.code,
        },
    )
