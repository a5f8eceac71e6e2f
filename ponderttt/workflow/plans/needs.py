"""Inputs of a job that depend on settings: calibrations, policies of other backbones, runs that a table may lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ponderttt.files.folder import Folder
from ponderttt.names import CALIBRATED_METHODS, FastWeightsName, MethodName
from ponderttt.settings.experiment import Experiment
from ponderttt.workflow.failures import last_failure
from ponderttt.workflow.layout import Layout, Run, fast_weights_on, grid_runs, methods_on, seeds_on


@dataclass(frozen=True)
class Needs:
    """The inputs of a study's jobs."""

    experiment: Experiment

    @property
    def layout(self) -> Layout:
        """The folders of the study."""
        return Layout.of(self.experiment)

    def arm_rules(self) -> list[tuple[bool, FastWeightsName]]:
        """Return the rules of arms: whether on control corpora, and the fast weights."""
        grid = self.experiment.grid
        groups = (False, True) if grid.control_corpora else (False,)
        return [(control, name) for control in groups for name in fast_weights_on(grid, control)]

    def parts(self, corpus: str) -> range:
        """Return the numbers of the parts of a dataset, which are also those of its buckets."""
        hub = self.experiment.corpora[corpus].hub
        assert hub is not None
        return range(hub.parts)

    def corpora_of_files(self) -> list[str]:
        """Return the corpora of source files that the grid reads."""
        grid = self.experiment.grid
        names = (*grid.training_corpora, *grid.eval_corpora)
        return list(dict.fromkeys(source for name in names for source in self.experiment.sources_of(name)))

    def training_shards(self, corpus: str) -> list[Folder]:
        """Return the shards whose files must not be in a corpus: those of training corpora, up to the corpus itself."""
        training = self.experiment.grid.training_corpora
        before = training[: training.index(corpus)] if corpus in training else training
        return [self.layout.shards(name) for name in before]

    def calibration(self, fast_weights: FastWeightsName, control: bool) -> list[Folder]:
        """Return the signals that the arms of an adapter rank by; none if no method looks at a signal."""
        methods = methods_on(self.experiment.grid, fast_weights, control)
        needed = any(method.is_calibrated for method in methods)
        return [self.layout.calibration(fast_weights=fast_weights)] if needed else []

    def calibration_of_policy(self, model: str, fast_weights: str, policy: str, seed: str) -> list[Folder]:
        """Return the signals that the training of a policy needs: PPO may start as a copy of a rule that ranks them."""
        name = MethodName.parse(policy)
        learned = self.experiment.learned.of(name.variant)
        copies = name.base == "ppo" and learned.taken_from is None
        needed = copies and learned.ppo.warm_start in CALIBRATED_METHODS
        return [self.layout.calibration(model, fast_weights, seed)] if needed else []

    def logits_gb(self, policy: str) -> float:
        """Return the memory for frozen logits in the training of a policy, in GB."""
        return self.experiment.learned.of(MethodName.parse(policy).variant).logits_gb

    def policy_taken(self, fast_weights: str, policy: str, seed: str) -> list[Folder]:
        """Return the policy of another backbone whose network a policy takes over."""
        name = MethodName.parse(policy)
        model = self.experiment.learned.of(name.variant).taken_from
        if model is None:
            return []
        return [self.layout.policy(model, fast_weights, name.without_variant, seed)]

    def training_logs(self) -> list[str]:
        """Return the logs of the trainings of all adapters in the table."""
        folders = [
            self.layout.training(run.model, run.fast_weights, run.seed)
            for run in self.runs()
            if run.fast_weights != "none"
        ]
        return [folder.file("log.jsonl") for folder in dict.fromkeys(folders)]

    def policy_logs(self) -> list[str]:
        """Return the logs of the trainings with PPO of all policies in the table."""
        found = []
        for run in self.runs():
            policy = MethodName.parse(run.method).trained_as
            if policy.base == "ppo":
                found.append(self.layout.policy(run.model, run.fast_weights, policy, run.seed))
        return [folder.file("log.jsonl") for folder in dict.fromkeys(found)]

    def runs(self) -> Sequence[Run]:
        """Return the runs that the table is made from: all, or with ``statistics.allow_missing`` those that did not fail.

        A run counts as failed while it has no records and the log of its last attempt ends with an error.
        """
        runs = grid_runs(self.experiment)
        if not self.experiment.statistics.allow_missing:
            return runs
        layout = self.layout
        return [run for run in runs if run.folder(layout).exists or last_failure(run, layout) is None]

    def sequences(self) -> list[Folder]:
        """Return the losses of all sequences that the table's references are computed from.

        With ``statistics.allow_missing``, only those that exist.
        """
        grid, wanted = self.experiment.grid, self.experiment.sequences.all_fast_weights
        folders = [
            self.layout.sequences(corpus, model, fast_weights, seed)
            for corpus in grid.eval_corpora
            for model in grid.models
            for fast_weights in wanted
            for seed in seeds_on(grid, control=False)
        ]
        if not self.experiment.statistics.allow_missing:
            return folders
        return [folder for folder in folders if folder.exists]

    def missing(self) -> list[Folder]:
        """Return the runs of the grid that the table lacks."""
        used = set(self.runs())
        return [run.folder(self.layout) for run in grid_runs(self.experiment) if run not in used]
