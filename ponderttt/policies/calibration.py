"""What training streams tell a rule beforehand: the values of its signals, and what its decisions came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ponderttt.errors import PonderTTTError


@dataclass(frozen=True)
class Calibration:
    """Signals of chunks of training streams; frozen before anything is evaluated."""

    #: Name of a signal -> its values, ascending.
    signals: Mapping[str, tuple[float, ...]]

    def values(self, signal: str) -> tuple[float, ...]:
        """The values of a signal, ascending.

        Raises:
            PonderTTTError: it was not calibrated.
        """
        if signal not in self.signals:
            raise PonderTTTError(
                f"the calibration has no signal '{signal}', only {', '.join(self.signals)}: calibrate it on training streams"
            )
        return self.signals[signal]


def _sorted(name: str, values: Sequence[float]) -> tuple[float, ...]:
    if not len(values):
        raise PonderTTTError(
            f"signal '{name}' has no value to calibrate on: give at least one chunk of a training stream"
        )
    ordered = tuple(sorted(float(value) for value in values))
    if not all(math.isfinite(value) for value in ordered):
        raise PonderTTTError(
            f"signal '{name}' is not finite on some calibration chunk: leave such chunks out or mend the signal"
        )
    return ordered


def calibrate(signals: Mapping[str, Sequence[float]]) -> Calibration:
    """A calibration from one value per chunk of training streams, kept in full for percentiles.

    Raises:
        PonderTTTError: a signal has no value, or one that is not finite.
    """
    return Calibration({name: _sorted(name, values) for name, values in signals.items()})
