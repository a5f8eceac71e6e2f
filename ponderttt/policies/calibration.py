"""What training streams tell a rule beforehand: the values of its signals, and what its decisions came to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError


@dataclass(frozen=True)
class Calibration:
    """Signals of chunks of training streams; frozen before anything is evaluated."""

    #: Name of a signal -> its values, ascending.
    signals: Mapping[str, tuple[float, ...]]
    #: Name of a feature -> its mean and its standard deviation (1 where it never varies).
    features: Mapping[str, tuple[float, float]] = field(default_factory=dict)

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

    def to_json(self) -> str:
        """As text; :meth:`from_json` gives back the same numbers."""
        signals = {name: list(values) for name, values in self.signals.items()}
        return json.dumps({"signals": signals, "features": {n: list(v) for n, v in self.features.items()}})

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """The inverse of :meth:`to_json`.

        Raises:
            PonderTTTError: the text is not a calibration.
        """
        try:
            content = json.loads(text)
            signals = {str(name): _sorted(name, values) for name, values in content["signals"].items()}
            features = {
                str(name): (float(mean), float(scale)) for name, (mean, scale) in content["features"].items()
            }
            if not all(math.isfinite(number) for pair in features.values() for number in pair):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise PonderTTTError("not a calibration: write it again from training streams") from None
        return cls(signals, features)


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


def calibrate(
    signals: Mapping[str, Sequence[float]], features: Mapping[str, Sequence[float]] | None = None
) -> Calibration:
    """A calibration from one value per chunk of training streams.

    Args:
        signals: kept in full, for percentiles.
        features: of which mean and standard deviation are kept.

    Raises:
        PonderTTTError: a signal or a feature has no value, or one that is not finite.
    """
    scales = {}
    for name, raw in (features or {}).items():
        values = np.asarray(_sorted(name, raw))
        deviation = float(values.std())
        scales[name] = (float(values.mean()), deviation if deviation > 0 else 1.0)
    return Calibration({name: _sorted(name, values) for name, values in signals.items()}, scales)


def achieved(actions: Sequence[Action]) -> dict[Action, float]:
    """Share of each of the four actions among decisions that were taken.

    Raises:
        ValueError: there is none.
    """
    if not len(actions):
        raise ValueError("no decision was taken")
    return {action: sum(taken == action for taken in actions) / len(actions) for action in Action}
