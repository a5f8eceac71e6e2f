"""Loss against cost over budgets: a panel per fast weights, a line per policy, its area in the legend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.names import BUDGETED_METHODS, CONTROL_METHODS, OTHER_PROTOCOLS, split_method
from ponderttt.reporting.figures.style import in_style, look_of_method, panel_grid, save
from ponderttt.reporting.numbers.rows import FrontierRow, read_frontier, without_control_corpora
from ponderttt.reporting.numbers.statistics import lower_envelope

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The unit of budgets, in which policies of one budget stand above each other whatever their signals cost.
MEASURE = "nominal"


@in_style
def frontier(table: Path | str, path: Path | str, outputs: Sequence[Path | str]) -> None:
    """The lower envelope of every policy over budgets, against nominal cost.

    Args:
        table: ``paper_table.csv``, beside it the manifest.
        path: ``frontier.csv``.
        outputs: files to write, the suffix decides the format.

    Raises:
        PonderTTTError: a file is missing or damaged, or no policy has two costs.
    """
    panels: dict[tuple[str, str, str], list[FrontierRow]] = {}
    for row in without_control_corpora(table, read_frontier(path)):
        base, _ = split_method(row.method)
        if (
            row.cost_measure == MEASURE
            and row.fast_weights != "none"
            and base not in (*CONTROL_METHODS, *OTHER_PROTOCOLS)
        ):
            panels.setdefault((row.corpus, row.model, row.fast_weights), []).append(row)
    panels = {key: rows for key, rows in panels.items() if any(row.n_costs > 1 for row in rows)}
    if not panels:
        raise PonderTTTError(f"{path}: no policy has two costs; add update_1 or grid.more_budgets")
    most = max(len({row.policy for row in rows}) for rows in panels.values())
    figure, axes = panel_grid(len(panels), 3, 4.1, 3.4 + 0.18 * most)
    for panel, ((corpus, model, fast_weights), rows) in zip(axes, panels.items(), strict=True):
        _panel(panel, rows)
        panel.set_title(f"{fast_weights}\n{model} on {corpus}", fontsize=9)
    figure.supylabel("loss, nats per token", fontsize=9)
    figure.supxlabel("nominal cost per chunk (SKIP = 1)", fontsize=9)
    save(figure, outputs)


def _panel(panel: Axes, rows: Sequence[FrontierRow]) -> None:
    policies: dict[str, list[FrontierRow]] = {}
    for row in rows:
        policies.setdefault(row.policy, []).append(row)
    order = ["fixed", *BUDGETED_METHODS]
    for policy in sorted(policies, key=lambda name: order.index(name) if name in order else len(order)):
        points = policies[policy]
        colour, marker = look_of_method(policy, policies)
        cost, loss = np.array([(row.cost, row.loss) for row in points]).T
        line = lower_envelope(cost, loss)
        panel.plot(
            line.cost,
            line.loss,
            color=colour,
            lw=1.3,
            ls=":" if policy.endswith("oracle") else "--" if policy in ("fixed", "random") else "-",
        )
        panel.plot(cost, loss, marker, color=colour, ms=4.5, ls="none", label=_label(points[0]))
    # Not logarithmic: a mixture of two points lies on the line between them.
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
    text = f"{row.policy}: {row.area:.4f}"
    if row.area_vs_random is None:
        return text
    text += f" ({1e3 * row.area_vs_random:+.1f}"
    if row.area_vs_random_ci_low is not None and row.area_vs_random_ci_high is not None:
        text += f" [{1e3 * row.area_vs_random_ci_low:+.1f}, {1e3 * row.area_vs_random_ci_high:+.1f}]"
    return text + ")"
