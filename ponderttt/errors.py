"""Errors that users read: a single line that names the thing and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PonderTTTError(Exception):
    """Bad input, a damaged file or a missing resource; the message is one line: what, where, and what to do.

    Commands and workflow scripts print it without a traceback and exit with status 1.
    """


class ConfigError(PonderTTTError):
    """An unknown key, a wrong type or an impossible combination in the configuration."""


class CorruptFileError(PonderTTTError):
    """A file that differs from its manifest; the message names the command that rebuilds it."""


def unknown(where: str, name: object, known: Iterable[str]) -> str:
    """Return the message that ``name`` is unknown, with the nearest of the ``known`` names."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
    return f"{where}: unknown '{name}'; {hint}"
