"""Properties of distances: the axioms of a metric, the laws of shift, unit and rotation, and other implementations."""

from __future__ import annotations

import numpy as np
import ot
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import energy_distance, wasserstein_distance

from strategies import clouds, generic_clouds, rotations, weights
from thalweg.core import distances

SIGNED = st.floats(-50, 50)


def width(*xs):
    return 1 + max(float(np.abs(x).max()) for x in xs)


def metrics_of(x, y, **kwargs):
    """Each as a metric: energy distance and MMD are squares of one."""
    return {
        "w1": distances.wasserstein(x, y, **kwargs),
        "w2": distances.wasserstein(x, y, p=2, **kwargs),
        "energy": max(distances.energy(x, y, **kwargs), 0.0) ** 0.5,
        "mmd": max(distances.mmd(x, y, bandwidth=2.0, **kwargs), 0.0) ** 0.5,
    }


@given(st.data(), clouds())
def test_axioms_of_a_metric(data, pair):
    x, y = pair
    z = data.draw(clouds(max_dims=x.shape[1]).filter(lambda p: p[0].shape[1] == x.shape[1]))[0]
    a, b = data.draw(weights(len(x), zeros=True)), data.draw(weights(len(y), zeros=True))
    xy, yx = metrics_of(x, y, a=a, b=b), metrics_of(y, x, a=b, b=a)
    xz, zy = metrics_of(x, z, a=a), metrics_of(z, y, b=b)
    order = data.draw(st.permutations(range(len(x))))
    own = metrics_of(x, x[order], a=a, b=a[order])
    for name, value in xy.items():
        assert value >= 0
        assert value == pytest.approx(yx[name], rel=1e-7, abs=1e-6), name
        assert value <= xz[name] + zy[name] + 1e-6, name
        assert own[name] == pytest.approx(0, abs=2e-6), name


@given(st.data(), clouds())
def test_order_of_the_bounds(data, pair):
    """``|mean x - mean y| <= W1 <= W2``, and both at least the distance of the nearest pair, at most the farthest."""
    x, y = pair
    a, b = data.draw(weights(len(x))), data.draw(weights(len(y)))
    w1, w2 = (distances.wasserstein(x, y, p=p, a=a, b=b) for p in (1, 2))
    far = cdist(x, y)
    assert np.linalg.norm(a @ x - b @ y) <= w1 + 1e-9
    assert w1 <= w2 + 1e-9
    assert far.min() - 1e-9 <= w1
    assert w2 <= far.max() + 1e-9
    assert 0 <= distances.mmd(x, y, a=a, b=b) + 1e-12 <= 2 + 1e-12


@given(st.data(), generic_clouds(max_points=15))
def test_laws_of_shift_unit_and_rotation(data, pair):
    x, y = pair
    d = x.shape[1]
    shift = np.array(data.draw(st.lists(SIGNED, min_size=d, max_size=d)))
    common, scale = data.draw(st.sampled_from([0.0, 1e4, -1e4])), data.draw(st.sampled_from([1e-4, 0.5, 1e4]))
    q = data.draw(rotations(d))
    gap = x.mean(0) - y.mean(0)
    w2 = distances.wasserstein(x, y, p=2)
    moved = distances.wasserstein(x + shift, y, p=2)
    assert moved**2 == pytest.approx(w2**2 + shift @ shift + 2 * shift @ gap, rel=1e-7, abs=1e-7)
    assert distances.wasserstein(x + shift, x) == pytest.approx(np.linalg.norm(shift), rel=1e-7, abs=1e-7)
    here, there = metrics_of(x, y), metrics_of(x @ q + common, y @ q + common)
    for name, value in here.items():
        assert value == pytest.approx(there[name], rel=1e-4, abs=1e-5), name
    for p in (1, 2):
        expected = scale * distances.wasserstein(x, y, p=p)
        assert distances.wasserstein(scale * x, scale * y, p=p) == pytest.approx(expected, rel=1e-8)
    assert distances.energy(scale * x, scale * y) == pytest.approx(scale * distances.energy(x, y), rel=1e-7)
    assert distances.mmd(scale * x, scale * y) == pytest.approx(distances.mmd(x, y), rel=1e-7)
    ratio = distances.variance_ratio(x, y)
    assert distances.variance_ratio(scale * x + common, y + shift) == pytest.approx(scale**2 * ratio, rel=1e-3)
    assert distances.variance_ratio(x @ q, y) == pytest.approx(ratio, rel=1e-9)
    assert distances.variance_ratio(y, x) == pytest.approx(1 / ratio, rel=1e-9)


@given(st.data(), clouds(max_points=8))
def test_weights_count_points_and_their_unit_does_not_matter(data, pair):
    x, y = pair
    counts = data.draw(st.lists(st.integers(1, 4), min_size=len(x), max_size=len(x)))
    repeated = np.repeat(x, counts, axis=0)
    unit = data.draw(st.sampled_from([1.0, 0.25, 1e3]))
    by_weight, by_count = metrics_of(x, y, a=unit * np.array(counts)), metrics_of(repeated, y)
    for name, value in by_weight.items():
        assert value == pytest.approx(by_count[name], rel=1e-7, abs=1e-6), name
    if np.ptp(y, axis=0).any():
        expected = repeated.var(0).sum() / y.var(0).sum()
        assert distances.variance_ratio(x, y, a=np.array(counts)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.data(), clouds(max_dims=1))
def test_scipy_agrees_on_a_line(data, pair):
    x, y = pair
    a, b = data.draw(weights(len(x), zeros=True)), data.draw(weights(len(y), zeros=True))
    line = x[:, 0], y[:, 0], a, b
    assert distances.wasserstein(x, y, a=a, b=b) == pytest.approx(wasserstein_distance(*line), rel=1e-9, abs=1e-9)
    assert distances.energy(x, y, a=a, b=b) == pytest.approx(energy_distance(*line) ** 2, rel=1e-7, abs=1e-9)


@given(st.data(), clouds())
def test_pot_and_plain_sums_agree(data, pair):
    x, y = pair
    a, b = data.draw(weights(len(x))), data.draw(weights(len(y)))
    for p, metric in ((1, "euclidean"), (2, "sqeuclidean")):
        expected = max(ot.emd2(a, b, cdist(x, y, metric)), 0.0) ** (1 / p)
        assert distances.wasserstein(x, y, p=p, a=a, b=b) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    far = 2 * a @ cdist(x, y) @ b - a @ cdist(x, x) @ a - b @ cdist(y, y) @ b
    assert distances.energy(x, y, a=a, b=b) == pytest.approx(far, abs=1e-9)

    def kernel(u, v, h):
        return np.exp(-cdist(u, v, "sqeuclidean") / (2 * h**2))

    default = float(np.sqrt(a @ cdist(x, y, "sqeuclidean") @ b / 2))
    for given_width in (None, 0.7):
        h = given_width or default or 1.0
        expected = a @ kernel(x, x, h) @ a + b @ kernel(y, y, h) @ b - 2 * a @ kernel(x, y, h) @ b
        assert distances.mmd(x, y, bandwidth=given_width, a=a, b=b) == pytest.approx(expected, abs=1e-9)
