"""Inputs of training and arms: streams of the frozen pass, and the vocabulary projection."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ponderttt.errors import PonderTTTError
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import read_manifest
from ponderttt.frozen.frozen_pass import KIND, context_of, open_frozen_pass
from ponderttt.frozen.model import FrozenModel
from ponderttt.frozen.reading import suffix_cache
from ponderttt.models.weights import open_configured, open_unembedding, precision_of
from ponderttt.names import FastWeightsName
from ponderttt.settings.fast_weights import FastWeightsConfig
from ponderttt.settings.mapping import settings
from ponderttt.settings.model import ModelConfig
from ponderttt.workflow.jobs import FrozenFolders

if TYPE_CHECKING:
    from ponderttt.fast_weights.base import Readout
    from ponderttt.frozen.chunks import FrozenChunks
    from ponderttt.models.families.family import Shape
    from ponderttt.models.suffix import SuffixCache, SuffixWeights

#: Kind of the manifest of a training, and the file that arms read.  They are not in the stage ``train``: importing it
#: would make its code a part of the code of every record.
TRAINING, SLOW_WEIGHTS = "training", "slow_weights.safetensors"


@settings
class ModuleSettings:
    """An adapter on a backbone.

    Attributes:
        model: dtype and split of the backbone.
        fast_weights: name in the grid, such as ``memory+full``.
        config: settings of its kind; all other kinds are at their defaults.
        seed: seed of its training, and of random decisions.
    """

    model: ModelConfig
    fast_weights: str
    config: FastWeightsConfig
    seed: int

    @property
    def kind(self) -> str:
        """The kind, without variant and context."""
        return FastWeightsName.parse(self.fast_weights).kind


@dataclass(frozen=True)
class FrozenInputs:
    """A corpus after the frozen pass, with the projection that scores it."""

    streams: list[FrozenChunks]
    language: str
    #: [V, D], in the precision of the model.
    unembedding: Any
    model_digest: str
    #: Shape of the backbone and its frozen blocks after the split layer, for modules that read from there.
    shape: Shape | None = None
    suffix: SuffixWeights | None = None
    #: The cache of these blocks; None if each chunk is read alone.
    cache: SuffixCache | None = None

    @property
    def readout(self) -> Readout:
        """The frozen matrices that score a chunk."""
        from ponderttt.fast_weights.base import Readout

        return Readout(self.unembedding, suffix=self.suffix)

    @property
    def width(self) -> int:
        """D of the hidden states."""
        width: int = self.unembedding.shape[1]
        return width


def open_inputs(model: ModelConfig, folders: FrozenFolders, kind: str | None = None) -> FrozenInputs:
    """Read and verify a frozen pass; recompute hidden states that were not cached.

    Args:
        model: dtype and split of the backbone.
        folders: the backbone, the corpus in chunks and its frozen pass.
        kind: kind of the fast weights that read it; only ``suffix`` gets states at the split layer.

    Raises:
        CorruptFileError: a file differs from its manifest; the message names the command that rebuilds it.
    """
    from ponderttt.corpus.chunks import read_chunks

    again, model_again = rebuild(folders.hidden.manifest), rebuild(folders.model.manifest)
    chunks = read_chunks(folders.chunks, rebuild(folders.chunks.manifest))
    model_facts = read_manifest(folders.model, "model", model_again, verify=False)["facts"]
    recompute, precision = None, precision_of(model, model_facts, model_again)
    if not read_manifest(folders.hidden, KIND, again, verify=False)["facts"]["keep_hidden"]:
        recompute = FrozenModel(open_configured(model, folders.model, model_again))
    streams, facts = open_frozen_pass(folders.hidden, chunks, again, recompute)
    shape = suffix = cache = None
    if kind == "suffix":
        from ponderttt.models.decoder import default_split
        from ponderttt.models.suffix import open_suffix

        split = (
            default_split(model_facts["config"]["layers"]) if model.split_layer is None else model.split_layer
        )
        shape, suffix = open_suffix(folders.model, split, model_again, precision)
        longest = max(len(stream.hidden) for stream in streams)
        size = chunks[0].input_ids.shape[1]
        cache = suffix_cache(shape, size, *context_of(facts), suffix.layers, longest)
    else:
        streams = [stream._replace(split=None) for stream in streams]
    return FrozenInputs(
        streams,
        chunks[0].language,
        open_unembedding(folders.model, model_again, precision).matrix,
        facts["model_digest"],
        shape,
        suffix,
        cache,
    )


def split_validation(streams: Sequence[Any], share: float) -> tuple[list[Any], list[Any]]:
    """Split into training streams and validation streams: the last ``ceil(share · n)`` by a hash of their ids.

    The order depends on ids alone, so that adding a stream moves few others.

    Raises:
        PonderTTTError: one of the two parts would be empty.
    """
    ordered = sorted(streams, key=lambda stream: hashlib.sha256(stream.stream_id.encode()).hexdigest())
    count = math.ceil(share * len(ordered))
    if not 0 < count < len(ordered):
        raise PonderTTTError(
            f"training.validation_share {share} of {len(ordered)} training streams leaves {len(ordered) - count} to train "
            f"on and {count} to validate on; both need at least 1: name more training packages or change the share"
        )
    return ordered[:-count], ordered[-count:]
