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
from courses import forked
from thalweg.errors import InputError, MissingKeyError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CellRank and what it brings warn at import of what is theirs alone
    kernels = pytest.importorskip("cellrank.kernels")
    estimators = pytest.importorskip("cellrank.estimators")

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


def absorbed(kernel, states):
    """Fate probabilities of CellRank, a column for each state."""
    estimator = estimators.GPCCA(kernel)
    estimator.set_terminal_states(states)
    estimator.compute_fate_probabilities(show_progress_bar=False)
    found = estimator.fate_probabilities
    return pd.DataFrame(found.X, index=kernel.adata.obs_names, columns=list(found.names))


@pytest.fixture(scope="module")
def arms():
    """A fork under two conditions of which one was not seen at time 1; a third of the last cells has no label."""
    adata, rng = forked(n=150, seed=1), np.random.default_rng(0)
    treated = np.arange(adata.n_obs) % 2 == 1
    adata.obs["arm"] = np.where(treated, "treated", "control")
    adata.obs["type"] = adata.obs["type"].where(rng.random(adata.n_obs) > 1 / 3)
    adata = adata[~(treated & (adata.obs["time"] == 1))].copy()
    tw.tl.fit(adata, "time", condition_key="arm", method="otcfm", config=tw.tl.FitConfig(max_steps=300), rng=0)
    tw.tl.transition(adata)
    tw.tl.transition(adata, 0, 2)
    return adata


def test_absorption_probabilities_of_two_conditions_with_last_cells_that_have_no_label(arms):
    """They are the couplings, step by step; with last cells that stay and end nowhere CellRank finds none."""
    kernel = tw.get.cellrank_kernel(arms, "transition", groupby="type")
    states = kernel.adata.obs["terminal_type"]
    last = (arms.obs["time"] == 2).to_numpy()
    pd.testing.assert_series_equal(
        states.astype(object), arms.obs["type"].astype(object).where(last), check_names=False, check_exact=True
    )
    assert list(states.cat.categories) == ["A", "B"]  # of the last time, "start" is none of them
    found = absorbed(kernel, states)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-9)
    # by hand: labels of the last time, then the couplings of each condition back to the first
    p = np.c_[arms.obs["type"] == "A", arms.obs["type"] == "B"].astype(float) * last[:, None]
    up = arms.obsm["X_pca"][:, 1] > 0  # the ends are far apart, so that the nearest label is that of the side
    free = last & arms.obs["type"].isna().to_numpy()
    p[free] = np.c_[up, ~up][free]
    blocks, time, arm = tw.get.couplings(arms), arms.obs["time"].to_numpy(), arms.obs["arm"].to_numpy()
    for name, steps in (("control", [(1, 2), (0, 1)]), ("treated", [(0, 2)])):
        for t0, t1 in steps:
            block = blocks[t0, t1][arm[time == t0] == name]
            p[(time == t0) & (arm == name)] = block @ p[time == t1]
    np.testing.assert_allclose(found[["A", "B"]], p, atol=1e-5)
    # today's matrix without groupby
    with pytest.raises(ValueError, match="do not sum to 1"):
        absorbed(tw.get.cellrank_kernel(arms, "transition"), states)


def test_absorption_probabilities_agree_with_fates_of_the_same_fit(arms):
    """Ends of the flow and steps between measured cells: close, not equal."""
    tw.tl.fate(arms, "type")
    kernel = tw.get.cellrank_kernel(arms, "transition", groupby="type")
    found = absorbed(kernel, kernel.adata.obs["terminal_type"])["A"]
    earlier = (arms.obs["time"] < 2).to_numpy()
    a, b = found[earlier], arms.obsm["fate_type"]["A"][earlier]
    assert np.abs(a - b).mean() < 0.12
    assert np.corrcoef(a, b)[0, 1] > 0.85


def test_one_kernel_of_all_conditions_is_that_of_each(arms):
    whole = tw.get.cellrank_kernel(arms, "transition", groupby="type")
    together = absorbed(whole, whole.adata.obs["terminal_type"])
    for name in ("control", "treated"):
        own = arms[arms.obs["arm"] == name].copy()
        kernel = tw.get.cellrank_kernel(own, "transition", groupby="type")
        alone = absorbed(kernel, kernel.adata.obs["terminal_type"])
        np.testing.assert_allclose(alone, together.loc[own.obs_names], atol=1e-6)


def test_cells_without_descendants_are_a_terminal_state(course, caplog):
    course.obs["type"] = pd.Categorical(np.where(course.obsm["X_pca"][:, 1] > 0, "up", "down"))
    row = int(np.flatnonzero(course.obs["day"] == "2")[0])
    course.obsp["transition"] = sparse.csr_matrix(
        course.obsp["transition"].multiply((np.arange(3 * N) != row)[:, None])
    )
    kernel = tw.get.cellrank_kernel(course, "transition", groupby="type")
    assert "1 cells before the last time have no descendants" in caplog.text
    states = kernel.adata.obs["terminal_type"]
    assert list(states.cat.categories) == ["down", "up", "died"]
    assert states.iloc[row] == "died"
    found = absorbed(kernel, states)
    np.testing.assert_allclose(
        found["died"][course.obs["day"] == "0"],
        course.obsp["transition"][:, [row]].toarray()[course.obs["day"] == "0"].ravel(),
        atol=1e-6,
    )
    course.obs["type"] = course.obs["type"].cat.rename_categories({"up": "died"})
    with pytest.raises(InputError, match="has a group 'died'"):
        tw.get.cellrank_kernel(course, "transition", groupby="type")


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
        tw.get.cellrank_kernel(course)
    with pytest.raises(InputError, match="no couplings of the neighbouring times 2 and 10"):
        tw.get.cellrank_kernel(course, "transition")
    with pytest.raises(InputError, match=r"groupby='day' belongs to kind='transition', found 'velocity'"):
        tw.get.cellrank_kernel(course, "velocity", groupby="day")
    with pytest.raises(MissingKeyError, match="groupby='tpye' is not a column"):
        tw.get.cellrank_kernel(lonely, "transition", groupby="tpye")
    del course.obsm["velocity_X_pca"]
    with pytest.raises(MissingKeyError, match=r"tw\.tl\.velocity"):
        tw.get.cellrank_kernel(course, "velocity")


def test_without_cellrank_the_error_says_how_to_install_it(course, monkeypatch):
    monkeypatch.setitem(sys.modules, "cellrank", None)
    with pytest.raises(InputError, match=r"pip install 'thalweg\[cellrank\]'"):
        tw.get.cellrank_kernel(course)
