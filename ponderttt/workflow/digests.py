"""The code that each stage runs; its digest is a parameter of the stage's rules."""

from __future__ import annotations

import ast
from functools import cache

from ponderttt.files.atomic import digest
from ponderttt.files.code import PACKAGE_ROOT, stage_digest

#: The script of all rules, in the root of a checkout.
SCRIPT = PACKAGE_ROOT.parent / "workflow_scripts" / "stage.py"

#: Stages that write records.  They share one digest, which the table demands of every record.
RECORD_STAGES = ("arms", "plain")


def entry_modules(stage: str) -> tuple[str, ...]:
    """Return the modules that a job of a stage calls by name; the stage also depends on everything that they import."""
    stages = RECORD_STAGES if stage in RECORD_STAGES else (stage,)
    return ("ponderttt.workflow.run", *(f"ponderttt.workflow.stages.{name}" for name in stages))


def records_code() -> str:
    """Return the digest of the code that writes records."""
    return stage_code(RECORD_STAGES[0])


@cache
def stage_code(stage: str) -> str:
    """Return the digest of a stage's modules and of the script that calls it; comments do not count."""
    script = SCRIPT.read_text(encoding="utf-8") if SCRIPT.exists() else ""
    return digest([stage_digest(*entry_modules(stage)), ast.dump(ast.parse(script))])
