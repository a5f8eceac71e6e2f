"""``ponderttt score``: a model of the configuration reads the user's own files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ponderttt import config
from ponderttt.actions import Action
from ponderttt.corpus.filters import EXTENSIONS
from ponderttt.corpus.folders import read_folder
from ponderttt.corpus.streams import Document, build_stream
from ponderttt.errors import PonderTTTError
from ponderttt.layout import Layout, rebuild
from ponderttt.provenance import MANIFEST

if TYPE_CHECKING:
    from ponderttt.models.backbone import Backbone
    from ponderttt.stream_data import Step

#: A larger file is data more often than code; it is named and left out.
MAX_FILE_BYTES = 1 << 20


def read_documents(path: Path, notice: Callable[[str], None]) -> list[Document]:
    """The code files of a folder in path order, or one file whatever its name.

    Files of a folder that cannot be read as text are named by ``notice`` and left out.

    Raises:
        PonderTTTError: the one file named cannot be read as text, or a folder has nothing to read.
    """
    single = path.is_file()
    suffixes = {suffix for group in EXTENSIONS.values() for suffix in group}
    wanted = (lambda name: True) if single else (lambda name: Path(name).suffix.lower() in suffixes)
    documents = []
    for raw in read_folder(path, wanted, MAX_FILE_BYTES):
        name, content = raw.path, raw.content
        if not wanted(name):
            continue
        problem = None
        if content is None:
            problem = f"larger than {MAX_FILE_BYTES} bytes; split it"
        elif not content:
            problem = "empty"
        else:
            try:
                documents.append(Document(name, content.decode("utf-8-sig")))
            except UnicodeDecodeError as error:
                problem = f"not UTF-8 (byte {error.start}); convert it, for example with iconv"
        if problem and single:
            raise PonderTTTError(f"{path}: {problem}")
        if problem:
            notice(f"{path / name}: left out, {problem}")
    if not documents:
        known = " ".join(sorted(suffixes))
        raise PonderTTTError(
            f"{path}: no code file that can be read ({known}); name a file to read it whatever it is"
        )
    return documents


def open_model(experiment: config.Experiment, name: str, notice: Callable[[str], None]) -> Backbone:
    """A model of the configuration, fetched and converted now if the study has not done so yet."""
    from ponderttt.models.weights import convert, open_backbone

    if name not in experiment.models:
        raise PonderTTTError(
            f"--model {name}: the configuration names no such model; known: {', '.join(experiment.models)}"
        )
    layout, settings = Layout.of(experiment), experiment.models[name]
    folder = Path(layout.model(name)).parent
    if not (folder / MANIFEST).exists():
        notice(f"fetching and converting {name} into {folder} (once)")
        convert(settings, layout.downloads, folder)
    return open_backbone(folder, settings.dtype, settings.split_layer, rebuild(folder / MANIFEST))


def score_paths(
    paths: Sequence[Path],
    *,
    kind: str,
    action: Action,
    config_path: str,
    model_name: str,
    seed: int,
    slow_weights: Path | None,
    context_chunks: int,
    notice: Callable[[str], None],
) -> Iterator[Step]:
    """Read each path as one stream.

    Args:
        paths: files or folders.
        kind: of the fast weights; ``none`` is the plain backbone.
        action: what follows each chunk.
        config_path: the configuration that names models and settings.
        model_name: a model of it.
        seed: which trained adapter of the study.
        slow_weights: another trained adapter.
        context_chunks: chunks before each one that the backbone sees.
        notice: called with what the user should know and a program should not read.

    Yields:
        One step per chunk, as it is read.

    Raises:
        PonderTTTError: see :func:`read_documents` and :func:`open_model`; or a path is too short to score.
    """
    from ponderttt.fast_weights.build import build, load_slow_weights
    from ponderttt.frozen import FrozenModel, check_context
    from ponderttt.jobs.entry import compilation_cache
    from ponderttt.scoring import score_stream

    experiment = config.load(config_path)
    read = {path: read_documents(path, notice) for path in paths}
    backbone = open_model(experiment, model_name, notice)
    check_context(backbone.config.max_context, experiment.chunk_size, context_chunks)
    compilation_cache(Path(experiment.data_dir) / ".jax_cache")
    module = None
    if kind != "none":
        module = build(kind, backbone.config.width, experiment.fast_weights, seed)
        trained = (
            Path(Layout.of(experiment).training(model_name, kind, seed)).parent / "slow_weights.safetensors"
        )
        if slow_weights is None and not trained.exists():
            effect = "its reads change nothing" if kind == "ttt" else "it starts from the plain backbone"
            notice(
                f"no trained adapter at {trained}: using an untrained one ({effect}); `make table` trains it"
            )
        else:
            source = slow_weights or trained
            module = load_slow_weights(module, source, rebuild(trained.parent / MANIFEST))
    assert backbone.tokenizer is not None
    model = FrozenModel(backbone)
    for path, documents in read.items():
        stream = build_stream(documents, backbone.tokenizer, experiment.chunk_size, str(path), "any")
        if stream is None or not stream.n_chunks:
            raise PonderTTTError(f"{path}: too short to score; at least two tokens are needed")
        yield from score_stream(model, stream, module, action, context_chunks)
