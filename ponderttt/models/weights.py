"""Convert a configured backbone once, to a folder that opens in less than a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from ponderttt.errors import PonderTTTError
from ponderttt.files.manifest import check_facts, read_manifest, verify_file, write_manifest
from ponderttt.models import gguf_file, safetensors_file, tensors, tokenizer
from ponderttt.models.backbone import Backbone, make_backbone
from ponderttt.models.config_json import read_ends
from ponderttt.models.families import family_of, shape_from_facts
from ponderttt.models.families.family import Shape
from ponderttt.models.fastest import fastest_dtype
from ponderttt.models.parameter import parameter
from ponderttt.models.quantised import EXACT, Precision, by_rows
from ponderttt.models.sharding import make_mesh, parse_mesh
from ponderttt.models.sources import check_terms, fetch_model
from ponderttt.models.tensors import Checkpoint
from ponderttt.models.tokenizer import Tokenizer
from ponderttt.settings.mapping import as_mapping
from ponderttt.settings.model import ModelConfig

KIND = "model"
#: Fact of a converted model: the dtype of the fastest matrix products on the machine that converted it.
FASTEST = "fastest_dtype"


def read_model(path: Path, family: str | None = None) -> tuple[Checkpoint, Tokenizer]:
    """Read configuration, tensors and tokenizer of a GGUF file or of a folder of safetensors.

    Args:
        path: the file or folder.
        family: the expected family; any by default.

    Raises:
        PonderTTTError: a missing, truncated or unsupported file, or one of another family.
    """
    if path.is_dir():
        checkpoint = safetensors_file.read_folder(path, family)
        reader = tokenizer.load(path / safetensors_file.TOKENIZER, checkpoint.config.vocab_size)
        return checkpoint, replace(reader, ends=read_ends(path))
    return gguf_file.read(path, family)


def precision_of(config: ModelConfig, facts: Mapping[str, Any], rebuild: str) -> Precision:
    """Return the precision that a configuration sets, for a converted model.

    Args:
        config: dtype and quantisation; the dtype may be ``auto``.
        facts: facts of the model's manifest, which name the dtype that was faster where it was converted.
        rebuild: command that rebuilds the folder, for error messages.

    Raises:
        PonderTTTError: the dtype is ``auto``, and the folder was converted before that was measured.
    """
    if config.dtype != "auto":
        return Precision(config.dtype, config.quantize)
    if FASTEST not in facts:
        raise PonderTTTError(f"dtype auto: the converted model does not say which dtype is faster; {rebuild}")
    return Precision(facts[FASTEST], config.quantize)


def mesh_of(config: ModelConfig) -> Mesh | None:
    """Return the mesh of devices that share a model; ``None`` for one device."""
    return None if config.mesh is None else make_mesh(parse_mesh(config.mesh))


def convert(config: ModelConfig, cache_dir: Path | str, output_dir: Path | str) -> dict[str, Any]:
    """Fetch, check and de-quantise a model once into ``output_dir``, one tensor at a time.

    Writes float32 safetensors, ``tokenizer.json`` and ``config.json``, which transformers can read too, and, last,
    ``manifest.json`` with these facts: ``digest``, ``family``, ``config``, ``source``, ``tokenizer_digest``, ``vocab_size``, ``pad_id``,
    ``eot_id``, and ``fastest_dtype``, which is measured on this machine.

    Returns:
        The facts.
    """
    check_terms(config.family, config.source)
    checkpoint, reader = read_model(fetch_model(config.source, cache_dir), config.family)
    tensors.check_tensors(checkpoint)
    digests: dict[str, str] = {}

    def read(name: str) -> np.ndarray:
        array = checkpoint.tensors[name].read()
        digests[name] = tensors.tensor_digest(array)
        return array

    files = safetensors_file.write_folder(
        Path(output_dir), checkpoint.config, read, reader.json, reader.end_ids
    )
    facts = {
        "digest": tensors.tensors_digest(digests),
        "family": checkpoint.config.family,
        "config": as_mapping(checkpoint.config),
        "source": as_mapping(config.source),
        "tokenizer_digest": reader.digest,
        "vocab_size": reader.vocab_size,
        "pad_id": reader.pad_id,
        "eot_id": reader.eot_id,
        FASTEST: fastest_dtype(checkpoint.config),
    }
    write_manifest(output_dir, KIND, dict.fromkeys(files), facts)
    return facts


def open_backbone(
    model_dir: Path | str,
    precision: Precision = EXACT,
    split_layer: int | None = None,
    rebuild: str = "run the conversion of the model again",
    mesh: Mesh | None = None,
) -> Backbone:
    """Open a folder that :func:`convert` wrote, after checking every file against its manifest.

    Args:
        model_dir: the folder.
        precision: dtype of the computation, and how matrices are stored.
        split_layer: number of blocks in the prefix; ``None`` leaves the last two to the suffix.
        rebuild: command that rebuilds the folder, for error messages.
        mesh: devices that share the parameters.

    Raises:
        CorruptFileError: a file is missing or differs from the manifest.
    """
    folder = Path(model_dir)
    manifest = read_manifest(folder, KIND, rebuild)
    checkpoint, reader = read_model(folder)
    # The digest of the manifest is that of the files, so float32 parameters need not be hashed again.
    digest = manifest["facts"]["digest"] if precision.is_exact else None
    return make_backbone(tensors.assemble(checkpoint, precision, split_layer, mesh), reader, digest, mesh)


def open_configured(config: ModelConfig, model_dir: Path | str, rebuild: str) -> Backbone:
    """Open the backbone that a configuration names, see :func:`open_backbone`.

    Raises:
        CorruptFileError: the folder was converted from another source, or a file is missing or damaged.
        PonderTTTError: the terms of the model are not accepted.
    """
    check_terms(config.family, config.source)
    facts = read_manifest(model_dir, KIND, rebuild, verify=False)["facts"]
    found, expected = (
        {**source, "accept_terms": None} for source in (facts["source"], as_mapping(config.source))
    )
    check_facts(model_dir, {**facts, "source": found}, rebuild, family=config.family, source=expected)
    precision = precision_of(config, facts, rebuild)
    return open_backbone(model_dir, precision, config.split_layer, rebuild, mesh_of(config))


@dataclass(frozen=True, eq=False)
class Unembedding:
    """The vocabulary projection, the only part of the backbone that fast weights on cached states need.

    Attributes:
        matrix: [V, D], as a backbone of this precision stores it; see :func:`~ponderttt.models.quantised.by_rows`.
        config: shape of the model.
        facts: facts of the model's manifest, see :func:`convert`.
    """

    matrix: Any
    config: Shape
    facts: dict[str, Any]


def open_unembedding(
    model_dir: Path | str,
    rebuild: str = "run the conversion of the model again",
    precision: Precision = EXACT,
) -> Unembedding:
    """Open only the vocabulary projection of a converted model.

    Raises:
        CorruptFileError: the manifest or the file is missing, or they differ.
    """
    folder, shard = Path(model_dir), safetensors_file.UNEMBEDDING_SHARD
    manifest = read_manifest(folder, KIND, rebuild, verify=False)
    path = verify_file(folder, manifest, shard, rebuild)
    config = shape_from_facts(manifest["facts"])
    own = "embedding" if config.tied else "unembedding"
    name = family_of(config).OUTER[own]
    tensor = next(t for t in safetensors_file.read_file(path) if t.name == name)
    matrix = parameter(own, [tensor], tensor.shape, precision, None, stacked=False)
    return Unembedding(by_rows(matrix), config, manifest["facts"])
