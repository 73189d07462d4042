"""The distance of a fresh sample: unbiased where the law is known, and free of units and order."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.core.distances import wasserstein, wasserstein_shares
from thalweg.core.fresh import SMALLEST, fresh_distance


def populations(kind: str, d: int, n: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((n, d)) * 0.93 ** np.arange(d)
    if kind == "clusters":
        x[:, 0] += rng.choice([0.0, 8.0], n, p=[0.5, 0.5])
    return x


@pytest.mark.parametrize(("kind", "d", "tolerance"), [("one", 5, 0.05), ("one", 50, 0.02), ("clusters", 5, 0.08)])
def test_fresh_samples_score_at_it_on_average_and_halves_do_not(kind, d, tolerance):
    """12 samples of 160 points; by halves the first two would be 16 and 6 % too far."""
    rng = np.random.default_rng(0)
    truth, found, halves = [], [], []
    for _ in range(12):
        y = populations(kind, d, 160, rng)
        truth += [wasserstein(populations(kind, d, 160, rng), y) for _ in range(3)]
        found.append(fresh_distance(y, rng=rng).value)
        halves.append(wasserstein(y[:80], y[80:]))
    assert np.mean(found) == pytest.approx(np.mean(truth), rel=tolerance)
    assert np.mean(halves) > (1 + tolerance) * np.mean(truth)


def test_it_scales_with_the_units_and_needs_no_names():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((64, 3))
    one = fresh_distance(y, rng=np.random.default_rng(1)).value
    assert fresh_distance(4 * y + 7, rng=np.random.default_rng(1)).value == pytest.approx(4 * one, rel=1e-9)
    assert fresh_distance(y, np.full(64, 0.5), rng=np.random.default_rng(1)).value == pytest.approx(one, rel=1e-9)


def test_few_points_have_none_and_one_place_is_zero():
    assert np.isnan(fresh_distance(np.zeros((SMALLEST - 1, 2)), rng=np.random.default_rng(0)).value)
    assert fresh_distance(np.ones((SMALLEST, 2)), rng=np.random.default_rng(0)) == (0, 0)


def test_shares_average_to_the_distance_and_say_how_it_changes_with_the_weights():
    rng = np.random.default_rng(0)
    x, y, b = rng.standard_normal((40, 3)), rng.standard_normal((30, 3)) + 1, rng.uniform(0.5, 1.5, 30)
    b /= b.sum()
    value, shares = wasserstein_shares(x, y, b=b)
    assert value == pytest.approx(wasserstein(x, y, b=b), rel=1e-12)
    assert b @ shares == pytest.approx(value, rel=1e-12)
    step = 1e-7 * rng.standard_normal(30)
    step -= step.mean()
    moved = wasserstein(x, y, b=b + step) - wasserstein(x, y, b=b - step)
    assert moved / 2 == pytest.approx(step @ shares, rel=1e-4)
