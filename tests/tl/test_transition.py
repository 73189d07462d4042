"""Couplings of known flows: permutations, kernels computed densely, growth, strata, blocks, files."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import thalweg as tw
from thalweg.errors import InputError, MemoryBudgetError, MissingKeyError
from thalweg.flows import carry


def shift(speed=1.0):
    return lambda t, x, c: torch.full_like(x, speed)


def still(t, x, c):
    return torch.zeros_like(x)


def plane(n, seed):
    return np.random.default_rng(seed).standard_normal((n, 2))


@pytest.fixture
def moved(known, cells):
    """Cells of time 1 are those of time 0 moved by 1, in another order; those of time 2 those of time 1, reversed."""
    x, order = plane(30, 0), np.random.default_rng(1).permutation(30)
    adata = cells({0.0: x, 1.0: x[order] + 1, 2.0: x[order][::-1] + 2})
    adata.uns["order"] = order
    return known(adata, shift())


def test_a_translation_couples_each_cell_with_its_image(moved):
    """A permutation matrix, for the pairs asked for and, composed, for the others."""
    tw.tl.transition(moved, n_neighbors=1)
    couplings = tw.get.couplings(moved)
    assert list(couplings) == [(0.0, 1.0), (1.0, 2.0)]
    inverse = np.argsort(moved.uns["order"])
    np.testing.assert_array_equal(couplings[0.0, 1.0].toarray(), np.eye(30)[inverse])
    np.testing.assert_array_equal(couplings[1.0, 2.0].toarray(), np.eye(30)[::-1])
    tw.tl.transition(moved, 0.0, 2.0, n_neighbors=1)
    direct = tw.get.couplings(moved)[0.0, 2.0]
    np.testing.assert_array_equal(direct.toarray(), (couplings[0.0, 1.0] @ couplings[1.0, 2.0]).toarray())


def test_entries_are_those_of_the_kernel_computed_densely(known, cells):
    """Gaussian weights of the cells' own weights, on the k nearest, independent of the code."""
    x0, x1 = plane(25, 2), plane(40, 3)
    weights = np.random.default_rng(4).uniform(0.5, 2, 65)
    adata = known(cells({0.0: x0, 1.0: x1}, w=weights), shift(0.5), weight_key="w")
    tw.tl.transition(adata, n_neighbors=6, bandwidth=0.3)
    found = tw.get.couplings(adata)[0.0, 1.0].toarray()
    distance = np.linalg.norm((x0 + 0.5)[:, None] - x1, axis=2)
    kernel = np.exp(-(distance**2) / (2 * 0.3**2)) * weights[25:]
    kernel[distance > np.sort(distance, 1)[:, 5:6]] = 0
    np.testing.assert_allclose(found, kernel / kernel.sum(1, keepdims=True), atol=1e-4)


def test_the_measured_bandwidth_is_half_the_distance_to_the_last_neighbour(known, cells):
    """On the integers the fourth nearest other cell lies at distance 2."""
    adata = known(cells({0.0: [[0.0]], 1.0: np.arange(101.0)[:, None]}), still)
    tw.tl.transition(adata, n_neighbors=4)
    assert adata.uns["transition"]["pairs"]["bandwidth"].item() == pytest.approx(1.0)


def test_two_clusters_do_not_mix_and_a_point_between_them_is_shared_equally(known, cells):
    sides = np.concatenate([plane(20, 0) * 0.1 - 5, plane(20, 1) * 0.1 + 5])
    adata = known(cells({0.0: np.concatenate([sides, [[0.0, 0.0]]]), 1.0: np.concatenate([sides, -sides])}), still)
    tw.tl.transition(adata, n_neighbors=40, bandwidth=10.0)
    right = adata.obsm["X_pca"][41:, 0] > 0
    p = tw.get.couplings(adata)[0.0, 1.0]
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-12)
    share = np.asarray(p[:, right].sum(1)).ravel()
    np.testing.assert_array_equal(share[:20], 0)
    np.testing.assert_allclose(share[20:40], 1)
    cut = tw.get.couplings(tw.tl.transition(adata, n_neighbors=80, top_k=80, bandwidth=10.0, copy=True))[0.0, 1.0]
    assert float(cut[40, right].sum()) == pytest.approx(0.5)


