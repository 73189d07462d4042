"""Replicates left out: what the rows are, that nothing of the replicate is seen, and replicates that cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import stats

import thalweg as tw
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError, MissingKeyError
from thalweg.flows import replicate_folds
from thalweg.flows.evaluate import Trial
from thalweg.flows.methods import find_method

SHORT = tw.tl.FitConfig(max_steps=100, width=16, depth=1, validate_every=50)
TINY = tw.tl.FitConfig(max_steps=3, width=8, depth=1)


def course(shift=0.0, n=30, times=(0.0, 1.0, 2.0), mice=3, seed=0) -> AnnData:
    """Replicates that lie ``shift`` apart along an axis, and move by 2 per unit of time along another."""
    rng = np.random.default_rng(seed)
    time, mouse = (v.ravel() for v in np.meshgrid(times, np.arange(mice), indexing="ij"))
    time, mouse = np.repeat(time, n), np.repeat(mouse, n)
    x = 0.3 * rng.standard_normal((len(time), 3)) + np.c_[2 * time, shift * mouse, np.zeros(len(time))]
    obs = pd.DataFrame({"time": time, "mouse": [f"m{r}" for r in mouse]}, index=map(str, range(len(time))))
    return AnnData(obs=obs, obsm={"X_pca": x})


def left_out(adata, **options):
    return tw.tl.leave_one_replicate_out(adata, "time", "mouse", **{"methods": "otcfm", "config": TINY} | options)


def test_references_are_distances_between_cells():
    adata = course(1.0)
    table = left_out(adata).set_index(["replicate", "time", "method"])
    x, time, mouse = adata.obsm["X_pca"], adata.obs["time"].to_numpy(), adata.obs["mouse"].to_numpy()
    own = [x[(time == t) & (mouse == "m1")] for t in (0.0, 1.0, 2.0)]
    for t in (1, 2):
        others = x[(time == t) & (mouse != "m1")]
        row = table.loc["m1", float(t)]["w1"]
        assert row["copy-first"] == pytest.approx(tw.metrics.wasserstein(own[0], own[t]))
        assert row["other-replicates"] == pytest.approx(tw.metrics.wasserstein(others, own[t]))
        assert row["floor"] < row["other-replicates"]
    assert set(table.reset_index()["method"]) == {"copy-first", "other-replicates", "floor", "otcfm"}
    assert table.groupby("replicate").size().tolist() == [8, 8, 8]


def test_a_flow_of_the_others_moves_the_cells_of_the_replicate():
    """The others lie elsewhere; a prediction knows where the replicate started, and is nearer than they are."""
    scores = left_out(course(1.5, n=40), config=SHORT)
    table = tw.get.replicate_scores_df(scores).set_index(["method", "time"])
    for t in (1.0, 2.0):
        assert table.loc[("otcfm", t), "w1"] < 0.5 * table.loc[("copy-first", t), "w1"]
        assert table.loc[("otcfm", t), "ratio"] < 0.6
        assert table.loc[("other-replicates", t), "ratio"] == pytest.approx(1)


@pytest.mark.parametrize("method", ["otcfm", "usb"])
def test_nothing_of_the_replicate_but_its_first_cells_is_seen(method, monkeypatch):
    """Its later cells may lie anywhere: the prediction is the same to the bit."""
    clouds, scores = [], replicate_folds.other_scores

    def noting(cloud, truth):
        clouds.append(cloud)
        return scores(cloud, truth)

    monkeypatch.setattr(replicate_folds, "other_scores", noting)
    for away in (0.0, 50.0):
        adata = course(n=12)
        later = (adata.obs["mouse"] == "m0") & (adata.obs["time"] > 0)
        adata.obsm["X_pca"][later.to_numpy()] += away
        cells = read_course(adata, Recipe("time", replicate_key="mouse"))
        fold = replicate_folds.replicate_folds(cells, "mouse", "clock")[0]
        carried = fold.course(0)  # those that enter on the way are others, too
        assert set(carried.time[carried.replicate == 0]) == {0.0}
        assert set(carried.replicate[carried.time > 0]) == {1, 2}
        trial = Trial(TINY, "clock", torch.device("cpu"), False)
        assert len(list(fold.rows(find_method(method), trial, 0))) == 2
    for (x, a), (y, b) in zip(clouds[:2], clouds[2:], strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(a, b)


def test_seeds_count_up_and_are_repeatable():
    adata = course(n=12, times=(0.0, 1.0))
    one, two = left_out(adata, n_seeds=2, rng=3), left_out(adata, n_seeds=2, rng=3)
    columns = [c for c in one if c != "fit_seconds"]
    pd.testing.assert_frame_equal(one[columns], two[columns])
    assert one[one["method"] == "otcfm"]["seed"].tolist() == [3, 4] * 3
    assert one[one["method"] == "floor"].groupby("replicate")["w1"].nunique().tolist() == [2] * 3


def test_conditions_are_predicted_apart_and_a_shared_baseline_starts_each():
    """Two arms that move to opposite sides from one baseline: a prediction of the other arm is worse than a copy."""
    adata = course(0.0, n=40)
    arm = np.where(np.arange(adata.n_obs) % 2, "up", "down")
    arm[adata.obs["time"] == 0] = "none"
    adata.obs["arm"] = arm
    adata.obsm["X_pca"][:, 2] += np.select([arm == "up", arm == "down"], [6.0, -6.0], 0.0) * adata.obs["time"]
    table = left_out(adata, condition_key="arm", baseline="none", config=SHORT)
    assert table.columns[:3].tolist() == ["replicate", "condition", "time"]
    assert len(table) == 3 * 2 * 2 * 4
    means = tw.get.replicate_scores_df(table).set_index(["condition", "method", "time"])
    for arm in ("up", "down"):
        assert means.loc[(arm, "otcfm", 1.0), "w1"] < 0.8 * means.loc[(arm, "copy-first", 1.0), "w1"]
        assert means.loc[(arm, "other-replicates", 1.0), "w1"] < 1  # of the same arm


def test_the_summary_is_a_t_interval_over_replicates():
    w1 = np.array([[1.0, 2.0], [2.0, 2.0], [6.0, 3.0]])
    rows = [
        {"replicate": f"m{r}", "time": 1.0, "method": name, "seed": seed, "w1": w1[r, k] + seed}
        for r in range(3)
        for k, name in enumerate(("otcfm", "other-replicates"))
        for seed in (-1, 1)  # whose mean counts
    ]
    table = tw.get.replicate_scores_df(pd.DataFrame(rows), level=0.9).set_index("method").loc["otcfm"]
    _, high = stats.t.interval(0.9, 2, 3.0, w1[:, 0].std(ddof=1) / np.sqrt(3))
    assert (table["n"], table["w1"]) == (3, pytest.approx(3.0))
    assert (table["lower"], table["upper"]) == pytest.approx((0.0, high))  # no distance is negative
    logs = np.log(w1[:, 0] / w1[:, 1])
    limits = np.exp(stats.t.interval(0.9, 2, logs.mean(), logs.std(ddof=1) / np.sqrt(3)))
    assert table["ratio"] == pytest.approx(np.exp(logs.mean()))
    assert (table["ratio_lower"], table["ratio_upper"]) == pytest.approx(tuple(limits))
    alone = tw.get.replicate_scores_df(pd.DataFrame(rows[:4]))
    assert alone[["lower", "upper", "ratio_lower"]].isna().all(axis=None)
    with pytest.raises(InputError, match="leave_one_replicate_out"):
        tw.get.replicate_scores_df(alone)
    with pytest.raises(InputError, match="level"):
        tw.get.replicate_scores_df(pd.DataFrame(rows), level=0)


def test_a_replicate_of_one_day_is_named_and_trained_on(caplog):
    adata = course(n=12)
    adata = adata[(adata.obs["mouse"] != "m2") | (adata.obs["time"] == 1)].copy()
    table = left_out(adata)
    assert set(table["replicate"]) == {"m0", "m1"}
    assert "replicates ['m2'] hold one time only: they are trained on, and never left out" in caplog.text
    others = adata[(adata.obs["mouse"] != "m0") & (adata.obs["time"] == 1)].obsm["X_pca"]
    real = adata[(adata.obs["mouse"] == "m0") & (adata.obs["time"] == 1)].obsm["X_pca"]
    row = table[(table["replicate"] == "m0") & (table["time"] == 1) & (table["method"] == "other-replicates")]
    assert row["w1"].item() == pytest.approx(tw.metrics.wasserstein(others, real))


def test_a_time_that_no_other_replicate_reaches_is_named(caplog):
    adata = course(n=12, times=(0.0, 1.0, 2.0, 3.0))
    adata = adata[(adata.obs["mouse"] == "m0") | (adata.obs["time"] < 3)].copy()
    table = left_out(adata)
    assert table.groupby("replicate")["time"].max().tolist() == [2.0, 2.0, 2.0]
    assert "replicate 'm0' is not predicted at the times [3.0]: no other replicate was observed so early" in caplog.text


def test_a_time_between_those_of_the_others_is_predicted():
    adata = course(n=12)
    adata = adata[(adata.obs["mouse"] == "m0") | (adata.obs["time"] != 1)].copy()
    table = left_out(adata)
    own = table[(table["replicate"] == "m0") & (table["time"] == 1)]
    assert own["method"].tolist() == ["copy-first", "floor", "otcfm"]  # no other replicate was there


def test_what_cannot_be_left_out_is_refused():
    nested = course(n=12)
    nested.obs["mouse"] = "D" + nested.obs["time"].astype(int).astype(str) + "_" + nested.obs["mouse"]
    with pytest.raises(InputError, match=r"each replicate of obs\['mouse'\] holds one time only, such as 'D0_m0'"):
        left_out(nested)
    alone = course(n=12, mice=1)
    with pytest.raises(InputError, match=r"obs\['mouse'\] holds one replicate only; leaving one out needs two"):
        left_out(alone)
    missing = course(n=12)
    missing.obs.loc["3", "mouse"] = np.nan
    with pytest.raises(InputError, match=r"obs\['mouse'\] has 1 missing values; every cell needs a replicate"):
        left_out(missing)
    with pytest.raises(MissingKeyError, match="'rat'"):
        tw.tl.leave_one_replicate_out(missing, "time", "rat")
    apart = course(n=12, mice=2, times=(0.0, 1.0, 2.0, 3.0))
    apart = apart[(apart.obs["mouse"] == "m0") == (apart.obs["time"] < 2)].copy()
    with pytest.raises(InputError, match="no replicate of obs"):
        left_out(apart)
    with pytest.raises(InputError, match="n_seeds"):
        left_out(course(n=12), n_seeds=0)
    with pytest.raises(InputError, match="methods must be names of"):
        left_out(course(n=12), methods=lambda cells, time: cells.x)


def test_growth_rates_from_plans_are_made_again_without_the_replicate():
    adata = course(n=12)
    tw.pp.growth(adata, method="unbalanced", time_key="time")
    cells = read_course(adata, Recipe("time", replicate_key="mouse", growth_key="growth"))
    fold = replicate_folds.replicate_folds(cells, "mouse", "clock", 1.0)[0]
    later = (cells.replicate == 0) & (cells.time > 0)
    x = cells.x.copy()
    x[later] += 5.0
    other = replicate_folds.replicate_folds(replace(cells, x=x), "mouse", "clock", 1.0)[0]
    for one, two in ((fold.train, other.train), (fold.course(0), other.course(0))):
        np.testing.assert_array_equal(one.rates, two.rates)
        assert (one.rates != 0).any()
    table = left_out(adata, growth_key="growth", methods="icfm")
    assert np.isfinite(table["w1"]).all()
