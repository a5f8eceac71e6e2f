"""What training and arms read: streams of the frozen pass, the vocabulary projection, and digests of both."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.atomic import digest
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST, read_manifest
from ponderttt.frozen.frozen_pass import open_frozen_pass
from ponderttt.frozen.model import FrozenModel
from ponderttt.models.weights import open_configured, open_unembedding, precision_of
from ponderttt.settings.model import ModelConfig

if TYPE_CHECKING:
    from ponderttt.fast_weights.base import Readout
    from ponderttt.frozen.chunks import FrozenChunks
    from ponderttt.models.families.family import Shape
    from ponderttt.models.suffix import SuffixWeights

#: Compiled programs, shared by all jobs; inside the data folder.
CACHE_FOLDER = ".jax_cache"
#: Kind of the manifest of a training, and the file that arms read.  Not in the training's own module, which would make
#: its code a part of every record's.
TRAINING, SLOW_WEIGHTS = "training", "slow_weights.safetensors"


def inputs_digest(*folders: Path | str) -> dict[str, str]:
    """Folder → one digest of the files that its manifest lists."""
    found = {}
    for folder in folders:
        path = Path(folder) / MANIFEST
        try:
            found[str(folder)] = digest(json.loads(path.read_text(encoding="utf-8"))["files"])
        except (OSError, ValueError, KeyError):
            raise CorruptFileError(
                f"{path}: missing or not a manifest. Rebuild it: {rebuild(path)}"
            ) from None
    return found


@dataclass(frozen=True)
class FrozenInputs:
    """A corpus as the frozen pass left it, with the projection that scores it."""

    streams: list[FrozenChunks]
    language: str
    #: [V, D], as the model keeps it.
    unembedding: Any
    model_digest: str
    inputs: dict[str, str]
    #: Of modules that read from the split layer: the shape of the backbone and the frozen blocks after it.
    shape: Shape | None = None
    suffix: SuffixWeights | None = None

    @property
    def readout(self) -> Readout:
        """The frozen matrices that a chunk is read with."""
        from ponderttt.fast_weights.base import Readout

        return Readout(self.unembedding, suffix=self.suffix)

    @property
    def width(self) -> int:
        """D of the hidden states."""
        width: int = self.unembedding.shape[1]
        return width


def open_inputs(
    model: ModelConfig,
    model_dir: Path | str,
    chunks_dir: Path | str,
    hidden_dir: Path | str,
    kind: str | None = None,
) -> FrozenInputs:
    """Read and verify what the frozen pass left; hidden states that were not kept are computed again.

    ``kind`` is the kind of fast weights that will read them: states at the split layer are given to ``suffix`` alone.

    Raises:
        CorruptFileError: a file differs from its manifest; the message names the command that rebuilds it.
    """
    from ponderttt.corpus.chunks import read_chunks

    again = {folder: rebuild(Path(folder) / MANIFEST) for folder in (model_dir, chunks_dir, hidden_dir)}
    chunks = read_chunks(chunks_dir, again[chunks_dir])
    manifest_facts = _facts(hidden_dir, again[hidden_dir])
    recompute, precision = None, precision_of(model)
    if not manifest_facts["keep_hidden"]:
        recompute = FrozenModel(open_configured(model, model_dir, again[model_dir]))
    streams, facts = open_frozen_pass(hidden_dir, chunks, again[hidden_dir], recompute)
    shape, suffix = None, None
    if kind == "suffix":
        from ponderttt.models.decoder import default_split
        from ponderttt.models.suffix import open_suffix

        layers = read_manifest(model_dir, "model", again[model_dir], verify=False)["facts"]["config"][
            "layers"
        ]
        split = default_split(layers) if model.split_layer is None else model.split_layer
        shape, suffix = open_suffix(model_dir, split, again[model_dir], precision)
    else:
        streams = [stream._replace(split=None) for stream in streams]
    return FrozenInputs(
        streams,
        chunks[0].language,
        open_unembedding(model_dir, again[model_dir], precision).matrix,
        facts["model_digest"],
        inputs_digest(model_dir, chunks_dir, hidden_dir),
        shape,
        suffix,
    )


def split_validation(streams: Sequence[Any], share: float) -> tuple[list[Any], list[Any]]:
    """Training and validation streams: the last ``ceil(share · n)`` in the order of a hash of their ids.

    The order depends on names alone, so that adding a stream moves few others.

    Raises:
        PonderTTTError: one of the two parts would be empty.
    """
    ordered = sorted(streams, key=lambda stream: hashlib.sha256(stream.stream_id.encode()).hexdigest())
    count = math.ceil(share * len(ordered))
    if not 0 < count < len(ordered):
        raise PonderTTTError(
            f"training.validation_share {share} of {len(ordered)} training streams leaves {len(ordered) - count} to train "
            f"on and {count} to validate on; both need one at least, so name more training packages or change the share"
        )
    return ordered[:-count], ordered[-count:]


def _facts(folder: Path | str, again: str) -> dict[str, Any]:
    from ponderttt.frozen.frozen_pass import KIND

    facts: dict[str, Any] = read_manifest(folder, KIND, again, verify=False)["facts"]
    return facts
