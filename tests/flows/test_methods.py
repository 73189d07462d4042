"""Every method against a closed form, and the options of the loss through `tl.fit`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.errors import InputError
from thalweg.flows import store

N = 1500
CONFIG = tw.tl.FitConfig(max_steps=1500)


def course(*populations: np.ndarray, **columns: object) -> AnnData:
    """Populations at times 0, 1, ..."""
    x = np.concatenate(populations)
    time = np.repeat(np.arange(len(populations), dtype=float), [len(p) for p in populations])
    return AnnData(obs=pd.DataFrame({"t": time, **columns}, index=[f"c{i}" for i in range(len(x))]), obsm={"X_pca": x})


def gaussian(mean, cov, seed: int, n: int = N) -> np.ndarray:
    """Samples with exactly these moments, so that the sampling error of the ends is out of the way."""
    z = np.random.default_rng(seed).standard_normal((n, len(mean)))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(z.T @ z / n)).T
    return np.asarray(mean) + z @ np.linalg.cholesky(np.asarray(cov)).T


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_trigonometric_marginals_of_independent_gaussians():
    """Centred at c: mean cos m0 + sin m1, covariance cos^2 S0 + sin^2 S1."""
    m0, m1, s0, s1 = np.array([-2.0, 0.0]), np.array([2.0, 1.0]), np.diag([1.0, 0.5]), np.diag([0.4, 1.2])
    adata = course(gaussian(m0, s0, 0), gaussian(m1, s1, 1))
    tw.tl.fit(adata, "t", method="vpcfm", rng=0, config=CONFIG)
    c = (m0 + m1) / 2
    for t in (0.25, 0.5, 0.75):
        x = tw.tl.interpolate(adata, t, source_time=0.0).obsm["X_pca"]
        cos, sin = np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)
        np.testing.assert_allclose(x.mean(0), c + cos * (m0 - c) + sin * (m1 - c), atol=0.1)
        np.testing.assert_allclose(np.cov(x.T), cos**2 * s0 + sin**2 * s1, atol=0.12)


def test_noise_flow_has_the_density_of_each_time(proof):
    """The source is noise, so the density at each time is the population's own: Gaussians here."""
    means, covs = ([-2.0, 0.0], [2.0, 1.0]), (np.diag([1.0, 0.5]), np.array([[0.6, 0.3], [0.3, 0.8]]))
    populations = [gaussian(m, s, i) for i, (m, s) in enumerate(zip(means, covs, strict=True))]
    adata = course(*populations)
    tw.tl.fit(adata, "t", method="fm", rng=0, config=replace(CONFIG, max_steps=3000, width=128))
    tw.tl.log_likelihood(adata)
    true = np.concatenate([log_gaussian(p, m, s) for p, m, s in zip(populations, means, covs, strict=True)])
    proof("fm_tl", np.abs(adata.obs["log_likelihood"] - true).mean(), 0.1)
    arrived = tw.tl.interpolate(adata, 1.0, source_time=0.0).obsm["X_pca"]
    np.testing.assert_allclose(arrived.mean(0), means[1], atol=0.1)
    np.testing.assert_allclose(np.cov(arrived.T), covs[1], atol=0.15)


def log_gaussian(x: np.ndarray, mean, cov) -> np.ndarray:
    r = x - np.asarray(mean)
    return -0.5 * ((r @ np.linalg.inv(cov)) * r).sum(1) - 0.5 * np.linalg.slogdet(2 * np.pi * np.asarray(cov))[1]


def test_velocity_of_the_noise_flow_is_the_derivative_of_its_paths():
    adata = course(gaussian([0.0, 0.0], np.eye(2), 0, 300), gaussian([2.0, 0.0], np.eye(2) / 2, 1, 300))
    tw.tl.fit(adata, "t", method="fm", rng=0, config=replace(CONFIG, max_steps=300))
    tw.tl.velocity(adata)
    early = adata[adata.obs["t"] == 0]
    h = 0.05
    ahead = tw.tl.interpolate(early, h, source_time=0.0, solver="rk4", n_steps=50).obsm["X_pca"]
    back = tw.tl.interpolate(early, -h, source_time=0.0, solver="rk4", n_steps=50, extrapolate=True).obsm["X_pca"]
    np.testing.assert_allclose(early.obsm["velocity_X_pca"], (ahead - back) / (2 * h), atol=0.02)


