"""The code that each stage runs; its digest is a parameter of the stage's rules."""

from __future__ import annotations

import ast
from pathlib import Path

from ponderttt.files.atomic import digest
from ponderttt.files.code import stage_digest

#: Stages that write records.  They share one digest, which the table demands of every record.
RECORD_STAGES = ("arms", "plain")


def entry_modules(stage: str) -> tuple[str, ...]:
    """Return the modules that a job of a stage calls by name; the stage also depends on everything that they import."""
    stages = RECORD_STAGES if stage in RECORD_STAGES else (stage,)
    return ("ponderttt.workflow.run", *(f"ponderttt.workflow.stages.{name}" for name in stages))


def records_code() -> str:
    """Return the digest of the code that writes records."""
    return stage_digest(*entry_modules(RECORD_STAGES[0]))


def stage_code(stage: str, script: Path) -> str:
    """Return the digest of a stage's modules and of the script that calls it; comments do not count."""
    tree = ast.dump(ast.parse(script.read_text(encoding="utf-8")))
    return digest([stage_digest(*entry_modules(stage)), tree])
