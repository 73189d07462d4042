"""The drift against its formula, and the sampler against the moments it must have."""

from __future__ import annotations

from math import cos, exp, pi, sin, tanh

import numpy as np
import pytest

from thalweg.datasets._landscape import Landscape, fates, snapshot

MODEL = Landscape()


def formula(z: np.ndarray) -> list[float]:
    """f(z) of one cell, written from the module docstring with scalars, derivatives of r by the quotient rule."""
    s, u, q = float(z[0]), z[1:3], z[3:]
    e = [exp(-(s - MODEL.fork[j]) / MODEL.width[j]) for j in (0, 1)]
    r = [MODEL.radius[j] / (1 + e[j]) for j in (0, 1)]
    dr = [MODEL.radius[j] * e[j] / MODEL.width[j] / (1 + e[j]) ** 2 for j in (0, 1)]
    m = [[r[0] * MODEL.a[k][i] + r[1] * MODEL.b[k][i] for i in (0, 1)] for k in range(3)]
    dm = [[dr[0] * MODEL.a[k][i] + dr[1] * MODEL.b[k][i] for i in (0, 1)] for k in range(3)]
    weight = [MODEL.pi[k] * exp(-sum((u[i] - m[k][i]) ** 2 for i in (0, 1)) / (2 * MODEL.reach**2)) for k in range(3)]
    w = [x / sum(weight) for x in weight]
    v = MODEL.speed * tanh((MODEL.end - s) / MODEL.brake)
    bump = MODEL.bump * exp(-((s - MODEL.bump_at) ** 2) / (2 * MODEL.bump_width**2))
    c = [bump, MODEL.wave * sin(3 * pi * s / (2 * MODEL.end))]
    dc = [
        -bump * (s - MODEL.bump_at) / MODEL.bump_width**2,
        MODEL.wave * 3 * pi / (2 * MODEL.end) * cos(3 * pi * s / (2 * MODEL.end)),
    ]
    pulled = [
        -MODEL.kappa * (u[i] - sum(w[k] * m[k][i] for k in range(3))) + v * sum(w[k] * dm[k][i] for k in range(3))
        for i in (0, 1)
    ]
    return [v, *pulled, *[-MODEL.kappa * (q[i] - c[i]) + v * dc[i] for i in (0, 1)]]


def test_drift_is_the_formula_of_the_docstring() -> None:
    z = np.random.default_rng(0).uniform([-1, -3, -3, -1, -1], [7, 3, 3, 2, 2], (500, 5))
    f, _ = MODEL.evaluate(z.T)
    np.testing.assert_allclose(f.T, [formula(cell) for cell in z], rtol=1e-10, atol=1e-10)


def test_derivatives_of_floors_and_programmes() -> None:
    s, h = np.linspace(-1.0, 7.0, 81), 1e-5
    for curve in (MODEL.floors, MODEL.programmes):
        difference = (curve(s + h)[0] - curve(s - h)[0]) / (2 * h)
        np.testing.assert_allclose(curve(s)[1], difference, atol=1e-8)


def test_a_cell_on_the_floor_of_a_late_valley_moves_along_it() -> None:
    s, h = np.full(3, 5.2), 1e-5
    place = np.concatenate([s[None], np.diagonal(MODEL.floors(s)[0], axis1=0, axis2=2), MODEL.programmes(s)[0]])
    ahead = np.concatenate(
        [s[None] + h, np.diagonal(MODEL.floors(s + h)[0], axis1=0, axis2=2), MODEL.programmes(s + h)[0]]
    )
    f, w = MODEL.evaluate(place)
    np.testing.assert_allclose(w.argmax(axis=0), [0, 1, 2])
    np.testing.assert_allclose(f, f[0] * (ahead - place) / h, atol=2e-3)  # the other valleys weigh less than 1e-3


