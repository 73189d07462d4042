"""How much imbalance a course calls for: chosen by its own interior times, whatever the units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import thalweg as tw
from thalweg.core import couplings
from thalweg.tl import _unbalanced

TIMES = np.arange(3.0)


def clusters(centres, sizes, seed: int, spread: float = 0.3) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    x = np.repeat(np.asarray(centres, dtype=float), sizes, axis=0)
    return torch.as_tensor(x + spread * rng.standard_normal(x.shape), dtype=torch.float32)


def _gain(populations) -> float:
    """Error of the chosen relaxation on the middle time, over that of balanced transport."""
    chosen = _unbalanced.choose_relaxation(populations, TIMES)
    x0, real, x1 = populations
    return _unbalanced._error(x0, real, x1, 0.5, chosen) / _unbalanced._error(x0, real, x1, 0.5, None)


def test_the_choice_helps_where_proportions_change_and_does_no_harm_where_clusters_move():
    still = [clusters([[0, 0], [6, 0]], [600 - 200 * k, 100 + 200 * k], seed=k) for k in range(3)]
    assert _gain(still) < 0.25  # balanced paths put cells where nobody is
    moving = [clusters([[6.0 * k, 0], [6.0 * k, 8]], [400, 400], seed=k, spread=1.0) for k in range(3)]
    assert _gain(moving) < 1.1


def test_two_times_leave_nothing_to_choose_by():
    assert _unbalanced.choose_relaxation([torch.zeros(3, 2), torch.ones(3, 2)], TIMES[:2]) == _unbalanced.DEFAULT


def test_large_relaxation_is_balanced_and_units_do_not_matter():
    x0, x1 = clusters([[0, 0], [4, 0]], [150, 50], 0), clusters([[1, 0], [5, 0]], [80, 120], 1)
    plan = _unbalanced.unbalanced(x0, x1, 1e4)
    for mass, weights in zip(plan.marginals(), (couplings.uniform(200), couplings.uniform(200)), strict=True):
        assert float((mass - weights).abs().sum()) < 2e-3
    loose = _unbalanced.unbalanced(x0, x1, 0.1).marginals()[0]
    scaled = _unbalanced.unbalanced(50 * x0 + 1000, 50 * x1 + 1000, 0.1).marginals()[0]
    assert float((loose - couplings.uniform(200)).abs().sum()) > 0.2  # far from balanced
    torch.testing.assert_close(loose, scaled, rtol=0.02, atol=1e-5)


def test_the_choice_is_reported_and_never_sees_the_held_out_time(quick, caplog):
    x = torch.cat([clusters([[0, 0], [6, 0]], [150 - 30 * k, 30 + 30 * k], seed=k) for k in range(4)]).numpy()
    adata = AnnData(
        obs=pd.DataFrame({"t": np.repeat(np.arange(4.0), 180)}, index=map(str, range(720))), obsm={"X_pca": x}
    )
    tw.tl.fit(adata, "t", method="uotcfm", rng=0, config=quick)
    table = tw.get.intervals(adata)
    assert set(table["relaxation"]) <= set(_unbalanced.CANDIDATES)
    scores = tw.tl.leave_one_out(adata, "t", methods=("uotcfm",), n_seeds=1, config=quick)
    spoilt = adata.copy()
    spoilt.obsm["X_pca"][adata.obs["t"] == 1] += 100.0  # the truth moves, the prediction must not
    again = tw.tl.leave_one_out(spoilt, "t", methods=("uotcfm",), times=[1.0], n_seeds=1, config=quick)
    first = scores[(scores["method"] == "uotcfm") & (scores["time"] == 1)]["w1"].item()
    assert again[again["method"] == "uotcfm"]["w1"].item() == pytest.approx(100 * 2**0.5, rel=0.2) != first
