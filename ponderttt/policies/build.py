"""The policy of each method that needs no training."""

from __future__ import annotations

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.names import CONTROL_METHODS, FIXED_METHODS, ORACLE_METHODS, OTHER_PROTOCOLS
from ponderttt.policies.base import Policy
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.calibration import Calibration
from ponderttt.policies.rules import Fixed, Random, Schedule
from ponderttt.policies.signal_rules import Adaptive, Percentile, Reconstruction
from ponderttt.settings.rules import RulesConfig

#: Method → the signal that it ranks by.
CALIBRATED_ON = {
    "entropy": "entropy",
    "loss": "loss",
    "reconstruction": "reconstruction",
    "adaptive": "loss",
}


def policy_of(
    method: str,
    *,
    budget: float,
    costs: tuple[float, ...] = NOMINAL_COSTS,
    calibration: Calibration | None = None,
    rules: RulesConfig | None = None,
) -> Policy:
    """Return the policy of a method that is neither learned nor an oracle.

    Args:
        method: one of :data:`ponderttt.names.METHODS`.
        budget: mean cost per chunk, in the unit of ``costs``; methods without a budget ignore it.
        costs: costs of the four actions, in multiples of SKIP.
        calibration: signals of training chunks; the methods in :data:`CALIBRATED_ON` need them.
        rules: settings of the rules; None for the defaults.

    Raises:
        PonderTTTError: a rule lacks its calibration, no mixture of the actions has the budget, or a setting is bad.
        ValueError: an oracle, a learned or an unknown method.
    """
    rules = rules or RulesConfig()
    shares = rules.allocation or None
    if method in FIXED_METHODS:
        return Fixed(Action[method.upper()], costs)
    if method in CONTROL_METHODS or method in OTHER_PROTOCOLS:
        return Fixed(Action.UPDATE_1, costs)
    if method == "random":
        return Random(budget, costs)
    if method == "schedule":
        return Schedule(tuple(Action[name] for name in rules.schedule), costs)
    if method in ORACLE_METHODS:
        raise ValueError(f"{method} replays a stream and has no policy")
    if method not in CALIBRATED_ON:
        raise ValueError(f"unknown method {method!r}")
    if calibration is None:
        raise PonderTTTError(
            f"the rule '{method}' has no calibration: calibrate '{CALIBRATED_ON[method]}' on training streams first"
        )
    values = calibration.values(CALIBRATED_ON[method])
    if method == "adaptive":
        return Adaptive(values, budget, costs, rules.ema_step)
    if method == "reconstruction":
        return Reconstruction(values, budget, costs, shares, rules.ema_step)
    return Percentile(method, values, budget, costs, shares)
