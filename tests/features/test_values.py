"""Every feature has the value that its definition gives by hand, on four tokens and a position of padding."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ponderttt.features.frozen import ChunkSignals, frozen_features
from ponderttt.features.history import observe, remember, start
from ponderttt.features.table import FEATURES, FROZEN, index

NAN = math.nan
TEXT = "if x:\n    f(x)  # x\n"
#: What the last position holds is padding everywhere.
CHUNK = ChunkSignals(
    hidden=np.array([[5, 0], [6, 4], [-1, 3], [3, -2], [NAN, 9]], np.float32),
    mask=np.array([True, True, True, True, False]),
    nll=np.array([0.5, 1.0, 4.0, 2.5, NAN], np.float32),
    entropy=np.array([1, 2, 3, 6, NAN], np.float32),
    confidence=np.array([0.2, 0.4, 0.6, 0.9, NAN], np.float32),
    gradient_sketch=np.array([[1, 0], [3, 0], [1, 2], [3, 2], [NAN, NAN]], np.float32),
    attention_entropy=np.array([[[0, 1, 1, 2, NAN], [0, 0.5, 1.5, 1, NAN]]], np.float32),
    attention_distance=np.array([[[0, 1, 2, 1, NAN], [0, 0, 1, 3, NAN]]], np.float32),
    attention_sparsity=np.array([[[0, 0.5, 0.5, 0.75, NAN], [0, 0, 0.25, 0, NAN]]], np.float32),
    text=TEXT,
    language="Python",
    boundary=1,
    # Centred on (3, 0), these are the directions (1, 0) and (-1, 0).
    previous_hidden=np.array([[4, 0], [2, 0], [NAN, NAN], [7, 7], [0, 0]], np.float32),
    previous_mask=np.array([True, True, False, False, False]),
)

FROZEN_VALUES = {
    "entropy_mean": 3.0,
    "entropy_max": 6.0,
    "confidence_mean": 0.525,
    "perplexity": math.exp(2.0),
    # Entries 5 0 6 4 -1 3 3 -2: their sum is 18, their squares sum to 100.
    "hidden_mean": 2.25,
    "hidden_std": math.sqrt(12.5 - 2.25**2),
    "hidden_near_zero": 1 / 8,
    "hidden_max": 6.0,
    "hidden_min": -2.0,
    "hidden_range": (5 + 2 + 4 + 5) / 4,
    # Per token 0, 0.75, 1.25, 1.5; per head 1 and 0.75.
    "attention_entropy_mean": 0.875,
    "attention_entropy_max": 1.5,
    "attention_range": 1.0 / 5,
    "attention_sparsity": 0.25,
    # The tokens are: if x : f ( x ) and the comment.
    "distinct_token_ratio": 7 / 8,
    "repetition": 0.0,
    "identifier_share": 3 / 8,
    "keyword_share": 1 / 8,
    "indent_share": 4 / 20,
    # Only the second x is inside brackets: d = 1/8.
    "bracket_depth": (1 / 8) / (9 / 8),
    # Twenty characters cannot be compressed.
    "compressibility": 1.0,
    "comment_share": 3 / 20,
    "document_boundary": 0.5,
    "valid_tokens": 4 / 5,
    "entropy_q10": 1.3,
    "entropy_q25": 1.75,
    "entropy_q50": 2.5,
    "entropy_q75": 3.75,
    "entropy_q90": 5.1,
    "confidence_q10": 0.26,
    "confidence_q25": 0.35,
    "confidence_q50": 0.5,
    "confidence_q75": 0.675,
    "confidence_q90": 0.81,
    # Sorted losses: 0.5 1 2.5 4.
    "nll_q50": 1.75,
    "nll_q90": 3.55,
    "nll_high_share": 1 / 4,
    "attention_head_std": 0.125,
    "attention_head_min": 0.75,
    "attention_head_max": 1.0,
    "attention_token_std": math.sqrt((0.875**2 + 0.125**2 + 0.375**2 + 0.625**2) / 4),
    # The mean is (2, 1), the mean squared norm 7.
    "gradient_variance": 2.0,
    "gradient_mean_norm": math.sqrt(5),
    "gradient_coherence": 5 / 7,
    # Directions (1, 0), (0.6, 0.8), (-0.8, 0.6), (0, -1); the last is as near to one stored state as to the other, so
    # that it is guessed as zero.
    "reconstruction_error": (0.0 + (0.4**2 + 0.8**2) + (0.2**2 + 0.6**2) + 1.0) / 4,
    "similarity_mean": (1 + 0.6 + 0.8 + 0) / 4,
    "similarity_q90": 0.94,
    "similarity_high_share": 1 / 4,
    # Positions are 0, 0.2, 0.4, 0.6 of the chunk size.
    "entropy_slope": 1.6 / 0.2,
    "nll_half_change": 3.25 - 0.75,
    "entropy_nll_correlation": 5.5 / math.sqrt(14 * 7.5),
}

#: (loss, frozen loss, reconstruction, what is left of the budget) of the chunks of a stream of four with a mean budget of
#: 3, what follows each, and what is seen of it.
LOOP = (
    (
        (2.0, 3.0, 0.5, 12.0),
        (2, 6.0),
        {
            "loss_ema": 2.0,
            "gain_ema": 1.0,
            "cost_ema": 1.0,
            "last_action": 0.0,
            "stream_position": 0.0,
            "budget_remaining": 1.0,
            "chunks_left": 3 / 4,
            "budget_rate": 1.0,
            "loss_change": 0.0,
            "loss_above_ema": 0.0,
            "frozen_loss_change": 0.0,
            "reconstruction_ema": 0.5,
            "reconstruction_drift": 0.0,
        },
    ),
    (
        (4.0, 4.5, 1.0, 6.0),
        (0, 1.0),
        {
            "loss_ema": 2.6,
            "gain_ema": 0.85,
            "cost_ema": 6.0,
            "last_action": 0.5,
            "stream_position": 1 / 5,
            "budget_remaining": 6 / 12,
            "chunks_left": 2 / 4,
            "budget_rate": (6 / 3) / 3,
            "loss_change": 2.0,
            "loss_above_ema": 2.0,
            "frozen_loss_change": 1.5,
            "reconstruction_ema": 0.65,
            "reconstruction_drift": 0.5,
        },
    ),
    (
        (1.0, 1.5, 0.2, 5.0),
        (3, 12.0),
        {
            "loss_ema": 2.12,
            "gain_ema": 0.745,
            "cost_ema": 4.5,
            "last_action": 0.0,
            "stream_position": 2 / 6,
            "budget_remaining": 5 / 12,
            "chunks_left": 1 / 4,
            "budget_rate": (5 / 2) / 3,
            "loss_change": -3.0,
            "loss_above_ema": -1.6,
            "frozen_loss_change": -3.0,
            "reconstruction_ema": 0.515,
            "reconstruction_drift": -0.45,
        },
    ),
    (
        (1.0, 1.0, 0.2, -7.0),
        (0, 1.0),
        # Overspent: nothing is left, not less than nothing.
        {
            "last_action": 1.0,
            "chunks_left": 0.0,
            "budget_remaining": 0.0,
            "budget_rate": 0.0,
            "loss_change": 0.0,
        },
    ),
)


@pytest.fixture(scope="module")
def measured() -> np.ndarray:
    return frozen_features(CHUNK)


def test_every_feature_is_worked_out_here() -> None:
    assert set(FROZEN_VALUES) == set(FROZEN)
    assert set(FROZEN_VALUES) | set(LOOP[0][2]) == {feature.name for feature in FEATURES}


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_feature_is_what_its_definition_says(measured: np.ndarray, name: str) -> None:
    assert measured[FROZEN.index(name)] == pytest.approx(FROZEN_VALUES[name], rel=1e-5, abs=1e-5)


def test_the_first_chunk_has_nothing_to_be_compared_with() -> None:
    row = frozen_features(CHUNK._replace(previous_hidden=None, previous_mask=None))
    seen = {name: row[FROZEN.index(name)] for name in FROZEN}
    assert [seen[f"similarity_{name}"] for name in ("mean", "q90", "high_share")] == [0, 0, 0]
    assert seen["reconstruction_error"] == 1.0


def test_loop_features_are_what_their_definitions_say() -> None:
    history, frozen_row = start(), np.zeros(len(FROZEN))
    for t, ((loss, loss_frozen, reconstruction, left), (action, cost), expected) in enumerate(LOOP):
        scored = {"loss": loss, "loss_frozen": loss_frozen, "reconstruction": reconstruction}
        row = observe(
            frozen_row, history, **scored, chunk_index=t, chunks_left=3 - t, budget_left=left, budget=3.0
        )
        for name, value in expected.items():
            assert row[index(name)] == pytest.approx(value), (t, name)
        history = remember(history, **scored, action=action, cost=cost)


def test_without_a_budget_all_of_it_is_left() -> None:
    row = observe(
        np.zeros(len(FROZEN)),
        start(),
        loss=1.0,
        loss_frozen=1.0,
        reconstruction=0.0,
        chunk_index=5,
        chunks_left=0,
        budget_left=math.inf,
        budget=math.inf,
    )
    assert row[index("budget_remaining")] == row[index("budget_rate")] == 1.0
    assert np.isfinite(row).all()


def test_frozen_features_keep_their_places_in_the_whole_row(measured: np.ndarray) -> None:
    row = observe(
        measured,
        start(),
        loss=1.0,
        loss_frozen=1.0,
        reconstruction=0.0,
        chunk_index=0,
        chunks_left=3,
        budget_left=12.0,
        budget=3.0,
    )
    for name, value in zip(FROZEN, measured, strict=True):
        assert row[index(name)] == value
