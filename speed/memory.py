"""Peak memory of converting, opening and scoring a model, each in a process of its own.

    python speed/memory.py --model-dir data/models/gemma3-270m --source FILE_OR_FOLDER [--json memory.json]

``imports`` is a process that loads the libraries and nothing else, ``tokenizer`` one that loads the model's tokenizer too; a
bound is that, the model and its largest tensor (of a float32 model in the dtype of the case, of the source file where it is
mapped).  Pages of mapped files count where they are
resident, although the system may drop them.  ``decode`` continues a short prompt.  ``loss`` reads a chunk of 512 tokens and
scores it; transformers, with torch (the extra ``parity``), does the same with ``--reference``.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peak import peak_memory
from setting import TOKENS, Setting, parser, read

CASES = (
    "imports",
    "tokenizer",
    "convert",
    "open",
    "open in bfloat16",
    "open in int8",
    "loss",
    "loss in bfloat16",
    "decode",
    "decode in bfloat16",
    "decode in int8",
)
#: Tokens of a continuation.
DECODED = 8


@dataclass(frozen=True)
class Row:
    """Result of one case in bytes: the peak, the peak without libraries and tokenizer, and the bound on that, if any."""

    case: str
    peak: int
    besides: int
    bound: int | None


def run(case: str, setting: Setting, source: str | None) -> None:
    """Run a case and print its peak in bytes."""
    from ponderttt.models import weights
    from ponderttt.models.losses import linear_cross_entropy
    from ponderttt.models.quantised import EXACT, Precision
    from ponderttt.settings.model import ModelConfig, ModelSource

    precision = {"bfloat16": Precision("bfloat16"), "int8": Precision("float32", "int8")}.get(
        case.split()[-1], EXACT
    )
    if case == "tokenizer":
        # What users hold for as long as the model: its peak while it is made counts as well.
        kept = weights.tokenizer.load(Path(setting.model_dir or "") / "tokenizer.json")
        assert kept.vocab_size
    elif case == "convert":
        assert setting.model_dir and source
        family = facts(setting)["family"]
        with tempfile.TemporaryDirectory() as folder:
            config = ModelConfig(family, ModelSource("path", path=source, accept_terms=True))
            weights.convert(config, folder, Path(folder) / "model")
    elif case.startswith(("open", "loss", "decode")):
        import jax
        import jax.numpy as jnp
        import numpy as np

        backbone = weights.open_backbone(setting.model_dir or "", precision)
        jax.block_until_ready(backbone.params)
        if case.startswith("loss"):
            tokens = np.random.default_rng(0).integers(3, 40_000, (1, TOKENS + 1))
            hidden = backbone.hidden(jnp.asarray(tokens[:, :-1]))
            losses = jax.jit(linear_cross_entropy)(
                hidden, backbone.stored_unembedding, jnp.asarray(tokens[:, 1:])
            )
            losses.block_until_ready()
        elif case.startswith("decode"):
            from ponderttt.decoding.generate import Generator
            from ponderttt.decoding.sampling import Sampling

            Generator(backbone).continuations([[3, 4, 5]], [Sampling()], DECODED)
    elif case.startswith("transformers"):
        import torch
        import transformers

        assert setting.model_dir is not None
        model = transformers.AutoModelForCausalLM.from_pretrained(setting.model_dir, dtype=torch.float32)
        with torch.inference_mode():
            ids = torch.randint(3, 40_000, (1, TOKENS))
            print(float(model(ids, labels=ids).loss))
    print(peak_memory())


def facts(setting: Setting) -> dict[str, Any]:
    """Return the manifest facts of the converted model."""
    found: dict[str, Any] = json.loads(
        (Path(setting.model_dir or "") / "manifest.json").read_text(encoding="utf-8")
    )["facts"]
    return found


def bound(case: str, setting: Setting, source: str | None) -> int | None:
    """Return the bound of a case in bytes: the model and its largest tensor; None for cases that do more than load."""
    from ponderttt.models.families import shape_from_facts
    from ponderttt.models.tensors import tensor_shapes

    sizes = [math.prod(shape) for shape in tensor_shapes(shape_from_facts(facts(setting))).values()]
    if case == "convert":
        assert source
        path = Path(source)
        files = [path] if path.is_file() else list(path.glob("*.safetensors"))
        return sum(file.stat().st_size for file in files) + 4 * max(sizes)
    kept = {"open": 4, "open in bfloat16": 2, "open in int8": 1}.get(case)
    # A narrower model is read from the float32 file, a tensor at a time.
    return None if kept is None else kept * sum(sizes) + 4 * max(sizes)


def main() -> None:
    """Print a table, and write JSON with ``--json``."""
    options = parser(__doc__.splitlines()[0], 1)
    options.add_argument("--source", help="what the model was converted from")
    options.add_argument("--reference", action="store_true", help="transformers too")
    options.add_argument("--case", help="of this process")
    given, setting = read(options)
    if not setting.model_dir:
        options.error("--model-dir is needed: a converted model")
    if given.case:
        run(given.case, setting, given.source)
        return
    rows: list[Row] = []
    print("case                GB at the peak   besides imports and tokenizer   model + largest tensor")
    for case in (*CASES, *(("transformers",) if given.reference else ())):
        if case == "convert" and not given.source:
            continue
        command = [sys.executable, *sys.argv, "--case", case]
        out = subprocess.run(
            command, check=True, capture_output=True, encoding="utf-8", errors="replace"
        ).stdout
        peak = int(out.split()[-1])
        before = rows[min(1, len(rows) - 1)].peak if rows else peak
        row = Row(case, peak, peak - before, bound(case, setting, given.source))
        rows.append(row)
        most = "" if row.bound is None else f"{row.bound / 1e9:.2f}"
        print(f"{case:<18}  {peak / 1e9:<14.2f}   {row.besides / 1e9:<29.2f}   {most}", flush=True)
    setting.write(rows)


if __name__ == "__main__":
    main()
