"""The runtime type checker of the tests: beartype, which accepts an int where a float is annotated, as mypy does."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
