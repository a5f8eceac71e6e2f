"""Stage ``hidden``: the frozen pass of a model over a corpus."""

from __future__ import annotations

from pathlib import Path

from ponderttt.corpus.chunks import read_chunks
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST, finished
from ponderttt.frozen.frozen_pass import run_frozen_pass
from ponderttt.models.weights import open_configured
from ponderttt.settings.model import ModelConfig
from ponderttt.workflow.entry import Progress, compilation_cache
from ponderttt.workflow.inputs import CACHE_FOLDER, inputs_digest

#: Bytes of a cached hidden state, which is float32.
ELEMENT_BYTES = 4


def keeps_hidden(
    cache: str, limit_bytes: int, chunks: int, chunk_size: int, width: int, *, keep_split: bool = False
) -> bool:
    """Whether states of so many chunks are cached: ``on``, ``off``, or ``auto`` by their size.

    With ``keep_split`` there are two for each token: the final one and that at the split layer.
    """
    size = chunks * chunk_size * width * ELEMENT_BYTES * (2 if keep_split else 1)
    return cache == "on" or (cache == "auto" and size <= limit_bytes)


def frozen_pass(
    model: ModelConfig,
    model_dir: Path | str,
    chunks_dir: Path | str,
    output_dir: Path | str,
    context_chunks: int,
    cache: str,
    cache_limit_bytes: int,
    stage_digest: str,
    progress: Progress,
    keep_split: bool = False,
) -> None:
    """Write ``data/hidden/{model}/{corpus}/context-{n}/``.

    Args:
        model: dtype and split of the backbone.
        model_dir: the converted model.
        chunks_dir: the corpus in chunks.
        output_dir: folder of the pass.
        context_chunks: preceding chunks that the backbone sees by attention.
        cache: ``on``, ``off`` or ``auto``.
        cache_limit_bytes: for ``auto``.
        stage_digest: of the code; finished streams of another version are read again.
        progress: of the job, in chunks.
        keep_split: cache the states at the split layer as well, for arms that adapt the blocks after it.
    """
    output = Path(output_dir)
    # Caches of jax lie beside the data, whatever the depth of this folder.
    compilation_cache(Path(model_dir).parents[1] / CACHE_FOLDER)
    backbone = open_configured(model, model_dir, rebuild(Path(model_dir) / MANIFEST))
    streams = read_chunks(chunks_dir, rebuild(Path(chunks_dir) / MANIFEST))
    chunks = sum(stream.n_chunks for stream in streams)
    width, size = backbone.config.width, streams[0].input_ids.shape[1]
    run_frozen_pass(
        backbone,
        streams,
        output,
        context_chunks=context_chunks,
        keep_hidden=keeps_hidden(cache, cache_limit_bytes, chunks, size, width, keep_split=keep_split),
        keep_split=keep_split,
        facts={"inputs": inputs_digest(model_dir, chunks_dir), "stage_digest": stage_digest},
        progress=progress,
    )
    finished(output)
