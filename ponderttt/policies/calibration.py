"""Calibrations: signals of training chunks that rules rank by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ponderttt.errors import PonderTTTError


@dataclass(frozen=True)
class Calibration:
    """Signals of chunks of training streams, fixed before evaluation: name → values, ascending."""

    signals: Mapping[str, tuple[float, ...]]

    def values(self, signal: str) -> tuple[float, ...]:
        """Return the values of a signal, ascending.

        Raises:
            PonderTTTError: the calibration does not have the signal.
        """
        if signal not in self.signals:
            raise PonderTTTError(
                f"the calibration has no signal '{signal}', only {', '.join(self.signals)}: calibrate it on training streams"
            )
        return self.signals[signal]


def _sorted(name: str, values: Sequence[float] | Float[np.ndarray, " M"]) -> tuple[float, ...]:
    if not len(values):
        raise PonderTTTError(
            f"signal '{name}' has no values: calibrate it on at least one chunk of a training stream"
        )
    ordered = tuple(sorted(float(value) for value in values))
    if not all(math.isfinite(value) for value in ordered):
        raise PonderTTTError(
            f"signal '{name}' is not finite on some calibration chunk: leave such chunks out or fix the signal"
        )
    return ordered


def calibrate(signals: Mapping[str, Sequence[float] | Float[np.ndarray, " M"]]) -> Calibration:
    """Return a calibration from one value per chunk of training streams.

    Raises:
        PonderTTTError: a signal has no values, or one that is not finite.
    """
    return Calibration({name: _sorted(name, values) for name, values in signals.items()})
