"""The share of a prediction: its ends, its interval, and courses in which nothing moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

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


def test_the_interval_over_replicates_covers_the_share_of_other_replicates():
    """Three replicates a day, which lie apart: an interval over cells is too narrow for the next ones."""
    rng = np.random.default_rng(0)
    copy, half = rng.standard_normal((150, 5)), rng.standard_normal((150, 5)) + 1
    rows, found = np.arange(150).reshape(3, 50), []
    for _ in range(25):
        shift = rng.normal(0, 0.4, (3, 5))
        real = rng.standard_normal((150, 5)) + 2 + np.repeat(shift, 50, axis=0)
        w1, cells = wasserstein_shares(half, real), scale(copy, real)
        found.append((cells.share(*w1), replace(cells, replicates=[list(rows)]).share(*w1)))
    truth = np.mean([s.value for s, _ in found])
    by_cell, by_replicate = ([s.low <= truth <= s.high for s in each] for each in zip(*found, strict=True))
    assert 0.85 <= np.mean(by_replicate) <= 1
    assert np.mean(by_cell) < 0.75
    assert [s.value for s, _ in found] == [s.value for _, s in found]


def test_strata_of_replicates_have_errors_that_add():
    """Two conditions of two and three replicates: the variance of each by its share, and Welch's degrees of freedom."""
    means = np.array([0.0, 2.0, 1.0, 3.0, 8.0])
    by_cell = np.repeat(means, 10)
    parts = np.arange(50).reshape(5, 10)
    found = Scale(10.0, np.zeros(50), 0.0, 0.0, np.full(50, 0.02), [list(parts[:2]), list(parts[2:])])
    share = found.share(5.0, by_cell)  # half of the way of ten
    variances = np.array([0.4**2 * means[:2].var(ddof=1) / 2, 0.6**2 * means[2:].var(ddof=1) / 3])
    freedom = variances.sum() ** 2 / (variances**2 / [1, 2]).sum()
    assert share.high - share.value == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(variances.sum()) / 10)
    alone = replace(found, replicates=[[parts[0]], list(parts[2:])]).share(5.0, by_cell)
    assert alone.value == 0.5
    assert np.isnan([alone.low, alone.high]).all()
