"""Ancestors and descendants against dense matrices, Bayes' rule and closed forms."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError


def coupled(blocks: dict[tuple[float, float], np.ndarray], weights: np.ndarray | None = None, **columns) -> AnnData:
    """An AnnData with given couplings ``T`` of pairs of times."""
    sizes = {t: n for (t0, t1), m in blocks.items() for t, n in zip((t0, t1), m.shape, strict=True)}
    times = sorted(sizes)
    start = dict(zip(times, np.cumsum([0, *(sizes[t] for t in times)]), strict=False))
    n = sum(sizes.values())
    matrix = np.zeros((n, n))
    for (t0, t1), m in blocks.items():
        matrix[start[t0] : start[t0] + len(m), start[t1] : start[t1] + m.shape[1]] = m
    obs = pd.DataFrame(
        {"time": np.repeat(times, [sizes[t] for t in times])} | columns, index=[f"c{i}" for i in range(n)]
    )
    adata = AnnData(obs=obs, obsp={"transition": sparse.csr_matrix(matrix)})
    if weights is not None:
        adata.obs["w"] = weights
    adata.uns["transition"] = {
        "pairs": pd.DataFrame(list(blocks), columns=["t0", "t1"]),
        "time_key": "time",
        "weight_key": "" if weights is None else "w",
        "map_labels": np.array([], dtype=str),
        "map_values": np.array([]),
    }
    return adata


def random_blocks(seed=0, growth=False):
    rng = np.random.default_rng(seed)
    blocks = {}
    for pair, shape in (((0.0, 1.0), (5, 6)), ((1.0, 2.5), (6, 4))):
        p = rng.dirichlet(np.ones(shape[1]), shape[0])
        blocks[pair] = p * (rng.uniform(0.2, 3, (shape[0], 1)) if growth else 1)
    return blocks


@pytest.mark.parametrize("growth", [False, True])
def test_descendants_are_the_mass_carried_by_the_matrices(growth):
    blocks = random_blocks(growth=growth)
    w = np.random.default_rng(1).uniform(1, 3, 15)
    adata = coupled(blocks, w)
    tw.tl.descendants(adata, ["c1", "c3"])
    start = np.array([0, w[1], 0, w[3], 0])
    one = start @ blocks[0.0, 1.0]
    two = one @ blocks[1.0, 2.5]
    expected = np.concatenate([v / v.sum() for v in (start, one, two)])
    np.testing.assert_allclose(adata.obs["descendants"], expected, rtol=1e-6)
    everyone = w[:5] / w[:5].sum() @ blocks[0.0, 1.0]
    info = adata.uns["descendants"]
    np.testing.assert_array_equal(info["times"], [0, 1, 2.5])
    shares = [start.sum() / w[:5].sum()]
    shares.append(one.sum() / w[:5].sum() / everyone.sum())
    shares.append(two.sum() / w[:5].sum() / (everyone @ blocks[1.0, 2.5]).sum())
    np.testing.assert_allclose(info["mass"], shares, rtol=1e-6)


@pytest.mark.parametrize("growth", [False, True])
def test_ancestors_follow_bayes_rule_over_the_joint_distribution(growth):
    """P(i | cell of the set), from the joint probabilities of all chains of cells."""
    blocks = random_blocks(3, growth)
    w = np.random.default_rng(4).uniform(1, 3, 15)
    adata = coupled(blocks, w)
    tw.tl.ancestors(adata, ["c12", "c14"])
    joint = np.einsum("i,ij,jk->ijk", w[:5], blocks[0.0, 1.0], blocks[1.0, 2.5])
    given = joint / joint.sum((0, 1))  # P(i, j | k)
    members = np.array([0, w[12], 0, w[14]])
    expected = given @ members
    np.testing.assert_allclose(adata.obs["ancestors"][:5], expected.sum(1) / members.sum(), rtol=1e-6)
    np.testing.assert_allclose(adata.obs["ancestors"][11:], members / members.sum(), rtol=1e-6)
    one = coupled({(1.0, 2.5): blocks[1.0, 2.5]}, w[5:])
    tw.tl.ancestors(one, ["c7", "c9"], 1.0)
    assert one.obs["ancestors"][:6].sum() == pytest.approx(1)


def test_half_of_a_mixture_goes_each_way_and_comes_back():
    """Two parents, each of half the children of the other group and all its own: closed form."""
    adata = coupled({(0.0, 1.0): np.array([[0.5, 0.5], [0.0, 1.0]])})
    tw.tl.descendants(adata, ["c0"], 1.0)
    np.testing.assert_allclose(adata.obs["descendants"], [1, 0, 0.5, 0.5])
    tw.tl.ancestors(adata, ["c3"], 0.0)
    np.testing.assert_allclose(adata.obs["ancestors"], [1 / 3, 2 / 3, 0, 1])
    tw.tl.ancestors(adata, ["c2"], key_added="of_c2")
    np.testing.assert_allclose(adata.obs["of_c2"], [1, 0, 1, 0])


def test_only_the_times_asked_for_are_written_and_a_direct_coupling_is_preferred():
    blocks = random_blocks() | {(0.0, 2.5): np.tile([1.0, 0, 0, 0], (5, 1))}
    adata = coupled(blocks)
    tw.tl.descendants(adata, {"time": 0.0}, 2.5)
    column = adata.obs["descendants"]
    assert column[5:11].isna().all()
    np.testing.assert_array_equal(column[11:], [1, 0, 0, 0])


def test_cells_that_nothing_reaches_are_named_and_left_out(caplog):
    adata = coupled({(0.0, 1.0): np.array([[1.0, 0.0], [1.0, 0.0]])})
    tw.tl.ancestors(adata, {"time": 1.0})
    np.testing.assert_allclose(adata.obs["ancestors"][:2], 0.5)
    assert adata.uns["ancestors"]["mass"][-1] == pytest.approx(0.5)
    assert "50.0 % of the mass" in caplog.text
    with pytest.raises(InputError, match="no ancestors at time 0"):
        tw.tl.ancestors(adata, ["c3"])


def test_the_right_cells_are_asked_for():
    adata = coupled(random_blocks(), kind=["a", "b", "a", "b", "a"] * 3)
    with pytest.raises(InputError, match=r"of the times \[0.0, 1.0, 2.5\]; choose one of them with source_time"):
        tw.tl.descendants(adata, {"kind": "a"})
    tw.tl.descendants(adata, {"kind": "a"}, source_time=1.0)
    assert adata.obs["descendants"][:5].isna().all()
    assert (adata.obs["descendants"][5:11] > 0).tolist() == [True, False, True, False, True, True]
    for call, time, text in (
        (tw.tl.descendants, 0.0, "must be after"), (tw.tl.ancestors, 2.5, "must be before"),
        (tw.tl.descendants, 7.0, "no couplings lead"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=text):
            call(adata, ["c6"], time)
    with pytest.raises(InputError, match="selects none of that time"):
        tw.tl.descendants(adata, ["c6"], source_time=0.0)
    with pytest.raises(InputError, match="no couplings lead to a time after"):
        tw.tl.descendants(adata, ["c12"])
    del adata.obsp["transition"]
    with pytest.raises(MissingKeyError, match=r"tw\.tl\.transition"):
        tw.tl.ancestors(adata, ["c6"])


def test_both_survive_files_and_copies(tmp_path):
    adata = coupled(random_blocks())
    out = tw.tl.descendants(adata, ["c0"], copy=True)
    assert "descendants" not in adata.obs
    tw.tl.ancestors(out, ["c12"])
    out.write_h5ad(tmp_path / "a.h5ad")
    out.write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        for name in ("descendants", "ancestors"):
            np.testing.assert_array_equal(back.obs[name], out.obs[name])
            np.testing.assert_array_equal(back.uns[name]["mass"], out.uns[name]["mass"])
