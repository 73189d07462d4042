"""Decoding and gene velocities: exact where the PCA is, checked against scikit-learn, refused where things differ."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

import thalweg as tw
from thalweg.errors import InputError, MemoryBudgetError, MissingKeyError


def low_rank(n: int = 300, genes: int = 20, rank: int = 4, seed: int = 0) -> AnnData:
    """Expression on a plane of ``rank`` dimensions, away from the origin."""
    rng = np.random.default_rng(seed)
    x = 5 + rng.standard_normal((n, rank)) @ rng.standard_normal((rank, genes))
    obs = pd.DataFrame({"time": np.repeat([0.0, 1.0], n // 2)}, index=[f"c{i}" for i in range(n)])
    return AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(genes)]))


def noisy(**kwargs) -> AnnData:
    adata = low_rank(**kwargs)
    adata.X = np.abs(adata.X + np.random.default_rng(1).standard_normal(adata.shape))
    return adata


def pca(adata: AnnData, n_comps: int = 4, **kwargs) -> AnnData:
    sc.pp.pca(adata, n_comps=n_comps, svd_solver="arpack", random_state=0, **kwargs)
    return adata


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_center", [True, False])
@pytest.mark.parametrize("kind", [np.asarray, csr_matrix])
def test_expression_on_the_plane_of_the_components_comes_back(kind, zero_center):
    """Off the origin a PCA without centring needs one component more."""
    adata = low_rank()
    truth = adata.X.copy()
    adata.X = kind(adata.X)
    pca(adata, 5, zero_center=zero_center)
    np.testing.assert_allclose(tw.tl.decode(adata, adata).X, truth, atol=1e-4)


def test_a_mask_a_layer_and_left_out_cells_come_back():
    adata = low_rank(seed=2)
    truth = adata.X.copy()
    adata.layers["log"] = truth.copy()
    adata.X = np.exp(truth - 5)
    adata.var["highly_variable"] = np.arange(20) % 2 == 0
    pca(adata, layer="log")
    later = adata[adata.obs["time"] == 1.0].copy()  # the mean is no longer the PCA's own
    decoded = tw.tl.decode(later, later)
    assert list(decoded.var_names) == [f"g{j}" for j in range(0, 20, 2)]
    np.testing.assert_allclose(decoded.X, truth[150:, ::2], atol=1e-4)
    np.testing.assert_allclose(tw.tl.decode(later, adata).X, truth[150:, ::2], atol=1e-4)


def test_standardised_and_fewer_components_are_led_back():
    adata = pca(noisy(), 6)
    for n_dims in (6, 3):
        tw.pp.standardize(adata, n_dims=n_dims)
        z = adata.obsm["X_pca"][:, :n_dims]
        expected = adata.X.mean(0) + z @ adata.varm["PCs"][:, :n_dims].T
        np.testing.assert_allclose(tw.tl.decode(adata, adata, use_rep="X_standardized").X, expected, atol=1e-4)


def test_predictions_decode_as_in_scikit_learn():
    adata = pca(noisy(), 3)
    model = PCA(3).fit(adata.X)
    signs = np.sign((model.components_ * adata.varm["PCs"].T).sum(1))
    z = np.random.default_rng(3).standard_normal((50, 3)) * 4
    predicted = AnnData(obs=pd.DataFrame({"weight": 0.02}, index=map(str, range(50))), obsm={"X_pca": z})
    decoded = tw.tl.decode(predicted, adata)
    np.testing.assert_allclose(decoded.X, model.inverse_transform(z * signs), atol=1e-4)
    assert decoded.obs.equals(predicted.obs)
    some = tw.tl.decode(predicted, adata, genes=["g7", "g2"])
    assert list(some.var_names) == ["g7", "g2"]
    np.testing.assert_array_equal(some.X, decoded[:, ["g7", "g2"]].X)
    constant = noisy()
    constant.X[:, 4] = 2.5
    np.testing.assert_allclose(tw.tl.decode(predicted, pca(constant, 3)).X[:, 4], 2.5, atol=1e-6)


# --- velocities and the whole path -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moving() -> tuple[AnnData, np.ndarray]:
    """A cloud in gene space that moves at a constant velocity, with a fit in its PCA."""
    rng = np.random.default_rng(0)
    speed = rng.standard_normal(12)
    time = np.repeat([0.0, 1.0, 3.0], 100)
    x = 8 + time[:, None] * speed + 0.3 * rng.standard_normal((300, 3)) @ rng.standard_normal((3, 12))
    obs = pd.DataFrame({"time": time}, index=[f"c{i}" for i in range(300)])
    adata = pca(AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(12)])))
    config = tw.tl.FitConfig(max_steps=500, batch_size=256, width=32)
    tw.tl.fit(adata, "time", method="otcfm", rng=0, config=config)
    return adata, speed


def test_a_constant_velocity_of_genes_is_found(moving):
    adata, speed = moving[0].copy(), moving[1]
    tw.tl.velocity(adata, genes=True)
    v = adata.layers["velocity"]
    np.testing.assert_allclose(v.mean(0), speed, atol=0.1 * np.abs(speed).max())
    np.testing.assert_allclose(v, adata.obsm["velocity_X_pca"] @ adata.varm["PCs"].T, atol=1e-5)
    assert adata.var["velocity_genes"].all()
    ahead = AnnData(obs=adata.obs, obsm={"X_pca": adata.obsm["X_pca"] + 0.5 * adata.obsm["velocity_X_pca"]})
    step = tw.tl.decode(ahead, adata).X - tw.tl.decode(adata, adata).X
    np.testing.assert_allclose(step, 0.5 * v, atol=1e-4)


def test_predicted_genes_of_an_unseen_time(moving):
    adata, speed = moving
    day = tw.tl.decode(tw.tl.interpolate(adata, 2.0), adata)
    expected = adata.X[adata.obs["time"] == 1.0].mean(0) + speed
    np.testing.assert_allclose(day.X.mean(0), expected, atol=0.1 * np.abs(speed).max())
    assert (day.obs["time"] == 2.0).all()


def test_genes_without_a_velocity_are_nan(moving):
    adata = moving[0].copy()
    tw.tl.velocity(adata, genes=["g3"])
    assert np.isfinite(adata.layers["velocity"][:, 3]).all()
    assert np.isnan(np.delete(adata.layers["velocity"], 3, axis=1)).all()
    assert list(adata.var_names[adata.var["velocity_genes"]]) == ["g3"]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_wrong_data_are_refused_with_their_cause():
    def refused(adata, match, **kwargs):
        with pytest.raises(InputError, match=match):
            tw.tl.decode(adata, adata, **kwargs)

    adata = pca(noisy())
    other = adata.copy()
    other.X = other.X[:, ::-1].copy()
    refused(other, "different data or processing")
    other = adata.copy()
    other.layers["raw"] = np.sqrt(other.X)
    refused(other, r"layers\['raw'\].*error", layer="raw")
    other.layers["pca"], other.X = other.X.copy(), other.layers["raw"]
    refused(other, r"pass layer='pca'")
    assert tw.tl.decode(other, other, layer="pca").shape == (300, 20)
    other = adata.copy()
    other.raw = other.copy()
    other.X = other.X**2
    refused(other, r"made of adata\.raw")
    refused(adata[:, :15].copy(), "genes that it used were left out")
    other = adata.copy()
    other.X = np.expm1(other.X)
    refused(other, "run sc.pp.log1p")
    other = adata.copy()
    sc.pp.scale(other)
    refused(other, r"before sc\.pp\.scale")
    other = noisy()
    other.X *= np.linspace(0.1, 4, 20)
    scaled = pca(sc.pp.scale(other, copy=True))
    other.obsm["X_pca"], other.varm["PCs"] = scaled.obsm["X_pca"], scaled.varm["PCs"]
    refused(other, "z-scored")
    other = noisy()
    other.var["highly_variable"] = np.arange(20) < 12
    pca(other)
    other.var["highly_variable"] = np.arange(20) >= 6
    other.X = np.sin(other.X)
    refused(other, "mask has changed")
    other = adata.copy()
    other.varm["PCs"] = other.varm["PCs"][:, :2]
    refused(other, "2 components, obsm.* is used with 4")


def test_a_mask_changed_afterwards_does_not_matter_while_data_and_loadings_agree():
    adata = low_rank()
    adata.var["highly_variable"] = np.arange(20) < 12
    pca(adata)
    adata.var["highly_variable"] = np.arange(20) >= 6
    np.testing.assert_allclose(tw.tl.decode(adata, adata).X, adata.X[:, :12], atol=1e-4)
    with pytest.raises(InputError, match=r"\['g15'\] took no part"):
        tw.tl.decode(adata, adata, genes=["g15"])


def test_missing_things_are_named(moving):
    adata = moving[0].copy()
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, 1::-1]
    with pytest.raises(MissingKeyError, match=r"varm\['PCs'\].*had from a PCA"):
        tw.tl.decode(adata, AnnData(adata.X, obsm={"X_pca": adata.obsm["X_pca"]}))
    with pytest.raises(InputError, match="do not give"):
        tw.tl.decode(adata, adata, use_rep="X_umap")
    with pytest.raises(MissingKeyError, match=r"'G3'.*Did you mean \['g3'\]"):
        tw.tl.decode(adata, adata, genes=["G3"])
    tw.settings.max_memory = 1000
    with pytest.raises(MemoryBudgetError, match="300 rows x 12 columns x 4 bytes"):
        tw.tl.velocity(adata, genes=True)
    assert "velocity" not in adata.layers
