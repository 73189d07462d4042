"""Drivers: scipy's correlation, partial correlation by regression, Benjamini-Hochberg by hand, planted genes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats
from scipy.sparse import csr_matrix

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError
from thalweg.tl import _drivers


def cells(n: int = 200, genes: int = 30, driving: int = 0, seed: int = 0, effect: float = 1.0) -> AnnData:
    """Fates drawn by themselves; the first ``driving`` genes follow them, the others are noise."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=n)
    x = rng.standard_normal((n, genes))
    x[:, :driving] += effect * (p - p.mean())[:, None] / p.std()
    obs = pd.DataFrame(
        {"time": np.repeat([0.0, 1.0], n // 2), "lab": np.tile(["a", "b"], n // 2)}, index=map(str, range(n))
    )
    adata = AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(genes)]))
    adata.obsm["fate_type"] = pd.DataFrame({"A/x": p, "B": 1 - p}, index=obs.index)
    return adata


def table(adata: AnnData, **kwargs) -> pd.DataFrame:
    tw.tl.drivers(adata, "type", **kwargs)
    return tw.get.drivers_df(adata, "type")


def test_correlations_tests_and_intervals_are_those_of_scipy():
    adata = cells(driving=5)
    found = table(adata, level=0.9)
    for row in found.itertuples():
        expected = stats.pearsonr(adata[:, row.gene].X[:, 0], adata.obsm["fate_type"][row.group])
        interval = expected.confidence_interval(0.9)
        np.testing.assert_allclose(
            [row.correlation, row.p_value, row.lower, row.upper],
            [expected.statistic, expected.pvalue, interval.low, interval.high],
            rtol=1e-9,
        )
    first = found[found["group"] == "A/x"]
    assert set(first["gene"][:5]) == {f"g{j}" for j in range(5)}
    assert first["correlation"].is_monotonic_decreasing
    second = found[found["group"] == "B"].set_index("gene")["correlation"]
    np.testing.assert_allclose(first.set_index("gene")["correlation"], -second[first["gene"]], atol=1e-12)


def test_strata_are_a_regression_on_their_indicators():
    """The partial correlation given time and lab, and its t, from least squares with all of them as covariates."""
    adata = cells(n=120, driving=2)
    adata.X[60:] += 3  # a gene that changes with time
    adata.obsm["fate_type"] = adata.obsm["fate_type"] * np.where(adata.obs["time"] == 1.0, 1.0, 0.5)[:, None]
    found = table(adata, time_key="time", condition_key="lab").query("group == 'B'").set_index("gene")
    strata = pd.get_dummies(adata.obs["time"].astype(str) + adata.obs["lab"]).to_numpy(dtype=float)
    y = adata.obsm["fate_type"]["B"].to_numpy()
    for gene in ("g0", "g7"):
        design = np.column_stack([adata[:, gene].X[:, 0], strata])
        solution, residual, *_ = np.linalg.lstsq(design, y)
        freedom = len(y) - design.shape[1]
        error = np.sqrt(residual[0] / freedom * np.linalg.inv(design.T @ design)[0, 0])
        t = solution[0] / error
        assert found.loc[gene, "p_value"] == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-9)
        assert found.loc[gene, "correlation"] == pytest.approx(t / np.sqrt(freedom + t**2), rel=1e-9)
    assert adata.uns["drivers_type"]["params"]["n_strata"] == 4


def test_a_gene_that_only_changes_with_time_drives_nothing_within_times():
    adata = cells(n=400)
    late = (adata.obs["time"] == 1.0).to_numpy()
    adata.X[late, 3] += 4
    adata.obsm["fate_type"] = adata.obsm["fate_type"].mul(np.where(late, 1.0, 0.2), axis=0)
    plain = table(adata).query("group == 'B' and gene == 'g3'")
    within = table(adata, time_key="time").query("group == 'B' and gene == 'g3'")
    assert plain["q_value"].item() < 1e-20
    assert abs(within["correlation"].item()) < 0.15


