"""The Sinkhorn divergence: a squared distance that few points suffice for."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.core.distances import sinkhorn, wasserstein


def clouds(n, d=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, d)) * [1.5, 1, 1, 1][:d] + [1.0, 0, 0, 0][:d]


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 10.0])
def test_of_a_translation_it_is_the_squared_distance(epsilon):
    x, _ = clouds(200)
    assert sinkhorn(x, x + np.array([3.0, 4.0, 0, 0]), epsilon=epsilon) == pytest.approx(25.0, abs=1e-3)
    assert sinkhorn(x, x, epsilon=epsilon) == pytest.approx(0.0, abs=1e-6)


def test_it_lies_between_the_distance_of_the_means_and_the_wasserstein_distance():
    x, y = clouds(300)
    means = float(((x.mean(0) - y.mean(0)) ** 2).sum())
    assert sinkhorn(x, y, epsilon=200.0) == pytest.approx(means, rel=0.05)
    found = [sinkhorn(x, y, epsilon=e) for e in (10.0, 1.0, 0.1, 0.01)]
    assert found == sorted(found)
    assert found[-1] < wasserstein(x, y, p=2) ** 2


def test_few_points_are_enough():
    """Of two samples of one population: the exact distance says what sampling does, the divergence hardly."""
    rng = np.random.default_rng(0)
    pairs = [rng.normal(size=(2, 60, 10)) for _ in range(10)]
    found = np.mean([sinkhorn(*pair, epsilon=0.5) for pair in pairs])
    exact = np.mean([wasserstein(*pair, p=2) ** 2 for pair in pairs])
    assert 0 < found < exact / 5


def test_weights_stand_for_copies_and_the_distance_is_symmetric():
    x, y = clouds(40)
    weights = np.ones(40)
    weights[:5] = 3.0
    copied = np.concatenate([x, x[:5], x[:5]])
    assert sinkhorn(x, y, a=weights) == pytest.approx(sinkhorn(copied, y), rel=1e-3)
    assert sinkhorn(x, y) == pytest.approx(sinkhorn(y, x), rel=1e-3)


def test_points_without_spread():
    assert sinkhorn(np.zeros((3, 2)), np.full((2, 2), 2.0)) == pytest.approx(8.0)
    weights = np.random.default_rng(0).random(30)  # whose rounding is a variance of 1e-32
    assert sinkhorn(np.zeros((30, 3)), np.full((30, 3), 1 / 3), a=weights, b=weights) == pytest.approx(1 / 3)
