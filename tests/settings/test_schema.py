"""The JSON schema that Snakemake validates and the dataclasses that the package reads say the same."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from jsonschema import Draft202012Validator

from ponderttt.settings.experiment import Experiment

ROOT = Path(__file__).resolve().parents[2]


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON schema of a config dataclass or of the type of one of its fields."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        schema: dict[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {field.name: schema_of(hints[field.name]) for field in fields},
        }
        missing = dataclasses.MISSING
        required = [f.name for f in fields if f.default is missing and f.default_factory is missing]
        return {**schema, "required": required} if required else schema
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        inner = schema_of(next(a for a in arguments if a is not type(None)))
        if "enum" in inner:
            return {"enum": [*inner["enum"], None]}
        return {**inner, "type": [inner["type"], "null"]}
    if origin is tuple:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    return {"type": {str: "string", int: "integer", float: "number", bool: "boolean"}[kind]}


def without_descriptions(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: without_descriptions(v) for k, v in schema.items() if k not in ("description", "$schema")}
    return schema


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())


def test_schema_and_dataclasses_agree(schema: dict[str, Any]) -> None:
    assert without_descriptions(schema) == schema_of(Experiment)


def test_every_key_of_the_schema_is_described(schema: dict[str, Any]) -> None:
    def undescribed(part: Any, where: str) -> list[str]:
        found = []
        for key, value in part.get("properties", {}).items():
            if "description" not in value:
                found.append(f"{where}.{key}")
            found += undescribed(value, f"{where}.{key}")
        if isinstance(part.get("additionalProperties"), dict):
            found += undescribed(part["additionalProperties"], f"{where}.*")
        return found

    assert undescribed(schema, "config") == []


@pytest.mark.parametrize(
    "path",
    sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / "config.yaml", *(ROOT / "config").rglob("*.yaml"))
    ),
)
def test_configurations_in_the_repository_are_valid(schema: dict[str, Any], path: str) -> None:
    from ponderttt.settings.experiment import load

    Draft202012Validator(schema).validate(yaml.safe_load((ROOT / path).read_text()))
    experiment = load(ROOT / path)
    for corpus in experiment.corpora.values():
        assert corpus.packages is None or (ROOT / corpus.packages).is_file()
