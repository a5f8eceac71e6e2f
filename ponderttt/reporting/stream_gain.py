"""Does adaptation grow with the stream?  The gain of updates at each chunk index, with its band over streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ponderttt.config import StatisticsConfig
from ponderttt.errors import PonderTTTError
from ponderttt.reporting.arms import Arm, load_arms
from ponderttt.reporting.comparisons import difference, find, pair
from ponderttt.reporting.style import BLACK, in_style, look_of_method, new_figure, save
from ponderttt.statistics import StreamResamples, named_generator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Positions in the stream that fewer streams reach are not drawn.
MIN_STREAMS = 3


class GainCurve(NamedTuple):
    """Gain (loss of the reference minus loss of the arm, nats per token) at P positions of the stream."""

    position: Int[np.ndarray, " P"]
    n_streams: Int[np.ndarray, " P"]
    gain: Float[np.ndarray, " P"]
    low: Float[np.ndarray, " P"]
    high: Float[np.ndarray, " P"]


def gain_curve(arm: Arm, reference: Arm, resamples: StreamResamples, confidence: float) -> GainCurve | None:
    """Token-weighted mean gain for each chunk index, with the bootstrap band over streams.

    Returns:
        The curve over positions that :data:`MIN_STREAMS` streams reach (or all streams, if there are fewer);
        ``None`` if the arms have no seed in common.
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
    bands = [resamples.interval(nats[:, p], tokens[:, p], confidence) for p in position]
    gain = nats[:, position].sum(axis=0) / tokens[:, position].sum(axis=0)
    low = np.array([band.low if band else np.nan for band in bands])
    high = np.array([band.high if band else np.nan for band in bands])
    return GainCurve(position, reached[position], gain, low, high)


@in_style
def gain_along_stream(
    run_folders: Sequence[Path | str],
    expected_code: str | None,
    statistics: StatisticsConfig,
    outputs: Sequence[Path | str],
    *,
    allow_missing: bool = False,
) -> None:
    """Does adaptation grow with the stream?  One row of panels per corpus, model and reference.

    The upper row is the gain over the trained adapter with 0 updates, which is what updating brings; the lower row is
    the gain over the plain backbone, with ``skip`` and ``context_1`` beside the updates.  The legends of the upper row
    give the growth per chunk with its interval.

    Args:
        run_folders: the folders of the table's records; ``score_first`` arms are drawn.
        expected_code: see :func:`ponderttt.reporting.tables.write_table`.
        statistics: bootstrap samples, confidence and seed.
        outputs: files to write, the suffix decides the format.
        allow_missing: draw what exists.

    Raises:
        PonderTTTError: runs are missing or damaged, or no arm updates.
    """
    arms, _, _ = load_arms([Path(f) for f in run_folders], expected_code, allow_missing=allow_missing)
    arms = [arm for arm in arms if arm.key.protocol == "score_first"]
    kinds = list(dict.fromkeys(arm.key.fast_weights for arm in arms if arm.measures["steps"].any()))
    groups = list(dict.fromkeys((arm.key.corpus, arm.key.model) for arm in arms))
    if not kinds:
        raise PonderTTTError("no arm makes an update, so there is no gain along the stream to draw")
    figure, axes = new_figure(
        2 * len(groups), len(kinds), 1.5 + 5.0 * len(kinds), 7.6 * len(groups), share_y="row"
    )
    for g, group in enumerate(groups):
        mine = [arm for arm in arms if (arm.key.corpus, arm.key.model) == group]
        generator = named_generator(statistics.seed, "streams", group[0])
        resamples = StreamResamples.draw(len(mine[0].chunks.streams), statistics.bootstrap_samples, generator)
        for k, kind in enumerate(kinds):
            for reference, panel in (("skip", axes[2 * g, k]), ("plain", axes[2 * g + 1, k])):
                _gain_panel(panel, mine, kind, reference, resamples, statistics.confidence)
            axes[2 * g, k].set_title(f"{kind}: {group[1]} on {group[0]}")
        axes[2 * g, 0].set_ylabel("gain over the trained adapter\nwith 0 updates, nats per token")
        axes[2 * g + 1, 0].set_ylabel("gain over the plain backbone,\nnats per token")
    save(figure, outputs)


def _gain_panel(
    panel: Axes, arms: Sequence[Arm], kind: str, reference: str, resamples: StreamResamples, confidence: float
) -> None:
    of_kind = [arm for arm in arms if arm.key.fast_weights == kind]
    if reference == "skip":
        shown = [arm for arm in of_kind if arm.measures["steps"].any()]
        base = find(arms, of_kind[0], kind, "skip")
    else:
        context = [arm for arm in arms if arm.key.fast_weights == "none" and arm.key.method != "plain"]
        shown = context + of_kind
        base = find(arms, of_kind[0], "none", "plain")
    methods = [arm.key.method for arm in shown]
    longest: GainCurve | None = None
    for arm in shown:
        curve = gain_curve(arm, base, resamples, confidence) if base else None
        if base is None or curve is None:
            continue
        colour, marker = look_of_method(arm.key.method, methods)
        label = arm.key.method
        if reference == "skip":
            label += _growth(arm, base, resamples, confidence)
        dots = marker if len(curve.position) <= 40 else ""
        panel.plot(curve.position, curve.gain, color=colour, marker=dots, ms=4.5, lw=1.4, label=label)
        panel.fill_between(curve.position, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        longest = curve
    panel.axhline(0, color=BLACK, lw=0.8)
    if longest is None:
        panel.set_title(f"no {reference} arm to compare with", fontsize=9)
        return
    every = max(1, math.ceil(len(longest.position) / 12))
    panel.set_xticks(
        longest.position[::every],
        [f"{p}\n{n}" for p, n in zip(longest.position[::every], longest.n_streams[::every], strict=True)],
    )
    panel.set_xlabel("chunk of the stream (below: how many streams reach it)")
    title = "growth per chunk, 10⁻³ nats per token" if reference == "skip" else None
    panel.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2 if reference == "skip" else 3, title=title
    )


def _growth(arm: Arm, base: Arm, resamples: StreamResamples, confidence: float) -> str:
    found = difference(arm, base, resamples, confidence)
    if found is None or found.slope is None:
        return ""
    text = f": {1e3 * found.slope:+.2f}"
    if found.slope_interval:
        text += f" [{1e3 * found.slope_interval.low:+.2f}, {1e3 * found.slope_interval.high:+.2f}]"
    return text