@pytest.mark.parametrize("method", ["am", "otcfm"])
def test_potential_and_velocity_find_the_displacement_interpolation(method):
    """Between N(m0, a^2) and N(m1, b^2) the optimal map is affine: spread (1-t) a + t b."""
    adata = course(gaussian([0.0, 0.0], np.eye(2), 0), gaussian([3.0, 0.0], 0.25 * np.eye(2), 1))
    tw.tl.fit(adata, "t", method=method, rng=0, config=replace(CONFIG, sigma=0.0))
    for t in (0.5, 1.0):
        x = tw.tl.interpolate(adata, t, source_time=0.0).obsm["X_pca"]
        np.testing.assert_allclose(x.mean(0), [3 * t, 0], atol=0.1)
        np.testing.assert_allclose(x.std(0), (1 - t) + 0.5 * t, atol=0.08)


def test_density_of_a_gaussian_flow(proof):
    """N(0, I) moves to N(m, I/4) along straight lines, so the density at the end is known; a far cell is an outlier."""
    end = gaussian([3.0, 0.0], 0.25 * np.eye(2), 1)
    adata = course(gaussian([0.0, 0.0], np.eye(2), 0), end)
    tw.tl.fit(adata, "t", method="otcfm", rng=0, config=replace(CONFIG, sigma=0.02, max_steps=3000, width=128))
    tw.tl.log_likelihood(adata)
    exact = adata.obs["log_likelihood"].to_numpy()
    typical = ((end - [3, 0]) ** 2).sum(1) < 1  # two standard deviations: the map is learned where there are cells
    error = np.abs(exact[N:] - log_gaussian(end, [3, 0], 0.25 * np.eye(2)))[typical].mean()
    proof("log_likelihood_tl", error, 0.1)
    tw.tl.log_likelihood(adata, trace="hutchinson", key_added="estimate")
    assert adata.obs["estimate"].mean() == pytest.approx(exact.mean(), abs=0.05)
    far = course(end[:5] * 0, end[:5] + 6)
    far = _joined(adata, far)
    tw.tl.log_likelihood(far)
    assert far.obs["log_likelihood"][-5:].max() < exact[N:].min()


def _joined(adata: AnnData, more: AnnData) -> AnnData:
    import anndata

    out = anndata.concat([adata, more[more.obs["t"] == 1]], index_unique="-")
    out.uns["thalweg"] = adata.uns["thalweg"]
    return out


# --- growth ----------------------------------------------------------------------------------------------------------


# a potential must be velocity and growth at once, and cannot be both exactly
@pytest.mark.parametrize(("method", "row", "tolerance"), [("uotcfm", "uotcfm", 0.02), ("uam", "uam_tl", 0.1)])
def test_growth_of_two_clusters(method, row, tolerance, proof):
    """Shares 1/2, 1/2 become 2/3, 1/3 far apart: nobody crosses, weights go like (4/3)^t and (2/3)^t."""
    rng = np.random.default_rng(0)
    up, down = np.array([0.0, 8.0]), np.array([0.0, -8.0])

    def clusters(n_up: int, n_down: int, x: float) -> np.ndarray:
        centres = np.repeat([up, down], [n_up, n_down], axis=0) + np.array([x, 0.0])
        return centres + 0.3 * rng.standard_normal(centres.shape)

    adata = course(clusters(300, 300, 0.0), clusters(400, 200, 2.0))
    tw.tl.fit(adata, "t", method=method, rng=0, config=CONFIG)
    for t in (0.5, 1.0):
        predicted = tw.tl.interpolate(adata, t, source_time=0.0)
        x, w = predicted.obsm["X_pca"], predicted.obs["weight"].to_numpy()
        a, b = (4 / 3) ** t, (2 / 3) ** t
        share = w[x[:, 1] > 0].sum()
        proof(row, abs(share - a / (a + b)), tolerance)
        assert (x[:, 1] > 0).sum() == 300
    np.testing.assert_allclose(x[:, 0].mean(), 2, atol=0.3)


