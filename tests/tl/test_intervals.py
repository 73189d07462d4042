"""Intervals of fates, and what follows from draws of them: closed forms, and draws that differ by design."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

import thalweg as tw
from courses import forked
from thalweg.data.fates import UNKNOWN, draws_frame, fate_interval, read_draws
from thalweg.errors import InputError

SHORT = tw.tl.FitConfig(max_steps=30, width=8, depth=1, validate_every=10)


@pytest.fixture(scope="module")
def fork():
    adata = forked(n=60, noise=0.3)
    tw.tl.fit(adata, "time", rng=0, config=SHORT, check=False)
    return adata


def test_an_interval_of_variance_one_twelfth_is_that_of_the_uniform_law():
    error = np.sqrt(1 / 12 - UNKNOWN / 4)
    for level in (0.5, 0.8, 0.95):
        low, high = fate_interval(np.array([0.5]), np.array([error]), level)
        assert low[0] == pytest.approx((1 - level) / 2, abs=1e-9)
        assert high[0] == pytest.approx((1 + level) / 2, abs=1e-9)


def test_intervals_lie_within_zero_and_one_hold_their_mean_and_grow_with_error_and_level():
    p = np.linspace(0, 1, 41)
    before = np.zeros_like(p)
    for error in (0.0, 0.05, 0.2):
        low, high = fate_interval(p, np.full_like(p, error), 0.8)
        assert (low >= 0).all()
        assert (high <= 1).all()
        assert (low <= p).all()
        assert (p <= high).all()
        assert (high - low >= before - 1e-9)[8:33].all()
        wide = fate_interval(p, np.full_like(p, error), 0.95)
        assert (wide[1] - wide[0] >= high - low).all()
        before = high - low


def test_draws_change_no_fate_and_are_part_of_its_error(fork):
    plain = tw.tl.fate(fork, "type", copy=True)
    drawn = tw.tl.fate(fork, "type", n_draws=6, rng=0, copy=True)
    pd.testing.assert_frame_equal(plain.obsm["fate_type"], drawn.obsm["fate_type"])
    draws = read_draws(drawn, "type", ["A", "B"])
    assert draws.shape == (180, 6, 2)
    assert drawn.uns["fate_type"]["n_draws"] == 6
    np.testing.assert_allclose(draws.sum(2), 1, atol=1e-5)
    spread = np.square(draws - plain.obsm["fate_type"].to_numpy()[:, None]).mean(1)
    expected = np.sqrt(plain.obsm["fate_type_se"] ** 2 + spread)
    np.testing.assert_allclose(drawn.obsm["fate_type_se"], expected, atol=1e-6)
    first = (fork.obs["time"] == 0).to_numpy()
    assert spread[first].mean() > 1e-4
    assert "fate_type_draws" not in plain.obsm
    again = tw.tl.fate(drawn, "type", copy=True)
    assert "fate_type_draws" not in again.obsm  # those of another call would lie


def test_intervals_of_the_table(fork):
    fork = tw.tl.fate(fork, "type", n_draws=4, rng=0, copy=True)
    table = tw.get.fate_df(fork, "type", level=0.8)
    low, high = fate_interval(table["probability"].to_numpy(), table["se"].to_numpy(), 0.8)
    np.testing.assert_array_equal(table["lower"], low)
    np.testing.assert_array_equal(table["upper"], high)
    del fork.obsm["fate_type_se"]  # as in files of earlier releases
    assert tw.get.fate_df(fork, "type")["lower"].isna().all()
    for level in (0, 1, 1.5):
        with pytest.raises(InputError, match="level must lie between 0 and 1"):
            tw.get.fate_df(fork, "type", level=level)
    for n in (-1, True, 2.5, "3"):
        with pytest.raises(InputError, match="n_draws must be a whole number of draws"):
            tw.tl.fate(fork, "type", n_draws=n)
    with pytest.raises(InputError, match="have the models of the fit as draws"):
        tw.tl.fate(fork, "type", kind="flow", n_draws=4)


def test_models_of_other_cells_are_draws_and_give_growth_an_error(tmp_path):
    adata = forked(n=60, noise=0.3)
    tw.tl.fit(adata, "time", n_models=3, resample=True, rng=0, config=SHORT, check=False)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    for one in (adata, back):
        tw.tl.velocity(one)
        tw.tl.fate(one, "type", rng=0)
    assert list(adata.obsm["fate_type_draws"].columns) == ["A:0", "A:1", "A:2", "B:0", "B:1", "B:2"]
    assert (adata.obs["growth_rate_sd"] > 0).any()
    np.testing.assert_allclose(adata.obs["growth_rate_sd"], back.obs["growth_rate_sd"])
    np.testing.assert_allclose(adata.obsm["fate_type_draws"], back.obsm["fate_type_draws"])
    tw.tl.fit(adata, "time", n_models=2, rng=0, config=SHORT, check=False)
    tw.tl.velocity(adata)
    assert "growth_rate_sd" not in adata.obs  # models of the same cells have the same growth


def with_draws(shift: float, seed=0) -> AnnData:
    """A gene that is one in half of the cells; two draws of the fates lean to these and to the others."""
    rng = np.random.default_rng(seed)
    n = 400
    x = np.repeat([0.0, 1.0], n // 2)[:, None] + rng.normal(0, 0.1, (n, 1))
    p = np.full(n, 0.5)
    lean = np.where(np.arange(n) < n // 2, -shift, shift)
    draws = np.stack([p + lean, p - lean], 1)
    obs = pd.DataFrame({"time": np.zeros(n)}, index=map(str, range(n)))
    adata = AnnData(x, obs=obs, var=pd.DataFrame(index=["gene"]))
    adata.obsm["fate_type"] = pd.DataFrame({"A": p, "B": 1 - p}, index=obs.index)
    adata.obsm["fate_type_draws"] = draws_frame(np.stack([draws, 1 - draws], 2), ["A", "B"], obs.index)
    return adata


def test_trends_hold_the_draws_of_the_fates():
    narrow = tw.tl.gene_trends(with_draws(0.0), "gene", "time", fate="type").iloc[0]
    wide = tw.tl.gene_trends(with_draws(0.3), "gene", "time", fate="type").iloc[0]
    assert wide["mean"] == pytest.approx(narrow["mean"])
    assert narrow["upper"] - narrow["lower"] < 0.12
    assert wide["lower"] < 0.25 < 0.75 < wide["upper"]  # the draws have the means .2 and .8


def test_intervals_of_drivers_hold_the_draws_of_the_fates():
    """With draws at r and -r around zero the variance on Fisher's scale is artanh(r)^2."""
    adata = with_draws(0.3)
    adata.obsm["fate_type"]["A"] += np.random.default_rng(1).normal(0, 0.01, 400)
    tw.tl.drivers(adata, "type", groups=["A"])
    found = tw.get.drivers_df(adata, "type").iloc[0]
    r = [np.corrcoef(adata.X[:, 0], adata.obsm["fate_type_draws"][f"A:{i}"])[0, 1] for i in range(2)]
    away = np.mean((np.arctanh(r) - np.arctanh(found["correlation"])) ** 2)
    half = stats.norm.ppf(0.975) * np.sqrt(1 / (400 - 3) + away)
    assert found["upper"] == pytest.approx(np.tanh(np.arctanh(found["correlation"]) + half))
    assert found["lower"] == pytest.approx(np.tanh(np.arctanh(found["correlation"]) - half))


