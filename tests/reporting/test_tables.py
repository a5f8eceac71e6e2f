"""The table from records: its numbers on worlds whose answer is known, and the errors."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.atomic import sha256_file
from ponderttt.files.manifest import write_manifest
from ponderttt.records.record import RECORDS
from ponderttt.reporting.guide.claims import ClaimRule
from ponderttt.reporting.guide.guide import write_reading_guide
from ponderttt.reporting.numbers.arms import load_arms
from ponderttt.reporting.numbers.columns import Estimate, dtypes, frame_of, rows_of
from ponderttt.reporting.numbers.comparisons import pair
from ponderttt.reporting.numbers.results import read_results
from ponderttt.reporting.numbers.rows import SeedRow, TableRow
from ponderttt.reporting.numbers.statistics import Interval
from ponderttt.reporting.numbers.tables import build_table, write_table
from reporting_worlds import (
    CODE,
    STATISTICS,
    TOKENS,
    default_grid,
    run_folder,
    table_of,
    update,
    value,
    verdict,
    write_run,
)

COMMAND = "snakemake results/paper_table.csv"
INCOMPLETE = replace(STATISTICS, allow_missing=True)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], list[TableRow]]:
    """The default grid and its written table."""
    root = tmp_path_factory.mktemp("grid")
    folders = default_grid(root)
    write_table(folders, CODE, STATISTICS, root, COMMAND)
    return root, folders, rows_of(TableRow, read_results(root / "paper_table.csv").table)


def small_world(root: Path) -> list[Path]:
    """plain at 3 nats; skip at 2 + seed; update_1 lower by 0.5 in stream 0 after its first chunk."""
    folders = [write_run(root, "none", "plain", 0, lambda s, c, k: 3.0, tokens=TOKENS)]
    for k in (0, 1):
        folders.append(write_run(root, "ttt", "skip", k, lambda s, c, k: 2.0 + k, tokens=TOKENS))
        folders.append(
            write_run(
                root,
                "ttt",
                "update_1",
                k,
                lambda s, c, k: 2.0 + k - 0.5 * (s == 0 and c > 0),
                tokens=TOKENS,
                action=update,
            )
        )
    return folders


def test_a_small_table_worked_by_hand(tmp_path: Path) -> None:
    rows = table_of(small_world(tmp_path))
    row = rows["ttt", "update_1"]
    # 300 of 600 tokens are lower by 0.5; the seeds' losses are 1.75 and 2.75.
    assert row.loss == pytest.approx(2.25)
    assert row.perplexity == pytest.approx(math.exp(2.25))
    assert row.bits_per_byte == pytest.approx(2.25 / math.log(2) / 3)
    assert value(row.delta_vs_plain) == pytest.approx(-0.75)
    # −150 nats of 400 tokens in stream 0 and none of 200 in the other: residuals ∓50, error √(2 · 5000) / 600 = 1/6, and
    # t(0.975, 1) = 12.7062.  Every flip of signs has a sum of ±150.
    assert row.delta_vs_skip == pytest.approx(
        (-0.25, -0.25 - 12.7062 / 6, -0.25 + 12.7062 / 6, 1.0), abs=1e-5
    )
    assert row.delta_seed_ci == pytest.approx((-0.25, -0.25))
    # Both seeds of update_1 have 1.625 + k and 2 + k in the streams, skip has 2 + k in both.
    assert row.p_improvement == pytest.approx((3 / 4 + (1 + 0.5 * 2) / 4) / 2)
    # Only stream 0 has two chunks; its gain grows from 0 to 0.5.
    assert value(row.gain_slope) == pytest.approx(0.5)
    assert (row.n_seeds, row.n_streams, row.n_chunks, row.n_tokens) == (2, 2, 3, 600)
    assert (row.update_rate, row.cost_nominal) == (1.0, 3.0)
    assert row.cost_seconds == pytest.approx(1.1)
    assert row.delta_iqm is None
    assert "needs at least 4" in row.note


def test_a_baseline_has_for_itself_a_difference_of_exactly_zero(tmp_path: Path) -> None:
    for key in (("ttt", "skip"), ("none", "plain")):
        row = table_of(small_world(tmp_path))[key]
        assert row.delta_vs_skip == (0.0, 0.0, 0.0, 1.0)


def test_a_deterministic_arm_has_one_run_and_no_seed_interval(tmp_path: Path) -> None:
    row = table_of(small_world(tmp_path))["none", "plain"]
    assert row.deterministic
    assert row.n_seeds == 1
    assert (row.seed_ci, row.delta_seed_ci) == (None, None)


def test_copies_of_a_deterministic_arm_are_refused(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, "none", "plain", k, lambda s, c, k: 3.0, tokens=TOKENS) for k in (0, 1)]
    with pytest.raises(PonderTTTError, match="deterministic"):
        table_of(folders)


def test_the_table_does_not_depend_on_the_order_of_its_runs(tmp_path: Path) -> None:
    folders = small_world(tmp_path)
    assert build_table(folders, CODE, STATISTICS).rows == build_table(folders[::-1], CODE, STATISTICS).rows


def test_a_missing_seed_is_an_error_with_the_command_that_makes_it(tmp_path: Path) -> None:
    folders = [*small_world(tmp_path), run_folder(tmp_path, "ttt", "update_1", 2)]
    with pytest.raises(
        PonderTTTError,
        match=r"1 of 6 runs are missing .*update_1/seed-2.*snakemake .*seed-2.*statistics.allow_missing: true",
    ):
        table_of(folders)


def test_a_seed_that_other_arms_have_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PonderTTTError, match=r"update_1.*lacks seed 1.*statistics.allow_missing: true"):
        table_of(small_world(tmp_path)[:-1])


def test_allowed_missing_runs_are_listed_and_rows_have_their_n(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = run_folder(tmp_path, "ttt", "update_1", 2)
    folders = [*small_world(tmp_path)[:-1], lost]
    table = tmp_path / "paper_table.csv"
    rows = write_table(folders, CODE, INCOMPLETE, tmp_path, COMMAND)
    printed = capsys.readouterr().out
    assert "ttt update_1 (score_first): 1 seeds, 2 streams, 3 chunks, 600 tokens" in printed
    assert "plain (score_first): 1 run, deterministic" in printed
    update_row = next(row for row in rows if row.method == "update_1")
    # Only seed 0 is common, and only it is compared: 2 − 0.25 against skip's 2.
    assert value(update_row.delta_vs_skip) == pytest.approx(-0.25)
    write_reading_guide(table, tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert "**The table is incomplete.** Missing runs (1)" in text
    assert f"`{lost}`" in text
    assert read_results(table).facts["missing"] == [str(lost)]


def test_seeds_are_compared_with_the_adapter_of_the_same_seed(tmp_path: Path) -> None:
    folders = small_world(tmp_path)
    without = [folder for folder in folders if folder != run_folder(tmp_path, "ttt", "update_1", 0)]
    # update_1 of seed 1 has 2.75 and its adapter 3; against the adapter of seed 0, or of both, it would seem worse.
    row = table_of(without, INCOMPLETE)["ttt", "update_1"]
    assert value(row.delta_vs_skip) == pytest.approx(-0.25)
    seeds = build_table(folders, CODE, STATISTICS).seeds
    of_update = {seed.seed: seed.delta_vs_skip for seed in seeds if seed.method == "update_1"}
    assert of_update == pytest.approx({0: -0.25, 1: -0.25})


def test_arms_of_different_protocols_cannot_be_paired(tmp_path: Path) -> None:
    folders = small_world(tmp_path)
    folders.append(
        write_run(
            tmp_path, "ttt", "transductive", 0, lambda s, c, k: 0.1, tokens=TOKENS, protocol="transductive"
        )
    )
    arms, _ = load_arms(folders, CODE, allow_missing=True)
    leak, skip = (next(arm for arm in arms if arm.key.method == name) for name in ("transductive", "skip"))
    with pytest.raises(PonderTTTError, match=r"never compared .* their protocols differ"):
        pair(leak, skip)


def test_a_refused_table_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(PonderTTTError):
        write_table(
            [*small_world(tmp_path), tmp_path / "absent"],
            CODE,
            STATISTICS,
            tmp_path / "out",
            COMMAND,
        )
    assert not (tmp_path / "out").exists()


def test_records_of_another_code_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="another version of the code"):
        build_table(small_world(tmp_path), "f" * 64, STATISTICS)


def test_seeds_of_different_code_versions_are_refused(tmp_path: Path) -> None:
    folders = small_world(tmp_path)
    write_run(tmp_path, "ttt", "skip", 1, lambda s, c, k: 2.0, tokens=TOKENS, code="d" * 64)
    with pytest.raises(CorruptFileError, match="different versions of the code"):
        build_table(folders, None, STATISTICS)


def test_records_without_provenance_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "none", "plain", 0, lambda s, c, k: 3.0, tokens=TOKENS, code=None)
    with pytest.raises(CorruptFileError, match="no stage_digest"):
        build_table([folder], None, STATISTICS)


def rewrite(folder: Path, change: dict[str, Any] | None = None, repeat: bool = False) -> None:
    """Alter the records of a run, with a manifest that fits."""
    table = pq.read_table(folder / RECORDS)
    for name, first in (change or {}).items():
        at = table.schema.get_field_index(name)
        values = [first, *table[name].to_pylist()[1:]]
        table = table.set_column(
            at, table.schema.field(name), pa.array(values, table.schema.field(name).type)
        )
    if repeat:
        table = pa.concat_tables([table, table.slice(0, 1)])
    facts = json.loads((folder / "manifest.json").read_text())["facts"]
    pq.write_table(table, folder / RECORDS)
    write_manifest(folder, "records", {RECORDS: table.num_rows}, facts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": float("nan")}, "loss is not finite in 1 of 3"),
        ({"seconds": float("inf")}, "seconds is not finite"),
        ({"n_tokens": 0}, "without a scored token"),
        ({"method": "update_2"}, "method has 2 values in one run"),
    ],
)
def test_impossible_records_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folders = small_world(tmp_path)
    rewrite(folders[1], change)
    with pytest.raises(CorruptFileError, match=message):
        table_of(folders)


def test_a_chunk_recorded_twice_and_a_run_given_twice_are_refused(tmp_path: Path) -> None:
    folders = small_world(tmp_path)
    with pytest.raises(PonderTTTError, match="given twice"):
        table_of([*folders, folders[1]])
    rewrite(folders[1], repeat=True)
    with pytest.raises(CorruptFileError, match="recorded twice"):
        table_of(folders)


def test_arms_that_scored_other_chunks_are_not_paired(tmp_path: Path) -> None:
    folders = small_world(tmp_path)
    write_run(tmp_path, "none", "plain", 0, lambda s, c, k: 3.0, tokens=[[100, 300], [201]])
    with pytest.raises(PonderTTTError, match="scored different streams or chunks"):
        table_of(folders)


def test_seeds_that_scored_other_chunks_are_refused(tmp_path: Path) -> None:
    folders = small_world(tmp_path)
    write_run(tmp_path, "ttt", "skip", 1, lambda s, c, k: 3.0, tokens=[[100, 300]])
    with pytest.raises(PonderTTTError, match="seeds 0 and 1 scored different chunks"):
        table_of(folders)


def test_a_damaged_run_names_its_file_and_command(tmp_path: Path) -> None:
    folders = small_world(tmp_path)
    (folders[0] / RECORDS).write_bytes((folders[0] / RECORDS).read_bytes()[:-40])
    with pytest.raises(CorruptFileError, match=r"plain/seed-0/records.parquet.*snakemake --force"):
        table_of(folders, INCOMPLETE)


def test_other_protocols_are_never_compared(
    grid: tuple[Path, list[Path], list[TableRow]],
) -> None:
    others = [row for row in grid[2] if row.protocol != "score_first"]
    assert {row.protocol for row in others} == {"in_chunk", "transductive"}
    for row in others:
        empty = [name for name in TableRow.__dataclass_fields__ if name.startswith(("delta_", "gain_"))]
        assert len(empty) > 10
        assert all(getattr(row, name) is None for name in empty)
        assert row.p_improvement is None
        assert f"{row.protocol} never shares a comparison with score_first" in row.note
        assert row.ci is not None


def test_the_default_grid_in_reading_order_with_intervals_everywhere(
    grid: tuple[Path, list[Path], list[TableRow]],
) -> None:
    rows = grid[2]
    fixed = ["skip", "update_1", "update_2", "update_4", "random"]
    order = ["plain", "full", *fixed, "in_chunk", "transductive", *fixed]
    assert [row.method for row in rows] == order
    assert [row.fast_weights for row in rows] == ["none"] * 2 + ["ttt"] * 7 + ["lora"] * 5
    for row in rows:
        assert row.ci is not None
        assert row.ci.low < row.loss < row.ci.high
        assert row.n_seeds == (1 if row.deterministic else 3)
        assert len(row.run_digest) == len(row.code_digest) == 16
        if row.update_rate:
            assert "no best sequences are known" in row.note or row.protocol != "score_first"
    helped = next(row for row in rows if row.label == "ttt update_2")
    harmed = next(row for row in rows if row.label == "lora update_4")
    assert verdict(helped, helped.delta_vs_skip) == "helped"
    assert verdict(harmed, harmed.delta_vs_skip) == "hurt"
    assert ClaimRule(0.95, 8).sign(helped.gain_slope) == 1


def test_what_was_written_reads_back_the_same(grid: tuple[Path, list[Path], list[TableRow]]) -> None:
    root, folders, rows = grid
    built, results = build_table(folders, CODE, STATISTICS), read_results(root / "paper_table.csv")
    assert len(results.seeds) == len(folders)
    for frame, kind, made in ((results.table, TableRow, built.rows), (results.seeds, SeedRow, built.seeds)):
        pd.testing.assert_frame_equal(frame, frame_of(kind, made), rtol=1e-9, atol=1e-12)
    assert [row.note for row in rows] == [row.note for row in built.rows]
    assert rows_of(TableRow, frame_of(TableRow, built.rows)) == built.rows


def test_a_cell_with_an_interval_is_three_columns_or_four_and_empty_where_nothing_is_known(
    grid: tuple[Path, list[Path], list[TableRow]],
) -> None:
    row = next(row for row in grid[2] if row.label == "ttt update_1")
    changed = replace(
        row, delta_vs_skip=Estimate(-0.5), seed_ci=Interval(1.0, 2.0), gain_slope=None, best_rule=None
    )
    frame = frame_of(TableRow, [changed])
    assert list(frame) == list(dtypes(TableRow))
    assert len(frame.columns) == 80
    (cells,) = frame.to_dict("records")
    assert row.delta_vs_plain is not None
    assert (cells["delta_vs_skip"], cells["seed_ci_low"], cells["seed_ci_high"]) == (-0.5, 1.0, 2.0)
    assert cells["delta_vs_plain_p"] == row.delta_vs_plain.p
    for empty in (
        "delta_ci_low",
        "delta_ci_high",
        "delta_vs_skip_p",
        "gain_slope",
        "gain_slope_ci_low",
        "best_rule",
    ):
        assert pd.isna(cells[empty])
    assert rows_of(TableRow, frame) == [changed]


def test_the_same_runs_give_the_same_bytes(
    grid: tuple[Path, list[Path], list[TableRow]], tmp_path: Path
) -> None:
    root, folders, _ = grid
    write_table(folders, CODE, STATISTICS, tmp_path, COMMAND)
    for name in ("paper_table.csv", "seeds.csv"):
        assert sha256_file(tmp_path / name) == sha256_file(root / name)


def test_a_table_edited_by_hand_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "paper_table.csv"
    write_table(small_world(tmp_path), CODE, STATISTICS, tmp_path, COMMAND)
    table.write_text(table.read_text().replace("2.25", "1.25", 1))
    with pytest.raises(CorruptFileError, match=r"paper_table.csv.*snakemake --force .*paper_table.csv"):
        read_results(table)


def test_a_table_of_one_stream_says_that_it_has_no_interval(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "none", "plain", 0, lambda s, c, k: 3.0, tokens=[[100, 20]])
    row = table_of([folder])["none", "plain"]
    assert row.ci is None
    assert "there is one stream" in row.note


def test_the_guide_states_what_the_table_says(
    grid: tuple[Path, list[Path], list[TableRow]], tmp_path: Path
) -> None:
    root, _, rows = grid
    write_reading_guide(root / "paper_table.csv", root / "README.md")
    text = (root / "README.md").read_text()
    by_label = {row.label: row for row in rows}
    row = by_label["ttt update_2"]
    assert (
        f"`update_2` against the trained adapter with 0 updates: **helped** ({value(row.delta_vs_skip):+.4f}"
        in text
    )
    assert "* lora update_4: hurt" in text
    assert f"{by_label['full'].cost_seconds:.3g} s" in text
    assert "worse than `full`" in text
    leak = by_label["ttt transductive"].loss - by_label["ttt update_1"].loss
    assert f"(b) leakage: scoring a chunk after learning from it: {leak:+.4f}" in text
    for provenance in (CODE[:16], sha256_file(root / "paper_table.csv"), "command: `snakemake", "numpy "):
        assert provenance in text


def test_the_three_parts_of_a_transductive_number_add_up(
    grid: tuple[Path, list[Path], list[TableRow]],
) -> None:
    rows = {row.label: row for row in grid[2]}
    names = ("plain", "ttt skip", "ttt update_1", "ttt transductive")
    losses = np.array([rows[name].loss for name in names])
    assert np.diff(losses).sum() == pytest.approx(losses[-1] - losses[0])
    assert (np.diff(losses) < 0).all()
