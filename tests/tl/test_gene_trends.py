"""Trends: means of linear functions, closed forms of the bands, lineages as mixtures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats
from scipy.sparse import csr_matrix

import thalweg as tw
from thalweg.data.fates import draws_frame
from thalweg.errors import InputError, MissingKeyError

TIMES = (0.0, 1.0, 2.5)


def linear(n: int = 50, noise: float = 0.0, seed: int = 0) -> AnnData:
    """Genes that rise by their number per unit of time."""
    rng = np.random.default_rng(seed)
    time = np.repeat(TIMES, n)
    x = time[:, None] * np.arange(4) + 1 + noise * rng.standard_normal((3 * n, 4))
    obs = pd.DataFrame({"time": time, "w": rng.uniform(0.5, 2, 3 * n)}, index=map(str, range(3 * n)))
    return AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(4)]))


def test_a_linear_gene_has_a_linear_trend():
    found = tw.tl.gene_trends(linear(), ["g3", "g1"], "time")
    assert list(found["gene"]) == ["g3"] * 3 + ["g1"] * 3
    assert list(found["time"]) == [*TIMES, *TIMES]
    for column in ("mean", "lower", "upper"):
        np.testing.assert_allclose(found[column], [1 + 3 * t for t in TIMES] + [1 + t for t in TIMES])
    np.testing.assert_allclose(found["n_effective"], 50)
    assert set(found["group"]) == {"all"}


def test_means_are_weighted_and_effective_numbers_follow():
    adata = linear(noise=1.0)
    adata.X = csr_matrix(adata.X)
    found = tw.tl.gene_trends(adata, "g2", "time", weight_key="w")
    for t, rows in adata.obs.groupby("time").indices.items():
        x, w = adata.X[rows, 2].toarray()[:, 0], adata.obs["w"].to_numpy()[rows]
        row = found[found["time"] == t].iloc[0]
        assert row["mean"] == pytest.approx((w * x).sum() / w.sum())
        assert row["n_effective"] == pytest.approx(w.sum() ** 2 / (w**2).sum())
        assert row["lower"] < row["mean"] < row["upper"]


def test_a_lineage_is_a_mixture_of_its_cells():
    """Cells 0 to 24 of each time are of lineage A for sure, the rest half and half."""
    adata = linear(noise=1.0)
    p = np.where(np.tile(np.arange(50) < 25, 3), 1.0, 0.5)
    adata.obsm["fate_type"] = pd.DataFrame({"A": p, "B": 1 - p}, index=adata.obs_names)
    adata.obs["half"] = np.where(p == 1, "sure", "open")
    by_fate = tw.tl.gene_trends(adata, "g2", "time", fate="type").set_index(["group", "time"])["mean"]
    by_group = tw.tl.gene_trends(adata, "g2", "time", groupby="half").set_index(["group", "time"])["mean"]
    for t in TIMES:
        mixed = (2 * by_group["sure", t] + by_group["open", t]) / 3
        assert by_fate["A", t] == pytest.approx(mixed)
        assert by_fate["B", t] == pytest.approx(by_group["open", t])


def test_times_without_a_group_have_no_row():
    adata = linear()
    adata.obs["type"] = np.where(adata.obs["time"] == 0, "early", "late")
    found = tw.tl.gene_trends(adata, "g1", "time", groupby="type")
    assert list(zip(found["group"], found["time"], strict=True)) == [("early", 0.0), ("late", 1.0), ("late", 2.5)]


def test_the_band_of_the_mean_covers_the_truth():
    """Bayesian bootstrap: mean zero, half-width 1.96 sd / sqrt(n + 1), truth inside in 95 % of data sets."""
    inside, width = [], []
    for seed in range(150):
        adata = linear(n=60, noise=1.0, seed=seed)
        found = tw.tl.gene_trends(adata, ["g0", "g1", "g2"], "time", n_draws=400, rng=seed)
        truth = 1 + found["time"] * found["gene"].str[1:].astype(int)
        inside += ((found["lower"] <= truth) & (truth <= found["upper"])).tolist()
        width += ((found["upper"] - found["lower"]) / 2).tolist()
    assert np.mean(inside) == pytest.approx(0.95, abs=0.025)
    assert np.mean(width) == pytest.approx(1.96 / np.sqrt(61), rel=0.04)


def test_the_band_of_cells_holds_quantiles():
    adata = linear(noise=1.0)
    found = tw.tl.gene_trends(adata, "g1", "time", band="cells", level=0.8)
    for i, t in enumerate(TIMES):
        x = adata[adata.obs["time"] == t, "g1"].X[:, 0]
        np.testing.assert_allclose(
            found.loc[i, ["lower", "upper"]].astype(float), np.quantile(x, [0.1, 0.9], method="inverted_cdf")
        )
    rows = np.repeat(np.arange(150), np.tile([1, 2], 75))
    doubled = AnnData(adata.X[rows], obs=adata.obs.iloc[rows].set_axis(list(map(str, range(225)))), var=adata.var)
    adata.obs["twice"] = np.tile([1.0, 2.0], 75)
    weighted = tw.tl.gene_trends(adata, "g1", "time", weight_key="twice", band="cells")
    repeated = tw.tl.gene_trends(doubled, "g1", "time", band="cells")
    pd.testing.assert_frame_equal(weighted.drop(columns="n_effective"), repeated.drop(columns="n_effective"))


def test_the_band_over_replicates_covers_the_mean_of_other_replicates():
    """Three replicates of a time, shifted by .5 each: 95 % of data sets, where a band over cells covers few."""
    inside, by_cell, genes = [], [], ["g0", "g1", "g2", "g3"]
    for seed in range(100):
        adata, rng = linear(n=60, noise=1.0, seed=seed), np.random.default_rng(seed)
        mouse = np.tile(np.repeat(np.arange(3), 20), 3)
        adata.obs["mouse"] = mouse
        adata.X += rng.normal(0, 0.5, (9, 4))[3 * np.repeat(np.arange(3), 60) + mouse]
        for key, covered in (("mouse", inside), (None, by_cell)):
            found = tw.tl.gene_trends(adata, genes, "time", replicate_key=key, n_draws=100, rng=seed)
            truth = 1 + found["time"] * found["gene"].str[1:].astype(int)
            covered += ((found["lower"] <= truth) & (truth <= found["upper"])).tolist()
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)
    assert np.mean(by_cell) < 0.7


def test_a_band_over_replicates_is_a_t_interval_and_holds_the_draws_of_fates():
    adata = linear(noise=1.0, n=60)
    adata.obs["mouse"] = np.tile(np.repeat(["a", "b", "c"], 20), 3)
    found = tw.tl.gene_trends(adata, "g1", "time", replicate_key="mouse", level=0.9).set_index("time")
    for t, rows in adata.obs.groupby("time").indices.items():
        means = adata.X[rows, 1].reshape(3, 20).mean(1)
        low, high = stats.t.interval(0.9, 2, means.mean(), means.std(ddof=1) / np.sqrt(3))
        assert (found.loc[t, "lower"], found.loc[t, "upper"]) == pytest.approx((low, high))
    half = pd.DataFrame({"A": 0.5, "B": 0.5}, index=adata.obs_names)
    adata.obsm["fate_type"] = half
    same = tw.tl.gene_trends(adata, "g1", "time", fate="type", replicate_key="mouse", level=0.9)
    np.testing.assert_allclose(same.loc[same["group"] == "A", "lower"], found["lower"])
    slope = np.array([-0.1, 0.0, 0.1, -0.1, 0.0, 0.1])  # by which draws prefer cells with much of the gene
    p = 0.5 + slope * np.clip(adata.X[:, [1]] - adata.X[:, 1].mean(), -3, 3)
    draws = np.stack([p, 1 - p], 2)
    adata.obsm["fate_type_draws"] = draws_frame(draws, ["A", "B"], adata.obs_names)
    wider = tw.tl.gene_trends(adata, "g1", "time", fate="type", replicate_key="mouse", level=0.9)
    assert (wider["upper"] - wider["lower"] > same["upper"] - same["lower"]).all()


def test_one_replicate_has_no_band(caplog):
    adata = linear(noise=1.0)
    adata.obs["mouse"] = np.where((adata.obs["time"] == 1) | (np.arange(150) % 2 > 0), "a", "b")
    found = tw.tl.gene_trends(adata, ["g1", "g2"], "time", replicate_key="mouse").set_index("time")
    assert found["lower"].isna().tolist() == [False, True, False] * 2
    assert "one replicate only at the times [1.0], so that trends have no band there" in caplog.text
    with pytest.raises(InputError, match="band='cells' holds the cells themselves"):
        tw.tl.gene_trends(adata, "g1", "time", replicate_key="mouse", band="cells")


def test_the_same_seed_gives_the_same_band():
    adata = linear(noise=1.0)
    one, two = (tw.tl.gene_trends(adata, "g1", "time", rng=3) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    pd.testing.assert_frame_equal(one, tw.tl.gene_trends(adata, "g1", "time", random_state=3))
    assert (one["lower"] != tw.tl.gene_trends(adata, "g1", "time", rng=4)["lower"]).any()


def test_errors():
    adata = linear()
    with pytest.raises(MissingKeyError, match="'nope'"):
        tw.tl.gene_trends(adata, ["g1", "nope"], "time")
    with pytest.raises(InputError, match="not both"):
        tw.tl.gene_trends(adata, "g1", "time", fate="a", groupby="b")
    with pytest.raises(InputError, match="band"):
        tw.tl.gene_trends(adata, "g1", "time", band="sd")
    with pytest.raises(InputError, match="level"):
        tw.tl.gene_trends(adata, "g1", "time", level=0.0)
    adata.X[5, 1] = np.nan
    with pytest.raises(InputError, match="'g1' holds NaN"):
        tw.tl.gene_trends(adata, "g1", "time")
