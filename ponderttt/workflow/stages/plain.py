"""Stage ``plain``: the records of the backbone without fast weights."""

from __future__ import annotations

from ponderttt.names import MethodName
from ponderttt.records.steps import frozen_steps, write_steps
from ponderttt.settings.mapping import settings
from ponderttt.settings.model import ModelConfig
from ponderttt.workflow.inputs import open_inputs
from ponderttt.workflow.jobs import FrozenFolders, Job

Inputs = FrozenFolders


@settings
class Settings:
    """A backbone on a corpus.

    Attributes:
        model: dtype and split of the backbone.
        method: its name, see :meth:`ponderttt.names.MethodName.plain`.
        names: names of the ``model`` and the ``corpus`` in the configuration.
    """

    model: ModelConfig
    method: str
    names: dict[str, str]


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write the records of the plain backbone; all that they need is in its frozen pass.

    The nominal cost is the number of chunks that it reads per chunk: 1, plus 1 for each chunk that ``context_n`` reads again.
    """
    corpus, method = open_inputs(settings.model, inputs), MethodName.parse(settings.method)
    context = method.context
    assert context is not None
    again = 0 if context.is_cached else context.chunks
    write_steps(
        job.folder,
        frozen_steps(corpus.streams),
        model=settings.names["model"],
        corpus=settings.names["corpus"],
        fast_weights="none",
        method=settings.method,
        protocol="score_first",
        seed=0,
        language=corpus.language,
        nominal_cost=lambda step: 1.0 + min(again, step.chunk_index),
        facts={
            "stage_digest": job.code,
            "context": str(context),
            "seed": 0,
            "deterministic": True,
            "model_digest": corpus.model_digest,
            "threads": job.threads,
        },
    )
