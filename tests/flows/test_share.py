"""The share of a prediction: its ends, its interval, and courses in which nothing moves."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.core.distances import wasserstein_shares
from thalweg.core.fresh import fresh_distance
from thalweg.flows.share import Scale


def scale(copy: np.ndarray, real: np.ndarray) -> Scale:
    value, by_cell = wasserstein_shares(copy, real)
    fresh = fresh_distance(real, rng=np.random.default_rng(0))
    return Scale(value, by_cell, *fresh, np.full(len(real), 1 / len(real)))


def test_a_copy_has_none_of_the_way_and_a_fresh_sample_all_of_it():
    rng = np.random.default_rng(0)
    copy, real = rng.standard_normal((200, 5)), rng.standard_normal((200, 5)) + 2
    found = scale(copy, real)
    assert found.share(found.copy, found.by_cell) == (0, 0, 0)
    shares = [found.share(*wasserstein_shares(rng.standard_normal((200, 5)) + 2, real)) for _ in range(10)]
    assert np.mean([s.value for s in shares]) == pytest.approx(1, abs=0.02)
    worse = found.share(*wasserstein_shares(copy - 1, real))
    assert worse.value < 0
    assert worse.low < worse.value < worse.high


def test_there_is_no_share_where_nothing_moves():
    rng = np.random.default_rng(0)
    found = scale(rng.standard_normal((150, 5)), rng.standard_normal((150, 5)))
    assert not found.moves
    assert np.isnan(
        found.share(*wasserstein_shares(rng.standard_normal((150, 5)), rng.standard_normal((150, 5))))
    ).all()


def test_the_interval_covers_the_share_of_other_samples_of_the_day():
    """A prediction that is half-way; 60 days of 150 cells. The truth is the mean share over all of them."""
    rng = np.random.default_rng(0)
    copy, half = rng.standard_normal((150, 5)), rng.standard_normal((150, 5)) + 1
    found = []
    for _ in range(60):
        real = rng.standard_normal((150, 5)) + 2
        found.append(scale(copy, real).share(*wasserstein_shares(half, real)))
    truth = np.mean([s.value for s in found])
    covered = np.mean([s.low <= truth <= s.high for s in found])
    assert 0.85 <= covered <= 1
    assert np.std([s.value for s in found]) == pytest.approx(np.mean([(s.high - s.low) / 3.92 for s in found]), rel=0.4)
