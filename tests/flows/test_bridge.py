"""Flows and bridges between two Gaussians have closed forms; the whole chain, from fit to samples, is held to them.

The Schrödinger bridge (Bunne et al. 2023):

For N(m0, S0), N(m1, S1) and diffusion s over unit time,

    D = (4 S0^1/2 S1 S0^1/2 + s^4 I)^1/2,      C = (S0^1/2 D S0^-1/2 - s^2 I) / 2,
    mean_t = (1-t) m0 + t m1,
    cov_t = (1-t)^2 S0 + t^2 S1 + t(1-t) (C + C') + s^2 t(1-t) I.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.linalg import sqrtm

import thalweg as tw
from thalweg.core import couplings, paths

M0, M1 = np.array([0.0, 0.0]), np.array([3.0, 1.0])
S0, S1 = np.array([[1.0, 0.4], [0.4, 0.6]]), np.array([[0.5, -0.3], [-0.3, 1.2]])
N = 2000
TIMES = (0.25, 0.5, 0.75)


def closed_form(t: float, s: float) -> tuple[np.ndarray, np.ndarray]:
    root = np.real(sqrtm(S0))
    d = np.real(sqrtm(4 * root @ S1 @ root + s**4 * np.eye(2)))
    c = (root @ d @ np.linalg.inv(root) - s**2 * np.eye(2)) / 2
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (c + c.T + s**2 * np.eye(2))
    return (1 - t) * M0 + t * M1, cov


def gaussians(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Samples with exactly the moments above, so that only the plan's own error is left."""
    rng = np.random.default_rng(seed)
    out = []
    for mean, cov in ((M0, S0), (M1, S1)):
        z = rng.standard_normal((N, 2))
        z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T, bias=True))).T
        out.append(mean + z @ np.linalg.cholesky(cov).T)
    return out[0], out[1]


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_entropic_pairs_on_brownian_bridges(sigma, generator, proof):
    """Mean and covariance at every tested time."""
    x0, x1 = (torch.as_tensor(x) for x in gaussians())
    plan = couplings.entropic(x0, x1, reg=2 * sigma**2)
    rows, cols = plan.sample(200_000, generator)
    mean_error = cov_error = 0.0
    for t in TIMES:
        time = torch.full((len(rows),), t, dtype=torch.float64)
        x_t = paths.BrownianBridge(sigma)(x0[rows], x1[cols], time, generator).x_t.numpy()
        mean, cov = closed_form(t, sigma)
        mean_error = max(mean_error, np.abs(x_t.mean(0) - mean).max())
        cov_error = max(cov_error, np.abs(np.cov(x_t.T) - cov).max())
    # 200,000 draws: 3 standard errors are about .01; the plan of 2,000 samples adds about as much
    proof("sbcfm", mean_error, 0.01)
    proof("sbcfm", cov_error, 0.02)


def test_exact_pairs_are_not_those_of_the_bridge(generator):
    """The known fault: with exact pairs the covariance half-way is too large by far more than the tolerance above."""
    x0, x1 = (torch.as_tensor(x) for x in gaussians())
    rows, cols = couplings.exact(x0, x1).sample(100_000, generator)
    half = torch.full((len(rows),), 0.5, dtype=torch.float64)
    x_t = paths.BrownianBridge(1.0)(x0[rows], x1[cols], half, generator).x_t.numpy()
    assert np.abs(np.cov(x_t.T) - closed_form(0.5, 1.0)[1]).max() > 0.1


def course() -> tuple[AnnData, float]:
    """Both samples as an AnnData, and the unit of ``FitConfig.sigma`` in its coordinates."""
    x = np.concatenate(gaussians())
    obs = pd.DataFrame({"t": np.repeat([0.0, 1.0], N)}, index=map(str, range(2 * N)))
    return AnnData(obs=obs, obsm={"X_pca": x}), float(np.sqrt(x.var(0).mean()))


@pytest.mark.parametrize("method", ["sbcfm", "sf2m", "eam"])
def test_the_learned_bridge_has_these_marginals(method, proof):
    """Mean and covariance at every tested time, by the ODE and for [SF]2M by the SDE too."""
    adata, scale = course()
    tw.tl.fit(adata, "t", method=method, rng=0, config=tw.tl.FitConfig(sigma=0.7 / scale, max_steps=3000))
    mean_error = cov_error = 0.0
    for t in TIMES:
        mean, cov = closed_form(t, 0.7)
        for stochastic in (False, True) if method != "sbcfm" else (False,):
            z = tw.tl.interpolate(adata, t, source_time=0.0, stochastic=stochastic, rng=0).obsm["X_pca"]
            mean_error = max(mean_error, np.abs(z.mean(0) - mean).max())
            cov_error = max(cov_error, np.abs(np.cov(z.T) - cov).max())
    # the SDE of 2,000 cells: 3 standard errors of a mean are .07, of a variance .1; the network adds some
    proof(method, mean_error, 0.08)
    proof(method, cov_error, 0.12)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", ["icfm", "otcfm"])
def test_the_learned_flow_reaches_the_target(method, seed, proof):
    """W2 of the Gaussians reached and wanted; with optimal pairs also the distance to their lines, half-way."""
    adata, _ = course()
    x0, _ = gaussians()
    tw.tl.fit(adata, "t", method=method, rng=seed, config=tw.tl.FitConfig(max_steps=2000))
    z = tw.tl.interpolate(adata, 1.0, source_time=0.0).obsm["X_pca"]
    root, cov = np.real(sqrtm(S1)), np.cov(z.T, bias=True)
    bures = np.trace(cov + S1 - 2 * np.real(sqrtm(root @ cov @ root)))
    proof(method, np.sqrt(((z.mean(0) - M1) ** 2).sum() + max(bures, 0.0)), 0.06)
    if method == "otcfm":
        root = np.real(sqrtm(S0))
        inverse = np.linalg.inv(root)
        optimal = M1 + (x0 - M0) @ inverse @ np.real(sqrtm(root @ S1 @ root)) @ inverse
        half = tw.tl.interpolate(adata, 0.5, source_time=0.0).obsm["X_pca"]
        proof(method, np.sqrt(((half - (x0 + optimal) / 2) ** 2).sum(1).mean()), 0.1)
