"""A whole study in miniature: a random model, corpora cut from the standard library, the real workflow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

import optimised
from ponderttt.models.families.family import Shape
from tiny_llama import tiny_llama

LLAMA = tiny_llama()
ROOT = Path(__file__).resolve().parents[2]
#: What a checkout needs for the workflow to run.
PARTS = ("Snakefile", "rules", "workflow_scripts", "report", "profiles", "ponderttt")
TRAIN = ("json", "email", "logging", "html")
HELDOUT = ("xml", "http", "wsgiref", "urllib")

CONFIG: dict[str, Any] = {
    "models": {"tiny": {"family": "llama", "source": {"kind": "path", "path": "model"}}},
    "corpora": {
        name: {
            "kind": "files",
            "language": "Python",
            "split": split,
            "path": f"sources/{split}",
            "license": "PSF-2.0",
            "single_repository": False,
            "chunks_per_stream": 4,
        }
        for name, split in (("learn", "train"), ("test", "heldout"))
    },
    "grid": {
        "models": ["tiny"],
        "fast_weights": ["lora"],
        "methods": ["skip", "update_1", "entropy", "regression", "transductive"],
        "seeds": [0, 1],
        "train_corpus": "learn",
        "eval_corpora": ["test"],
        "contexts": ["alone"],
    },
    "chunk_size": 64,
    "fast_weights": {"lora": {"rank": 4, "inner_rate": 0.01}},
    "training": {"epochs": 1, "outer_tokens": 32, "checkpoint_every_steps": 1, "validation_share": 0.5},
    "statistics": {"bootstrap_samples": 100},
}


def write_model(folder: Path, seed: int = 0, shape: Shape = LLAMA) -> None:
    """A tiny random model with a byte-level tokenizer, as a folder of safetensors."""
    import jax
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from ponderttt.models.safetensors_file import write_folder
    from ponderttt.models.tensors import random_tensors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    config = replace(shape, vocab_size=len(alphabet) + 1, mlp_width=64, max_context=256)
    folder.mkdir(parents=True)
    arrays = random_tensors(config, jax.random.key(seed))
    write_folder(folder, config, arrays.__getitem__, core.to_str())


def write_sources(folder: Path) -> None:
    """Real code: packages of the standard library, some to learn from and others to be scored."""
    library = Path(os.__file__).parent
    for split, packages in (("train", TRAIN), ("heldout", HELDOUT)):
        for package in packages:
            for path in sorted((library / package).glob("*.py"))[:6]:
                target = folder / split / package / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


@dataclass(frozen=True)
class Study:
    """A checkout with a study in it; ``folder`` is where Snakemake runs."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Study:
        """Copy the workflow and the package, write model, sources and configuration."""
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, folder / part)
        write_model(folder / "model")
        write_sources(folder / "sources")
        study = cls(folder)
        study.configure()
        return study

    def configure(self, file: str = "config.yaml", **changes: Any) -> None:
        """Write a configuration: ``grid__seeds=[0]`` sets that key, everything else is as in :data:`CONFIG`."""
        config = json.loads(json.dumps(CONFIG))
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = config
            for key in parents:
                place = place.setdefault(key, {})
            place[last] = value
        (self.folder / file).write_text(yaml.safe_dump(config))

    def command(self, *arguments: str) -> list[str]:
        """The command line of Snakemake, with two cores whatever the machine has."""
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of this checkout's processes: its own package, and programs that compile fast and run once."""
        return {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": optimised.HURRY,
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end."""
        command = self.command(*arguments)
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def plan(self, *arguments: str) -> dict[str, int]:
        """Rule → number of jobs that Snakemake would run; empty if there is nothing to do."""
        ran = self.run(*arguments, "--dry-run", "--quiet", "rules")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        jobs = {}
        _, _, table = (ran.stdout + ran.stderr).partition("Job stats:")
        for line in table.splitlines():
            name, _, count = line.rpartition(" ")
            if count.isdigit() and name.strip() not in ("total", "all"):
                jobs[name.strip()] = int(count)
        return jobs
