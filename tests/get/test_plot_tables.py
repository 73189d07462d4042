"""Tables behind the plots: populations, averaged velocities, flow between groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError


@pytest.fixture
def course() -> AnnData:
    obs = pd.DataFrame(
        {
            "day": ["2", "2", "2", "4", "4", "4", "4"],
            "kind": pd.Categorical(["a", "a", "b", "b", "b", "b", None], categories=["a", "b", "never"]),
            "weight": [1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 5.0],
            "dish": ["p", "q", "p", "p", "q", "q", "q"],
        },
        index=[f"c{i}" for i in range(7)],
    )
    return AnnData(obs=obs)


def test_populations_count_cells_and_weights(course):
    table = tw.get.populations(course, "day", "kind").set_index(["time", "group"])
    assert table["n"].to_dict() == {
        (2.0, "a"): 2, (2.0, "b"): 1, (2.0, "never"): 0, (4.0, "a"): 0, (4.0, "b"): 3, (4.0, "never"): 0,
    }  # fmt: skip
    assert table["share"].to_dict()[2.0, "a"] == pytest.approx(2 / 3)
    weighted = tw.get.populations(course, "day", "kind", weight_key="weight").set_index(["time", "group"])
    assert weighted.loc[(2.0, "a"), "share"] == pytest.approx(3 / 4)
    dishes = tw.get.populations(course, "day", "kind", condition_key="dish").set_index(["condition", "time", "group"])
    assert dishes.loc[("p", 2.0, "a"), "share"] == pytest.approx(1 / 2)
    np.testing.assert_allclose(dishes.groupby(["condition", "time"])["share"].sum(), 1)
    with pytest.raises(MissingKeyError, match="groupby='no'"):
        tw.get.populations(course, "day", "no")


@pytest.fixture
def field() -> AnnData:
    rng = np.random.default_rng(0)
    xy = rng.uniform(-1, 3, (400, 2)) * [1, 5]
    obs = pd.DataFrame({"dish": rng.choice(["p", "q"], 400)}, index=[f"c{i}" for i in range(400)])
    return AnnData(obs=obs, obsm={"X_umap": xy, "velocity_umap": np.stack([xy[:, 1], np.sin(xy[:, 0])], axis=1)})


def test_velocity_grid_is_the_weighted_mean_of_the_cells(field):
    table = tw.get.velocity_grid(field, "umap", n_grid=6, bandwidth=0.1, min_cells=0)
    xy, v = field.obsm["X_umap"], field.obsm["velocity_umap"]
    width = 0.1 * np.ptp(xy, axis=0)
    assert len(table) == 36
    for node in table.iloc[[0, 7, 20, 35]].itertuples():
        k = np.exp(-0.5 * np.square((xy - [node.x, node.y]) / width).sum(1))
        assert node.mass == pytest.approx(k.sum())
        np.testing.assert_allclose([node.u, node.v], k @ v / k.sum())
    np.testing.assert_allclose(table.iloc[[0, 35]][["x", "y"]], [xy.min(0), xy.max(0)])


def test_a_uniform_field_stays_uniform_and_empty_nodes_are_unknown(field):
    field.obsm["velocity_umap"] = np.tile([2.0, -1.0], (400, 1))
    table = tw.get.velocity_grid(field, "umap", n_grid=30, min_cells=1.5)
    known = table["mass"] >= 1.5
    assert 0.3 < known.mean() < 1
    np.testing.assert_allclose(table.loc[known, ["u", "v"]], np.tile([2.0, -1.0], (known.sum(), 1)))
    assert table.loc[~known, ["u", "v"]].isna().all(axis=None)


def test_velocity_grids_of_conditions_share_their_nodes(field):
    table = tw.get.velocity_grid(field, "umap", n_grid=5, bandwidth=0.2, condition_key="dish")
    p, q = (table[table["condition"] == name].reset_index(drop=True) for name in "pq")
    pd.testing.assert_frame_equal(p[["x", "y"]], q[["x", "y"]])
    whole = tw.get.velocity_grid(field, "umap", n_grid=5, bandwidth=0.2)
    np.testing.assert_allclose(p["mass"] + q["mass"], whole["mass"])
    with pytest.raises(InputError, match="n_grid must be 2 or more"):
        tw.get.velocity_grid(field, "umap", n_grid=1)
    with pytest.raises(MissingKeyError, match=r"basis='tsne'.*'X_umap'"):
        tw.get.velocity_grid(field, "tsne")


@pytest.fixture
def coupled() -> AnnData:
    """Two cells become three: a leaves 2 descendants in proportion to b's one; the third time copies the second."""
    obs = pd.DataFrame({"time": [0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0]}, index=[f"c{i}" for i in range(8)])
    obs["kind"] = pd.Categorical(["a", "b", "b", "c", "c", "b", "c", "c"])
    obs["dish"] = ["p", "q", "p", "p", "q", "p", "p", "q"]
    matrix = np.zeros((8, 8))
    matrix[0, 2:5] = np.array([0.5, 0.25, 0.25]) * 4 / 3
    matrix[1, 2:5] = np.array([0.0, 0.0, 1.0]) * 2 / 3
    matrix[[2, 3, 4], [5, 6, 7]] = 1
    adata = AnnData(obs=obs, obsp={"transition": sparse.csr_matrix(matrix)})
    pairs = pd.DataFrame({"t0": [0.0, 1.0], "t1": [1.0, 2.0]}, index=["0", "1"])
    adata.uns["transition"] = {
        "params": {}, "pairs": pairs, "time_key": "time", "weight_key": "", "condition_key": "",
        "map_labels": np.array([], dtype=str), "map_values": np.array([]),
    }  # fmt: skip
    return adata


def test_flow_is_the_mass_between_groups(coupled):
    table = tw.get.flow_df(coupled, "kind").set_index(["t0", "t1", "source", "target"])["share"]
    expected = {
        (0.0, 1.0, "a", "b"): 1 / 3, (0.0, 1.0, "a", "c"): 1 / 3, (0.0, 1.0, "b", "c"): 1 / 3,
        (1.0, 2.0, "b", "b"): 1 / 3, (1.0, 2.0, "c", "c"): 2 / 3,
    }  # fmt: skip
    assert table.to_dict() == pytest.approx(expected)


def test_flow_of_a_condition_is_that_of_its_cells(coupled):
    table = tw.get.flow_df(coupled, "kind", condition_key="dish").set_index(["condition", "t0", "source", "target"])
    assert table.loc[("p", 0.0, "a", "b"), "share"] == pytest.approx(1 / 2)
    assert table.loc[("q", 0.0, "b", "c"), "share"] == pytest.approx(1)
    assert table.groupby(["condition", "t0"])["share"].sum().tolist() == pytest.approx([1] * 4)