def test_rows_carry_growth_relative_to_the_population(known, cells):
    """Cells on the right double in a unit of time: rows sum to 2/3 and 4/3, their plan to the shares 1/3 and 2/3."""
    x = np.concatenate([plane(10, 0) - 20, plane(10, 1) + 20])
    adata = known(cells({0.0: x, 1.0: x}), still, growth=lambda t, x, c: np.log(2) * (x[:, 0] > 0))
    tw.tl.transition(adata)
    left, right = np.split(np.asarray(adata.obsp["transition"].sum(1)).ravel()[:20], 2)
    np.testing.assert_allclose(left, 2 / 3, rtol=1e-3)
    np.testing.assert_allclose(right, 4 / 3, rtol=1e-3)
    plan = tw.get.couplings(adata, normalize="total")[0.0, 1.0]
    assert plan.sum() == pytest.approx(1)
    assert plan[10:].sum() == pytest.approx(2 / 3, rel=1e-3)
    np.testing.assert_allclose(tw.get.couplings(adata)[0.0, 1.0].sum(1), 1, atol=1e-12)


def test_samples_of_the_sde_spread_as_they_should(known, cells):
    """Brownian motion with drift 1 for 1.5: the row has mean 1.5 and variance 1.5 s^2, over a fine grid of cells."""
    s, grid = 0.8, np.linspace(-6, 8, 1401)[:, None]
    adata = cells({0.0: np.zeros((8, 1)), 1.5: grid})
    known(adata, shift(), score=lambda t, x, c: torch.zeros_like(x), sigma=s, method="sf2m")
    tw.tl.transition(adata, n_samples=500, n_neighbors=2, top_k=2000, rng=0)
    p = tw.get.couplings(adata)[0.0, 1.5].toarray()
    mean = p @ grid[:, 0]
    assert mean.mean() == pytest.approx(1.5, abs=4 * s * np.sqrt(1.5 / 4000) + 0.01)
    variance = ((grid[:, 0] - mean[:, None]) ** 2 * p).sum(1)
    assert variance.mean() == pytest.approx(1.5 * s**2, rel=0.06)
    tw.tl.transition(adata, stochastic=False, n_neighbors=1)
    assert grid[tw.get.couplings(adata)[0.0, 1.5].argmax(1)].ravel() == pytest.approx(1.5, abs=0.01)


def test_conditions_are_never_mixed(known, cells):
    """The same places in both conditions."""
    donor = pd.Categorical(np.tile(["u", "v"], 40))
    adata = known(cells({0.0: plane(40, 0), 1.0: plane(40, 1)}, donor=donor), shift(), condition_key="donor")
    tw.tl.transition(adata)
    entries = adata.obsp["transition"].tocoo()
    assert (np.asarray(donor)[entries.row] == np.asarray(donor)[entries.col]).all()
    np.testing.assert_allclose(tw.get.couplings(adata)[0.0, 1.0].sum(1), 1, atol=1e-12)
    for name in "uv":  # and each is as if the other were not there
        rows = (adata.obs["donor"] == name).to_numpy()
        alone = tw.tl.transition(adata[rows].copy(), copy=True)
        np.testing.assert_allclose(
            alone.obsp["transition"].toarray(), adata.obsp["transition"][rows][:, rows].toarray()
        )


def test_blocks_order_and_offset_change_nothing(moved, monkeypatch):
    tw.tl.transition(moved)
    whole = moved.obsp["transition"].toarray()
    monkeypatch.setattr(carry, "ROWS", 7)
    np.testing.assert_allclose(tw.tl.transition(moved, copy=True).obsp["transition"].toarray(), whole, atol=1e-5)
    order = np.random.default_rng(0).permutation(90)
    mixed = moved[order].copy()
    tw.tl.transition(mixed)
    np.testing.assert_allclose(mixed.obsp["transition"].toarray(), whole[order][:, order], atol=1e-5)
    moved.obsm["X_pca"] = moved.obsm["X_pca"] + 1e3
    np.testing.assert_allclose(tw.tl.transition(moved, copy=True).obsp["transition"].toarray(), whole, atol=5e-3)


def test_top_k_keeps_the_largest_and_says_what_it_left(known, cells):
    adata = known(cells({0.0: plane(12, 0), 1.0: plane(50, 1)}), still)
    tw.tl.transition(adata, n_neighbors=20)
    whole = tw.get.couplings(adata)[0.0, 1.0].toarray()
    tw.tl.transition(adata, n_neighbors=20, top_k=5)
    cut = tw.get.couplings(adata)[0.0, 1.0].toarray()
    kept = np.where(whole >= np.sort(whole, 1)[:, -5:-4], whole, 0)
    np.testing.assert_allclose(cut, kept / kept.sum(1, keepdims=True), atol=1e-6)
    assert adata.uns["transition"]["pairs"]["dropped"].item() == pytest.approx(1 - kept.sum() / 12, abs=1e-5)


