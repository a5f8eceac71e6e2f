"""The gain of updates at each position of the stream, with its band over streams: does adaptation grow?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ponderttt.errors import PonderTTTError
from ponderttt.names import CONTROL_METHODS
from ponderttt.reporting.figures.style import BLACK, PanelKey, in_style, look_of_method, save, titled_panels
from ponderttt.reporting.numbers.arms import Arm
from ponderttt.reporting.numbers.comparisons import difference, find, pair
from ponderttt.reporting.numbers.methods import FIXED_SCHEDULES, ORACLES
from ponderttt.reporting.numbers.sampling import StreamSampling
from ponderttt.reporting.numbers.statistics import RatioTerms
from ponderttt.settings.statistics import StatisticsConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Only positions that this many streams reach are drawn.
MIN_STREAMS = 3


class GainCurve(NamedTuple):
    """Gain (loss of the reference minus loss of the arm, nats per token) at P positions of the stream."""

    position: Int[np.ndarray, " P"]
    n_streams: Int[np.ndarray, " P"]
    gain: Float[np.ndarray, " P"]
    low: Float[np.ndarray, " P"]
    high: Float[np.ndarray, " P"]


def gain_curve(arm: Arm, reference: Arm, sampling: StreamSampling) -> GainCurve | None:
    """Return the token-weighted mean gain at each position of the stream, with the band of its intervals over streams.

    Returns:
        The curve over positions that :data:`MIN_STREAMS` streams reach (or all streams, if there are fewer);
        None if the arms have no seed in common.
    """
    paired = pair(arm, reference)
    if paired is None:
        return None
    chunks, n_streams = arm.chunks, len(arm.chunks.streams)
    length = int(chunks.chunk_index.max()) + 1
    tokens = np.zeros((n_streams, length))
    nats = np.zeros((n_streams, length))
    tokens[chunks.stream, chunks.chunk_index] = chunks.n_tokens
    nats[chunks.stream, chunks.chunk_index] = (paired.theirs - paired.ours).mean(axis=0) * chunks.n_tokens
    reached = (tokens > 0).sum(axis=0)
    position = np.flatnonzero(reached >= min(MIN_STREAMS, n_streams))
    bands = [sampling.interval(RatioTerms(nats[:, p], tokens[:, p])) for p in position]
    gain = nats[:, position].sum(axis=0) / tokens[:, position].sum(axis=0)
    low = np.array([band.low if band else np.nan for band in bands])
    high = np.array([band.high if band else np.nan for band in bands])
    return GainCurve(position, reached[position], gain, low, high)


@in_style
def gain_along_stream(
    arms: Sequence[Arm], statistics: StatisticsConfig, outputs: Sequence[Path | str]
) -> None:
    """Draw the gain over the trained adapter with 0 updates along the stream, a panel per fast weights.

    It shows UPDATE_1, UPDATE_4, random decisions and the policy with the lowest loss at the budget of the grid.  The legends
    give the growth per chunk with its interval.

    Args:
        arms: arms of the table, without control corpora; only ``score_first`` arms are drawn.
        statistics: bootstrap samples, confidence and seed.
        outputs: files to write; the suffix decides the format.

    Raises:
        PonderTTTError: no arm with fast weights makes an update.
    """
    panels: dict[PanelKey, list[Arm]] = {}
    for arm in arms:
        if arm.key.protocol == "score_first" and arm.key.fast_weights != "none":
            panels.setdefault((arm.key.corpus, arm.key.model, arm.key.fast_weights), []).append(arm)
    panels = {key: mine for key, mine in panels.items() if _shown(mine)}
    if not panels:
        raise PonderTTTError("no arm makes an update, so there is no gain along the stream to draw")
    figure, drawn = titled_panels(panels, 4.0)
    for panel, mine in drawn:
        sampling = StreamSampling.of(len(mine[0].chunks.streams), mine[0].key.corpus, statistics)
        _gain_panel(panel, mine, sampling)
    figure.supylabel("gain over 0 updates, nats per token", fontsize=9)
    figure.supxlabel("chunk of the stream (below: how many streams reach it)", fontsize=9)
    save(figure, outputs)


def _shown(arms: Sequence[Arm]) -> dict[str, Arm]:
    """Return label → arm to draw, for one kind of fast weights."""
    updating = {arm.key.method: arm for arm in arms if arm.measures["steps"].any()}
    shown: dict[str, Arm] = {
        name: updating[name] for name in ("update_1", "update_4", "random") if name in updating
    }
    policies = [
        arm
        for name, arm in updating.items()
        if arm.name.budget is None and name not in (*FIXED_SCHEDULES, "random", *ORACLES, *CONTROL_METHODS)
    ]
    if policies:
        best = min(policies, key=lambda arm: arm.mean_loss)
        shown[f"best policy: {best.key.method}" if len(policies) > 1 else best.key.method] = best
    return shown


def _gain_panel(panel: Axes, arms: Sequence[Arm], sampling: StreamSampling) -> None:
    base = find(arms, arms[0], arms[0].key.fast_weights, "skip")
    panel.axhline(0, color=BLACK, lw=0.8)
    if base is None:
        panel.set_xlabel("no skip arm to compare with")
        return
    longest: GainCurve | None = None
    for label, arm in _shown(arms).items():
        curve = gain_curve(arm, base, sampling)
        if curve is None:
            continue
        colour, marker = look_of_method(arm.key.method, [other.key.method for other in arms])
        dots = marker if len(curve.position) <= 40 else ""
        text = label + _growth(arm, base, sampling)
        panel.plot(curve.position, curve.gain, color=colour, marker=dots, ms=4.5, lw=1.4, label=text)
        panel.fill_between(curve.position, curve.low, curve.high, color=colour, alpha=0.12, lw=0)
        longest = curve
    if longest is None:
        return
    every = max(1, math.ceil(len(longest.position) / 12))
    panel.set_xticks(
        longest.position[::every],
        [f"{p}\n{n}" for p, n in zip(longest.position[::every], longest.n_streams[::every], strict=True)],
    )
    panel.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        title="growth per chunk, 10⁻³ nats per token",
        title_fontsize=8.5,
        fontsize=8.5,
    )


def _growth(arm: Arm, base: Arm, sampling: StreamSampling) -> str:
    found = difference(arm, base, sampling)
    if found is None or found.slope is None:
        return ""
    return f": {found.slope.text('+.2f', 1e3)}"
