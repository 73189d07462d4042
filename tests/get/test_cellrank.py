"""Kernels of the installed CellRank hold what thalweg wrote."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CellRank and what it brings warn at import of what is theirs alone
    kernels = pytest.importorskip("cellrank.kernels")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(cellrank|scvelo|anndata|pygam|docrep|scanpy).*"),
    # scanpy's and CellRank's neighbours set the diagonal of a sparse matrix
    pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:(cellrank|scvelo|anndata|scanpy).*"),
]
N = 40


@pytest.fixture
def course():
    """Three times whose cells move by 1; couplings are permutations with a second neighbour."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 3))
    points = np.concatenate([x + k * np.eye(3)[0] for k in range(3)])
    shuffled = rng.permutation(3 * N)
    matrix = np.zeros((3 * N, 3 * N))
    for k in range(2):
        for i in range(N):
            matrix[k * N + i, (k + 1) * N + i], matrix[k * N + i, (k + 1) * N + (i + 1) % N] = 0.75, 0.25
    obs = pd.DataFrame({"day": np.repeat(["0", "2", "10"], N)}, index=[f"c{i}" for i in range(3 * N)])
    adata = AnnData(
        np.ones((3 * N, 4)), obs=obs, obsm={"X_pca": points}, obsp={"transition": sparse.csr_matrix(matrix)}
    )
    adata.uns["transition"] = {
        "pairs": pd.DataFrame({"t0": [0.0, 2.0], "t1": [2.0, 10.0]}), "time_key": "day", "weight_key": "",
        "map_labels": np.array([], dtype=str), "map_values": np.array([]),
    }  # fmt: skip
    adata.obsm["velocity_X_pca"] = np.tile([1.0, 0.0], (3 * N, 1))
    return adata[shuffled].copy()


def expected(adata):
    matrix = adata.obsp["transition"].toarray()
    last = (adata.obs["day"] == "10").to_numpy()
    return matrix + np.diag(last.astype(float))


def test_realtime_kernel_holds_the_couplings(course):
    """Times are text, whose order is not that of the days, and cells in any order."""
    kernel = tw.get.cellrank_kernel(course)
    assert isinstance(kernel, kernels.RealTimeKernel)
    kernel.compute_transition_matrix(self_transitions="diagonal", threshold=None)
    np.testing.assert_allclose(kernel.transition_matrix.toarray(), expected(course), atol=1e-7)
    assert course.obs["day"].tolist()[0] in ("0", "2", "10")  # untouched, while CellRank's own is a number
    assert list(kernel.adata.obs["day"].cat.categories) == [0.0, 2.0, 10.0]
    assert "day_colors" not in course.uns


def test_realtime_kernel_mixes_with_connectivities(course):
    sc.pp.neighbors(course, n_neighbors=8)
    kernel = tw.get.cellrank_kernel(course)
    kernel.compute_transition_matrix(self_transitions="all", conn_weight=0.2, threshold="auto")
    t = kernel.transition_matrix
    np.testing.assert_allclose(np.asarray(t.sum(1)).ravel(), 1, atol=1e-6)
    first, second = ((course.obs["day"] == d).to_numpy() for d in ("0", "2"))
    assert t[first][:, second].sum() / N == pytest.approx(0.8, abs=0.01)


def test_precomputed_kernel_holds_one_matrix_and_an_estimator_takes_it(course):
    kernel = tw.get.cellrank_kernel(course, "transition")
    assert isinstance(kernel, kernels.PrecomputedKernel)
    np.testing.assert_allclose(kernel.transition_matrix.toarray(), expected(course), atol=1e-7)
    walk = kernel.transition_matrix @ kernel.transition_matrix
    last = (course.obs["day"] == "10").to_numpy()
    np.testing.assert_allclose(np.asarray(walk[:, last].sum(1)).ravel(), 1)  # two steps lead to the last time


def test_velocity_kernel_points_along_the_velocity(course):
    """Velocities have fewer columns than the representation: the fit used two of the three."""
    sc.pp.neighbors(course, n_neighbors=10)
    kernel = tw.get.cellrank_kernel(course, "velocity")
    assert isinstance(kernel, kernels.VelocityKernel)
    kernel.compute_transition_matrix(show_progress_bar=False, n_jobs=1, backend="threading")
    x = course.obsm["X_pca"]
    mean = np.asarray(kernel.transition_matrix @ x) - x
    uniform = (
        np.asarray(course.obsp["connectivities"].astype(bool) @ x) / course.obsp["connectivities"].getnnz(1)[:, None]
    )
    assert (mean[:, 0] - (uniform - x)[:, 0]).mean() > 0.2
    assert "X_pca_2" not in course.obsm


def test_what_a_kernel_needs_is_named(course):
    with pytest.raises(InputError, match="kind must be"):
        tw.get.cellrank_kernel(course, "pseudotime")
    with pytest.raises(MissingKeyError, match=r"sc\.pp\.neighbors"):
        tw.get.cellrank_kernel(course, "velocity")
    lonely = course.copy()
    lonely.obsp["transition"] = lonely.obsp["transition"].copy()
    row = int(np.flatnonzero(lonely.obs["day"] == "2")[0])
    lonely.obsp["transition"].data[
        lonely.obsp["transition"].indptr[row] : lonely.obsp["transition"].indptr[row + 1]
    ] = 0
    lonely.obsp["transition"].eliminate_zeros()
    with pytest.raises(InputError, match="1 cells of time 2 are not coupled with time 10"):
        tw.get.cellrank_kernel(lonely)
    course.uns["transition"]["pairs"] = course.uns["transition"]["pairs"].iloc[:1]
    with pytest.raises(InputError, match=r"no couplings of the neighbouring times \[\(2.0, 10.0\)\]"):
        tw.get.cellrank_kernel(course, "transition")
    del course.obsm["velocity_X_pca"]
    with pytest.raises(MissingKeyError, match=r"tw\.tl\.velocity"):
        tw.get.cellrank_kernel(course, "velocity")


def test_without_cellrank_the_error_says_how_to_install_it(course, monkeypatch):
    monkeypatch.setitem(sys.modules, "cellrank", None)
    with pytest.raises(InputError, match=r"pip install 'thalweg\[cellrank\]'"):
        tw.get.cellrank_kernel(course)
