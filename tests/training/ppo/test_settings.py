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
        (lambda: PPOConfig(minibatches=3), "ppo minibatches is 3, which does not divide the 64 × 8"),
        (lambda: PPOConfig(clip=0.0), "ppo clip is 0.0; it is greater than 0"),
        (lambda: PPOConfig(gamma=1.5), "ppo gamma is 1.5; it is between 0 and 1"),
        (lambda: PPOConfig(value_clip=0.0), "ppo value_clip is 0.0; it is greater than 0, or null"),
        (lambda: PPOConfig(epochs=0), "ppo epochs is 0; it is at least 1"),
        (lambda: PidConfig(smoothing=1.0), "pid smoothing is 1.0; it is at least 0 and less than 1"),
        (lambda: PidConfig(integral=-0.1), "pid integral is -0.1; it is at least 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
