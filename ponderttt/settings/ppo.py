"""Settings of PPO and of the controller that holds its budget, and their values at each iteration."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, WithJsonSchema

from ponderttt.names import RULE_METHODS
from ponderttt.settings.mapping import KeyProblem, settings
from ponderttt.settings.values import Count, NotNegative, Positive, Share, one_of

RuleName = Annotated[str, one_of(RULE_METHODS), WithJsonSchema({"enum": list(RULE_METHODS)})]


@settings
class PidConfig:
    """The controller of λ; errors are relative to the limit: 0.1 is a tenth above it."""

    proportional: NotNegative = Field(default=0.5, description="Gain of the smoothed error.")
    integral: NotNegative = Field(default=0.05, description="Gain of the summed error.")
    derivative: NotNegative = Field(default=0.25, description="Gain of the rise of the smoothed cost.")
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.95,
        description="Fraction of the old value that the smoothed error and the smoothed cost keep at each iteration.",
    )
    derivative_span: Count = Field(
        default=10, description="Number of iterations over which the rise of the cost is measured."
    )
    integral_max: Positive = Field(
        default=100.0,
        description="Largest summed error; times integral it is the most that the sum adds to λ.",
    )
    lambda_max: Positive = Field(default=5.0, description="Largest λ.")


@settings
class PPOConfig:
    """PPO with a PID-Lagrangian budget; a rollout is ``rollout`` chunks of each of ``environments`` streams."""

    iterations: Count = Field(
        default=100, description="Number of rollouts; each is followed by one update of the policy."
    )
    environments: Count = Field(default=8, description="Streams that are rolled out side by side.")
    rollout: Count = Field(default=64, description="Chunks of each stream in a rollout.")
    epochs: Count = Field(default=4, description="Passes over each rollout.")
    minibatches: Count = Field(
        default=4,
        description="Parts of a shuffled rollout, one optimiser step each; must divide rollout × environments.",
    )
    learning_rate: Positive = Field(default=1e-3, description="Learning rate at the first iteration.")
    final_learning_rate: NotNegative = Field(
        default=1e-4, description="Learning rate at the last iteration; it changes linearly."
    )
    clip: Positive = Field(default=0.2, description="Largest change of the probability ratio from 1.")
    value_clip: Positive | None = Field(
        default=None,
        description="Largest change of a value from the rollout's, in units of the returns; null is no limit.",
    )
    value_weight: NotNegative = Field(default=0.5, description="Weight of the critics' loss.")
    entropy_weight: NotNegative = Field(
        default=0.01, description="Weight of the entropy bonus at the first iteration."
    )
    final_entropy_weight: NotNegative = Field(
        default=0.0, description="Weight of the entropy bonus at the last iteration; it changes linearly."
    )
    grad_clip: Positive = Field(default=1.0, description="Largest norm of a gradient.")
    gamma: Share = Field(default=0.99, description="Discount per chunk.")
    gae_lambda: Share = Field(default=0.95, description="λ of the advantage estimate (GAE).")
    kl_limit: Positive = Field(
        default=0.03,
        description="Mean approximate KL divergence of an epoch above which the later epochs change nothing.",
    )
    pid: PidConfig = PidConfig()
    budget_curriculum_start: float | None = Field(
        default=None,
        description="Budget of the first iteration, which changes linearly to the real one over the first half; null is the "
        "real one throughout.",
    )
    warm_start: RuleName | None = Field(
        default="random",
        description="Rule whose decisions the policy first learns to copy; random starts at the budget and with no other "
        "knowledge. null starts untrained.",
    )
    checkpoint_every: Count = Field(default=5, description="Iterations between two checkpoints.")

    def __post_init__(self) -> None:
        if self.rollout * self.environments % self.minibatches:
            raise KeyProblem(
                "minibatches",
                f"must divide the {self.rollout} × {self.environments} chunks of a rollout, got {self.minibatches}",
            )

    def learning_rate_at(self, iteration: int) -> float:
        """Return the learning rate of iteration 0 … ``iterations`` − 1."""
        return _between(self.learning_rate, self.final_learning_rate, iteration, self.iterations - 1)

    def entropy_weight_at(self, iteration: int) -> float:
        """Return the weight of the entropy bonus of iteration 0 … ``iterations`` − 1."""
        return _between(self.entropy_weight, self.final_entropy_weight, iteration, self.iterations - 1)

    def budget_at(self, iteration: int, budget: float) -> float:
        """Return the limit on the mean cost per chunk of iteration 0 … ``iterations`` − 1, in the unit of ``budget``."""
        if self.budget_curriculum_start is None:
            return budget
        return _between(self.budget_curriculum_start, budget, iteration, self.iterations // 2)


def _between(first: float, last: float, place: int, steps: int) -> float:
    share = min(1.0, place / steps) if steps > 0 else 1.0
    return first + share * (last - first)
