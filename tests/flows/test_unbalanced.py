"""Unbalanced plans: balanced in the limit, and the same in every unit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

import thalweg as tw
from thalweg.core import couplings
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.flows.coupling import couple
from thalweg.flows.methods import METHODS
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
    tw.tl.fit(adata, "t", method="uotcfm", rng=0, config=quick)
    assert tw.get.intervals(adata)["relaxation"].tolist() == [quick.relaxation]


def test_the_masses_of_the_paths_sum_to_the_observed_weights_at_both_ends():
    """Whatever the plan leaves of its marginals, m_0 and m_1 give each cell its weight back."""
    x = torch.cat([clusters([[0, 0], [6, 0]], [150 - 60 * k, 30 + 60 * k], seed=k) for k in range(2)]).numpy()
    weights = np.random.default_rng(0).uniform(0.5, 2.0, 360)
    obs = pd.DataFrame({"t": np.repeat([0.0, 1.0], 180), "w": weights}, index=map(str, range(360)))
    cells = read_course(AnnData(obs=obs, obsm={"X_pca": x}), Recipe("t", weight_key="w"))
    axis = make_axis(cells.times, "real")
    coupled = couple(cells, torch.from_numpy(cells.x), axis, METHODS["uotcfm"], tw.tl.FitConfig(), 0.1, {})
    plan = coupled.mixture.parts[0]
    leaving, arriving = plan.marginals()
    m0, m1 = (mass.double().exp() for mass in coupled.log_mass)
    a, b = (torch.from_numpy(w / w.sum()) for w in (weights[:180], weights[180:]))
    assert float((leaving / leaving.sum() - a).abs().sum()) > 0.1  # the plan itself has other marginals
    for mass, end, wanted in ((leaving, m0[:180], a), (arriving, m1[180:], b)):
        found = mass * end
        torch.testing.assert_close(found / found.sum(), wanted, rtol=1e-5, atol=1e-9)
