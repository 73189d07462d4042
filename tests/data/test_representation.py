"""Representations: every layout gives the same coordinates, bad ones are refused by name."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

import thalweg as tw
from thalweg.data import find_representation, read_representation
from thalweg.errors import InputError, MemoryBudgetError, MissingKeyError

X = np.random.default_rng(0).integers(0, 200, size=(30, 4)).astype(np.uint8)


def holding(x) -> AnnData:
    adata = AnnData(np.zeros((len(X), 1), dtype=np.float32))
    adata.obsm["rep"] = x
    return adata


LAYOUTS = {
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "fortran": np.asfortranarray,
    "int64": lambda x: x.astype(np.int64),
    "uint8": lambda x: x,
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x.astype(np.float64),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_coordinates(layout):
    out = read_representation(holding(LAYOUTS[layout](X)), "rep")
    assert out.dtype == np.float64
    np.testing.assert_array_equal(out, X.astype(float))


@pytest.mark.parametrize("layout", ["csr", "csc", "uint8", "float64"])
def test_x_itself_in_views_and_sparse(layout):
    adata = AnnData(LAYOUTS[layout](X))
    np.testing.assert_array_equal(read_representation(adata[::2], "X"), X[::2])
    np.testing.assert_array_equal(read_representation(adata, "X", 2), X[:, :2])


@pytest.mark.parametrize("layout", ["csr", "float64"])
def test_a_backed_file(tmp_path, layout):
    AnnData(LAYOUTS[layout](X)).write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    np.testing.assert_array_equal(read_representation(backed, "X"), X)
    backed.file.close()


def test_the_result_is_a_copy():
    x = X.astype(np.float64)
    read_representation(holding(x), "rep")[:] = -1
    np.testing.assert_array_equal(x, X)
    x.flags.writeable = False
    read_representation(holding(x), "rep")[:] = -1


def test_the_pca_that_exists_is_found():
    adata = holding(X)
    with pytest.raises(MissingKeyError, match=r"neither exists; obsm keys that exist: 'rep'"):
        find_representation(adata, None)
    adata.obsm["pca"] = X
    assert find_representation(adata, None) == "pca"
    adata.obsm["X_pca"] = X
    assert find_representation(adata, None) == "X_pca"
    with pytest.raises(MissingKeyError, match=r"use_rep='X_umap' is not in adata.obsm"):
        find_representation(adata, "X_umap")


def test_nan_is_located():
    x = X.astype(float)
    x[3, 2], x[7, 1] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 NaN or infinite values \(first at row 3 '3', column 2; 2 rows"):
        read_representation(holding(x), "rep")
    assert read_representation(holding(x), "rep", 1).shape == (30, 1)  # the bad columns are not used


def test_bad_widths_types_and_sizes():
    with pytest.raises(InputError, match=r"n_dims=5 does not fit .* 4 columns"):
        read_representation(holding(X), "rep", 5)
    with pytest.raises(InputError, match="real numbers"):
        read_representation(holding(X.astype(complex)), "rep")
    tw.settings.max_memory = 100
    with pytest.raises(MemoryBudgetError, match="30 rows x 4 columns x 8 bytes"):
        read_representation(holding(X), "rep")