def test_draws_belong_to_fates_by_name_and_missing_ones_are_refused():
    adata = with_draws(0.3)
    trend = tw.tl.gene_trends(adata, "gene", "time", fate="type")
    adata.obsm["fate_type"] = adata.obsm["fate_type"][["B", "A"]]
    turned = tw.tl.gene_trends(adata, "gene", "time", fate="type")
    columns = ["mean", "lower", "upper"]
    for group in "AB":
        one, other = (t[t["group"] == group][columns].to_numpy() for t in (trend, turned))
        np.testing.assert_allclose(one, other, rtol=0.05)
    other = with_draws(0.3)
    del other.obsm["fate_type_draws"]
    joined = anndata.concat([adata, other], join="outer", index_unique="-")
    for verb in (lambda: tw.tl.gene_trends(joined, "gene", "time", fate="type"), lambda: tw.tl.drivers(joined, "type")):
        with pytest.raises(InputError, match="lacks draws for 400 of 800 cells"):
            verb()
    adata.obsm["fate_type"] = adata.obsm["fate_type"].rename(columns={"A": "C"})
    with pytest.raises(InputError, match="holds no draws of the fates"):
        tw.tl.drivers(adata, "type")


def test_standard_errors_belong_to_fates_by_name(fork):
    fork = tw.tl.fate(fork, "type", n_draws=3, rng=0, copy=True)
    before = tw.get.fate_df(fork, "type").pivot(index="cell", columns="group", values="lower")
    fork.obsm["fate_type"] = fork.obsm["fate_type"][["B", "A"]]
    after = tw.get.fate_df(fork, "type").pivot(index="cell", columns="group", values="lower")
    np.testing.assert_array_equal(before[["A", "B"]], after[["A", "B"]])
