"""A stored fit on new cells: the same place and velocity for the same cell, and a word for cells never seen."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix

import thalweg as tw
from thalweg.data.cells import Cells
from thalweg.errors import InputError, MissingKeyError
from thalweg.tl._fates.futures import Found
from thalweg.tl._fates.transfer import transfer

QUICK = tw.tl.FitConfig(max_steps=100, batch_size=64, width=16, depth=2)
ENDS = ["A", "B", "C"]


@pytest.fixture(scope="module")
def reference() -> AnnData:
    tw.settings.progress, tw.settings.verbosity = False, "error"
    adata = tw.datasets.simulated(2000, n_futures=0, rng=0)
    tw.tl.fit(adata, "time", rng=0, config=QUICK, check=False)
    tw.tl.fate(adata, "branch", terminal=ENDS, rng=0)
    tw.tl.velocity(adata)
    return adata


def plain(adata: AnnData) -> AnnData:
    """Expression, and what is known of the cells; no results."""
    return AnnData(adata.X.copy(), obs=adata.obs[["time", "branch"]].copy(), var=adata.var[[]].copy())


def fresh(n: int = 1000, **options) -> AnnData:
    """New cells of the same genes."""
    return plain(tw.datasets.simulated(n, n_futures=0, rng=0, **options))


def mapped(adata: AnnData, reference: AnnData, **options) -> AnnData:
    return tw.tl.map_query(adata, reference, copy=True, **options)


# --- the same cells get the same -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.asarray, csr_matrix])
def test_a_cell_of_the_reference_gets_its_own_place_and_velocity(reference, kind):
    new = plain(reference)[::3].copy()
    new.X = kind(new.X)
    out = mapped(new, reference, outside="keep")
    known = reference[::3]
    np.testing.assert_allclose(out.obsm["X_pca"], known.obsm["X_pca"], atol=2e-5)
    scale = np.abs(known.obsm["velocity_X_pca"]).max()
    np.testing.assert_allclose(out.obsm["velocity_X_pca"], known.obsm["velocity_X_pca"], atol=1e-5 * scale)
    np.testing.assert_allclose(out.obs["growth_rate"], known.obs["growth_rate"], atol=1e-4)


def test_genes_are_found_by_name_and_further_ones_are_ignored(reference):
    new = fresh(300)
    more = AnnData(
        np.c_[np.full((300, 2), 9.0), new.X[:, ::-1]],
        obs=new.obs,
        var=pd.DataFrame(index=["x", "y", *new.var_names[::-1]]),
    )
    np.testing.assert_allclose(
        mapped(more, reference, outside="nan").obsm["X_pca"], mapped(new, reference).obsm["X_pca"], atol=1e-5
    )


def test_standardised_coordinates_and_a_layer_are_followed_back():
    adata = tw.datasets.simulated(600, n_futures=0, rng=1)
    adata.layers["log"], adata.X = adata.X.copy(), np.zeros_like(adata.X)
    sc.pp.pca(adata, n_comps=6, layer="log")
    tw.pp.standardize(adata, use_rep="X_pca", key_added="X_std")
    tw.tl.fit(adata, "time", method="otcfm", use_rep="X_std", n_dims=4, rng=0, config=QUICK, check=False)
    new = adata[::2].copy()
    new.obsm.clear()
    out = mapped(new, adata, outside="nan")
    np.testing.assert_allclose(out.obsm["X_std"], adata.obsm["X_std"][::2, :4], atol=1e-4)
    with pytest.raises(MissingKeyError, match="layer='log'"):
        mapped(plain(new), adata)


def test_the_fates_of_a_new_half_are_those_of_a_fit_of_all(reference):
    """Within the standard errors that are stated, on average over the cells."""
    both = anndata.concat([plain(reference), fresh(1000)], index_unique="-")
    sc.pp.pca(both, n_comps=10)
    tw.tl.fit(both, "time", rng=0, config=QUICK, check=False)
    tw.tl.fate(both, "branch", terminal=ENDS, rng=0)
    out = mapped(fresh(1000), reference, fate="branch")
    keep = ~out.obs["outside"].to_numpy()
    p, whole = out.obsm["fate_branch"].to_numpy()[keep], both.obsm["fate_branch"].to_numpy()[2000:][keep]
    np.testing.assert_allclose(p.sum(1), 1)
    error, stated = np.sqrt(np.square(p - whole).mean()), np.sqrt(np.square(out.obsm["fate_branch_se"][keep]).mean())
    assert error < 0.1
    assert 0.4 < error / stated.mean() < 2


def test_fates_are_the_kernel_mean_over_the_cells_of_the_time_and_between_times_of_both():
    x = np.r_[np.zeros(3), np.ones(3), np.zeros(3)][:, None] + np.tile([-0.1, 0, 0.1], 3)[:, None]
    known = Cells(x, np.repeat([0.0, 0.0, 4.0], 3), np.ones(9), np.zeros(9, dtype=np.int64))
    p = np.repeat([[1.0, 0.0], [0.0, 1.0], [0.2, 0.8]], 3, axis=0)
    found = Found(p, np.full((9, 2), 0.1), np.nan, np.stack([p, p[:, ::-1]], 1))
    new = Cells(np.zeros((3, 1)), np.array([0.0, 1.0, 4.0]), np.ones(3), np.zeros(3, dtype=np.int64))
    out = transfer(new, known, found, 3)
    np.testing.assert_allclose(out.p, [[1, 0], [0.8, 0.2], [0.2, 0.8]])
    np.testing.assert_allclose(out.draws[:, 1], out.p[:, ::-1])
    np.testing.assert_allclose(out.error[[0, 2]], 0.1)  # neighbours agree, and share one error
    assert (out.error[1] > 0.1).all()


# --- cells that were never seen --------------------------------------------------------------------------------------


def test_of_new_cells_of_the_same_population_a_share_of_alpha_is_outside_and_has_no_values(reference):
    out = mapped(fresh(4000), reference, fate="branch")
    for alpha in (0.05, 0.2):
        assert abs((out.obs["outside_p"] <= alpha).mean() - alpha) < 0.35 * alpha
    far = (out.obs["outside_p"] <= 0.05).to_numpy()
    np.testing.assert_array_equal(out.obs["outside"], far)
    for values in (out.obsm["velocity_X_pca"], out.obsm["fate_branch"], out.obsm["fate_branch_se"]):
        np.testing.assert_array_equal(np.isnan(np.asarray(values)).all(1), far)
        np.testing.assert_array_equal(np.isnan(np.asarray(values)).any(1), far)
    np.testing.assert_array_equal(out.obs["fate_branch"].isna(), far)
    assert out.uns["map_query"]["n_outside"] == far.sum()


def test_values_of_all_cells_on_demand_and_how_many_are_outside_is_said(reference, caplog):
    tw.settings.verbosity = "warning"
    out = mapped(fresh(600), reference, outside="keep")
    assert out.obs["outside"].any()
    assert np.isfinite(out.obsm["velocity_X_pca"]).all()
    assert f"{out.obs['outside'].sum()} of 600 new cells lie outside" in caplog.text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda x: np.log1p(2 * np.expm1(x)), "normalise both to one total"),
        (lambda x: np.rint(np.expm1(x)), "whole numbers only"),
        (lambda x: x + 0.3 * np.random.default_rng(0).standard_normal(x.shape[1]), "lie outside the cells"),
        (lambda x: np.random.default_rng(0).permuted(x, axis=0), "lie outside the cells"),
    ],
)
def test_cells_of_another_normalisation_or_batch_are_refused(reference, change, word):
    new = fresh(400)
    new.X = change(new.X)
    with pytest.raises(InputError, match=word):
        mapped(new, reference)
    assert mapped(new, reference, outside="nan").obs["outside"].mean() > 0.2


def test_scaled_cells_and_others_do_not_mix_and_a_few_negative_values_are_no_scaling(reference):
    adata = tw.datasets.simulated(600, n_futures=0, rng=0)
    sc.pp.scale(adata)
    sc.pp.pca(adata, n_comps=5)
    tw.tl.fit(adata, "time", method="otcfm", rng=0, config=QUICK, check=False)
    with pytest.raises(InputError, match=r"The reference's X has negative values, as after sc.pp.scale"):
        mapped(fresh(200), adata)
    with pytest.raises(InputError, match="Their X has negative values"):
        mapped(plain(adata), reference)
    noisy = reference.copy()
    noisy.X[::10, :3] = -0.01
    sc.pp.pca(noisy, n_comps=10)
    tw.tl.fit(noisy, "time", method="otcfm", rng=0, config=QUICK, check=False)
    assert mapped(fresh(500), noisy).obs["outside"].mean() < 0.2


def test_cells_of_another_day_are_refused_and_the_share_is_named(reference):
    new = fresh(500)
    new = new[new.obs["time"] == 5.0].copy()
    new.obs["time"] = 1.0
    with pytest.raises(InputError, match=r"(9\d|100)% of the new cells \(\d+ of 100\) .* by time: 1: "):
        mapped(new, reference)


def test_a_type_that_the_fit_has_never_seen_is_outside_and_the_others_are_not():
    """The PCA has never seen its genes, so that on the plane of the PCA it lies in the middle."""
    adata = tw.datasets.simulated(2000, n_futures=0, rng=0)
    adata = adata[~((adata.obs["branch"] == "C") & (adata.obs["time"] > 2))].copy()
    sc.pp.pca(adata, n_comps=5)
    tw.tl.fit(adata, "time", method="otcfm", rng=0, config=QUICK, check=False)
    new = fresh(1000)
    late = (new.obs["time"] == 5.0).to_numpy()
    out = mapped(new[late].copy(), adata, outside="nan").obs
    assert out.loc[out["branch"] == "C", "outside"].mean() > 0.95
    assert out.loc[out["branch"] != "C", "outside"].mean() < 0.15


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_few_absent_genes_are_named_and_more_are_refused(reference, caplog):
    tw.settings.verbosity = "warning"
    new, load = fresh(300), np.square(reference.varm["PCs"]).sum(1)
    least = np.argsort(load)
    out = mapped(new[:, np.sort(least[1:])].copy(), reference, outside="nan")
    assert f"lack 1 of the 200 genes of the PCA ({new.var_names[least[0]]})" in caplog.text
    assert np.isfinite(out.obsm["X_pca"]).all()
    with pytest.raises(InputError, match=r"lack 60 of the 200 genes .* would move by"):
        mapped(new[:, np.sort(least[:-60])].copy(), reference)
    new.var_names = [f"ENSG{j}" for j in range(200)]
    with pytest.raises(InputError, match=r"lack 200 of the 200 genes .* symbols or identifiers"):
        mapped(new, reference)


def test_bad_expression_and_names_are_refused_and_nothing_is_written(reference):
    new = fresh(300)
    before = (list(new.obs), list(new.obsm), list(new.uns))
    new.X[[3, 7], 5] = np.nan
    with pytest.raises(InputError, match=r"expression of 2 of 300 new cells \(X\) holds NaN"):
        tw.tl.map_query(new, reference)
    new = fresh(300)
    new.var_names = [new.var_names[1], *new.var_names[1:]]
    with pytest.raises(InputError, match=r"adata.var_names holds 1 names of genes twice"):
        tw.tl.map_query(new, reference)
    assert (list(new.obs), list(new.obsm), list(new.uns)) == before


def test_times_that_the_fit_has_not_seen_are_refused_and_those_between_are_not(reference):
    new = fresh(300)
    new.obs.loc[new.obs_names[:4], "time"] = 7.0
    with pytest.raises(InputError, match="4 cells have the time 7, outside the times that the fit has seen: 0 to 5"):
        mapped(new, reference)
    with pytest.raises(MissingKeyError, match="time_key='time'"):
        mapped(AnnData(new.X, obs=new.obs[["branch"]], var=new.var), reference)
    out = mapped(fresh(200, times=(2.0, 2.75)), reference, fate="branch", outside="keep")
    between = (out.obs["time"] == 2.75).to_numpy()
    assert np.isfinite(out.obsm["velocity_X_pca"]).all()
    assert np.isfinite(out.obsm["fate_branch"].to_numpy()).all()
    np.testing.assert_array_equal(out.obs["growth_rate"].isna(), between)


def test_conditions_are_compared_with_their_own_cells():
    adata = tw.datasets.simulated(1200, n_futures=0, rng=0)
    adata.obs["arm"] = np.where(np.arange(1200) % 2, "ctrl", "ko")
    adata = adata[~((adata.obs["arm"] == "ko") & (adata.obs["time"] > 2))].copy()
    tw.tl.fit(adata, "time", method="otcfm", condition_key="arm", rng=0, config=QUICK, check=False)
    new = fresh(300)
    new.obs["arm"] = "ctrl"
    assert mapped(new, adata, outside="nan").obs["outside"].mean() < 0.2
    new.obs["arm"] = "ko"
    with pytest.raises(InputError, match=r"60 cells have the time 3.5 of condition 'ko', .* 0 to 2"):
        mapped(new, adata)
    new.obs["arm"] = "other"
    with pytest.raises(InputError, match=r"holds \['other'\], unknown to the fit"):
        mapped(new, adata)


def test_coordinates_of_their_own_stay_where_they_agree_and_are_never_replaced(reference):
    new = fresh(300)
    new.obsm["X_pca"] = mapped(new, reference).obsm["X_pca"].astype(np.float64)
    kept = new.obsm["X_pca"].copy()
    tw.tl.map_query(new, reference)
    tw.tl.map_query(new, reference)  # again
    np.testing.assert_array_equal(new.obsm["X_pca"], kept)
    sc.pp.pca(new, n_comps=10)
    with pytest.raises(InputError, match=r"del adata.obsm\['X_pca'\].*project=False"):
        mapped(new, reference)


def test_integrated_coordinates_are_taken_as_they_are():
    adata = tw.datasets.simulated(1200, n_futures=0, rng=0)
    adata.obsm["X_pca_harmony"] = np.tanh(adata.obsm["X_pca"])
    ref, new = adata[::2].copy(), adata[1::2].copy()
    tw.tl.fit(ref, "time", method="otcfm", use_rep="X_pca_harmony", rng=0, config=QUICK, check=False)
    with pytest.raises(InputError, match="pass project=False"):
        mapped(new, ref)
    out = mapped(new, ref, project=False)
    assert 0.01 < out.obs["outside"].mean() < 0.12
    del new.obsm["X_pca_harmony"]
    with pytest.raises(MissingKeyError, match="X_pca_harmony"):
        mapped(new, ref, project=False)


def test_a_reference_that_has_changed_is_refused(reference):
    flipped = reference.copy()
    flipped.obsm["X_pca"], flipped.varm["PCs"] = -flipped.obsm["X_pca"], -flipped.varm["PCs"]
    with pytest.raises(InputError, match="other coordinates in X_pca now"):
        mapped(fresh(300), flipped)
    rescaled = reference.copy()
    rescaled.X = np.expm1(rescaled.X)
    with pytest.raises(InputError, match=r"the reference cannot place new cells. the loadings do not give"):
        mapped(fresh(300), rescaled)
    out = mapped(fresh(300), reference)
    with pytest.raises(InputError, match="give the AnnData that was fitted"):
        mapped(fresh(300), out)
    other = plain(reference)
    other.obsm["X_pca"] = reference.obsm["X_pca"]
    tw.tl.fit(other, "time", method="icfm", rng=1, config=QUICK, check=False)
    with pytest.raises(InputError, match="holds a fit already, and another one"):
        mapped(other, reference)
    with pytest.raises(MissingKeyError, match="fate_other"):
        mapped(fresh(300), reference, fate="other")


def test_options_and_few_cells_are_refused(reference):
    bad = {"outside": "drop", "alpha": 1.5, "n_neighbors": 0}
    for name, value in bad.items():
        with pytest.raises(InputError, match=f"{name} must be"):
            mapped(fresh(300), reference, **{name: value})
    with pytest.raises(InputError, match=r"fit has 400 cells .* alpha=0.001. Give alpha=0.01 or more"):
        mapped(fresh(300), reference, alpha=0.001)


# --- afterwards ------------------------------------------------------------------------------------------------------


def test_files_of_both_give_the_same_and_later_verbs_run_on_the_new_cells(reference, tmp_path):
    out = mapped(fresh(500), reference, fate="branch")
    for name, adata in (("reference", reference), ("new", out)):
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    again = mapped(fresh(500), anndata.read_h5ad(tmp_path / "reference.h5ad"), fate="branch")
    np.testing.assert_array_equal(again.obsm["velocity_X_pca"], out.obsm["velocity_X_pca"])
    np.testing.assert_array_equal(again.obsm["fate_branch"], out.obsm["fate_branch"])
    read = anndata.read_h5ad(tmp_path / "new.h5ad")
    read = read[~read.obs["outside"]].copy()
    velocity = read.obsm["velocity_X_pca"].copy()
    tw.tl.velocity(read)
    np.testing.assert_allclose(read.obsm["velocity_X_pca"], velocity, atol=1e-5)
    assert tw.tl.interpolate(read, 1.5).n_obs > 100
    tw.tl.trajectories(read, 10, n_times=3, rng=0)
    tw.tl.log_likelihood(read[::20].copy())
    tw.tl.transition(read)
    assert tw.get.fate_df(read, "branch").notna().all(axis=None)
