"""Flow, score and drift of bridges: the formulas with networks that are known, and what training finds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from torch import nn

import thalweg as tw
from thalweg.core.couplings import Mixture, Plan
from thalweg.flows import drift as drifts
from thalweg.flows.config import FitConfig
from thalweg.flows.dynamics import DELTA, BridgeSampler, Dynamics, terms
from thalweg.flows.flow import Flow
from thalweg.flows.store import load_fit
from thalweg.flows.time_axis import make_axis

SIGMA, SPREAD = 0.5, 0.8


class Field(nn.Module):
    """A function in the place of a network; a flow asks its parameters where they live."""

    def __init__(self, function=None):
        super().__init__()
        self.function, self.where = function, nn.Parameter(torch.zeros(()))

    def forward(self, s, z, condition=None):
        return self.function(s, z, condition)


class Exact(Field):
    """The denoiser of a population N(0, SPREAD^2): E[epsilon | z] = l sigma z / (SPREAD^2 + sigma^2 l^2)."""

    def forward(self, s, z_and_level, condition=None):
        z, level = z_and_level[:, :-1], z_and_level[:, -1:].exp()
        return level * SIGMA * z / (SPREAD**2 + SIGMA**2 * level**2)


class Still(Field):
    """Displacement of a population at rest whose cells forget half of where they were."""

    def forward(self, s, z, condition=None):
        return torch.where(s[:, None] < 0.5, 0.5 * z, -0.5 * z)


@pytest.fixture
def at_rest():
    net = Dynamics(2, FitConfig(), 0, 2)
    net.denoiser, net.displacement = Exact(), Still()
    net.edges.copy_(torch.tensor([0.0, 0.5, 1.0]))
    net.sigma.fill_(SIGMA)
    return Flow(net, make_axis(np.array([0.0, 1.0, 2.0]), "real"), np.zeros(2), 1.0, np.full(2, SIGMA))


X = np.array([[1.0, -2.0], [0.3, 0.1]])


def score_at(level_squared):
    """(sigma^2 / 2) grad log N(x; 0, SPREAD^2 + sigma^2 l^2)."""
    return -(SIGMA**2) / 2 * X / (SPREAD**2 + SIGMA**2 * level_squared)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.9])
def test_score_and_flow_inside_an_interval(at_rest, t):
    expected = score_at(t * (1 - t) + DELTA)
    np.testing.assert_allclose(drifts.score(at_rest, X, t), expected, rtol=1e-5)
    np.testing.assert_allclose(at_rest.velocity(X, t), 0.5 * X - (1 - 2 * t) * expected, rtol=1e-5)


def test_at_an_inner_time_both_sides_count(at_rest):
    """A population at rest stands still, whatever its diffusion, and the drift is the score: the drift of an OU."""
    np.testing.assert_allclose(drifts.current(at_rest, X, 1.0), 0, atol=1e-6)
    np.testing.assert_allclose(drifts.drift(at_rest, X, 1.0), score_at(DELTA), rtol=1e-5)


@pytest.mark.parametrize(("time", "side"), [(0.0, 0.5), (2.0, -0.5)])
def test_at_the_ends_half_of_the_score_completes_the_one_side(at_rest, time, side):
    own = at_rest.velocity(X, time)
    np.testing.assert_allclose(drifts.current(at_rest, X, time), own + side * score_at(DELTA), rtol=1e-5)


def test_between_observed_times_nothing_is_averaged(at_rest):
    np.testing.assert_array_equal(drifts.current(at_rest, X, 0.4), at_rest.velocity(X, 0.4))


def test_sides_have_their_own_unit_of_time():
    """With index spacing a unit of time is not the same on both sides of an observed time."""
    net = Dynamics(1, FitConfig(), 0, 2)
    net.denoiser, net.displacement = Exact(), Field(lambda s, z, c: torch.ones_like(z))
    net.edges.copy_(torch.tensor([0.0, 0.5, 1.0]))
    flow = Flow(net, make_axis(np.array([0.0, 1.0, 5.0]), "index"), np.zeros(1), 1.0, np.zeros(1))
    assert drifts.current(flow, [[0.0]], 1.0)[0, 0] == pytest.approx((1 / 1 + 1 / 4) / 2)


def pairs(generator, n=4000):
    """Two times of a Gaussian population that moves by one, paired at random; one interval."""
    x0, x1 = torch.randn(n, 1, generator=generator), 1 + torch.randn(n, 1, generator=generator)
    index = torch.arange(n)
    plan = Plan(index, index, torch.full((n,), 1 / n, dtype=torch.float64), (n, n))
    mixture = Mixture([plan], [index], [index + n], torch.ones(1, dtype=torch.float64))
    tau = torch.cat([torch.zeros(n), torch.ones(n)])
    still = torch.zeros(2 * n)
    return BridgeSampler(torch.cat([x0, x1]), tau, None, mixture, torch.tensor([SIGMA]), 1, (still, still))


def test_what_is_drawn(generator):
    own, noised = pairs(generator).batch(50_000, generator)
    t = own.s
    torch.testing.assert_close(own.level[:, 0] ** 2, t * (1 - t) + DELTA)
    for drawn in (own, noised):
        mean = drawn.x - drawn.level * SIGMA * drawn.eps
        early = drawn.s < 0.02
        assert mean[early].var() == pytest.approx(1, abs=0.1)
        assert drawn.eps.var() == pytest.approx(1, abs=0.02)
    assert len(noised.s) == 2 * len(own.s)
    assert float(((noised.s == 0) | (noised.s == 1)).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert 1 / 64 - 1e-6 <= float(noised.level.min()) ** 2 <= float(noised.level.max()) ** 2 <= 1 + 1e-6


def test_minimisers_of_the_losses(generator):
    """Among multiples of the exact fields the losses are least at one; half of a gradient would not be."""
    drawn = pairs(generator).batch(100_000, generator)
    net = Dynamics(1, FitConfig(affine=False), 0, 1)

    def losses(moved, noise):
        # Independent pairs: x_t has mean t and variance (1-t)^2 + t^2 + sigma^2 l^2.
        def variance(s, level):
            return (1 - s) ** 2 + s**2 + SIGMA**2 * level**2

        def displacement(s, z, c):
            level = (s * (1 - s) + DELTA).sqrt()
            return moved * (1 + (2 * s - 1) * (z[:, 0] - s) / variance(s, level))[:, None]

        def denoiser(s, z, c):
            level = z[:, 1].exp()
            return noise * (level * SIGMA * (z[:, 0] - s) / variance(s, level))[:, None]

        net.displacement, net.denoiser = Field(displacement), Field(denoiser)
        return {k: float(v) for k, v in terms(net, drawn).items()}

    best = losses(1, 1)
    for factor in (0.9, 1.1):
        other = losses(factor, factor)
        assert other["displacement"] > best["displacement"]
        assert other["denoising"] > best["denoising"]


def ornstein_uhlenbeck(n=700, kappa=1.0, sigma=1.0, times=(0.0, 0.5, 1.0, 1.5), seed=0):
    """dX = -kappa X dt + sigma dW from N(2, .3^2), two coordinates, each time other cells."""
    rng = np.random.default_rng(seed)
    x, drift = [], []
    for t in times:
        mean, decay = 2 * np.exp(-kappa * t), np.exp(-2 * kappa * t)
        variance = 0.09 * decay + sigma**2 / (2 * kappa) * (1 - decay)
        x.append(mean + np.sqrt(variance) * rng.normal(size=(n, 2)))
        drift.append(-kappa * x[-1])
    obs = pd.DataFrame({"time": np.repeat(times, n)}, index=[f"c{i}" for i in range(n * len(times))])
    return AnnData(obs=obs, obsm={"X_pca": np.concatenate(x)}), np.concatenate(drift)


@pytest.fixture(scope="module")
def process():
    adata, truth = ornstein_uhlenbeck()
    tw.settings.progress = False
    tw.tl.fit(adata, "time", method="usb", rng=0, config=tw.tl.FitConfig(max_steps=600))
    return adata, truth


def test_the_drift_of_an_ornstein_uhlenbeck_process(process):
    """From snapshots alone, and its diffusion with it; the flow of its populations is another field."""
    adata, truth = process[0].copy(), process[1]
    unit, scale = 0.5, float(adata.uns["thalweg"]["scale"])
    np.testing.assert_allclose(adata.uns["thalweg"]["diffusion"], np.sqrt(unit) / scale, rtol=0.2)
    error = {}
    for kind in ("drift", "flow"):
        tw.tl.velocity(adata, kind=kind)
        error[kind] = np.sqrt(((adata.obsm["velocity_X_pca"] - truth) ** 2).sum(1).mean() / (truth**2).sum(1).mean())
    assert error["drift"] < 0.3
    assert error["flow"] > 2 * error["drift"]


def test_the_sde_returns_the_populations_it_was_trained_on(process):
    adata = process[0]
    paths = tw.tl.trajectories(adata, times=[0, 0.5, 1, 1.5], rng=0)
    assert paths.uns["trajectories"]["stochastic"] == 1.0
    for t in (0.5, 1.0, 1.5):
        real, ran = (a.obsm["X_pca"][a.obs["time"] == t] for a in (adata, paths))
        np.testing.assert_allclose(ran.mean(0), real.mean(0), atol=0.12)
        np.testing.assert_allclose(ran.std(0), real.std(0), rtol=0.15)


def test_network_and_buffers_come_back_from_a_file(course, quick, tmp_path):
    tw.tl.fit(course, "time", method="usb", rng=0, config=quick)
    course.write_h5ad(tmp_path / "fit.h5ad")
    import anndata

    again = anndata.read_h5ad(tmp_path / "fit.h5ad")
    first, second = (load_fit(a.uns["thalweg"], "thalweg").process for a in (course, again))
    x, t = course.obsm["X_pca"], course.obs["time"]
    np.testing.assert_array_equal(drifts.drift(first, x, t), drifts.drift(second, x, t))
    np.testing.assert_array_equal(first.sigma, course.uns["thalweg"]["diffusion"])
    assert math.isfinite(drifts.drift(second, x, t).sum())
