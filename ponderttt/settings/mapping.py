"""Frozen dataclasses from mappings such as YAML gives, strictly: a bad key or value is an error that names it."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from ponderttt.errors import ConfigError, unknown

T = TypeVar("T")


def _convert(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type ``kind``; ConfigError names ``where`` it stands."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return from_mapping(typing.cast(type, kind), value, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(unknown(where, value, [str(a) for a in arguments]))
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list, found {value!r}")
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, found {value!r}")
        for key in value:
            # YAML reads 2024 as a number and `on` as a truth value.
            if not isinstance(key, str):
                raise ConfigError(f"{where}: the name {key!r} is not text; put it in quotes")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        # PyYAML reads 1e-3 (no dot) as text; say so instead of only naming the type.
        hint = " (write 1.0e-3, with a dot)" if kind is float and isinstance(value, str) else ""
        raise ConfigError(f"{where}: expected {kind.__name__}, found {value!r}{hint}")
    return value


def from_mapping(kind: type[T], mapping: Any, where: str = "config") -> T:
    """Build the dataclass ``kind`` from a mapping such as YAML gives.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a missing key, a wrong type or value.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where}: expected a mapping, found {mapping!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    values = {}
    for key, value in mapping.items():
        if key not in fields:
            raise ConfigError(unknown(where, key, fields))
        values[key] = _convert(hints[key], value, f"{where}.{key}")
    for name, f in fields.items():
        if (
            name not in values
            and f.default is dataclasses.MISSING
            and f.default_factory is dataclasses.MISSING
        ):
            raise ConfigError(f"{where}: the key '{name}' is missing")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def as_mapping(config: Any) -> dict[str, Any]:
    """The plain mapping of a config dataclass, for digests and for writing the effective configuration."""
    return dataclasses.asdict(config)
