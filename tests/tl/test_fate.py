"""Fates where they are known: certain, one half, the error function, growth; strata, confidence, colours, files."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError
from thalweg.flows import carry


def still(t, x, c):
    return torch.zeros_like(x)


def away(t, x, c):
    """From zero to the side a cell is on."""
    return 3 * torch.sign(x)


def line(n=400, width=6.0):
    return np.linspace(-width, width, n)[:, None]


def sides(x):
    return np.where(np.asarray(x)[:, 0] > 0, "right", "left")


@pytest.fixture
def fork(known, cells):
    """Cells at -1 and 1 that move apart; the two groups they meet."""
    rng = np.random.default_rng(0)
    early = np.concatenate([rng.normal(-1, 0.05, (20, 1)), rng.normal(1, 0.05, (20, 1))])
    late = np.concatenate([rng.normal(-4, 0.3, (30, 1)), rng.normal(4, 0.3, (30, 1))])
    kind = ["start"] * 40 + list(sides(late))
    adata = cells({0.0: early, 1.0: late}, kind=pd.Categorical(kind, ["start", "right", "left"]))
    return known(adata, away)


def test_cells_of_separate_clusters_have_certain_fates(fork):
    tw.tl.fate(fork, "kind")
    fates = fork.obsm["fate_kind"]
    assert list(fates.columns) == ["right", "left"]  # the order of the categories, none that is over
    truth = (fork.obsm["X_pca"][:, 0] > 0).astype(float)
    np.testing.assert_allclose(fates["right"], truth, atol=1e-12)
    assert fork.obs["fate_kind"].tolist() == np.where(truth, "right", "left").tolist()
    np.testing.assert_allclose(fork.obs["fate_kind_confidence"], 1)
    np.testing.assert_allclose(fork.obs["fate_kind_se"], 0, atol=1e-12)


@pytest.mark.parametrize("start", [0.0, 0.7, -1.5])
def test_brownian_cells_go_right_with_the_probability_of_the_normal_law(known, cells, start):
    """From x after a time T with diffusion s: Phi(x / (s sqrt(T))), with the binomial standard error."""
    s, span, n = 0.9, 1.5, 3000
    late = line()
    adata = cells({0.0: [[start]], span: late}, kind=["start", *sides(late)])
    known(adata, still, score=still, sigma=s, method="sf2m")
    tw.tl.fate(adata, "kind", n_samples=n, n_neighbors=1, rng=0)
    truth = norm.cdf(start / (s * np.sqrt(span)))
    error = np.sqrt(truth * (1 - truth) / n)
    assert adata.obsm["fate_kind"]["right"].iloc[0] == pytest.approx(truth, abs=4 * error)
    assert adata.obs["fate_kind_se"].iloc[0] == pytest.approx(error, rel=0.1)
    entropy = -sum(p * np.log2(p) for p in adata.obsm["fate_kind"].iloc[0])
    assert adata.obs["fate_kind_confidence"].iloc[0] == pytest.approx(1 - entropy)


def test_the_sde_counts_each_future_by_its_growth(known, cells):
    """Mass triples in a unit of time on the right of zero and falls to a third on the left."""
    late = line()
    adata = cells({0.0: [[0.0]], 1.0: late}, kind=["start", *sides(late)])
    known(adata, still, score=still, sigma=1.0, growth=lambda t, x, c: np.log(3) * torch.sign(x[:, 0]), method="sf2m")
    tw.tl.fate(adata, "kind", n_samples=6000, n_neighbors=1, rng=0)
    # with A the share of the time spent on the right, E[3^(2 A - 1); end right] by a simulation of its own
    rng = np.random.default_rng(1)
    paths = np.cumsum(rng.standard_normal((20000, 400)) / 20, 1)
    weight = 3 ** (np.sign(paths).mean(1))
    truth = weight[paths[:, -1] > 0].sum() / weight.sum()
    assert truth > 0.65
    assert adata.obsm["fate_kind"]["right"].iloc[0] == pytest.approx(truth, abs=0.03)


def test_without_noise_a_cell_shares_the_futures_of_its_neighbours(known, cells):
    """Two near cells with opposite ends: the kernel in closed form, with the growth of the right one."""
    adata = cells({0.0: [[-0.1], [0.1]], 1.0: [[-3.1], [3.1]]}, kind=["s", "s", "left", "right"])
    known(adata, away, growth=lambda t, x, c: np.log(2) * (x[:, 0] > 0))
    tw.tl.fate(adata, "kind", n_neighbors=2, bandwidth=0.2)
    other = np.exp(-(0.2**2) / (2 * 0.2**2))  # of the neighbour, at a distance of 0.2, relative to the cell itself
    first = 2 * other / (1 + 2 * other)
    second = 2 / (2 + other)
    np.testing.assert_allclose(adata.obsm["fate_kind"]["right"][:2], [first, second], rtol=1e-3)
    np.testing.assert_array_equal(adata.obsm["fate_kind"]["right"][2:], [0, 1])


def test_given_growth_rates_count_as_learned_ones_do(known, cells):
    """A rate of log 2 on the right, given or on the way."""
    points = {0.0: [[-0.1], [0.1]], 1.0: [[-3.1], [3.1]]}
    adata = cells(points, kind=["s", "s", "left", "right"], rate=np.log([1, 2, 1, 2]))
    learned = known(adata.copy(), away, growth=lambda t, x, c: np.log(2) * (x[:, 0] > 0))
    tw.tl.fate(learned, "kind", n_neighbors=2, bandwidth=0.2)
    known(adata, away, growth_key="rate")
    tw.tl.fate(adata, "kind", n_neighbors=2, bandwidth=0.2)
    np.testing.assert_allclose(adata.obsm["fate_kind"], learned.obsm["fate_kind"], rtol=1e-3)
    known(adata, away)
    tw.tl.fate(adata, "kind", n_neighbors=2, bandwidth=0.2)
    assert np.abs(adata.obsm["fate_kind"] - learned.obsm["fate_kind"]).to_numpy().max() > 0.1


def test_a_cell_between_two_equal_groups_is_undecided(known, cells):
    adata = known(cells({0.0: [[0.0]], 1.0: [[-1.0], [1.0]]}, kind=["s", "a", "b"]), still)
    tw.tl.fate(adata, "kind")
    np.testing.assert_allclose(adata.obsm["fate_kind"].iloc[0], 0.5)
    assert adata.obs["fate_kind_confidence"].iloc[0] == pytest.approx(0, abs=1e-12)


def test_terminal_groups_can_be_chosen(fork):
    fork.obs["kind"] = fork.obs["kind"].cat.add_categories("late start").to_numpy()
    fork.obs.loc["c45", "kind"] = "late start"  # a cell that has not decided, among those on the left
    fork.obs.loc["c46", "kind"] = None
    tw.tl.fate(fork, "kind", terminal=["left", "right"])
    fates = fork.obsm["fate_kind"]
    assert list(fates.columns) == ["left", "right"]
    assert fates.loc["c45", "left"] == pytest.approx(1)  # by its neighbours
    assert fates.loc["c46", "left"] == pytest.approx(1)
    np.testing.assert_allclose(fates.sum(1), 1)
    tw.tl.fate(fork, "kind", terminal=["left"])
    np.testing.assert_allclose(fork.obsm["fate_kind"], 1)
    np.testing.assert_allclose(fork.obs["fate_kind_confidence"], 1)


def test_conditions_have_their_own_ends_and_last_times(known, cells):
    """Both conditions in the same place; u ends in a at time 2, v in b at time 1."""
    adata = cells(
        {0.0: np.zeros((4, 1)), 1.0: np.zeros((4, 1)), 2.0: np.zeros((2, 1))},
        kind=["s"] * 4 + ["s", "b"] * 2 + ["a"] * 2,
        donor=["u", "v"] * 4 + ["u"] * 2,
    )
    known(adata, still, condition_key="donor")
    tw.tl.fate(adata, "kind")
    np.testing.assert_array_equal(adata.obsm["fate_kind"]["a"], adata.obs["donor"] == "u")
    np.testing.assert_array_equal(adata.obsm["fate_kind"]["b"], adata.obs["donor"] == "v")


def test_blocks_and_the_order_of_cells_change_nothing_and_a_seed_fixes_the_rest(known, fork, monkeypatch):
    fork.obsm["X_pca"] *= 0.3  # so that the sides overlap
    known(fork, lambda t, x, c: x, growth=lambda t, x, c: x[:, 0])
    whole = tw.tl.fate(fork, "kind", n_neighbors=30, copy=True).obsm["fate_kind"]
    assert ((whole > 0.02) & (whole < 0.98)).to_numpy().any()
    order = np.random.default_rng(0).permutation(100)
    mixed = tw.tl.fate(fork[order].copy(), "kind", n_neighbors=30, copy=True).obsm["fate_kind"]
    np.testing.assert_allclose(mixed.loc[whole.index], whole, atol=1e-4)
    monkeypatch.setattr(carry, "ROWS", 7)
    np.testing.assert_allclose(tw.tl.fate(fork, "kind", n_neighbors=30, copy=True).obsm["fate_kind"], whole, atol=1e-4)
    known(fork, away, score=still, sigma=0.5)
    a, b, c = (tw.tl.fate(fork, "kind", rng=seed, copy=True).obsm["fate_kind"] for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(a, b)
    assert (a - c).abs().to_numpy().max() > 0


def test_colours_are_carried_and_files_hold_the_fates(fork, tmp_path):
    fork.uns["kind_colors"] = np.array(["#111111", "#222222", "#333333"])
    tw.tl.fate(fork, "kind")
    assert list(fork.uns["fate_kind_colors"]) == ["#222222", "#333333"]
    fork.write_h5ad(tmp_path / "a.h5ad")
    fork.write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        pd.testing.assert_frame_equal(back.obsm["fate_kind"], fork.obsm["fate_kind"])
        pd.testing.assert_frame_equal(tw.get.fate_df(back, "kind"), tw.get.fate_df(fork, "kind"))
    del fork.uns["kind_colors"]
    tw.tl.fate(fork, "kind")
    assert "fate_kind_colors" not in fork.uns


def test_the_long_table_says_what_the_wide_one_does(fork):
    tw.tl.fate(fork, "kind", key_added="ends")
    table = tw.get.fate_df(fork, "kind", key="ends")
    wide = table.pivot(index="cell", columns="group", values="probability").loc[fork.obs_names]
    np.testing.assert_array_equal(wide[["right", "left"]], fork.obsm["ends"])
    assert table.groupby("cell")["time"].first().loc[fork.obs_names].tolist() == fork.obs["time"].tolist()
    with pytest.raises(MissingKeyError, match=r"tw\.tl\.fate"):
        tw.get.fate_df(fork, "kind")


def test_what_has_no_fates_is_refused(fork):
    with pytest.raises(MissingKeyError, match="groupby"):
        tw.tl.fate(fork, "nothing")
    with pytest.raises(InputError, match=r"terminal=\['start'\] have no cells at the last time"):
        tw.tl.fate(fork, "kind", terminal=["start"])
    with pytest.raises(InputError, match="learns a score"):
        tw.tl.fate(fork, "kind", stochastic=True)
    fork.obs["kind"] = fork.obs["kind"].cat.rename_categories({"left": "l/m"})
    with pytest.raises(InputError, match="rename_categories"):
        tw.tl.fate(fork, "kind")
    assert not any(key.startswith("fate") for key in (*fork.obsm, *fork.obs, *fork.uns))
