"""On real code every feature is finite, within its range, moves, and is no copy of another; none sees the future."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderttt.features.frozen import ChunkSignals, frozen_features
from ponderttt.features.table import FEATURES, FROZEN, NAMES

#: What two features may correlate at most; a copy or an affine copy has 1.
COPY = 0.999


@pytest.fixture(scope="module")
def rows(real_streams: list[list[ChunkSignals]], observe: Callable[..., np.ndarray]) -> np.ndarray:
    return np.concatenate([observe(stream, seed) for seed, stream in enumerate(real_streams)])


def test_every_feature_is_finite_and_within_its_range(rows: np.ndarray) -> None:
    assert np.isfinite(rows).all()
    for feature, values in zip(FEATURES, rows.T, strict=True):
        assert feature.low <= values.min() <= values.max() <= feature.high, feature.name


@pytest.mark.parametrize("place", range(len(NAMES)), ids=NAMES)
def test_a_feature_moves_and_is_no_copy_of_those_before_it(rows: np.ndarray, place: int) -> None:
    spread = rows.std(axis=0)
    assert spread[place] > 1e-6 * abs(rows[:, place].mean())
    for other in range(place):
        assert abs(np.corrcoef(rows[:, place], rows[:, other])[0, 1]) < COPY, NAMES[other]


def test_the_future_of_a_stream_changes_nothing(
    read: Callable[..., object], observe: Callable[..., np.ndarray]
) -> None:
    code = b"def f(x):\n    return [x + 1 for x in range(9)]  # nine\n" * 12
    one = list(read(code))
    assert len(one) >= 4
    size = len(one[0].mask)
    # The last byte that chunk 1 is scored on is byte 2·size.
    other = list(read(code[: 2 * size + 1] + b"?" * (len(code) - 2 * size - 1)))
    before, after = observe(one, 0), observe(other, 0)
    np.testing.assert_array_equal(before[:2], after[:2])
    assert (before[2:] != after[2:]).any()


def test_a_chunk_is_compared_with_the_one_before_and_only_there(
    real_streams: list[list[ChunkSignals]],
) -> None:
    chunk, first = real_streams[0][2], real_streams[0][0]
    row = frozen_features(chunk)
    other = frozen_features(chunk._replace(previous_hidden=first.hidden, previous_mask=first.mask))
    moved = {name for name, x, y in zip(FROZEN, row, other, strict=True) if x != y}
    compared = {"reconstruction_error", "similarity_mean", "similarity_q90"}
    # A share of few tokens may well stay.
    assert compared <= moved <= compared | {"similarity_high_share"}


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_padding_holds_changes_no_bit(
    real_streams: list[list[ChunkSignals]], data: st.DataObject
) -> None:
    stream = data.draw(st.sampled_from(real_streams))
    length = len(stream[1].mask)
    here, before = (data.draw(st.integers(1, length - 1)) for _ in range(2))
    real, real_before = np.arange(length) < here, np.arange(length) < before
    chunk = stream[1]._replace(mask=real, previous_mask=real_before)
    np.testing.assert_array_equal(
        frozen_features(chunk),
        frozen_features(
            with_garbage(chunk, data.draw(st.sampled_from([np.nan, np.inf, -np.inf, -1e30, 7.0])))
        ),
    )


def with_garbage(chunk: ChunkSignals, value: float) -> ChunkSignals:
    """The chunk with another value in every position of padding."""

    def fill(values: np.ndarray, mask: np.ndarray, axis: int) -> np.ndarray:
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        return np.where(mask.reshape(shape), values, np.float32(value))

    filled = {
        name: fill(getattr(chunk, name), chunk.mask, axis)
        for name, axis in {
            "hidden": 0,
            "nll": 0,
            "entropy": 0,
            "confidence": 0,
            "gradient_sketch": 0,
            "attention_entropy": 2,
            "attention_distance": 2,
            "attention_sparsity": 2,
        }.items()
    }
    return chunk._replace(**filled, previous_hidden=fill(chunk.previous_hidden, chunk.previous_mask, 0))


@pytest.mark.parametrize(
    "change",
    [
        {"mask": np.arange(160) < 1},
        {"previous_mask": np.arange(160) < 1},
        {"text": ""},
        {"hidden": np.zeros((160, 32), np.float32)},
        {
            "hidden": np.full((160, 32), 3.0, np.float32),
            "previous_hidden": np.full((160, 32), 3.0, np.float32),
        },
        {"nll": np.full(160, 1e30, np.float32)},
        {"nll": np.zeros(160, np.float32), "entropy": np.full(160, 0.1, np.float32)},
        {"gradient_sketch": np.zeros((160, 8), np.float32)},
        {"attention_entropy": np.zeros((1, 4, 160), np.float32)},
    ],
    ids=[
        "one token",
        "one stored token",
        "no text",
        "hidden zero",
        "hidden constant",
        "no chance",
        "certain",
        "no gradient",
        "no attention",
    ],
)
def test_an_odd_chunk_has_features(
    real_streams: list[list[ChunkSignals]], change: dict[str, np.ndarray | str]
) -> None:
    row = frozen_features(real_streams[0][1]._replace(**change))
    assert np.isfinite(row).all()
    for name, value in zip(FROZEN, row, strict=True):
        feature = FEATURES[NAMES.index(name)]
        assert feature.low <= value <= feature.high, name


def test_a_chunk_of_padding_is_refused(real_streams: list[list[ChunkSignals]]) -> None:
    with pytest.raises(ValueError, match="without a real token"):
        frozen_features(real_streams[0][1]._replace(mask=np.zeros(160, bool)))