def test_q_values_by_hand_and_constant_genes_are_no_tests():
    adata = cells(genes=40, driving=8, effect=0.3)
    adata.X[:, 39] = 1.7
    found = table(adata).query("group == 'B'").set_index("gene")
    assert found.loc["g39"].drop("group").isna().all()
    p = found["p_value"].drop("g39").sort_values()
    adjusted = p * 39 / np.arange(1, 40)
    expected = adjusted[::-1].cummin()[::-1].clip(upper=1)
    np.testing.assert_allclose(found.loc[p.index, "q_value"], expected, rtol=1e-12)


def test_false_discoveries_are_controlled_and_planted_genes_found():
    """Mean share of false ones among those with q <= 0.1, over 60 data sets, is at most 0.1 (here 0.1 x 160 / 200)."""
    shares, power = [], []
    for seed in range(60):
        adata = cells(n=100, genes=200, driving=40, effect=0.5, seed=seed)
        found = table(adata, groups=["B"]).query("q_value <= 0.1")["gene"].str[1:].astype(int)
        shares.append((found >= 40).mean() if len(found) else 0.0)
        power.append((found < 40).sum() / 40)
    assert np.mean(shares) == pytest.approx(0.08, abs=0.025)
    assert np.mean(power) > 0.9


def test_scale_sparsity_order_and_blocks_do_not_matter(monkeypatch):
    adata = cells(driving=3)
    reference = table(adata, time_key="time")
    other = adata[np.random.default_rng(0).permutation(200)].copy()
    other.X = csr_matrix(other.X * 1e-3 + 0)
    monkeypatch.setattr(_drivers, "_CELLS_GENES", 7 * 200)
    found = table(other, time_key="time")
    pd.testing.assert_frame_equal(found, reference, rtol=1e-7)
    shifted = adata.copy()
    shifted.X = shifted.X + 1e4
    pd.testing.assert_frame_equal(table(shifted, time_key="time"), reference, rtol=1e-6)


def test_until_and_choices():
    adata = cells(driving=3)
    early = table(adata[:100].copy())
    pd.testing.assert_frame_equal(table(adata, time_key="time", until=0.5), early)
    tw.tl.drivers(adata, "type", genes=["g5", "g2"], groups=["B"], key_added="few")
    few = tw.get.drivers_df(adata, "type", key="few")
    assert set(few["gene"]) == {"g2", "g5"}
    assert set(few["group"]) == {"B"}
    tw.tl.drivers(adata, "type")
    top = tw.get.drivers_df(adata, "type", groups="B", n_genes=4, max_q=0.9)
    assert len(top) <= 4
    assert (top["q_value"] <= 0.9).all()


def test_results_survive_files(tmp_path):
    adata = cells(driving=3)
    reference = table(adata)
    adata.obsm["fate_type"].columns = ["A", "B"]  # "/" is no name of an h5ad column
    adata.write_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(tw.get.drivers_df(ad.read_h5ad(tmp_path / "a.h5ad"), "type"), reference)
    adata.write_zarr(tmp_path / "a.zarr")
    pd.testing.assert_frame_equal(tw.get.drivers_df(ad.read_zarr(tmp_path / "a.zarr"), "type"), reference)
    copied = tw.tl.drivers(cells(), "type", copy=True)
    assert "drivers_type" in copied.uns


def test_errors():
    adata = cells()
    with pytest.raises(MissingKeyError, match=r"obsm\['fate_kind'\].*'fate_type'"):
        tw.tl.drivers(adata, "kind")
    with pytest.raises(MissingKeyError, match="holds no drivers"):
        tw.get.drivers_df(adata, "type")
    with pytest.raises(InputError, match=r"groups=\['C'\]"):
        tw.tl.drivers(adata, "type", groups=["C"])
    with pytest.raises(InputError, match="needs time_key"):
        tw.tl.drivers(adata, "type", until=1.0)
    with pytest.raises(InputError, match="0 cells in 0 strata"):
        tw.tl.drivers(adata, "type", until=-1.0, time_key="time")
    with pytest.raises(InputError, match="level"):
        tw.tl.drivers(adata, "type", level=95)
    adata.obsm["fate_type"].iloc[3, 0] = np.nan
    with pytest.raises(InputError, match="1 of 200 cells"):
        tw.tl.drivers(adata, "type")
    adata.obsm["fate_type"] = adata.obsm["fate_type"].to_numpy()
    with pytest.raises(InputError, match="must be a DataFrame"):
        tw.tl.drivers(adata, "type")
