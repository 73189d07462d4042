"""Distances against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import energy_distance as scipy_energy
from scipy.stats import wasserstein_distance

from thalweg.core import distances
from thalweg.errors import InputError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(50, 1)), RNG.normal(1, 2, size=(70, 1))
A, B = RNG.random(50), RNG.random(70)


def test_w1_on_a_line_equals_scipy_with_weights():
    assert distances.wasserstein(X, Y) == pytest.approx(wasserstein_distance(X[:, 0], Y[:, 0]), rel=1e-9)
    expected = wasserstein_distance(X[:, 0], Y[:, 0], A, B)
    assert distances.wasserstein(X, Y, a=A, b=B) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("p", [1, 2])
def test_wasserstein_of_a_translation_is_its_length(p):
    x = RNG.normal(size=(80, 4))
    shift = np.array([3.0, 4.0, 0.0, 0.0])
    assert distances.wasserstein(x, x + shift, p=p) == pytest.approx(5.0, rel=1e-9)


def test_w2_is_the_root_of_the_mean_squared_cost():
    # two points each, matched in order: squared costs 1 and 9
    x, y = np.array([[0.0], [10.0]]), np.array([[1.0], [13.0]])
    assert distances.wasserstein(x, y, p=2) == pytest.approx(np.sqrt(5.0), rel=1e-12)
    assert distances.wasserstein(x, y, p=1) == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("function", [distances.wasserstein, distances.energy, distances.mmd])
def test_zero_between_equal_clouds_and_invariant(function):
    x, y = RNG.normal(size=(40, 3)), RNG.normal(0.5, size=(45, 3))
    assert function(x, x[::-1]) == pytest.approx(0, abs=1e-7)
    value = function(x, y)
    assert value > 1e-3
    assert function(y, x) == pytest.approx(value, rel=1e-9)
    assert function(x + 1e4, y + 1e4) == pytest.approx(value, rel=1e-6)
    assert function(np.repeat(x, 2, 0), y) == pytest.approx(value, rel=1e-9)
    weights = np.r_[np.full(40, 2.0), np.zeros(5)]
    assert function(np.r_[x, RNG.normal(size=(5, 3))], y, a=weights) == pytest.approx(value, rel=1e-9)


def test_energy_on_a_line_equals_scipy():
    # scipy returns the root of the same quantity
    assert distances.energy(X, Y) == pytest.approx(scipy_energy(X[:, 0], Y[:, 0]) ** 2, rel=1e-9)
    assert distances.energy(X, Y, a=A, b=B) == pytest.approx(scipy_energy(X[:, 0], Y[:, 0], A, B) ** 2, rel=1e-9)


def test_mmd_of_two_points_in_closed_form():
    x, y = np.zeros((1, 2)), np.array([[3.0, 4.0]])
    assert distances.mmd(x, y, bandwidth=5.0) == pytest.approx(2 - 2 * np.exp(-0.5), rel=1e-12)
    assert distances.mmd(x, y) == pytest.approx(distances.mmd(1e3 * x, 1e3 * y), rel=1e-9)
    # default width: root mean squared distance over sqrt 2, here 5 / sqrt 2
    assert distances.mmd(x, y) == pytest.approx(2 - 2 * np.exp(-1.0), rel=1e-12)


def test_blocks_do_not_change_the_value(monkeypatch):
    x, y = RNG.normal(size=(60, 3)), RNG.normal(0.5, size=(45, 3))
    whole = distances.energy(x, y), distances.mmd(x, y)
    monkeypatch.setattr(distances, "_BLOCK_ENTRIES", 100)
    assert (distances.energy(x, y), distances.mmd(x, y)) == pytest.approx(whole, rel=1e-12)


def test_variance_ratio():
    x = RNG.normal(size=(50, 3))
    assert distances.variance_ratio(0.5 * x + 7, x) == pytest.approx(0.25, rel=1e-12)
    with pytest.raises(InputError, match="identical"):
        distances.variance_ratio(x, np.ones((5, 3)))


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ((X, np.ones((3, 2))), "columns"),
        ((X[:, 0], Y), "shape"),
        ((X * np.nan, Y), "finite"),
        ((X[:0], Y), "n > 0"),
    ],
)
def test_bad_points(args, match):
    with pytest.raises(InputError, match=match):
        distances.energy(*args)


def test_bad_order_and_weights():
    with pytest.raises(InputError, match="p must be 1 or 2"):
        distances.wasserstein(X, Y, p=3)
    with pytest.raises(InputError, match="weights of x"):
        distances.energy(X, Y, a=-A)
