"""Read a repository chunk by chunk: seconds and peak memory by context, with and without a memory, each in its own process.

    python speed/reading.py --model-dir data/models/smollm2-135m --path PATH [--tokens 50000] [--reference]

Each case reads the first tokens of the code files below ``PATH`` and scores every chunk.  ``full + memory`` stores every
chunk after it was scored (UPDATE_4; the memory is untrained, which changes losses and not time).  ``transformers`` reads with
its own cache, whose oldest tokens are cut off at the model's limit; it needs torch (the extra ``parity``).  Seconds do not
include opening the model and compilation.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peak import peak_memory
from setting import TOKENS, Setting, parser, read

from ponderttt.corpus.streams import Stream

CASES = ("alone", "window_1", "full", "full + memory")


@dataclass(frozen=True)
class Row:
    """Result of one case.

    Attributes:
        case: what was read with.
        chunks: chunks that were read.
        loss: mean loss, nats per token.
        seconds: of all chunks but the first two, per chunk.
        last_seconds: of the last eighth of them, per chunk.
        peak: bytes.
    """

    case: str
    chunks: int
    loss: float
    seconds: float
    last_seconds: float
    peak: int


def own(case: str, setting: Setting, path: Path, tokens: int) -> Iterator[float]:
    """Yield the loss of each chunk."""
    from ponderttt.actions import Action
    from ponderttt.contexts import Context
    from ponderttt.fast_weights.build import build
    from ponderttt.frozen.model import FrozenModel
    from ponderttt.loop.methods import Spending
    from ponderttt.loop.scoring import score_stream
    from ponderttt.names import MethodName
    from ponderttt.policies.budget import NOMINAL_COSTS
    from ponderttt.settings.context import ContextConfig
    from ponderttt.settings.fast_weights import FastWeightsConfig
    from ponderttt.settings.rules import RulesConfig

    context, _, kind = case.partition(" + ")
    backbone = setting.backbone()
    module = build(kind, backbone.config.width, FastWeightsConfig(), 0) if kind else None
    for step in score_stream(
        FrozenModel(backbone),
        stream_of(setting, path, tokens),
        module,
        MethodName("update_4") if module else MethodName("skip"),
        Spending(3.0, NOMINAL_COSTS, RulesConfig()),
        Context.parse(context),
        ContextConfig(),
    ):
        assert step.action in (Action.SKIP, Action.UPDATE_4)
        yield step.loss


def theirs(setting: Setting, path: Path, tokens: int) -> Iterator[float]:
    """Yield the loss of each chunk under transformers."""
    import torch
    import transformers

    folder = setting.model_dir or ""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    stream, cache = stream_of(setting, path, tokens), transformers.DynamicCache()
    keep = model.config.max_position_embeddings - TOKENS
    for index, (ids, targets) in enumerate(zip(stream.input_ids, stream.targets, strict=True)):
        with torch.inference_mode():
            positions = torch.arange(index * TOKENS, (index + 1) * TOKENS)[None]
            found = model(torch.tensor(ids)[None].long(), past_key_values=cache, position_ids=positions)
            loss = torch.nn.functional.cross_entropy(found.logits[0], torch.tensor(targets).long())
        layers: Any = cache.layers
        for layer in layers:
            layer.keys, layer.values = layer.keys[:, :, -keep:], layer.values[:, :, -keep:]
        yield float(loss)


def stream_of(setting: Setting, path: Path, tokens: int) -> Stream:
    """Return the first whole chunks of the code below a path."""
    from ponderttt.cli.score import read_documents
    from ponderttt.corpus.streams import Tokens, cut_chunks, tokenize_documents
    from ponderttt.models import tokenizer

    reader = tokenizer.load(Path(setting.model_dir or "") / "tokenizer.json")
    whole = tokenize_documents(read_documents(path, print), reader)
    count = min(tokens, len(whole.ids) - 1) // TOKENS * TOKENS + 1
    starts = whole.document_starts[whole.document_starts < count]
    kept = Tokens(whole.ids[:count], whole.n_bytes[:count], starts, whole.document_paths[: len(starts)])
    return cut_chunks(kept, TOKENS, reader.pad_id, str(path), "Python")


def run(case: str, setting: Setting, path: Path, tokens: int) -> Row:
    """Read all chunks with one case."""
    losses, seconds = [], []
    begin = setting.clock()
    for loss in theirs(setting, path, tokens) if case == "transformers" else own(case, setting, path, tokens):
        losses.append(loss)
        seconds.append(setting.clock() - begin)
        begin = setting.clock()
    # The first chunks of a case compile.
    later = seconds[2:]
    last = later[-max(1, len(later) // 8) :]
    return Row(
        case, len(losses), float(np.mean(losses)), float(np.mean(later)), float(np.mean(last)), peak_memory()
    )


def main() -> None:
    """Run every case in a process of its own and print a table."""
    options = parser("Read a repository chunk by chunk.", rounds=1)
    options.add_argument("--path", type=Path, required=True, help="a folder with code")
    options.add_argument("--tokens", type=int, default=50_000)
    options.add_argument("--reference", action="store_true", help="transformers too")
    options.add_argument("--case", help="one case, as JSON")
    given, setting = read(options)
    if given.case:
        print(json.dumps(vars(run(given.case, setting, given.path, given.tokens))))
        return
    rows = []
    for case in (*CASES, *(["transformers"] if given.reference else [])):
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--case", case],
            check=True,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        rows.append(Row(**json.loads(done.stdout.splitlines()[-1])))
        row = rows[-1]
        print(
            f"{case:14s} {row.chunks} chunks  loss {row.loss:.4f}  {row.seconds:.2f} s per chunk ({row.last_seconds:.2f} at the "
            f"end)  peak {row.peak / 1e9:.2f} GB",
            flush=True,
        )
    setting.write(rows, path=str(given.path), tokens=given.tokens)


if __name__ == "__main__":
    main()
