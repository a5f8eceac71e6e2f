"""What a difference needs so that the guide may call it clear, and the section of declared comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ponderttt.reporting.numbers.columns import Estimate
from ponderttt.reporting.numbers.rows import ConfirmatoryRow
from ponderttt.reporting.numbers.significance import fewest_streams, largest_p
from ponderttt.reporting.numbers.statistics import Interval

_WORDS = {-1: "helped", 0: "no clear difference", 1: "hurt"}


def shown(estimate: Estimate | None, form: str = "+.4f") -> str:
    """Return a value with its interval and p value, or a dash."""
    if estimate is None:
        return "–"
    return estimate.text(form) + ("" if estimate.p is None else f", p = {estimate.p:.2g}")


def sign_of(cell: Estimate | Interval | None) -> int | None:
    """Return −1 or 1 if the interval excludes zero, 0 if it does not, and None without an interval."""
    if cell is None or cell.low is None or cell.high is None:
        return None
    return -1 if cell.high < 0 else int(cell.low > 0)


def verdict_over_seeds(interval: Interval) -> str:
    """Return what a difference means, judged by its interval over seeds."""
    return _WORDS[sign_of(interval) or 0]


@dataclass(frozen=True)
class ClaimRule:
    """The rule for one corpus: a difference is clear if its interval excludes zero and p is small enough.

    Where streams are so few that no p value is small enough, nothing is claimed.
    """

    confidence: float
    n_streams: int

    @property
    def percent(self) -> str:
        """The confidence in words."""
        return f"{100 * self.confidence:g} %"

    @property
    def too_few(self) -> str | None:
        """The sentence that stands in place of claims; None if there are enough streams."""
        if self.n_streams >= fewest_streams(self.confidence):
            return None
        return f"n = {self.n_streams} streams: too few for a claim"

    def sign(self, cell: Estimate | None) -> int | None:
        """Return −1 or 1 for a clear difference, 0 for none, and None where nothing can be claimed."""
        sign = None if self.too_few else sign_of(cell)
        if sign is None or cell is None or cell.p is None:
            return sign
        return sign if cell.p <= 1 - self.confidence + 1e-12 else 0

    def verdict(self, difference: Estimate | None) -> str:
        """Return what a paired difference in loss means."""
        if self.too_few:
            return "too few streams for a claim"
        sign = self.sign(difference)
        return "unknown (no interval)" if sign is None else _WORDS[sign]

    def judged(self, difference: Estimate | None) -> str:
        """Return a paired difference in loss with what it means, or alone where nothing can be claimed."""
        return shown(difference) if self.too_few else f"**{self.verdict(difference)}** ({shown(difference)})"

    def by_chance(self, comparisons: int) -> str:
        """Return how many of some comparisons are clearly better if nothing has an effect: p is two-sided, better one side."""
        expected = comparisons * largest_p(self.n_streams, self.confidence) / 2
        return f"at most {expected:.2g} expected by chance"


def confirmatory_section(
    rows: Sequence[ConfirmatoryRow], confidence: float, control: Callable[[ConfirmatoryRow, ClaimRule], str]
) -> Iterator[str]:
    """Yield the declared comparisons with their corrected p values, or that there are none.

    Args:
        rows: the comparisons.
        confidence: of the intervals.
        control: says what the controls of a comparison show.
    """
    yield "## Confirmatory comparisons"
    yield ""
    if not rows:
        yield (
            "The configuration declares none (`statistics.confirmatory`). So **everything on this page is exploratory**: p values "
            "are not corrected for the number of comparisons, and the best arms are chosen after the fact. Test what looks good "
            "on new streams."
        )
        yield ""
        return
    yield (
        f"The configuration declares them (`statistics.confirmatory`). Their p values are corrected for all {len(rows)} rows "
        "(Holm). **Everything else on this page is exploratory**: its p values are not corrected, and the best arms are chosen "
        "after the fact."
    )
    yield ""
    yield "| comparison | model | corpus | streams | difference | corrected p | finding | controls |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        rule = ClaimRule(confidence, row.n_streams)
        finding = rule.verdict(row.difference._replace(p=row.p_holm))
        yield (
            f"| {row.label} | {row.model} | {row.corpus} | {row.n_streams} | {shown(row.difference)} | {row.p_holm:.2g} | "
            f"{f'**{finding}**' if finding in ('helped', 'hurt') else finding} | {control(row, rule)} |"
        )
    yield ""
