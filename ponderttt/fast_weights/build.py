"""Build a fast-weight module from its configuration; save and load its slow weights, strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flax import nnx

from ponderttt.errors import CorruptFileError
from ponderttt.fast_weights.base import FastWeights
from ponderttt.files.atomic import atomic_path
from ponderttt.files.parameters import parameters, with_parameters
from ponderttt.names import KINDS
from ponderttt.seeds import named_key
from ponderttt.settings.fast_weights import FastWeightsConfig

if TYPE_CHECKING:
    from ponderttt.models.families.family import Shape
    from ponderttt.models.suffix import SuffixCache


def build(
    kind: str,
    width: int,
    config: FastWeightsConfig,
    seed: int,
    shape: Shape | None = None,
    cache: SuffixCache | None = None,
) -> FastWeights:
    """Return a freshly initialised module; equal seeds give equal modules.

    Args:
        kind: one of :data:`ponderttt.names.KINDS`.
        width: size of the hidden state, D.
        config: settings of every kind.
        seed: seed of the initialisation.
        shape: shape of the backbone, for ``suffix``.
        cache: cache of its adapted blocks, for ``suffix``; None if each chunk is read alone.
    """
    rngs = nnx.Rngs(params=named_key(seed, "slow weights", kind))
    if kind == "ttt":
        from ponderttt.fast_weights.ttt import TTTLayer

        return TTTLayer(width, config.ttt, rngs=rngs)
    if kind == "lora":
        from ponderttt.fast_weights.lora import LoRA

        return LoRA(width, config.lora, rngs=rngs)
    if kind == "memory":
        from ponderttt.fast_weights.memory import Memory

        return Memory(width, config.memory, rngs=rngs)
    if kind == "suffix":
        from ponderttt.fast_weights.suffix import SuffixAdapter

        if shape is None:
            raise ValueError("suffix adaptation needs the shape of the backbone")
        return SuffixAdapter(width, config.suffix, shape, cache, rngs=rngs)
    raise ValueError(f"unknown fast weights {kind!r}; known: {', '.join(KINDS)}")


def save_slow_weights(module: FastWeights, path: Path | str) -> None:
    """Write every parameter as safetensors, atomically."""
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        save_file(parameters(module), temporary)


def load_slow_weights(module: FastWeights, path: Path | str, rebuild: str) -> FastWeights:
    """Return ``module`` with the parameters in a file that :func:`save_slow_weights` wrote.

    Raises:
        CorruptFileError: a missing or damaged file, or a parameter is missing, unknown or has another shape.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return with_parameters(module, load_file(path))
    except OSError:
        raise CorruptFileError(f"{path}: missing or not readable. Rebuild it: {rebuild}") from None
    except SafetensorError as error:
        raise CorruptFileError(f"{path}: damaged ({error}). Rebuild it: {rebuild}") from None
    except ValueError as error:
        raise CorruptFileError(f"{path}: {error}. Rebuild it: {rebuild}") from None
