"""Representations: every layout gives the same coordinates, bad ones are refused by name."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import thalweg as tw
from thalweg.data.representation import find_representation, read_representation
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
    "csc_array": sp.csc_array,
    "dataframe": lambda x: pd.DataFrame(x, index=[str(i) for i in range(len(x))]),
    "longdouble": lambda x: x.astype(np.longdouble),
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
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


@pytest.mark.parametrize("chunk", [np.asarray, sp.csr_matrix], ids=["dense", "sparse"])
def test_dask_arrays(chunk):
    da = pytest.importorskip("dask.array")
    x = da.from_array(X.astype(np.float32), chunks=(7, 4)).map_blocks(chunk)
    np.testing.assert_array_equal(read_representation(holding(x), "rep"), X)
    np.testing.assert_array_equal(read_representation(AnnData(x), "X"), X)


@pytest.mark.parametrize("layout", ["csr", "float64"])
def test_views_of_a_backed_file(tmp_path, layout):
    AnnData(LAYOUTS[layout](X)).write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for rows in (slice(3, 9), np.arange(30) % 4 == 1, np.random.default_rng(0).permutation(30)):
        np.testing.assert_array_equal(read_representation(backed[rows], "X"), X[rows])
    with pytest.raises(InputError, match=r"view of the backed file .*x.h5ad.*load it first"):
        read_representation(backed[::-1], "X")  # h5py has no negative steps
    backed.file.close()


def test_no_columns_and_masked_values():
    with pytest.raises(InputError, match="one or more coordinates"):
        read_representation(holding(X[:, :0]), "rep")
    with pytest.raises(InputError, match="masked array with 30 masked values"):
        read_representation(holding(np.ma.masked_array(X, mask=np.arange(4) == 2 + 0 * X)), "rep")


@pytest.mark.parametrize("scale", [1e120, 1e-120])
def test_values_whose_squares_leave_float64(scale):
    with pytest.raises(InputError, match="squares leave float64; rescale"):
        read_representation(holding(X * scale), "rep")


def test_nan_is_located():
    x = X.astype(float)
    x[3, 2], x[7, 1] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 NaN or infinite values \(first at row 3 '3', column 2; 2 rows"):
        read_representation(holding(x), "rep")
    assert read_representation(holding(x), "rep", 1).shape == (30, 1)  # the bad columns are not used


def test_bad_widths_types_and_sizes():
    with pytest.raises(InputError, match=r"n_dims=5 does not fit .* 4 columns"):
        read_representation(holding(X), "rep", 5)
    for n_dims in (0, -1, 2.0, True, "2"):
        with pytest.raises(InputError, match=r"n_dims=.* does not fit"):
            read_representation(holding(X), "rep", n_dims)
    assert read_representation(holding(X), "rep", np.int64(2)).shape == (30, 2)
    with pytest.raises(InputError, match="real numbers"):
        read_representation(holding(X.astype(complex)), "rep")
    tw.settings.max_memory = 100
    with pytest.raises(MemoryBudgetError, match="30 rows x 4 columns x 8 bytes"):
        read_representation(holding(X), "rep")
