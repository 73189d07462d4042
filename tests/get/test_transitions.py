"""Transition tables against sums over cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError

BLOCKS = {
    (0.0, 1.0): np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 1.0]]),  # the second cell doubles
    (1.0, 2.0): np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]),
}


@pytest.fixture
def course():
    matrix = np.zeros((7, 7))
    matrix[:2, 2:5], matrix[2:5, 5:] = BLOCKS.values()
    obs = pd.DataFrame(
        {"time": [0.0] * 2 + [1.0] * 3 + [2.0] * 2, "kind": pd.Categorical(list("xyxxyyz"), list("zyx"))},
        index=[f"c{i}" for i in range(7)],
    )
    adata = AnnData(obs=obs, obsp={"transition": sparse.csr_matrix(matrix)})
    adata.uns["transition"] = {
        "pairs": pd.DataFrame(list(BLOCKS), columns=["t0", "t1"]), "time_key": "time", "weight_key": "",
        "map_labels": np.array([], dtype=str), "map_values": np.array([]),
    }  # fmt: skip
    return adata


def test_rows_are_groups_and_what_becomes_of_them(course):
    table = tw.get.transition_df(course, "kind", t1=1.0)
    expected = pd.DataFrame([[0.5, 0.5], [0.0, 1.0]], list("yx"), list("yx"))  # y doubles: half to x, half to y
    pd.testing.assert_frame_equal(table, expected, check_names=False)
    assert (table.index.name, table.columns.name) == ("kind at 0", "kind at 1")
    through = tw.get.transition_df(course, "kind")
    whole = BLOCKS[0.0, 1.0] @ BLOCKS[1.0, 2.0]  # rows x, y; columns y, z
    np.testing.assert_allclose(through.loc["x", ["y", "z"]], whole[0] / whole[0].sum())
    np.testing.assert_allclose(through.loc["y", ["y", "z"]], whole[1] / whole[1].sum())


def test_backward_rows_are_where_a_group_came_from(course):
    table = tw.get.transition_df(course, "kind", t0=0.0, t1=1.0, direction="backward")
    joint = BLOCKS[0.0, 1.0] / 2
    given = joint / joint.sum(0)  # P(source | target)
    np.testing.assert_allclose(table.loc["x", ["x", "y"]], given[:, :2].mean(1))
    np.testing.assert_allclose(table.loc["y", ["x", "y"]], given[:, 2])
    np.testing.assert_allclose(table.sum(1), 1)


def test_three_ways_to_normalise(course):
    stored, rows, total = (tw.get.couplings(course, normalize=n)[0.0, 1.0].toarray() for n in ("none", "rows", "total"))
    np.testing.assert_array_equal(stored, BLOCKS[0.0, 1.0])
    np.testing.assert_allclose(rows, [[0.5, 0.5, 0], [0, 0.5, 0.5]])
    np.testing.assert_allclose(total, BLOCKS[0.0, 1.0] / 3)
    with pytest.raises(InputError, match="normalize"):
        tw.get.couplings(course, normalize="columns")


def test_a_group_that_nothing_leaves_is_not_a_number(course):
    course.obsp["transition"] = sparse.csr_matrix(course.obsp["transition"].toarray() * (np.arange(7) != 0)[:, None])
    table = tw.get.transition_df(course, "kind", t1=1.0)
    assert table.loc["x"].isna().all()
    assert table.loc["y"].sum() == pytest.approx(1)


def test_what_is_not_there_is_named(course):
    with pytest.raises(InputError, match="no couplings lead from time 0 to 3"):
        tw.get.transition_df(course, "kind", t1=3.0)
    with pytest.raises(InputError, match="direction"):
        tw.get.transition_df(course, "kind", direction="up")
    with pytest.raises(MissingKeyError, match="groupby"):
        tw.get.transition_df(course, "type")
    course.obs["time"] = ["d0"] * 2 + ["d1"] * 3 + ["d2"] * 2  # read with a time_map
    course.uns["transition"] |= {"map_labels": np.array(["d0", "d1", "d2"]), "map_values": np.array([0.0, 1.0, 2.0])}
    assert list(tw.get.couplings(course)) == [(0.0, 1.0), (1.0, 2.0)]
