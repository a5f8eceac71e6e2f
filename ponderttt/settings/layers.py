"""Study files as layers: a file states what differs from the one that it ``extends``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ponderttt.errors import ConfigError

#: Key of the file that a study file extends; its path is relative to the file that names it.
EXTENDS = "extends"


class _Loader(yaml.SafeLoader):
    """YAML in which no mapping names a key twice; PyYAML would silently take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            problem = f"the key '{twice}' is named twice in the mapping"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with ``above`` on top: mappings merge key by key, all other values replace."""
    result = dict(below)
    for key, value in above.items():
        base = result.get(key)
        mappings = isinstance(base, Mapping) and isinstance(value, Mapping)
        result[key] = merged(base or {}, value) if mappings else value
    return result


def read_layers(paths: Sequence[Path | str]) -> dict[str, Any]:
    """Read study files with all that they extend, later ones on top; a common base counts once.

    Raises:
        ConfigError: a file is missing, is not YAML, is no mapping, or extends itself.
    """
    result: dict[str, Any] = {}
    read: set[Path] = set()
    for path in paths:
        *bases, own = _chain(Path(path))
        for place, mapping in [*(base for base in bases if base[0] not in read), own]:
            read.add(place)
            result = merged(result, mapping)
    return result


def read_overrides(entries: Sequence[str], parsed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``snakemake --config key=value …``: ``entries`` as written, ``parsed`` by Snakemake.

    Snakemake reads all values inside lists and mappings as text, so these are read again, as in a file.
    """
    result = dict(parsed)
    for key, _, text in (entry.partition("=") for entry in entries):
        if isinstance(parsed.get(key), (list, dict)):
            result = merged(result, {key: yaml.load(text, _Loader)})
    return result


def _chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """A study file after all that it extends, the first base first; each with its resolved path."""
    found: list[tuple[Path, dict[str, Any]]] = []
    named: Path | None = path
    reason = ""
    while named is not None:
        mapping = _read(named, reason)
        base = mapping.pop(EXTENDS, None)
        place = named.resolve()
        if place in [earlier for earlier, _ in found]:
            circle = " → ".join(str(step) for step, _ in [*found, (place, {})])
            raise ConfigError(f"{path}: {EXTENDS} goes in a circle: {circle}")
        found.append((place, mapping))
        if base is not None and not isinstance(base, str):
            raise ConfigError(f"{named}: {EXTENDS} must be the path of a study file, got {base!r}")
        reason = f", which {named} extends"
        named = None if base is None else named.parent / Path(base).expanduser()
    return found[::-1]


def _read(path: Path, reason: str) -> dict[str, Any]:
    where = f"{path}{reason}"
    try:
        mapping = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{where}: not a readable configuration file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(mapping, dict):
        raise ConfigError(f"{where}: must be a mapping of settings, got {mapping!r}")
    return mapping
