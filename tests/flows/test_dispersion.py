"""`interpolate(prediction="sample")`: the covariance of a prediction, between those of its neighbours."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import thalweg as tw
from thalweg.errors import InputError


@pytest.fixture(scope="module")
def course():
    """Noise of another covariance at each of two times, for two conditions of different width."""
    rng = np.random.default_rng(1)
    n = 2000
    condition = np.tile(["a", "b"], n)
    wide = np.where(condition == "a", 1.0, 3.0)[:, None]
    day = np.repeat([0.0, 2.0], n)
    shape = np.where(day[:, None] == 0, [[1.0, 1.0, 0.2]], [[1.0, 2.0, 0.2]])
    x = rng.normal(size=(2 * n, 3)) * shape * wide
    obs = pd.DataFrame({"day": day, "condition": condition}, index=[f"c{i}" for i in range(2 * n)])
    adata = anndata.AnnData(obs=obs, obsm={"X_pca": x})
    config = tw.tl.FitConfig(max_steps=50)
    tw.tl.fit(adata, "day", method="icfm", condition_key="condition", rng=0, config=config)
    return adata


def covariance(x, weights=None):
    return np.cov(np.asarray(x, dtype=float).T, bias=True, aweights=weights)


@pytest.mark.parametrize("options", [{}, {"both_ends": False}])
def test_has_the_covariance_between_its_neighbours_in_each_condition(course, options):
    x, day, label = course.obsm["X_pca"], course.obs["day"].to_numpy(), course.obs["condition"].to_numpy()
    narrow = tw.tl.interpolate(course, 0.8, **options)
    wide = tw.tl.interpolate(course, 0.8, prediction="sample", rng=0, **options)
    for name in ("a", "b"):
        target = sum(s * covariance(x[(day == t) & (label == name)]) for s, t in ((0.6, 0.0), (0.4, 2.0)))
        own = (wide.obs["condition"] == name).to_numpy()
        got, before = (covariance(p.obsm["X_pca"][own], p.obs["weight"][own]) for p in (wide, narrow))
        np.testing.assert_allclose(np.diag(got), np.diag(target), rtol=0.12)
        assert np.trace(before) < 0.75 * np.trace(target)
    assert wide.obs["source"].tolist() == narrow.obs["source"].tolist()
    kinds = [wide.obs["condition"].to_numpy(), course.obs["day"][wide.obs["source"]].to_numpy()]
    one, other = (p.obs["weight"].groupby(kinds).sum() for p in (wide, narrow))
    np.testing.assert_allclose(one, other, rtol=2e-3)  # thirds of the cells of a mean are at stages of their own
    assert [p.uns["interpolation"]["prediction"] for p in (narrow, wide)] == ["mean", "sample"]


def test_same_seed_same_bits_and_no_noise_at_rest(course):
    one, two, other = (tw.tl.interpolate(course, 0.8, prediction="sample", rng=s).obsm["X_pca"] for s in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    still = course.copy()
    still.obsm["X_pca"] = np.zeros_like(still.obsm["X_pca"])
    tw.tl.fit(still, "day", method="otcfm", rng=0, config=tw.tl.FitConfig(max_steps=5))
    moved = tw.tl.interpolate(still, 1.0, prediction="sample", rng=0)
    early = (still.obs["day"][moved.obs["source"]] == 0.0).to_numpy()
    for side, options in ((early, {"both_ends": False}), (~early, {"source_time": 2.0})):
        np.testing.assert_array_equal(moved.obsm["X_pca"][side], tw.tl.interpolate(still, 1.0, **options).obsm["X_pca"])


def test_needs_times_on_both_sides(course):
    with pytest.raises(InputError, match=r"before and after time=3.*\[0\.0, 2\.0\]"):
        tw.tl.interpolate(course, 3.0, prediction="sample", extrapolate=True)
