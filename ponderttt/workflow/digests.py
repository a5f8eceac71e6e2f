"""Which code each stage of the workflow runs: the entry modules whose digest its rules carry as a parameter."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from ponderttt.files.atomic import digest
from ponderttt.files.code import stage_digest

#: Stage → modules that its jobs call; everything that these import belongs to the stage too.
ENTRY_MODULES: dict[str, tuple[str, ...]] = {
    "model": ("ponderttt.workflow.stages.model",),
    "shards": ("ponderttt.workflow.stages.shards",),
    "select": ("ponderttt.workflow.stages.select",),
    "contents": ("ponderttt.workflow.stages.contents",),
    "merge": ("ponderttt.workflow.stages.merge",),
    "chunks": ("ponderttt.workflow.stages.chunks",),
    "control_chunks": ("ponderttt.workflow.stages.control_chunks",),
    "hidden": ("ponderttt.workflow.stages.hidden",),
    "train": ("ponderttt.workflow.stages.train",),
    "policy": ("ponderttt.workflow.stages.policy",),
    "arms": ("ponderttt.workflow.stages.arms",),
    "table": ("ponderttt.workflow.stages.table",),
    "drops": ("ponderttt.corpus.drops",),
    "figures": ("ponderttt.workflow.stages.figures",),
    "effective": ("ponderttt.workflow.stages.effective",),
}


def records_code() -> str:
    """The digest that every manifest of records carries, and that the table demands of them."""
    return stage_digest(*ENTRY_MODULES["arms"])


def stage_code(stage: str, script: Path) -> str:
    """The digest of a rule's code: its stage and its script; comments do not count."""
    tree = ast.dump(ast.parse(script.read_text(encoding="utf-8")))
    return digest([stage_digest(*ENTRY_MODULES[stage]), hashlib.sha256(tree.encode()).hexdigest()])
