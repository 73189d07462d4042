"""The simulated experiment: what it says of itself in ``uns["truth"]`` is what its cells show."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.sparse import issparse

import thalweg as tw
from thalweg.datasets import _experiment as source
from thalweg.datasets import _experiment_counts as genes
from thalweg.datasets._blood_tree import AFFECTED, N_LATENT, SIDES, Tree
from thalweg.errors import InputError

ARMS = ("control", "knock-out")
RARE = 1e-4  # chance of each failure if the claim holds; the seeds are fixed, so that it was decided once


@pytest.fixture(scope="module")
def course() -> anndata.AnnData:
    return tw.datasets.experiment(rng=0)


def composition(adata: anndata.AnnData, day: int) -> pd.DataFrame:
    """Cells of each type that occurs on a day, a row for each arm."""
    cells = adata.obs[(adata.obs["time"] == day) & (adata.obs["condition"] != "baseline")]
    found = pd.crosstab(cells["condition"], cells["cell_type"])
    return found.loc[list(ARMS), found.sum() > 0]


def shift_of_means(adata: anndata.AnnData, day: int) -> np.ndarray:
    """How far apart the arms are in each latent coordinate, in standard errors."""
    x, arm = adata.obsm["X_latent"].astype(np.float64), adata.obs["condition"].to_numpy()
    one, other = (x[(adata.obs["time"].to_numpy() == day) & (arm == name)] for name in ARMS)
    error = np.sqrt(one.var(axis=0) / len(one) + other.var(axis=0) / len(other))
    return (other.mean(axis=0) - one.mean(axis=0)) / error


def log_ratios(adata: anndata.AnnData, day: int, genes: list[str]) -> np.ndarray:
    """Log of the mean count of genes in the knock-out over that in the control."""
    chosen, time = adata[:, genes], adata.obs["time"].to_numpy()
    means = [chosen.X[(time == day) & (adata.obs["condition"].to_numpy() == name)].mean(axis=0) for name in ARMS]
    return np.log(np.asarray(means[1]) / np.asarray(means[0])).ravel()


def test_the_design_is_three_replicates_of_a_baseline_and_two_arms(course: anndata.AnnData) -> None:
    assert course.shape == (33_000, 300)
    sizes = course.obs.groupby(["day", "condition", "replicate"], observed=True).size()
    assert len(sizes) == 3 * (1 + 2 * 5)
    assert set(sizes) == {1000}
    assert set(course.obs["condition"][course.obs["day"] == "D0"]) == {"baseline"}
    assert set(course.obs["condition"][course.obs["day"] != "D0"]) == set(ARMS)
    assert (course.obs["day"].astype(str) == "D" + course.obs["time"].astype(int).astype(str)).all()
    assert course.var_names.is_unique
    assert course.obs_names.is_unique


def test_types_are_stretches_of_one_tree(course: anndata.AnnData) -> None:
    tree, obs = course.uns["truth"]["tree"], course.obs
    assert list(tree.index) == list(obs["cell_type"].cat.categories)
    assert len(tree) == 20
    assert (obs["cell_type"].value_counts() > 0).all()
    assert np.mean([len(name) for name in tree.index]) > 25
    assert tree["parent"].tolist().count("") == 1
    rest = tree[1:]
    np.testing.assert_array_equal(rest["start"], tree.loc[rest["parent"], "end"])
    assert all(list(tree.index).index(parent) < i for i, parent in enumerate(rest["parent"], start=1))
    found = tree.loc[obs["cell_type"]]
    progress = obs["pseudotime"].to_numpy()
    assert ((progress >= found["start"]) & (progress < found["end"])).all()
    assert (np.abs(progress - obs["time"]) < 1).all()
    assert progress[obs["time"] == 2].std() == pytest.approx(1 / np.sqrt(7), rel=0.03)  # Beta(3, 3) on (-1, 1)


def test_cells_of_the_last_day_are_at_the_ends_in_the_shares_that_were_drawn(course: anndata.AnnData) -> None:
    truth = course.uns["truth"]
    shares = truth["shares"].set_index(["condition", "replicate"])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert {truth["fate"], truth["sister"]} < set(shares.columns)
    last = course.obs[course.obs["day"] == "D5"]
    assert set(last["cell_type"]) == set(shares.columns)
    counts = pd.crosstab([last["condition"], last["replicate"]], last["cell_type"])
    expected = 1000 * shares.loc[counts.index]
    squares = ((counts[shares.columns] - expected) ** 2 / expected).to_numpy().sum()
    assert RARE < stats.chi2.sf(squares, 6 * 4) < 1 - RARE  # nor are they nearer to the truth than chance allows


def test_shares_of_replicates_have_the_mean_and_the_spread_asked_for() -> None:
    for mean in (0.3, 0.15):
        drawn = source._shares(mean, 0.03, 40_000, np.random.default_rng(1))
        np.testing.assert_allclose(drawn.mean(axis=0), [0.16, 0.10, 0.14, mean, 0.6 - mean], atol=0.001)
        assert drawn[:, AFFECTED].std() == pytest.approx(0.03, rel=0.02)
    same = tw.datasets.experiment(n_cells=2, replicate_spread=0, counts=False).uns["truth"]
    assert same["shares"][same["fate"]].tolist() == [0.30] * 3 + [0.15] * 3


@pytest.mark.parametrize(("onset", "n_days"), [(1, 4), (2, 6), (3, 6), (5, 8)])
def test_arms_are_the_same_before_the_onset_and_not_after_it(onset: int, n_days: int) -> None:
    adata = tw.datasets.experiment(
        n_cells=1500, onset=onset, n_days=n_days, replicate_spread=0, response=False, counts=False, rng=3
    )
    truth = adata.uns["truth"]
    tree = truth["tree"]
    moved = [tree.loc[truth[name], "start"] for name in ("fate", "sister")]
    assert moved == [n_days - 2, n_days - 2]
    for day in range(1, n_days):
        p = stats.chi2_contingency(composition(adata, day)).pvalue
        z = np.abs(shift_of_means(adata, day)).max()
        if day < onset:
            assert p > RARE
            assert z < stats.norm.isf(RARE / N_LATENT)
        else:
            assert p < 1e-9
    assert z > 6  # on the last day, when the two fates are apart


def test_an_experiment_without_effect_has_none_on_any_day() -> None:
    """Replicates scatter: the difference of two arms is that of two draws of three replicates each."""
    found = []
    for seed in range(60):
        null = tw.datasets.experiment(n_cells=200, shifted=0.30, response=False, counts=False, rng=seed)
        cells, fates = composition(null, 5), null.uns["truth"]["shares"].columns[2:]
        found.append(cells.loc["knock-out", fates] / 600 - cells.loc["control", fates] / 600)
    # variance of a mean share of three replicates: over replicates, and of 200 cells in each
    p = np.array([0.16, 0.10, 0.14, 0.30, 0.30])
    spread2 = p * (1 - p) * 0.03**2 / (0.3 * 0.7)
    variance = 2 * (spread2 + (p * (1 - p) - spread2) / 200) / 3
    standard = np.array(found) / np.sqrt(variance)
    assert np.abs(standard.mean(axis=0)).max() < 4 / np.sqrt(60)
    np.testing.assert_allclose((standard**2).mean(axis=0), 1, atol=4 * np.sqrt(2 / 60))


def test_response_genes_answer_from_the_onset_on(course: anndata.AnnData) -> None:
    genes = list(course.uns["truth"]["response_genes"])
    assert genes == list(course.var_names[course.var["response"]])
    assert len(genes) == 10
    for day in range(1, 6):
        expected = np.tile([1.2, -1.2], 5) if day >= 3 else 0
        np.testing.assert_allclose(
            log_ratios(course, day, genes), expected, atol=0.25
        )  # five errors of the rarest gene
    without = tw.datasets.experiment(n_cells=500, response=False, rng=0)
    np.testing.assert_allclose(log_ratios(without, 5, genes), 0, atol=0.35)
    assert not without.var["response"].any()
    assert len(without.uns["truth"]["response_genes"]) == 0


def test_batch_shifts_are_one_vector_for_a_replicate_in_all_its_cells(course: anndata.AnnData) -> None:
    plain = tw.datasets.experiment(batch_shift=0, counts=False, rng=0)
    shifts = course.uns["truth"]["batch_shifts"]
    np.testing.assert_allclose(np.linalg.norm(shifts, axis=1), 0.5)
    moved = course.obsm["X_latent"] - plain.obsm["X_latent"]
    np.testing.assert_allclose(moved, shifts[course.obs["replicate"].cat.codes], atol=1e-5)  # float32 of values to 7
    time = course.obs["time"].to_numpy()
    days = np.array([course.obsm["X_latent"][time == day].mean(axis=0) for day in range(6)])
    apart = [np.linalg.norm(shifts[i] - shifts[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert max(apart) < np.linalg.norm(np.diff(days, axis=0), axis=1).min()


def test_counts_are_negative_binomial_with_library_sizes(course: anndata.AnnData) -> None:
    x = course.X
    assert issparse(x)
    assert x.format == "csr"
    assert (x.data == np.round(x.data)).all()
    assert x.data.min() >= 1
    tree, rng = Tree(3.0, 5.0), np.random.default_rng(0)
    cells = source._draw_cells(tree, np.full((3, 1, 5), 0.2), np.zeros((1, N_LATENT)), 300, False, rng)
    one, other = (
        genes.draw_counts(cells.z, cells.way, tree, 300, np.random.default_rng(0), np.random.default_rng(s)).toarray()
        for s in (1, 2)
    )
    # two draws with one mean m: half their squared difference is the variance, their product is m^2 on average
    variance, square, mean = (((one - other) ** 2).mean(0) / 2, (one * other).mean(0), (one + other).mean(0) / 2)
    expected = mean + square * (np.exp(genes._LIBRARY**2) * (1 + genes._DISPERSION) - 1)
    assert np.median(variance / expected) == pytest.approx(1, abs=0.04)
    assert np.median(mean / expected) < 0.8  # Poisson counts would fail


def test_markers_are_highest_in_their_type_or_next_to_it(course: anndata.AnnData) -> None:
    marked = course.var["marker_of"].dropna()
    assert set(marked.value_counts()) == {5}
    size = np.asarray(course.X.sum(axis=1)).ravel()
    share = pd.DataFrame(course[:, marked.index].X.toarray() / size[:, None], columns=marked.index)
    means = share.groupby(course.obs["cell_type"].to_numpy()).mean()
    highest = means.idxmax()
    parent = course.uns["truth"]["tree"]["parent"]
    near = [t in {own, parent[own]} or parent[t] == own for t, own in zip(highest, marked, strict=True)]
    assert np.mean(highest.to_numpy() == marked.to_numpy()) > 0.8
    assert np.mean(near) > 0.95


def test_fates_of_the_first_cells_are_the_shares_of_their_arm() -> None:
    adata = tw.datasets.experiment(n_cells=100, counts=False, rng=1)
    adata = adata[adata.obs["condition"] != "baseline"].copy()
    adata.obs["condition"] = adata.obs["condition"].cat.remove_unused_categories()
    quick = tw.tl.FitConfig(max_steps=3, width=8, depth=1)  # fates of plans need no network
    tw.tl.fit(adata, "time", condition_key="condition", use_rep="X_latent", check=False, rng=0, config=quick)
    tw.tl.fate(adata, "cell_type", rng=0)
    first, truth = (adata.obs["time"] == 1).to_numpy(), adata.uns["truth"]
    fates = adata.obsm["fate_cell_type"][first].groupby(adata.obs["condition"][first], observed=True).mean()
    drawn = truth["shares"].groupby("condition")[list(fates.columns)].mean()
    # 300 cells of a day in an arm give a share of 0.3 to 0.026, and each day adds its own
    np.testing.assert_allclose(fates.loc[list(ARMS), truth["fate"]], drawn.loc[list(ARMS), truth["fate"]], atol=0.08)
    assert fates.loc["control", truth["fate"]] - fates.loc["knock-out", truth["fate"]] > 0.08


def test_a_seed_fixes_it_and_counts_change_nothing_else() -> None:
    one, same, other = (tw.datasets.experiment(n_cells=10, rng=seed) for seed in (3, 3, 4))
    assert (one.X != same.X).nnz == 0
    np.testing.assert_array_equal(one.obsm["X_latent"], same.obsm["X_latent"])
    assert (one.X != other.X).nnz > 0
    bare = tw.datasets.experiment(n_cells=10, counts=False, random_state=np.random.default_rng(3))
    assert bare.X is None
    np.testing.assert_array_equal(one.obsm["X_latent"], bare.obsm["X_latent"])
    pd.testing.assert_frame_equal(one.obs, bare.obs)
    pd.testing.assert_frame_equal(one.var, bare.var)


@pytest.mark.parametrize("response", [True, False])
def test_a_file_keeps_the_truth(tmp_path: Path, response: bool) -> None:
    adata = tw.datasets.experiment(n_cells=2, n_genes=110, n_replicates=1, response=response, rng=0)
    adata.write_h5ad(tmp_path / "experiment.h5ad")
    read = anndata.read_h5ad(tmp_path / "experiment.h5ad")
    pd.testing.assert_frame_equal(read.obs, adata.obs)
    assert (read.X != adata.X).nnz == 0
    truth, kept = adata.uns["truth"], read.uns["truth"]
    assert truth.keys() == kept.keys()
    for name, value in truth.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(kept[name], value)
        else:
            np.testing.assert_array_equal(kept[name], value)


def test_the_way_is_continuous_and_its_sides_are_the_same_before_a_fork() -> None:
    tree = Tree(3.0, 5.0)
    s = np.linspace(-1, 6, 7001)
    ways = np.stack([tree.place(np.full(len(s), fate), s) for fate in range(len(SIDES))])
    assert np.abs(np.diff(ways, axis=1)).max() < 2e-3 * 1.5
    neutrophil, monocyte = ways[3], ways[4]
    before = s <= 3
    np.testing.assert_array_equal(neutrophil[before], monocyte[before])
    assert np.linalg.norm(neutrophil[-1] - monocyte[-1]) > 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_cells": 1}, "n_cells must be an integer from 2 on; found 1"),
        ({"n_cells": True}, "n_cells must be an integer"),
        ({"n_genes": 100}, "n_genes must be an integer from 110 on"),
        ({"n_days": 3}, "n_days must be an integer from 4 on"),
        ({"n_replicates": 0}, "n_replicates must be an integer from 1 on"),
        ({"onset": 0}, "onset must be an integer from 1 on"),
        ({"onset": 4}, "give an onset up to 3, or raise n_days to 7"),
        ({"share": 0.6}, r"share must lie between 0 and 0\.6"),
        ({"shifted": 0.0}, r"shifted must lie between 0 and 0\.6"),
        ({"shifted": float("nan")}, r"shifted must lie between 0 and 0\.6"),
        ({"replicate_spread": -0.1}, "replicate_spread must be a finite number from 0 on"),
        ({"batch_shift": float("inf")}, "batch_shift must be a finite number from 0 on"),
        ({"replicate_spread": 0.4}, r"too large for shifted=0\.15: stay below 0\.357"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_do(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tw.datasets.experiment(**arguments)