@pytest.mark.parametrize(
    "place", [[0.0, 0.1, 0, 0, 0.2], [1.9, 0.4, 0, 1, 0.5], [3.8, -1.5, 0.3, 0.8, 0], [5.5, 2, 0, 0, -1]]
)
def test_mean_displacement_over_a_short_time_is_the_drift(place: list[float]) -> None:
    n, h, substeps = 400_000, 0.005, 2
    generator = np.random.default_rng(1)
    first = np.array(place)[:, None]
    z = np.repeat(first, n, axis=1)
    for _ in range(substeps):
        z = MODEL.step(z, MODEL.evaluate(z)[0], h / substeps, generator)
    move = z - first
    error = MODEL.sigma / np.sqrt(n * h)
    f = MODEL.evaluate(first)[0]
    # 4.5 standard errors, and the O(h) by which f changes on the way (its slope is below 6, its size below 5)
    np.testing.assert_allclose(move.mean(axis=1) / h, f[:, 0], atol=4.5 * error + 3 * h * np.abs(f).max())
    np.testing.assert_allclose(np.cov(move) / h, MODEL.sigma**2 * np.eye(5), atol=0.15 * MODEL.sigma**2)


@pytest.mark.parametrize("time", [0.0, 0.07, 0.5, 1.0])
def test_early_progress_is_the_gaussian_of_a_constant_speed(time: float) -> None:
    s = snapshot(MODEL, 60_000, time, np.random.default_rng(2))[0]
    assert s.mean() == pytest.approx(MODEL.speed * time, abs=0.012)
    assert s.var() == pytest.approx(MODEL.spread**2 + MODEL.sigma**2 * time, rel=0.025)


def test_spread_about_a_late_valley_is_that_of_its_ornstein_uhlenbeck_chain() -> None:
    z = snapshot(MODEL, 6_000, 12.0, np.random.default_rng(3))
    w = MODEL.evaluate(z)[1]
    floor = MODEL.floors(z[0])[0][w.argmax(axis=0), :, np.arange(z.shape[1])].T
    step = 0.05
    expected = MODEL.sigma**2 / (2 * MODEL.kappa * (1 - MODEL.kappa * step / 2))  # of the Euler chain, exactly
    np.testing.assert_allclose((z[1:3] - floor).var(axis=1), expected, rtol=0.08)


def test_fate_of_a_symmetric_fork_is_even_and_a_biased_one_is_not() -> None:
    even = Landscape(a=np.array([[1.0, 0.0], [-1.0, 0.0]]), b=np.zeros((2, 2)), pi=np.array([0.5, 0.5]))
    start = np.repeat([[1.0], [0.0], [0.0], [0.0], [0.0]], 300, axis=1)
    share = fates(even, start, 64, np.random.default_rng(4))
    assert share.mean(axis=0) == pytest.approx([0.5, 0.5], abs=4.5 * 0.5 / np.sqrt(300 * 64))
    # the spread between equal cells is binomial: the futures are independent
    assert share[:, 0].std() == pytest.approx(0.5 / np.sqrt(64), rel=0.2)
    aside = start + np.array([0.0, 0.6, 0.0, 0.0, 0.0])[:, None]
    assert fates(even, aside, 64, np.random.default_rng(5))[:, 0].mean() > 0.55


def test_fates_are_calibrated_cell_by_cell() -> None:
    generator = np.random.default_rng(6)
    z = snapshot(MODEL, 3000, 1.3, generator)
    share = fates(MODEL, z, 48, generator)
    for _ in range(400):  # one more future of each cell, long enough that none is between valleys
        z = MODEL.step(z, MODEL.evaluate(z)[0], 0.04, generator)
    reached = np.eye(3)[MODEL.evaluate(z)[1].argmax(axis=0)]
    for k in range(3):
        for group in np.array_split(np.argsort(share[:, k]), 6):
            error = 0.5 / np.sqrt(len(group)) + 0.02  # the futures of a group are selected by their own noise
            assert abs(share[group, k].mean() - reached[group, k].mean()) < 4 * error
    assert np.quantile(share[:, 0], 0.9) - np.quantile(share[:, 0], 0.1) > 0.4
