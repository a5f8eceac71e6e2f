"""Settings of PPO and of the controller that holds its budget, and what they are at each iteration."""

from __future__ import annotations

from dataclasses import dataclass, field

from ponderttt.errors import ConfigError, unknown
from ponderttt.names import RULE_METHODS


@dataclass(frozen=True)
class PidConfig:
    """Of :mod:`ponderttt.training.ppo.pid`; errors are relative to the limit: 0.1 is a tenth above it."""

    proportional: float = 0.5
    integral: float = 0.05
    derivative: float = 0.25
    #: Share of the old value that the smoothed error and the smoothed cost keep at each iteration.
    smoothing: float = 0.95
    #: The derivative is the rise of the smoothed cost over so many iterations.
    derivative_span: int = 10
    #: The summed error stays between 0 and this: times ``integral``, the most that it can add to λ.
    integral_max: float = 100.0
    lambda_max: float = 5.0

    def __post_init__(self) -> None:
        for name in ("proportional", "integral", "derivative"):
            _check(f"pid {name}", getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _check("pid smoothing", self.smoothing, 0 <= self.smoothing < 1, "at least 0 and less than 1")
        _check("pid derivative_span", self.derivative_span, self.derivative_span >= 1, "at least 1")
        _check("pid integral_max", self.integral_max, self.integral_max > 0, "greater than 0")
        _check("pid lambda_max", self.lambda_max, self.lambda_max > 0, "greater than 0")


@dataclass(frozen=True)
class PPOConfig:
    """Of the training of one policy; a rollout is ``rollout`` chunks of ``environments`` streams."""

    iterations: int = 100
    environments: int = 8
    rollout: int = 64
    epochs: int = 4
    #: Parts of a shuffled rollout; one optimiser step each.
    minibatches: int = 4
    learning_rate: float = 1e-3
    #: Reached linearly at the last iteration.
    final_learning_rate: float = 1e-4
    clip: float = 0.2
    #: How far a value may move from what it was in the rollout, in units of the returns; ``None`` is any distance.
    value_clip: float | None = None
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    #: Reached linearly at the last iteration.
    final_entropy_weight: float = 0.0
    grad_clip: float = 1.0
    gamma: float = 0.99
    gae_lambda: float = 0.95
    #: Once the mean approximate KL divergence of an epoch is above this, the later epochs change nothing.
    kl_limit: float = 0.03
    pid: PidConfig = field(default_factory=PidConfig)
    #: Budget of the first iteration, from which it goes linearly to the real one at half of the iterations.
    budget_curriculum_start: float | None = None
    #: Rule whose decisions the policy is first taught to copy; ``random`` starts on budget and knows nothing else.
    warm_start: str | None = "random"
    #: Iterations between two checkpoints.
    checkpoint_every: int = 5

    def __post_init__(self) -> None:
        for name in ("iterations", "environments", "rollout", "epochs", "minibatches", "checkpoint_every"):
            value = getattr(self, name)
            _check(f"ppo {name}", value, value >= 1, "at least 1")
        for name in ("learning_rate", "clip", "grad_clip", "kl_limit"):
            value = getattr(self, name)
            _check(f"ppo {name}", value, value > 0, "greater than 0")
        for name in ("final_learning_rate", "value_weight", "entropy_weight", "final_entropy_weight"):
            value = getattr(self, name)
            _check(f"ppo {name}", value, value >= 0, "at least 0")
        for name in ("gamma", "gae_lambda"):
            value = getattr(self, name)
            _check(f"ppo {name}", value, 0 <= value <= 1, "between 0 and 1")
        if self.warm_start is not None and self.warm_start not in RULE_METHODS:
            raise ConfigError(unknown("ppo warm_start", self.warm_start, RULE_METHODS))
        if self.value_clip is not None:
            _check("ppo value_clip", self.value_clip, self.value_clip > 0, "greater than 0, or null")
        if self.rollout * self.environments % self.minibatches:
            raise ConfigError(
                f"ppo minibatches is {self.minibatches}, which does not divide the {self.rollout} × {self.environments} "
                "chunks of a rollout; choose a divisor"
            )

    def learning_rate_at(self, iteration: int) -> float:
        """Step size of iteration 0 … ``iterations`` − 1."""
        return _between(self.learning_rate, self.final_learning_rate, iteration, self.iterations - 1)

    def entropy_weight_at(self, iteration: int) -> float:
        """Weight of the entropy bonus of iteration 0 … ``iterations`` − 1."""
        return _between(self.entropy_weight, self.final_entropy_weight, iteration, self.iterations - 1)

    def budget_at(self, iteration: int, budget: float) -> float:
        """Mean cost per chunk that iteration 0 … ``iterations`` − 1 is held to, in the unit of ``budget``."""
        if self.budget_curriculum_start is None:
            return budget
        return _between(self.budget_curriculum_start, budget, iteration, self.iterations // 2)


def _between(first: float, last: float, place: int, steps: int) -> float:
    share = min(1.0, place / steps) if steps > 0 else 1.0
    return first + share * (last - first)


def _check(name: str, value: float, good: bool, what: str) -> None:
    if not good:
        raise ConfigError(f"{name} is {value}; it is {what}")
