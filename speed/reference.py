"""The transformers model of a backbone: same shape, same weights, in the dtype of the backbone.  Needs torch (the extra ``parity``)."""

from __future__ import annotations

import numpy as np
import torch
import transformers
from flax import nnx

from ponderttt.models import tensors
from ponderttt.models.backbone import Backbone
from ponderttt.models.config_json import shape_json


def reference(backbone: Backbone, dtype: str = "float32") -> transformers.PreTrainedModel:
    """Return the model with its special tokens unset, so that generation runs to its limit."""
    settings = shape_json(backbone.config)
    settings.pop("dtype")
    settings |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    arrays = tensors.disassemble(nnx.merge(backbone.graph, backbone.params))
    # Exact: bfloat16 values are float32 values too.
    state = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in arrays.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= ({"lm_head.weight"} if backbone.config.tied else set()), missing
    model.tie_weights()
    return model.eval()
