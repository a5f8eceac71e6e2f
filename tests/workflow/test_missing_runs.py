"""With ``statistics.allow_missing``, the table is made without the runs that failed, and says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ponderttt.files.folder import Folder
from ponderttt.reporting.numbers.results import read_results
from ponderttt.settings.experiment import Experiment, load
from ponderttt.workflow.entry import PREFIX
from ponderttt.workflow.jobs import Job, Place
from ponderttt.workflow.layout import Layout, grid_runs
from ponderttt.workflow.plans.needs import Needs
from ponderttt.workflow.plans.parameters import Plan
from ponderttt.workflow.stages import table
from reporting_worlds import CODE, STATISTICS, run_folder, write_run

CONFIG = Path(__file__).parents[2] / "config" / "ci.yaml"


def study(tmp_path: Path, *, allow_missing: bool) -> Experiment:
    """The study of CI, in which one training of the TTT layer failed."""
    experiment = load(CONFIG)
    statistics = replace(experiment.statistics, allow_missing=allow_missing)
    experiment = replace(experiment, results_dir=str(tmp_path), statistics=statistics)
    model = next(iter(experiment.models))
    log = Path(Layout.of(experiment).results) / "logs" / "train" / model / "ttt" / "seed-1.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{PREFIX}training diverged\n", encoding="utf-8")
    return experiment


def test_a_failed_training_leaves_out_its_runs_only_if_the_setting_allows_it(tmp_path: Path) -> None:
    strict, lenient = (study(tmp_path, allow_missing=allowed) for allowed in (False, True))
    every = grid_runs(strict)
    assert list(Needs(strict).runs()) == list(every)
    assert Plan(strict).table()["missing"] == []
    lost = [run for run in every if run.fast_weights == "ttt" and str(run.seed) == "1"]
    assert lost
    assert list(Needs(lenient).runs()) == [run for run in every if run not in lost]
    assert Plan(lenient).table()["missing"] == [run.folder(Layout.of(lenient)) for run in lost]


def test_the_table_says_which_runs_it_lacks(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "none", "plain", 0, lambda s, c, k: 3.0, tokens=[[100], [50]])
    lost = run_folder(tmp_path, "ttt", "skip", 0)
    settings = table.Settings(
        statistics=replace(STATISTICS, allow_missing=True),
        control_corpora={},
        records_code=CODE,
        missing=(str(lost),),
    )
    files = {"table": (str(tmp_path / "paper_table.csv"),), "guide": (str(tmp_path / "README.md"),)}
    job = Job((), files, {}, Place("", "", "", {}), 1, lambda done, total, what: None)
    table.run(settings, table.Inputs((Folder(folder),), (), ()), job)
    assert read_results(tmp_path / "paper_table.csv").facts["missing"] == [str(lost)]
    assert "The table is incomplete.** Missing runs (1)" in (tmp_path / "README.md").read_text("utf-8")