def test_a_plan_couples_as_optimal_transport_does(cells):
    """The permutation that moved the cells is the optimal one."""
    x, order = plane(60, 0), np.random.default_rng(1).permutation(60)
    adata = cells({0.0: x, 1.0: x[order] + 3})
    for method in ("otcfm", "icfm", "uotcfm"):
        tw.tl.fit(adata, "time", method=method, rng=0, config=tw.tl.FitConfig(max_steps=2, width=4), key_added=method)
    tw.tl.transition(adata, kind="plan", key="otcfm")
    np.testing.assert_allclose(tw.get.couplings(adata)[0.0, 1.0].toarray(), np.eye(60)[np.argsort(order)], atol=1e-6)
    tw.tl.transition(adata, kind="plan", key="uotcfm", key_added="unbalanced")  # movement explains all: nothing grows
    block = tw.get.couplings(adata, key="unbalanced", normalize="none")[0.0, 1.0]
    np.testing.assert_allclose(block.toarray(), np.eye(60)[np.argsort(order)], atol=1e-6)
    with pytest.raises(InputError, match="uses no transport plan"):
        tw.tl.transition(adata, kind="plan", key="icfm")


def test_calls_add_up_only_with_the_same_options(moved):
    tw.tl.transition(moved, 0.0, 1.0)
    tw.tl.transition(moved, t1=2.0)
    assert list(tw.get.couplings(moved)) == [(0.0, 1.0), (1.0, 2.0)]
    both = moved.obsp["transition"].toarray()
    tw.tl.transition(moved, 0.0)  # once more: replaced, not added
    np.testing.assert_allclose(moved.obsp["transition"].toarray(), both)
    tw.tl.transition(moved, 1.0, n_neighbors=3)
    assert list(tw.get.couplings(moved)) == [(1.0, 2.0)]
    tw.tl.transition(moved, 0.0, n_neighbors=3)
    moved.uns["thalweg"]["weights"]["0"] = np.ones(1, dtype=np.uint8)  # another fit
    tw.tl.transition(moved, 1.0, n_neighbors=3)
    assert list(tw.get.couplings(moved)) == [(1.0, 2.0)]


def test_files_and_subsets_hold_the_couplings(moved, tmp_path):
    tw.tl.transition(moved)
    moved.write_h5ad(tmp_path / "a.h5ad")
    moved.write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        for pair, block in tw.get.couplings(moved).items():
            assert abs(tw.get.couplings(back)[pair] - block).max() == 0
    keep = np.random.default_rng(0).random(90) < 0.6
    part, rows, cols = tw.get.couplings(moved[keep])[0.0, 1.0], keep[:30], keep[30:60]
    whole = tw.get.couplings(moved)[0.0, 1.0].toarray()[rows][:, cols]
    total = whole.sum(1, keepdims=True)
    np.testing.assert_allclose(part.toarray(), np.divide(whole, total, out=np.zeros_like(whole), where=total > 0), atol=1e-6)  # fmt: skip  # noqa: E501
    assert list(tw.get.couplings(moved[30:])) == [(1.0, 2.0)]
    with pytest.raises(InputError, match="no two coupled times"):
        tw.get.couplings(moved[:30])


def test_the_matrix_is_sparse_and_its_size_is_bounded(moved):
    tw.tl.transition(moved, top_k=4)
    stored = moved.obsp["transition"]
    assert sparse.issparse(stored)
    assert stored.dtype == np.float32
    assert np.diff(stored.indptr).max() == 4
    before = dict(moved.uns)
    with pytest.raises(MemoryBudgetError, match="60 rows x 15 columns x 32 bytes"):
        tw.tl.transition(moved, max_memory=1000)
    assert moved.uns.keys() == before.keys()


def test_a_seed_fixes_the_samples(moved, known):
    known(moved, shift(), score=still, sigma=0.5)
    a, b, c = (tw.tl.transition(moved, rng=seed, copy=True).obsp["transition"] for seed in (1, 1, 2))
    assert abs(a - b).max() == 0
    assert abs(a - c).max() > 0.01


def test_what_cannot_be_coupled_is_refused(moved):
    for arguments, options, text in (
        ((5.0,), {}, "t0=5.0 is not observed"),
        ((1.0, 0.0), {}, "must be before"),
        ((2.0,), {}, "no neighbour"),
        ((), {"kind": "map"}, "kind must be"),
        ((), {"top_k": 0}, "top_k"),
        ((), {"n_neighbors": 0}, "n_neighbors"),
        ((), {"bandwidth": -1.0}, "bandwidth"),
        ((), {"stochastic": True}, "learns a score"),
        ((), {"stochastic": -1.0}, "stochastic"),
        ((), {"n_samples": 0}, "n_samples"),
    ):
        with pytest.raises(InputError, match=text):
            tw.tl.transition(moved, *arguments, **options)
    with pytest.raises(MissingKeyError, match=r"Run tw\.tl\.transition"):
        tw.get.couplings(moved)
