"""Unbalanced plans: balanced in the limit, and the same in every unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import thalweg as tw
from thalweg.core import couplings
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.flows import draws, normalisation
from thalweg.flows.coupling import couple
from thalweg.flows.methods import METHODS, find_method
from thalweg.flows.time_axis import make_axis


def clusters(centres, sizes, seed: int, spread: float = 0.3) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    x = np.repeat(np.asarray(centres, dtype=float), sizes, axis=0)
    return torch.as_tensor(x + spread * rng.standard_normal(x.shape), dtype=torch.float32)


def test_large_relaxation_is_balanced_and_units_do_not_matter():
    x0, x1 = clusters([[0, 0], [4, 0]], [150, 50], 0), clusters([[1, 0], [5, 0]], [80, 120], 1)
    plan = couplings.unbalanced(x0, x1, 1e4)
    for mass, weights in zip(plan.marginals(), (couplings.uniform(200), couplings.uniform(200)), strict=True):
        assert float((mass - weights).abs().sum()) < 2e-3
    loose = couplings.unbalanced(x0, x1, 0.1).marginals()[0]
    scaled = couplings.unbalanced(50 * x0 + 1000, 50 * x1 + 1000, 0.1).marginals()[0]
    assert float((loose - couplings.uniform(200)).abs().sum()) > 0.2  # far from balanced
    torch.testing.assert_close(loose, scaled, rtol=0.02, atol=1e-5)


def test_the_relaxation_is_reported(quick):
    x = torch.cat([clusters([[0, 0], [6, 0]], [150 - 30 * k, 30 + 30 * k], seed=k) for k in range(2)]).numpy()
    obs = pd.DataFrame({"t": np.repeat([0.0, 1.0], 180)}, index=map(str, range(360)))
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    for relaxation, words in (((0.25, 1.0), "0.25, 1"), (0.5, "0.5")):
        config = replace(quick, max_steps=2, relaxation=relaxation)
        tw.tl.fit(adata, "t", method="uotcfm", rng=0, config=config, check=False)
        assert tw.get.intervals(adata)["relaxation"].tolist() == [words]


def test_the_masses_of_the_paths_sum_to_the_observed_weights_at_both_ends():
    """Whatever the plan of each relaxation leaves of its marginals, m_0 and m_1 give each cell its weight back."""
    x = torch.cat([clusters([[0, 0], [6, 0]], [150 - 60 * k, 30 + 60 * k], seed=k) for k in range(2)]).numpy()
    weights = np.random.default_rng(0).uniform(0.5, 2.0, 360)
    obs = pd.DataFrame({"t": np.repeat([0.0, 1.0], 180), "w": weights}, index=map(str, range(360)))
    cells = read_course(AnnData(obs=obs, obsm={"X_pca": x}), Recipe("t", weight_key="w"))
    axis = make_axis(cells.times, "real")
    coupled = couple(cells, torch.from_numpy(cells.x), axis, METHODS["uotcfm"], tw.tl.FitConfig(), 0.1, {})
    m0, m1 = (mass.double().exp().reshape(-1, 360) for mass in coupled.log_mass)  # a row for each relaxation
    a, b = (torch.from_numpy(w / w.sum()) for w in (weights[:180], weights[180:]))
    assert len(coupled.mixture.parts) == len(m0) == len(m1) == len(tw.tl.FitConfig().relaxations)
    for k, plan in enumerate(coupled.mixture.parts):
        leaving, arriving = plan.marginals()
        assert float((leaving / leaving.sum() - a).abs().sum()) > (0.1 if k == 0 else 0.03)  # it has other marginals
        for mass, end, wanted in ((leaving, m0[k, :180], a), (arriving, m1[k, 180:], b)):
            found = mass * end
            torch.testing.assert_close(found / found.sum(), wanted, rtol=1e-5, atol=1e-9)


def vanishing(n: int = 400, seed: int = 0) -> AnnData:
    """A cloud that moves, and at the first time a twentieth of the cells far away, which are gone later."""
    rng, x, time = np.random.default_rng(seed), [], []
    for t in (0.0, 1.0, 2.0):
        x.append(rng.normal(size=(n, 2)) * 0.5 + [2 * t, 0])
        time += [t] * n
    x.append(rng.normal(size=(n // 19, 2)) * 0.5 + [0, 90])
    time += [0.0] * (n // 19)
    return AnnData(obs=pd.DataFrame({"t": time}, index=map(str, range(len(time)))), obsm={"X_pca": np.concatenate(x)})


@pytest.mark.parametrize("method", ["uotcfm", "uam"])
def test_a_population_that_vanishes_is_seen_in_training_and_gone_in_the_prediction(method):
    """Drawn from the plan alone it is never seen: it is predicted at its full share, W1 4.9."""
    adata = vanishing()
    tw.tl.fit(adata, "t", method=method, rng=0)
    cells = tw.tl.interpolate(adata, 1.0, source_time=0.0)
    weight = cells.obs["weight"].to_numpy()
    assert weight[adata[cells.obs["source"]].obsm["X_pca"][:, 1] > 20].sum() < 1e-3
    real = adata[adata.obs["t"] == 1.0].obsm["X_pca"]
    w1 = tw.metrics.wasserstein(cells.obsm["X_pca"], real, weights_x=weight)
    assert w1 < (0.25 if method == "uotcfm" else 0.9)


def test_pairs_are_drawn_by_their_masses_at_both_ends_and_never_weigh_more_than_two():
    """Counts of drawn cells, against pi (m_0 + m_1) / 2 summed by hand; weights times counts are the cells' own."""
    adata = vanishing(n=100)
    cells = read_course(adata, Recipe("t"))
    center, scale = normalisation.measure(cells.x)
    z = normalisation.normalise(cells.x, center, scale)
    axis, method, config = make_axis(cells.times, "real"), find_method("uotcfm"), tw.tl.FitConfig()
    coupled = couple(cells, z, axis, method, config, 0.1, {})
    sampler = draws.prediction_sampler(cells, z, axis, method, 0.1, coupled)
    drawn = sampler.batch(40_000, torch.Generator().manual_seed(0))
    assert float(drawn.weight.max()) <= 2 + 1e-5
    far = (cells.time == 0) & (cells.x[:, 1] > 20)
    first = drawn.start == 0
    is_far = torch.isin(drawn.batch.x0, z[torch.from_numpy(far)]).all(1)
    share = float((is_far & first).sum() / first.sum())
    assert share == pytest.approx(far.sum() / (cells.time == 0).sum() / 2, rel=0.1)  # m_0 is all of its mass
    start = drawn.log_mass[0].exp()
    assert float(start[is_far & first].sum() / start[first].sum()) == pytest.approx(0.05, abs=0.01)


def test_a_plan_and_the_flow_have_one_growth(quick):
    """Shares 1/2, 1/2 become 4/5, 1/5: a cell of the one leaves 1.6, of the other .4, by either."""
    x = torch.cat([clusters([[0, 0], [30, 0]], sizes, seed) for seed, sizes in enumerate(([100, 100], [160, 40]))])
    obs = pd.DataFrame({"t": np.repeat([0.0, 1.0], 200)}, index=map(str, range(400)))
    adata = AnnData(obs=obs, obsm={"X_pca": x.numpy()})
    tw.tl.fit(adata, "t", method="uotcfm", rng=0, config=tw.tl.FitConfig(max_steps=400, width=32))
    for kind in ("plan", "flow"):
        tw.tl.transition(adata, kind=kind)
        rows = np.asarray(tw.get.couplings(adata, normalize="none")[0.0, 1.0].sum(1)).ravel()
        np.testing.assert_allclose([rows[:100].mean(), rows[100:].mean()], [1.6, 0.4], atol=0.05, err_msg=kind)