# --- the same marginals for every diffusion --------------------------------------------------------------------------


def test_sdes_of_every_strength_have_the_same_marginals(proof):
    adata = course(gaussian([0.0, 0.0], np.eye(2), 0, 3000), gaussian([2.0, 0.0], 0.5 * np.eye(2), 1, 3000))
    tw.tl.fit(adata, "t", method="sf2m", rng=0, config=replace(CONFIG, sigma=0.5, max_steps=3000))
    clouds = {
        w: tw.tl.interpolate(adata, 1.0, source_time=0.0, stochastic=w, rng=0).obsm["X_pca"] for w in (False, 0.5, 1.5)
    }
    for w, x in clouds.items():
        proof("same_marginals_tl", np.abs(x.mean(0) - clouds[False].mean(0)).max(), 0.08)
        proof("same_marginals_tl", np.abs(np.cov(x.T) - np.cov(clouds[False].T)).max(), 0.1)
        moved = np.abs(x - clouds[False]).mean()
        assert (moved > 0.05) == (w is not False)  # other paths, same marginals


# --- options of the loss ---------------------------------------------------------------------------------------------


def _spread(config: tw.tl.FitConfig) -> float:
    """Standard deviation at the end of a flow from N(0, 1) to N(m, 1/4) with independent pairs."""
    adata = course(gaussian([0.0], [[1.0]], 0, 4000), gaussian([2.0], [[0.25]], 1, 4000))
    tw.tl.fit(adata, "t", method="icfm", rng=0, config=config)
    return float(tw.tl.interpolate(adata, 1.0, source_time=0.0).obsm["X_pca"].std())


def test_contrastive_sharpens_by_the_known_power_and_undo_takes_it_back(proof):
    config = replace(CONFIG, sigma=0.0, max_steps=3000, batch_size=1024)
    weight = 0.2
    sharp = _spread(replace(config, contrastive=tw.tl.Contrastive(weight)))
    proof("delta_fm_tl", abs(sharp - 0.5 ** (1 / (1 - weight))), 0.02)  # .420 against .5
    undone = _spread(replace(config, contrastive=tw.tl.Contrastive(weight, undo=True)))
    proof("delta_fm_tl", abs(undone - 0.5), 0.025)


def test_weight_zero_is_the_plain_fit_to_the_bit(quick):
    adata = course(gaussian([0.0], [[1.0]], 0, 100), gaussian([2.0], [[0.25]], 1, 100))
    zero = replace(quick, contrastive=tw.tl.Contrastive(0.0))
    tw.tl.fit(adata, "t", method="otcfm", rng=0, config=quick)
    tw.tl.fit(adata, "t", method="otcfm", rng=0, config=zero, key_added="zero")
    np.testing.assert_array_equal(adata.uns["thalweg"]["weights"]["0"], adata.uns["zero"]["weights"]["0"])


@pytest.mark.parametrize("method", ["otcfm", "sf2m", "fm"])
def test_dispersive_features_spread_and_are_logged(method, quick):
    adata = course(gaussian([0.0, 0.0], np.eye(2), 0, 200), gaussian([2.0, 0.0], np.eye(2), 1, 200))
    rank = {}
    for weight in (1e-6, 1.0):
        option = tw.tl.Dispersive(weight, block=0.5)
        tw.tl.fit(adata, "t", method=method, rng=0, config=replace(quick, max_steps=200, dispersive=option))
        history = tw.get.history(adata)
        assert {"velocity", "dispersive", "feature_norm", "effective_rank"} <= set(history)
        rank[weight] = history["feature_norm"].iloc[-1]
    assert rank[1.0] > 1.2 * rank[1e-6]  # the known inflation, which is why it is logged


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_options_survive_writing(kind, quick, tmp_path):
    import anndata

    half = ["a"] * 60 + ["b"] * 60
    adata = course(gaussian([0.0], [[1.0]], 0, 120), gaussian([2.0], [[0.25]], 1, 120), kind=half + half)
    option = tw.tl.Contrastive(0.1, negatives="other_condition", undo=True)
    config = replace(quick, contrastive=option, dispersive=tw.tl.Dispersive(group=None))
    tw.tl.fit(adata, "t", method="otcfm", condition_key="kind", rng=0, config=config)
    path = tmp_path / f"fit.{kind}"
    getattr(adata, f"write_{kind}")(path)
    back = getattr(anndata, f"read_{kind}")(path)
    for a in (adata, back):
        tw.tl.velocity(a)
    np.testing.assert_array_equal(adata.obsm["velocity_X_pca"], back.obsm["velocity_X_pca"])
    assert store._read_config(back.uns["thalweg"]["config"]) == config


