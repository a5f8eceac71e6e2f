"""Settings of PPO: what changes with the iteration, and what is refused."""

from __future__ import annotations

import pytest

from ponderttt.errors import ConfigError
from ponderttt.settings.ppo import PidConfig, PPOConfig


def test_rates_and_weights_go_linearly_to_their_last_values():
    config = PPOConfig(
        iterations=11,
        learning_rate=1e-3,
        final_learning_rate=0.0,
        entropy_weight=0.02,
        final_entropy_weight=0.01,
    )
    assert [config.learning_rate_at(i) for i in (0, 5, 10)] == pytest.approx([1e-3, 5e-4, 0.0])
    assert [config.entropy_weight_at(i) for i in (0, 5, 10)] == pytest.approx([0.02, 0.015, 0.01])


def test_the_budget_curriculum_reaches_the_budget_at_half_and_stays():
    config = PPOConfig(iterations=10, budget_curriculum_start=8.0)
    assert [config.budget_at(i, 3.0) for i in (0, 1, 5, 9)] == [8.0, 7.0, 3.0, 3.0]
    assert [PPOConfig(iterations=10).budget_at(i, 3.0) for i in (0, 9)] == [3.0, 3.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PPOConfig(minibatches=3), "minibatches must divide the 64 × 8 chunks of a rollout, got 3"),
        (lambda: PPOConfig(clip=0.0), "clip must be greater than 0, got 0.0"),
        (lambda: PPOConfig(gamma=1.5), "gamma must be at most 1, got 1.5"),
        (lambda: PPOConfig(value_clip=0.0), "value_clip must be greater than 0, got 0.0"),
        (lambda: PPOConfig(epochs=0), "epochs must be at least 1, got 0"),
        (lambda: PidConfig(smoothing=1.0), "smoothing must be less than 1, got 1.0"),
        (lambda: PidConfig(integral=-0.1), "integral must be at least 0, got -0.1"),
    ],
)
def test_impossible_settings_are_refused_by_name(make, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        make()
