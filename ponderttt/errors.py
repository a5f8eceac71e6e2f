"""The one error that users are meant to read: a single line that names the thing and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PonderTTTError(Exception):
    """Bad input, a damaged file or a missing resource; the message is one line: what, where, what to do.

    Commands and workflow scripts print it without a traceback and exit with status 1.
    """


class ConfigError(PonderTTTError):
    """An unknown key, a wrong type or an impossible combination in the configuration."""


class CorruptFileError(PonderTTTError):
    """A file that differs from its manifest; the message names the command that rebuilds it."""


def unknown(where: str, name: object, known: Iterable[str]) -> str:
    """That ``name`` is none of the ``known`` ones, with the nearest of these."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
    return f"{where}: unknown '{name}'; {hint}"
