"""The figures: drawn from realistic records, with labels that do not overlap and curves with known values."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from ponderttt.actions import Action
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.names import KINDS
from ponderttt.reporting.figures.decisions import allocation, calibration
from ponderttt.reporting.figures.frontier import frontier
from ponderttt.reporting.figures.pareto import Label, pareto, place_labels
from ponderttt.reporting.figures.policy_curves import policy_curves, read_policy_log
from ponderttt.reporting.figures.signals import signals
from ponderttt.reporting.figures.stream_gain import gain_along_stream, gain_curve
from ponderttt.reporting.figures.style import colour_of_fast_weights, new_figure
from ponderttt.reporting.figures.table_figures import decomposition, seed_dots
from ponderttt.reporting.figures.training_curves import read_training_log, running_mean, training_curves
from ponderttt.reporting.numbers.arms import load_arms
from ponderttt.reporting.numbers.results import read_results
from ponderttt.reporting.numbers.sampling import StreamSampling
from ponderttt.reporting.numbers.signals import strongest
from ponderttt.reporting.numbers.statistics import RatioTerms
from ponderttt.reporting.numbers.tables import write_table
from ponderttt.settings.statistics import StatisticsConfig
from ponderttt.workflow.layout import figure_names
from ponderttt.workflow.stages.figures import make_figures
from reporting_worlds import CODE, CONTROL_CORPORA, CORPUS, VOCABULARIES, default_grid, rules_grid, write_run

STATISTICS = StatisticsConfig(bootstrap_samples=500)
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A results folder with the default grid's table."""
    root = tmp_path_factory.mktemp("results")
    folders = default_grid(root)
    write_table(folders, CODE, STATISTICS, root, "snakemake")
    return root, folders


def write_log(root: Path, fast_weights: str, seed: int, lines: list[dict[str, float]]) -> Path:
    log = root / "training" / "tiny" / fast_weights / f"seed-{seed}" / "log.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return log


