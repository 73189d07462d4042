"""Replicates: the law of their intervals, draws of them, and what is said where they are odd."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

import thalweg as tw
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.data.replicates import Spread, half_width, over_draws, over_replicates
from thalweg.errors import InputError


def course(names, n=20, times=(0.0, 1.0)) -> AnnData:
    """Replicates of these names at each time, ``n`` cells each; ``names`` may be a list for each time."""
    by_time = names if isinstance(names[0], list) else [names] * len(times)
    rows = [(t, name) for t, here in zip(times, by_time, strict=True) for name in here for _ in range(n)]
    obs = pd.DataFrame(rows, columns=["time", "mouse"], index=map(str, range(len(rows))))
    x = np.random.default_rng(0).standard_normal((len(rows), 3))
    return AnnData(obs=obs, obsm={"X_pca": x})


def cells_of(adata, **options):
    return read_course(adata, Recipe("time", replicate_key="mouse", **options))


def test_equal_weights_give_the_standard_error_of_a_mean():
    values = np.array([[1.0, 4.0], [2.0, 4.0], [6.0, 7.0]])
    mean, spread = over_replicates(values, np.full((3, 2), 0.2))
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(spread.variance, values.var(0, ddof=1) / 3)
    np.testing.assert_allclose(spread.freedom, 2)
    expected = stats.t.interval(0.9, 2, mean, np.sqrt(spread.variance))
    np.testing.assert_allclose(half_width([spread], 0.9), (expected[1] - expected[0]) / 2)


def test_a_replicate_of_no_weight_does_not_count():
    mean, spread = over_replicates(np.array([1.0, 3.0, np.nan]), np.array([2.0, 2.0, 0.0]))
    assert (mean, spread.variance, spread.freedom) == pytest.approx((2.0, 1.0, 1.0))
    nearly = over_replicates(np.array([1.0, 3.0, 9.0]), np.array([2.0, 2.0, 1e-9]))[1]
    assert nearly.freedom == pytest.approx(1.0)
    alone = over_replicates(np.array([1.0]), np.array([3.0]))[1]
    assert np.isnan(alone.variance)
    assert np.isnan(half_width([alone], 0.95))


def test_unequal_replicates_that_scatter_alike_have_the_variance_of_their_mean():
    """However few cells the small ones have: one of nine tenths does not stand for all."""
    values = np.random.default_rng(0).standard_normal((3, 20000))
    weights = np.array([0.8, 0.15, 0.05])
    mean, spread = over_replicates(values, np.broadcast_to(weights[:, None], values.shape))
    assert spread.variance.mean() == pytest.approx(mean.var(), rel=0.05) == pytest.approx(weights @ weights, rel=0.05)


def test_errors_of_several_parts_add():
    one, other = Spread(np.array(3.0), np.array(4.0)), Spread(np.array(1.0), np.array(np.inf))
    freedom = 4.0**2 / (3.0**2 / 4)
    assert half_width([one, other], 0.95) == pytest.approx(stats.t.ppf(0.975, freedom) * 2)


@pytest.mark.parametrize("n_draws", [5, 50])
def test_replicates_and_draws_of_replicates_cover_their_sum(n_draws):
    """Three replicates here, three there, and a few draws of the latter: as fates of a group of cells."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(1000):
        here, there = rng.normal(0, 0.5, 3), rng.normal(0, 1, 3)
        mean, spread = over_replicates(here, np.ones(3))
        draws = there[rng.integers(3, size=(n_draws, 2))].mean(1)
        inside.append(abs(mean + there.mean()) <= half_width([spread, over_draws(draws, 3)], 0.95))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("draw", ["resampled", "reweighted"])
def test_means_of_draws_scatter_as_those_of_other_experiments(n, draw):
    """With as many replicates drawn as there are, the variance would be two thirds of this with three."""
    cells = cells_of(course([f"m{i}" for i in range(n)], n=10))
    rng, shift = np.random.default_rng(0), np.random.default_rng(1).standard_normal(n)
    found = []
    for _ in range(1500):
        one = getattr(cells, draw)(rng)
        for t in (0.0, 1.0):
            rows = one.rows(t)
            found.append(np.average(shift[one.replicate[rows]], weights=one.weights[rows]))
    assert np.var(found) == pytest.approx(shift.var(ddof=1) / n, rel=0.12)
    assert np.mean(found) == pytest.approx(shift.mean(), abs=4 * shift.std() / np.sqrt(n * len(found)))


