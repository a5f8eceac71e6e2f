"""Check that a table has every arm of its grid, with finite numbers and intervals: `check_table.py CONFIG`."""

import sys
from pathlib import Path

from ponderttt.reporting.numbers.columns import rows_of
from ponderttt.reporting.numbers.results import read_results
from ponderttt.reporting.numbers.rows import TableRow
from ponderttt.settings.experiment import load
from ponderttt.workflow.layout import grid_runs


def problems(config_path: str) -> list[str]:
    """What is wrong with the table of a study; nothing if it is whole."""
    experiment = load(config_path)
    results = Path(experiment.results_dir)
    table = rows_of(TableRow, read_results(results / "paper_table.csv").table)
    rows = {(row.corpus, row.model, row.fast_weights, row.method): row for row in table}
    wanted: dict[tuple[str, str, str, str], int] = {}
    for run in grid_runs(experiment):
        key = (run.corpus, run.model, run.fast_weights, run.method)
        wanted[key] = wanted.get(key, 0) + 1
    found = [f"{key}: no such row" for key in wanted if key not in rows]
    found += [f"{key}: a row that the grid does not ask for" for key in rows if key not in wanted]
    for key, row in rows.items():
        if row.n_seeds != wanted.get(key):
            found.append(f"{key}: {row.n_seeds} seeds, expected {wanted.get(key)}")
        if row.ci is None or not row.ci.low <= row.loss <= row.ci.high:
            found.append(f"{key}: loss {row.loss} is not within its interval {row.ci}")
        # A code model that has read Python: neither guessing (10.8 nats) nor knowing (0).
        if not 0.3 < row.loss < 5.0:
            found.append(f"{key}: a loss of {row.loss} nats per token is not credible")
        if not (row.cost_flops > 0 and row.cost_seconds > 0 and row.n_tokens > 0):
            found.append(f"{key}: no cost or no tokens")
        if row.method in ("update_1", "random") and (
            row.delta_vs_skip is None or row.delta_vs_skip.low is None
        ):
            found.append(f"{key}: no paired interval against skip")
    report = results / "report.html"
    if not report.is_file() or report.stat().st_size < 10_000:
        found.append(f"{report}: missing or empty")
    return found


if __name__ == "__main__":
    complaints = problems(sys.argv[1])
    if complaints:
        sys.exit("\n".join(complaints))
    print("the table is whole")
