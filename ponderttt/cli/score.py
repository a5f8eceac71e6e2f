"""``ponderttt score``: read the user's own files, and report each chunk."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from ponderttt.actions import Action
from ponderttt.cli.reader import Request, open_reader
from ponderttt.corpus.filters import EXTENSIONS
from ponderttt.corpus.folders import is_file, read_folder
from ponderttt.corpus.raw_files import utf8_name
from ponderttt.corpus.streams import Document, Tokenizer, Tokens, cut_chunks, tokenize_documents
from ponderttt.errors import PonderTTTError

if TYPE_CHECKING:
    from ponderttt.records.step import Step

#: Larger files are more often data than code; they are reported and left out.
MAX_FILE_BYTES = 1 << 20


def read_documents(path: Path, notice: Callable[[str], None]) -> list[Document]:
    """Return the code files of a folder in path order, or a single file of any name.

    Files of a folder that are not text are left out; ``notice`` receives their names.

    Raises:
        PonderTTTError: a single file that is not text, or a folder without code files.
    """
    single = is_file(path)
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
            f"{path}: no readable code file ({known}); to read a file with another suffix, name the file itself"
        )
    return documents


def tokenized(documents: Sequence[Document], tokenizer: Tokenizer, notice: Callable[[str], None]) -> Tokens:
    """Return documents as one token sequence; those that the tokenizer does not restore exactly are left out with a notice."""
    tokens = tokenize_documents(documents, tokenizer)
    for path, reason in tokens.not_lossless.items():
        notice(f"{path}: left out, {reason}")
    return tokens


def score_paths(paths: Sequence[Path], request: Request, notice: Callable[[str], None]) -> Iterator[Step]:
    """Read each path, a file or a folder, as one stream.

    Args:
        paths: files or folders.
        request: what to read with, and how.
        notice: receives messages for the user.

    Yields:
        One step per chunk, as soon as it is read.

    Raises:
        PonderTTTError: a path too short to score, a loss that is not finite, or any error of :func:`read_documents` or
            :func:`open_reader`.
    """
    from ponderttt.frozen.model import FrozenModel
    from ponderttt.loop.scoring import score_stream

    read = {path: read_documents(path, notice) for path in paths}
    reader = open_reader(request, notice)
    backbone, chunk_size = reader.backbone, reader.chunk_size
    assert backbone.tokenizer is not None
    model = FrozenModel(backbone, rehearse=False)
    for path, documents in read.items():
        language = language_of(documents)
        tokens = tokenized(documents, backbone.tokenizer, notice)
        if len(tokens.not_lossless) == len(documents):
            raise PonderTTTError(f"{path}: nothing left to score; all {len(documents)} files were left out")
        name = name_by_content(tokens.ids)
        stream = cut_chunks(tokens, chunk_size, backbone.tokenizer.pad_id, name, language)
        if not stream.n_chunks:
            raise PonderTTTError(f"{path}: too short to score; it must have at least two tokens")
        steps = score_stream(
            model,
            stream,
            reader.module,
            reader.method,
            reader.spending,
            reader.context,
            reader.ends,
            reader.suffix,
            reader.seed,
        )
        for step in steps:
            yield named(step, str(path))


def named(step: Step, path: str) -> Step:
    """Return a step under the path of its text, which users know.

    Raises:
        PonderTTTError: a loss is not finite.
    """
    from ponderttt.records.step import check_finite

    step = step._replace(stream_id=utf8_name(path))
    check_finite(step)
    return step


def name_by_content(ids: Int[np.ndarray, " L"] | Sequence[int]) -> str:
    """Name a text by its tokens.

    Random draws depend on the name of the stream; they must not depend on how a path is spelled.
    """
    return hashlib.sha256(np.asarray(ids, "<i4").tobytes()).hexdigest()


def language_of(documents: Sequence[Document]) -> str:
    """Return the language of most documents by their suffixes; ``any`` if no suffix is known."""
    known = Counter(
        language
        for document in documents
        for language, suffixes in EXTENSIONS.items()
        if Path(document.path).suffix.lower() in suffixes
    )
    return known.most_common(1)[0][0] if known else "any"


def fields_of(step: Step) -> dict[str, Any]:
    """Return the fields of a step for JSON, which has no NaN."""
    left_out = ("nll", "features", "look_ahead")
    fields = {name: value for name, value in step._asdict().items() if name not in left_out}
    for name, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            fields[name] = None
    return fields | {"action": step.action.name}


def why(step: Step, method: str) -> str:
    """Return the reason for a decision: the signal and what it had to reach; empty for a fixed action."""
    if step.gate_rank is None or step.gate_cuts is None:
        return "" if step.gate_score is None else f"  ({method} {step.gate_score:.3f})"
    signal = "drew" if step.gate_score is None else f"{method} {step.gate_score:.3f}, rank"
    # An update whose interval is empty could not be taken, or not without missing the budget.
    starts = [*step.gate_cuts, 1.0]
    updates = [
        f"{action.name} from {low:.2f}"
        for action, low, high in zip(list(Action)[1:], starts, starts[1:], strict=False)
        if high > low
    ]
    return f"  ({signal} {step.gate_rank:.2f}; {', '.join(updates) or 'nothing left to spend'})"
