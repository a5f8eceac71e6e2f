"""Settings types: frozen pydantic dataclasses, read strictly from mappings such as YAML gives.

Each bad key or value is a ConfigError: one line that names the key by its full path.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, dataclass_transform

import pydantic.dataclasses
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ponderttt.errors import ConfigError, unknown

T = TypeVar("T")

#: No conversion between types except whole numbers to fractions; no unknown keys; no NaN and no infinity.
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
#: Type of pydantic error → what the value must be.
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "dataclass_exact_type": "a settings object",
    "finite_number": "a finite number",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


class KeyProblem(ValueError):
    """A check of one key, or of several together, has failed: ``{key} {problem}``."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key} {problem}")
        self.key, self.problem = key, problem


class UnknownName(ValueError):
    """A name that its key does not take; ``key`` where several keys were checked together."""

    def __init__(self, name: str, known: Iterable[str], key: str | None = None) -> None:
        super().__init__(name)
        self.name, self.known, self.key = name, tuple(known), key


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(cls: type[T]) -> type[T]:
    """Make a class a frozen, strict pydantic dataclass whose constructor raises ConfigError."""
    kind: Any = pydantic.dataclasses.dataclass(cls, frozen=True, config=STRICT)
    validated = kind.__init__

    @functools.wraps(validated)
    def construct(self: Any, *args: Any, **values: Any) -> None:
        try:
            validated(self, *args, **values)
        except ValidationError as error:
            raise ConfigError(_one_line(kind, error, "")) from None

    kind.__init__ = construct
    return typing.cast(type[T], kind)


def from_mapping(kind: type[T], mapping: Any, where: str = "") -> T:
    """Build the settings type ``kind`` from a mapping of plain values; ``where`` is its own key path.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a missing key, a wrong type or value.
    """
    try:
        # In JSON a list is the only sequence and an object the only mapping, so strict types can be built from it.
        return TypeAdapter(kind).validate_json(json.dumps(_plain(mapping, where)))
    except ValidationError as error:
        raise ConfigError(_one_line(kind, error, where)) from None


def as_mapping(config: Any) -> dict[str, Any]:
    """Return a dataclass as plain values (tuples as lists), for digests and files."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def _plain(value: Any, where: str) -> Any:
    """The value, if YAML and JSON mean the same by it."""
    if isinstance(value, Mapping):
        for key in value:
            # YAML reads 2024 as a number and `on` as a truth value.
            if not isinstance(key, str):
                raise ConfigError(f"{_named(where)}: the name {key!r} is not text; put it in quotes")
        return {key: _plain(item, _joined(where, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, _joined(where, place)) for place, item in enumerate(value)]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ConfigError(f"{_named(where)} must be text or a number, got {str(value)!r}; put it in quotes")


def _one_line(kind: Any, error: ValidationError, where: str) -> str:
    """The message for the first error; unknown keys first, since they explain missing ones."""
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "unexpected_keyword_argument"), errors[0])
    place, value, context = first["loc"], first["input"], first.get("ctx", {})
    path = functools.reduce(_joined, place, where)
    if first["type"] == "unexpected_keyword_argument":
        names = [field.name for field in dataclasses.fields(_type_at(kind, place[:-1]))]
        return unknown(_named(functools.reduce(_joined, place[:-1], where)), place[-1], names)
    if first["type"] in ("missing", "missing_argument"):
        return f"{path} is missing"
    if first["type"] == "literal_error" and isinstance(value, bool):
        # YAML reads on, off, yes and no as truth values.
        return f"{path} must be one of {context['expected']}, got {value!r}; put it in quotes"
    if first["type"] == "literal_error":
        return unknown(path, value, [str(known) for known in typing.get_args(_type_at(kind, place))])
    if first["type"] == "too_short":
        return f"{path} is empty: name at least one"
    problem = context.get("error")
    if isinstance(problem, UnknownName):
        return unknown(_joined(path, problem.key) if problem.key else path, problem.name, problem.known)
    if isinstance(problem, KeyProblem):
        return f"{_joined(path, problem.key)} {problem.problem}"
    if isinstance(problem, ValueError):
        return f"{_named(path)} {problem}"
    if first["type"] not in _EXPECTED:
        return f"{_named(path)}: {first['msg']}"
    bounds = {name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in context.items()}
    expected = _EXPECTED[first["type"]].format(**bounds)
    return f"{_named(path)} must be {expected}, got {value!r}{_hint(first['type'], value)}"


def _hint(problem: str, value: Any) -> str:
    if problem == "string_type" and isinstance(value, (int, float)):
        return "; put it in quotes"
    # PyYAML reads 1e-3 (no dot) as text.
    return "; write 1.0e-3, with a dot" if problem == "float_type" and isinstance(value, str) else ""


def _named(where: str) -> str:
    return where or "the configuration"


def _joined(where: str, part: str | int) -> str:
    """The path of a key or of a place in a list; pydantic marks a bad key of a mapping itself with ``[key]``."""
    if part == "[key]":
        return where
    if isinstance(part, int):
        return f"{where}[{part}]"
    name = part if part.isprintable() else repr(part)
    return f"{where}.{name}" if where else name


def _type_at(kind: Any, place: Sequence[str | int]) -> Any:
    """The type of the value at a place in a settings type."""
    for part in place:
        if dataclasses.is_dataclass(kind):
            kind = typing.get_type_hints(kind)[str(part)]
        else:
            kind = typing.get_args(kind)[1 if typing.get_origin(kind) is dict else 0]
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            kind = next(option for option in typing.get_args(kind) if option is not type(None))
    return kind