def training_lines() -> list[dict[str, float]]:
    steps = [{"step": i, "epoch": i // 5, "loss": 2.0 - i / 100, "loss_frozen": 2.0} for i in range(1, 11)]
    validations = [
        {
            "step": i,
            "epoch": i // 5,
            "validation_loss": 1.9,
            "validation_loss_skip": 1.95,
            "validation_loss_frozen": 2.0,
        }
        for i in (5, 10)
    ]
    return sorted([*steps, *validations], key=lambda line: line["step"])


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A results folder with rules, oracles, contexts and control corpora."""
    root = tmp_path_factory.mktemp("rules")
    folders = rules_grid(root, {"memory": 1.0, "memory+full": 0.5}, seeds=1)
    write_table(
        folders,
        CODE,
        STATISTICS,
        root,
        "snakemake",
        control_corpora=CONTROL_CORPORA,
        vocabularies=VOCABULARIES,
    )
    return root, folders


def test_every_figure_is_drawn_as_picture_and_as_vectors(results: tuple[Path, list[Path]]) -> None:
    root, folders = results
    logs = [write_log(root, "ttt", seed, training_lines()) for seed in range(2)]
    names = figure_names(["skip", "update_1", "random", "transductive"])
    assert names == [
        *(
            "pareto",
            "frontier",
            "gain_along_stream",
            "allocation",
            "seed_dots",
            "decomposition",
            "training_curves",
        )
    ]
    outputs: dict[str, list[Path]] = {name: [root / f"{name}.png"] for name in names}
    outputs["pareto"] += [root / "pareto.svg", root / "pareto.pdf"]
    make_figures(root / "paper_table.csv", folders, logs, [], CODE, STATISTICS, outputs)
    for name in names:
        assert (root / f"{name}.png").read_bytes().startswith(PNG)
    assert (root / "pareto.svg").read_text().startswith("<?xml")
    assert (root / "pareto.pdf").read_bytes().startswith(b"%PDF")
    assert not list(root.glob(".*"))


def test_figures_of_decisions_are_drawn_where_rules_decide(rules: tuple[Path, list[Path]]) -> None:
    root, folders = rules
    names = [
        name
        for name in figure_names(["skip", "update_1", "entropy", "greedy_oracle"])
        if name in ("allocation", "calibration", "signals", "frontier", "pareto")
    ]
    assert len(names) == 5
    outputs: dict[str, list[Path]] = {name: [root / f"{name}.svg"] for name in names}
    make_figures(root / "paper_table.csv", folders, [], [], CODE, STATISTICS, outputs)
    for name in names:
        text = (root / f"{name}.svg").read_text()
        # Letters are paths; comments hold the text.
        assert "tiny on heldout-python" in text
        assert not any(f"tiny on {corpus}" in text for corpus in CONTROL_CORPORA)
    assert "largest gap 0." in (root / "calibration.svg").read_text()
    assert "entropy: 2." in (root / "frontier.svg").read_text()


def test_the_strongest_signals_come_first(rules: tuple[Path, list[Path]]) -> None:
    signals = read_results(rules[0] / "paper_table.csv").signals
    ordered = strongest(signals[signals.fast_weights == "memory"])
    assert set(ordered.action) == {"UPDATE_1"}
    assert ordered.rho.abs().is_monotonic_decreasing
    assert len(ordered) == 64


def test_the_same_table_gives_the_same_vectors(results: tuple[Path, list[Path]]) -> None:
    root, _ = results
    for name in ("once.svg", "again.svg"):
        decomposition(read_results(root / "paper_table.csv"), [root / name])
        pareto(read_results(root / "paper_table.csv"), [root / f"pareto_{name}"])
    for name in ("once.svg", "pareto_once.svg"):
        assert (root / name).read_bytes() == (root / name.replace("once", "again")).read_bytes()


@pytest.mark.parametrize("seed", [3, 4])
def test_labels_touch_neither_one_another_nor_the_frame(seed: int) -> None:
    rng = np.random.default_rng(seed)
    figure, axes = new_figure(1, 1, 4.2, 4.6)
    panel = axes[0, 0]
    x, y = rng.normal(0.5, 0.07, 12), rng.normal(0.5, 0.07, 12)
    panel.plot(x, y, "o", ls="none")
    panel.set(xlim=(0, 1), ylim=(0, 1))
    labels = [Label(a, b, f"lora update_{i}", "k") for i, (a, b) in enumerate(zip(x, y, strict=True))]
    boxes = [text.get_window_extent() for text in place_labels(figure, panel, labels)]
    assert [text.get_text() for text in panel.texts] == [label.text for label in labels]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    frame = panel.get_window_extent()
    assert all(frame.contains(*corner) for box in boxes for corner in box.corners())


def test_the_gain_curve_is_the_weighted_mean_at_each_position(tmp_path: Path) -> None:
    tokens = [[100, 100, 100], [300, 300], [100, 100]]
    update = lambda s, c: Action.UPDATE_1  # noqa: E731
    folders = []
    for k in (0, 1):
        folders.append(write_run(tmp_path, "ttt", "skip", k, lambda s, c, k: 2.0, tokens=tokens))
        folders.append(
            write_run(
                tmp_path,
                "ttt",
                "update_1",
                k,
                # Gains at chunk 1: 0.1, 0.2 and 0.4 in the three streams, ±0.05 by seed.
                lambda s, c, k: 2.0 - c * (0.1 * 2**s + (0.05 if k else -0.05)),
                tokens=tokens,
                action=update,
            )
        )
    arms, _ = load_arms(folders, CODE)
    skip, updated = arms
    sampling = StreamSampling.of(3, CORPUS, STATISTICS)
    curve = gain_curve(updated, skip, sampling)
    assert curve is not None
    # Position 2 is reached by a single stream and is left out.
    assert curve.position.tolist() == [0, 1]
    assert curve.n_streams.tolist() == [3, 3]
    assert curve.gain == pytest.approx([0.0, (100 * 0.1 + 300 * 0.2 + 100 * 0.4) / 500])
    assert (curve.low[0], curve.high[0]) == (0.0, 0.0)
    tokens, nats = np.array([100.0, 300.0, 100.0]), np.array([10.0, 60.0, 40.0])
    assert (curve.low[1], curve.high[1]) == pytest.approx(sampling.interval(RatioTerms(nats, tokens)))


def test_figures_without_content_are_errors_that_say_what_to_add(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, "none", "plain", 0, lambda s, c, k: 3.0, tokens=[[100], [50]])]
    write_table(folders, CODE, STATISTICS, tmp_path, "snakemake")
    results = read_results(tmp_path / "paper_table.csv")
    arms = load_arms(folders, CODE)[0]
    outputs = [tmp_path / "figure.png"]
    for draw, message in (
        (lambda: seed_dots(results, outputs), "add the method skip to the grid"),
        (lambda: decomposition(results, outputs), "add these methods to the grid"),
        (lambda: gain_along_stream(arms, STATISTICS, outputs), "no arm makes an update"),
        (lambda: allocation(arms, outputs), "add one to grid.methods"),
        (lambda: calibration(arms, outputs), "add entropy to grid.methods"),
        (lambda: frontier(results, outputs), "add update_1 or grid.more_budgets"),
        (lambda: signals(results, outputs), "add greedy_oracle to grid.methods"),
        (lambda: training_curves([], outputs), "no fast weights of the grid are trained"),
    ):
        with pytest.raises(PonderTTTError, match=message) as error:
            draw()
        assert "\n" not in str(error.value)
    assert not outputs[0].exists()


def test_fast_weights_of_later_studies_are_drawn_with_a_look_of_their_own(tmp_path: Path) -> None:
    tokens = [[100, 80], [50, 60], [70]]
    act = lambda s, c: Action.UPDATE_2  # noqa: E731
    folders = [write_run(tmp_path, "none", "plain", 0, lambda s, c, k: 3.0, tokens=tokens)]
    for method in ("skip", "ppo", "entropy"):
        action = (lambda s, c: Action.SKIP) if method == "skip" else act
        folders.append(
            write_run(tmp_path, "mlp", method, 0, lambda s, c, k: 2.5, tokens=tokens, action=action)
        )
    write_table(folders, CODE, STATISTICS, tmp_path, "snakemake")
    pareto(read_results(tmp_path / "paper_table.csv"), [tmp_path / "pareto.svg"])
    gain_along_stream(load_arms(folders, CODE)[0], STATISTICS, [tmp_path / "gain.svg"])
    assert "<!-- mlp -->" in (tmp_path / "pareto.svg").read_text()
    gain = (tmp_path / "gain.svg").read_text()
    assert "<!-- mlp -->" in gain
    assert "best policy: " in gain
    assert colour_of_fast_weights("mlp", ["mlp", "ttt"]) not in (colour_of_fast_weights(k, []) for k in KINDS)


def test_a_running_mean_looks_back_only() -> None:
    assert running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1.0, 2.0, 4.0, 6.0]


def test_a_step_logged_twice_counts_once(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}, {"step": 2, "loss": 1.4}]
    steps, validations = read_training_log(write_log(tmp_path, "ttt", 0, lines))
    assert [line["loss"] for line in steps] == [2.0, 1.4]
    assert validations == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"step": 1, "loss": 2.0}\n{"step": 2, "lo', r"log.jsonl:2: not a line"),
        ('{"step": 1}\n', r"log.jsonl:1: not a line"),
        ('{"step": 1, "loss": NaN}\n', r"log.jsonl:1: loss is nan, so training diverged"),
        ("[1, 2]\n", r"log.jsonl:1: not a line"),
        ("", "the log is empty"),
        ('{"step": 1, "validation_loss": 2.0}\n', "no training step"),
    ],
)
def test_a_damaged_training_log_is_an_error_that_names_the_line(
    tmp_path: Path, text: str, message: str
) -> None:
    log = write_log(tmp_path, "ttt", 0, [])
    log.write_text(text)
    with pytest.raises(CorruptFileError, match=message):
        read_training_log(log)


def write_policy_log(root: Path, fast_weights: str, seed: int, **changes: float) -> Path:
    log = root / "policies" / "tiny" / fast_weights / "ppo" / f"seed-{seed}" / "log.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {
            **dict.fromkeys(("p", "i", "d", "lambda", "entropy", "approx_kl", "clipfrac"), 0.1),
            **dict.fromkeys(("explained_variance", "cost_explained_variance"), 0.5),
            **dict.fromkeys(("share_skip", "share_update_1", "share_update_2", "share_update_4"), 0.25),
            **{"iteration": number, "reward": 0.01 * number, "cost": 3.0, "limit": 3.5},
            **changes,
        }
        for number in range(1, 6)
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return log


def test_the_training_of_policies_is_drawn_for_each_kind_with_its_seeds(tmp_path: Path) -> None:
    logs = [write_policy_log(tmp_path, kind, seed) for kind in ("lora", "memory") for seed in (0, 1)]
    policy_curves(logs, [tmp_path / "curves.png"])
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    assert [line["iteration"] for line in read_policy_log(logs[0])] == [1, 2, 3, 4, 5]


def test_a_policy_training_that_diverged_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    log = write_policy_log(tmp_path, "lora", 0, reward=float("nan"))
    with pytest.raises(CorruptFileError, match=r"log\.jsonl:1: reward is nan, so training diverged"):
        policy_curves([log], [tmp_path / "curves.png"])
    with pytest.raises(PonderTTTError, match="the grid has no method ppo"):
        policy_curves([], [tmp_path / "curves.png"])