def test_mean_negative_of_each_condition():
    """Undone with negatives of the other condition, each condition gets back its own flow."""
    half = ["a"] * 1000 + ["b"] * 1000
    start = gaussian([0.0], [[1.0]], 0, 2000)
    end = np.concatenate([gaussian([3.0], [[0.25]], 1, 1000), gaussian([-3.0], [[0.25]], 2, 1000)])
    adata = course(start, end, kind=half + half)
    option = tw.tl.Contrastive(0.3, negatives="other_condition", undo=True)
    config = replace(CONFIG, contrastive=option, batch_size=512)
    tw.tl.fit(adata, "t", method="otcfm", condition_key="kind", rng=0, config=config)
    predicted = tw.tl.interpolate(adata, 1.0, source_time=0.0)
    for kind, mean in (("a", 3.0), ("b", -3.0)):
        x = predicted.obsm["X_pca"][predicted.obs["kind"] == kind]
        assert x.mean() == pytest.approx(mean, abs=0.15)
        assert x.std() == pytest.approx(0.5, abs=0.08)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "change", "match"),
    [
        ("am", {"contrastive": tw.tl.Contrastive()}, "contrastive needs a method"),
        ("am", {"dispersive": tw.tl.Dispersive()}, "dispersive needs a method"),
        ("uotcfm", {"coupling": "minibatch"}, "no unbalanced plans"),
        ("otcfm", {"dispersive": tw.tl.Dispersive(block="nowhere")}, "no submodule 'nowhere'; available"),
        ("otcfm", {"contrastive": tw.tl.Contrastive(negatives="other_condition")}, "needs batch.condition"),
    ],
)
def test_options_that_do_not_apply(method, change, match, quick):
    adata = course(gaussian([0.0], [[1.0]], 0, 50), gaussian([2.0], [[0.25]], 1, 50))
    with pytest.raises(InputError, match=match):
        tw.tl.fit(adata, "t", method=method, rng=0, config=replace(quick, **change))
    assert not adata.uns


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tw.tl.Contrastive(1.0), r"\[0, 1\), found 1.0"),
        (lambda: tw.tl.Contrastive(negatives="all"), "negatives must be one of"),
        (lambda: tw.tl.Dispersive(0.0), "weight must be positive"),
        (lambda: tw.tl.Dispersive(kind="l2"), "kind must be one of"),
        (lambda: tw.tl.FitConfig(relaxation=0.0), "relaxation must be positive"),
        (lambda: tw.tl.FitConfig(contrastive=0.05), r"tw.tl.Contrastive\(...\) or None, found 0.05"),
    ],
)
def test_bad_options(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_bad_arguments_of_interpolate_and_log_likelihood(fitted):
    with pytest.raises(InputError, match="stochastic must be"):
        tw.tl.interpolate(fitted, 2.0, stochastic=-1.0)
    with pytest.raises(InputError, match="learns a score"):
        tw.tl.interpolate(fitted, 2.0, stochastic=0.5)
    with pytest.raises(InputError, match="trace must be"):
        tw.tl.log_likelihood(fitted, trace="full")
    late = fitted[fitted.obs["time"] > 0].copy()
    with pytest.raises(InputError, match="0 cells at the first time 0"):
        tw.tl.log_likelihood(late)
    assert "log_likelihood" not in late.obs
