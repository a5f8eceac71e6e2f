"""The schema for editors and the reference page of the configuration follow the settings types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from ponderttt.settings.experiment import load
from ponderttt.settings.reference import PAGE, SCHEMA, page_text, schema, schema_text

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted([ROOT / "config.yaml", *(ROOT / "config").rglob("*.yaml")])


@pytest.mark.parametrize(("path", "text"), [(SCHEMA, schema_text), (PAGE, page_text)])
def test_generated_files_are_fresh(path: Path, text: Any) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == text(), f"{path} is stale; run: make schema"


def test_every_key_is_described() -> None:
    whole = schema()
    for name, part in [("", whole), *whole["$defs"].items()]:
        assert part["description"], name
        for key, field in part["properties"].items():
            assert field.get("description") or "$ref" in field, f"{name}.{key}"


def test_the_schema_is_strict_and_lets_a_layer_leave_keys_out() -> None:
    validator = Draft202012Validator(schema())
    assert validator.is_valid({"extends": "config.yaml", "corpora": {"mine": {"max_streams": 4}}})
    for wrong in (
        {"grd": {}},
        {"grid": {"seed": 1}},
        {"grid": {"budget": 1.0}},
        {"rules": {"schedule": ["STOP"]}},
    ):
        assert not validator.is_valid(wrong)


def test_the_page_has_each_default_and_range_once() -> None:
    text = page_text()
    assert "| `budget` | number | `3.0` | > 1, < 12 |" in text
    assert "| `train_corpus` | text | required |" in text
    assert "The keys of [`learned`](#learned) without `variants`." in text


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_studies_of_the_repository_are_valid(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    place = os.path.relpath(ROOT / SCHEMA, path.parent)
    assert text.startswith(f"# yaml-language-server: $schema={place}\n")
    Draft202012Validator(schema()).validate(yaml.safe_load(text))
    for corpus in load(path).corpora.values():
        assert corpus.packages is None or (ROOT / corpus.packages).is_file()
