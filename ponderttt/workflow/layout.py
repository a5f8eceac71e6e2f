"""The folders of all stages, for rules, jobs and messages.

A folder keeps the wildcards of all arguments that are left out, such as ``{model}``: Snakemake's rules need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ponderttt.contexts import ALONE, Context
from ponderttt.files.folder import Folder
from ponderttt.names import CALIBRATED_METHODS, ORACLE_METHODS, RULE_METHODS, FastWeightsName, MethodName
from ponderttt.settings.experiment import Experiment
from ponderttt.settings.grid import GridConfig


@dataclass(frozen=True)
class Layout:
    """Folders of a study; Snakemake tracks each by its manifest."""

    data: str
    results: str

    @classmethod
    def of(cls, experiment: Experiment) -> Layout:
        """The layout of an experiment."""
        return cls(experiment.data_dir, experiment.results_dir)

    @property
    def downloads(self) -> str:
        """Archives and wheels, kept between studies."""
        return f"{self.data}/downloads"

    @property
    def programs(self) -> str:
        """Compiled programs, shared by all jobs."""
        return f"{self.data}/.jax_cache"

    @property
    def checkpoints(self) -> str:
        """Checkpoints of running jobs; no rule declares the folder, so Snakemake never deletes it."""
        return f"{self.results}/.checkpoints"

    def model(self, model: str = "{model}") -> Folder:
        """The converted backbone."""
        return Folder(f"{self.data}/models/{model}")

    def shards(self, corpus: str = "{corpus}") -> Folder:
        """Source files of a corpus."""
        return Folder(f"{self.data}/shards/{corpus}")

    def selected(self, corpus: str = "{corpus}", part: int | str = "{part}") -> Folder:
        """The selected files of one part of a dataset, by bucket."""
        return Folder(f"{self.data}/selected/{corpus}/part-{part}")

    def contents(self, corpus: str = "{corpus}", bucket: int | str = "{bucket}") -> Folder:
        """The files of a bucket with their contents."""
        return Folder(f"{self.data}/contents/{corpus}/bucket-{bucket}")

    def chunks(self, model: str = "{model}", corpus: str = "{corpus}") -> Folder:
        """A corpus in chunks under the tokenizer of a model."""
        return Folder(f"{self.data}/chunks/{model}/{corpus}")

    def hidden(
        self, model: str = "{model}", corpus: str = "{corpus}", context: Context | str = "{context}"
    ) -> Folder:
        """The frozen pass over a corpus."""
        return Folder(f"{self.data}/hidden/{model}/{corpus}/{context}")

    def training(
        self,
        model: str = "{model}",
        fast_weights: FastWeightsName | str = "{fast_weights}",
        seed: int | str = "{seed}",
    ) -> Folder:
        """Trained slow weights."""
        return Folder(f"{self.results}/training/{model}/{fast_weights}/seed-{seed}")

    def calibration(
        self,
        model: str = "{model}",
        fast_weights: FastWeightsName | str = "{fast_weights}",
        seed: int | str = "{seed}",
    ) -> Folder:
        """Records of the trained adapter at 0 updates on the corpus of policies, which rules rank by."""
        return Folder(f"{self.results}/calibration/{model}/{fast_weights}/seed-{seed}")

    def policy(
        self,
        model: str = "{model}",
        fast_weights: FastWeightsName | str = "{fast_weights}",
        policy: MethodName | str = "{policy}",
        seed: int | str = "{seed}",
    ) -> Folder:
        """A learned policy of one trained module."""
        return Folder(f"{self.results}/policies/{model}/{fast_weights}/{policy}/seed-{seed}")

    def run(
        self,
        corpus: str = "{corpus}",
        model: str = "{model}",
        fast_weights: FastWeightsName | str = "{fast_weights}",
        method: MethodName | str = "{method}",
        seed: int | str = "{seed}",
    ) -> Folder:
        """The folder of one arm and seed."""
        return Folder(f"{self.results}/runs/{corpus}/{model}/{fast_weights}/{method}/seed-{seed}")

    def sequences(
        self,
        corpus: str = "{corpus}",
        model: str = "{model}",
        fast_weights: FastWeightsName | str = "{fast_weights}",
        seed: int | str = "{seed}",
    ) -> Folder:
        """The losses of every sequence of actions with one trained adapter."""
        return Folder(f"{self.results}/sequences/{corpus}/{model}/{fast_weights}/seed-{seed}")


@dataclass(frozen=True)
class Run:
    """One arm and seed of the table."""

    corpus: str
    model: str
    fast_weights: str
    method: str
    seed: int

    def folder(self, layout: Layout) -> Folder:
        """Return the folder of its records."""
        return layout.run(self.corpus, self.model, self.fast_weights, self.method, self.seed)


def grid_runs(experiment: Experiment) -> list[Run]:
    """Return every run of the grid, first those of the plain backbone."""
    grid, runs = experiment.grid, []
    for corpus in (*grid.eval_corpora, *grid.control_corpora):
        control = corpus in grid.control_corpora
        for model in grid.models:
            runs += [
                Run(corpus, model, "none", str(MethodName.plain(context)), 0)
                for context in ((ALONE,) if control else grid.all_contexts)
            ]
            for fast_weights in fast_weights_on(grid, control):
                runs += [
                    Run(corpus, model, str(fast_weights), str(method), seed)
                    for method in methods_on(grid, fast_weights, control)
                    for seed in seeds_on(grid, control)
                ]
    return runs


def fast_weights_on(grid: GridConfig, control: bool) -> list[FastWeightsName]:
    """Return the fast weights of the arms on a corpus; on a control corpus only those without context."""
    return [name for name in grid.all_fast_weights if not control or name.context == ALONE]


def methods_on(grid: GridConfig, fast_weights: FastWeightsName, control: bool) -> list[MethodName]:
    """Return the methods of the arms on a corpus; a control corpus only shows whether updates gain, so it has few."""
    methods = [method for method in grid.all_methods if fast_weights.runs(method)]
    return [m for m in methods if m.base in ("skip", "update_1", "update_4")] if control else methods


def policies_on(grid: GridConfig, fast_weights: FastWeightsName, control: bool) -> list[MethodName]:
    """Return the learned policies that the arms on a corpus need, by the names under which they are trained."""
    methods = methods_on(grid, fast_weights, control)
    return list(dict.fromkeys(method.trained_as for method in methods if method.is_learned))


def seeds_on(grid: GridConfig, control: bool) -> tuple[int, ...]:
    """Return the seeds of the arms on a corpus; on a control corpus the first only."""
    return grid.seeds[:1] if control else grid.seeds


def figure_names(methods: Sequence[str]) -> list[str]:
    """Return the figures in which a grid's methods have something to show."""
    updates = any(method in methods for method in ("update_1", "update_2", "update_4", "random"))
    ranks = [method for method in CALIBRATED_METHODS if method != "adaptive"]
    wanted = {
        "pareto": True,
        "frontier": "skip" in methods and updates,
        "gain_along_stream": updates,
        "allocation": any(method in methods for method in (*RULE_METHODS, *ORACLE_METHODS)),
        "calibration": any(method in methods for method in ranks),
        "signals": "greedy_oracle" in methods,
        "seed_dots": updates and "skip" in methods,
        "decomposition": {"skip", "update_1", "transductive"} <= set(methods),
        "training_curves": True,
        "policy_curves": any(MethodName.parse(method).base == "ppo" for method in methods),
    }
    return [name for name, wants in wanted.items() if wants]
