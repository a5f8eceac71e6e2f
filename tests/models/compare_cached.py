"""Compare streams that are read chunk by chunk with transformers and its own cache."""

from __future__ import annotations

import numpy as np
import torch
import transformers

from family_goldens import largest_difference
from ponderttt.contexts import FULL
from ponderttt.corpus.streams import Stream, Tokens, cut_chunks
from ponderttt.frozen.model import FrozenModel
from ponderttt.frozen.reading import StreamReader
from ponderttt.models.backbone import Backbone
from ponderttt.settings.context import ContextConfig

#: Of hidden states relative to their largest value, and of a chunk's loss in nats per token. The loss of a single token moves
#: by more: a logarithm of a small probability magnifies rounding.
TOLERANCE = 1e-4


def same_with_a_cache(
    name: str,
    backbone: Backbone,
    reference: transformers.PreTrainedModel,
    tokens: np.ndarray,
    chunk_size: int,
) -> bool:
    """Read tokens in context ``full`` and with the reference's cache; print how far states and losses are apart."""
    stream = _stream(tokens, chunk_size, backbone.config.vocab_size)
    # No stream here reaches the model's limit.
    reader = StreamReader(FrozenModel(backbone), stream, FULL, ContextConfig(at_limit="reread_half"))
    front, cache, previous = backbone.config.front, None, None
    hidden_off, loss_off, token_off = 0.0, 0.0, 0.0
    for index in range(len(stream.input_ids)):
        chunk = reader.chunk(index, previous)
        previous = chunk.hidden
        read = [*(front if index == 0 else ()), *stream.input_ids[index]]
        with torch.no_grad():
            found = reference.base_model(torch.tensor([read]), past_key_values=cache, use_cache=True)
            hidden = found.last_hidden_state[0, -chunk_size:]
            logits = reference.lm_head(hidden)
        cache = found.past_key_values
        targets = torch.tensor(stream.targets[index]).long()
        nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none").numpy()
        hidden_off = max(hidden_off, largest_difference(chunk.hidden, hidden.numpy()))
        loss_off = max(loss_off, abs(float(chunk.nll_frozen.mean() - nll.mean())))
        token_off = max(token_off, float(np.abs(chunk.nll_frozen - nll).max()))
    good = hidden_off <= TOLERANCE and loss_off <= TOLERANCE
    print(
        f"{name:14s} {len(stream.input_ids)} chunks of {chunk_size} with a cache: states {hidden_off:.1e}  losses {loss_off:.1e} "
        f"(of a token {token_off:.1e})  {'ok' if good else 'DIFFERS'}"
    )
    return good


def _stream(tokens: np.ndarray, chunk_size: int, pad_id: int) -> Stream:
    whole = (len(tokens) - 1) // chunk_size * chunk_size + 1
    read = Tokens(tokens[:whole].astype(np.int32), np.ones(whole, np.int32), np.zeros(1, np.int32), ("text",))
    return cut_chunks(read, chunk_size, pad_id, "text", "Python")
