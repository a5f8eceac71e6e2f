"""Which code each stage of the workflow runs: the entry modules whose digest its rules carry as a parameter."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from ponderttt.provenance import digest, stage_digest

#: Stage → modules that its jobs call; everything that these import belongs to the stage too.
ENTRY_MODULES: dict[str, tuple[str, ...]] = {
    "model": ("ponderttt.jobs.model",),
    "shards": ("ponderttt.jobs.shards",),
    "select": ("ponderttt.jobs.select",),
    "contents": ("ponderttt.jobs.contents",),
    "merge": ("ponderttt.jobs.merge",),
    "chunks": ("ponderttt.jobs.chunks",),
    "control_chunks": ("ponderttt.jobs.control_chunks",),
    "hidden": ("ponderttt.jobs.hidden",),
    "train": ("ponderttt.jobs.train",),
    "policy": ("ponderttt.jobs.policy",),
    "arms": ("ponderttt.jobs.arms",),
    "table": ("ponderttt.jobs.table",),
    "drops": ("ponderttt.corpus.drops",),
    "figures": ("ponderttt.jobs.figures",),
    "effective": ("ponderttt.jobs.effective",),
}


def records_code() -> str:
    """The digest that every manifest of records carries, and that the table demands of them."""
    return stage_digest(*ENTRY_MODULES["arms"])


def stage_code(stage: str, script: Path) -> str:
    """The digest of a rule's code: its stage and its script; comments do not count."""
    tree = ast.dump(ast.parse(script.read_text()))
    return digest([stage_digest(*ENTRY_MODULES[stage]), hashlib.sha256(tree.encode()).hexdigest()])
