"""Read one stream through the loop and report each chunk as soon as it is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ponderttt.contexts import ALONE, Context
from ponderttt.fast_weights.base import FastWeights
from ponderttt.frozen.live import live_stream
from ponderttt.frozen.model import FrozenModel
from ponderttt.frozen.reading import StreamReader
from ponderttt.loop.methods import Spending, arm_of
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.stream import iterate_streams
from ponderttt.names import MethodName
from ponderttt.records.step import Step
from ponderttt.records.steps import frozen_step
from ponderttt.settings.context import ContextConfig

if TYPE_CHECKING:
    from ponderttt.corpus.chunks import Stream


def score_stream(
    model: FrozenModel,
    stream: Stream,
    module: FastWeights | None,
    method: MethodName,
    spending: Spending,
    context: Context = ALONE,
    ends: ContextConfig | None = None,
    suffix: Any = None,
    seed: int = 0,
) -> Iterator[Step]:
    """Read one stream with a method of the table.

    Args:
        model: the frozen backbone.
        stream: tokens in chunks.
        module: fast weights; None is the plain backbone.
        method: any method but an oracle or a control.
        spending: the budget, and what the policy knows.
        context: what the backbone attends to while it reads a chunk.
        ends: how the context ends.
        suffix: frozen weights of the blocks after the split layer, for modules that read from there.
        seed: seed of random decisions.

    Yields:
        One step per chunk, as soon as the chunk is scored (and learned from).
    """
    live = live_stream(StreamReader(model, stream, context, ends or ContextConfig()))
    if module is None:
        for t in range(len(live.hidden)):
            yield frozen_step(live, t)
        return
    arm = arm_of(method, ModulePrograms(module), spending, seed)
    steps = iterate_streams([arm], Group([live], model.backbone.stored_unembedding, suffix))
    while True:
        # The caller of this generator must not run inside the model's device context.
        with model.backbone.on_devices():
            following = next(steps, None)
        if following is None:
            return
        yield following[1]