def test_a_draw_weighs_all_cells_of_a_replicate_alike():
    cells = cells_of(course(["a", "b", "c"], n=10))
    drawn = cells.reweighted(np.random.default_rng(0))
    for t in (0.0, 1.0):
        by_mouse = [np.unique(drawn.weights[drawn.rows(t)][drawn.replicate[drawn.rows(t)] == r]) for r in range(3)]
        assert [len(w) for w in by_mouse] == [1, 1, 1]
        assert sum(w.item() for w in by_mouse) == pytest.approx(3)
    alone = cells_of(course(["a"], n=10)).reweighted(np.random.default_rng(0))
    assert len(np.unique(alone.weights)) == 20


def test_intervals_of_shares_cover_the_truth_with_three_replicates():
    """Beta-binomial replicates of unequal size; 95 %, and not more than 99 %."""
    rng, sizes, times = np.random.default_rng(0), (300, 200, 400), range(40)
    truth = np.array([0.3, 0.64, 0.06])
    inside = []
    for _ in range(10):
        shares = rng.dirichlet(truth * 60, (len(times), 3))  # a spread of .06 around .3
        obs = pd.concat(
            pd.DataFrame({"time": float(t), "mouse": f"m{r}", "kind": rng.choice(list("abc"), n, p=shares[t, r])})
            for t in times
            for r, n in enumerate(sizes)
        )
        adata = AnnData(obs=obs.set_axis(map(str, range(len(obs)))))
        table = tw.get.populations(adata, "time", "kind", replicate_key="mouse").set_index("group")
        expected = table.index.map(dict(zip("abc", truth, strict=True))).to_numpy(float)
        inside.append(((table["lower"] <= expected) & (expected <= table["upper"])).groupby("group").mean())
    covered = pd.concat(inside, axis=1).mean(axis=1)
    assert covered.between(0.93, 0.99).all(), covered


def test_one_replicate_has_no_interval(caplog):
    adata = course([["a", "b"], ["a"]])
    adata.obs["kind"] = np.where(np.arange(adata.n_obs) % 4, "x", "y")
    table = tw.get.populations(adata, "time", "kind", replicate_key="mouse").set_index(["time", "group"])
    assert table.loc[1.0, ["lower", "upper"]].isna().all(axis=None)
    assert table.loc[0.0, ["lower", "upper"]].notna().all(axis=None)
    assert table["n_replicates"].tolist() == [2, 2, 1, 1]
    assert "one replicate only, so that shares have no interval: time 1.0" in caplog.text
    plain = tw.get.populations(adata, "time", "kind").set_index(["time", "group"])
    pd.testing.assert_frame_equal(table[["n", "share"]], plain)
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        tw.get.populations(adata, "time", "kind", replicate_key="mouse", level=95)


def test_a_group_that_does_not_occur_may_be_rare():
    """No cell of 120: other experiments have less than a tenth; the lower limit is 0."""
    adata = course(["a", "b", "c"])
    adata.obs["kind"] = pd.Categorical(np.full(adata.n_obs, "x"), categories=["x", "never"])
    never = tw.get.populations(adata, "time", "kind", replicate_key="mouse").set_index("group").loc["never"]
    assert (never["lower"] == 0).all()
    assert never["upper"].between(0.03, 0.2).all()  # the rule of three says .05


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([["a", "b"], ["a", "b", "late"]], r"replicates \['late'\] were observed once, others at several times"),
        ([["a", "b"], ["a"]], "time 1 has one replicate only: nothing tells how far replicates differ there"),
        ([["D0_r1", "D0_r2"], ["D1_r1", "D1_r2"]], "each replicate was observed once, such as 'D0_r1'"),
    ],
)
def test_odd_replicates_are_named(names, said, caplog):
    caplog.set_level(logging.INFO)
    cells_of(course(names))
    assert pd.Series(caplog.messages).str.contains(said).any()
    caplog.clear()
    cells_of(course(["a", "b"]))
    assert "replicate" not in caplog.text


def test_a_replicate_too_small_to_count_is_named(caplog):
    adata = course(["a", "b"])
    adata.obs.iloc[:3, adata.obs.columns.get_loc("mouse")] = "few"
    adata.obs.iloc[-20:, adata.obs.columns.get_loc("mouse")] = "few"
    cells_of(adata)
    assert (
        "replicates of time 0 with fewer than 10 cells: 'few' (3 cells); they are compared with no other" in caplog.text
    )
