"""Loss against nominal cost over budgets: a panel per fast weights, a line per policy, its area in the legend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.names import BUDGETED_METHODS, CONTROL_METHODS, OTHER_PROTOCOLS, MethodName
from ponderttt.reporting.figures.style import by_panel, in_style, look_of_method, save, titled_panels
from ponderttt.reporting.numbers.columns import rows_of
from ponderttt.reporting.numbers.envelope import lower_envelope
from ponderttt.reporting.numbers.results import Results
from ponderttt.reporting.numbers.rows import FrontierRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The unit of budgets: at this cost, policies with one budget are in one column, with cheap and expensive signals alike.
MEASURE = "nominal"


@in_style
def frontier(results: Results, outputs: Sequence[Path | str]) -> None:
    """Draw the lower envelope of every policy over its budgets, against nominal cost.

    Args:
        results: the result files.
        outputs: files to write; the suffix decides the format.

    Raises:
        PonderTTTError: no policy has two costs.
    """
    rows = results.without_controls.frontier
    hidden = [MethodName.parse(method).base in (*CONTROL_METHODS, *OTHER_PROTOCOLS) for method in rows.method]
    rows = rows[
        (rows.cost_measure == MEASURE) & (rows.fast_weights != "none") & ~pd.Series(hidden, rows.index, bool)
    ]
    panels = {key: mine for key, mine in by_panel(rows).items() if (mine.n_costs > 1).any()}
    if not panels:
        raise PonderTTTError(f"{results.path}: no policy has two costs; add update_1 or grid.more_budgets")
    most = max(mine.policy.nunique() for mine in panels.values())
    figure, drawn = titled_panels(panels, 3.4 + 0.18 * most)
    for panel, mine in drawn:
        _panel(panel, mine)
    figure.supylabel("loss, nats per token", fontsize=9)
    figure.supxlabel("nominal cost per chunk (SKIP = 1)", fontsize=9)
    save(figure, outputs)


def _panel(panel: Axes, rows: pd.DataFrame) -> None:
    order = ["fixed", *BUDGETED_METHODS]
    policies = dict(iter(rows.groupby("policy", sort=False)))
    for policy in sorted(policies, key=lambda name: order.index(name) if name in order else len(order)):
        points = policies[policy]
        colour, marker = look_of_method(policy, policies)
        line = lower_envelope(points.cost.to_numpy(), points.loss.to_numpy())
        style = ":" if policy.endswith("oracle") else "--" if policy in ("fixed", "random") else "-"
        panel.plot(line.cost, line.loss, color=colour, lw=1.3, ls=style)
        label = _label(rows_of(FrontierRow, points)[0])
        panel.plot(points.cost, points.loss, marker, color=colour, ms=4.5, ls="none", label=label)
    # Linear, since a mixture of two points is on the line between them.
    ticks = [action.nominal_cost for action in Action]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.1),
        title="mean loss over shared costs (minus random, 10⁻³)",
        title_fontsize=8.5,
        fontsize=8.5,
    )


def _label(row: FrontierRow) -> str:
    if row.area is None:
        return f"{row.policy}: one cost only"
    versus = f" ({row.area_vs_random.text('+.1f', 1e3)})" if row.area_vs_random else ""
    return f"{row.policy}: {row.area.value:.4f}{versus}"
