"""Replicates: how far apart they are, whole ones in the bootstrap, and a remark where they part more than days."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError
from thalweg.flows.replicates import apart

SHORT = tw.tl.FitConfig(max_steps=20, width=8, depth=1, validate_every=10)
WARNING = "replicates of one time are further apart than neighbouring times"


def course(shift: float, n=40, step=2.0, seed=0) -> AnnData:
    """Three times of three replicates, which lie ``shift`` apart along an axis that time does not move."""
    rng = np.random.default_rng(seed)
    time, replicate = (v.ravel() for v in np.meshgrid([0.0, 1.0, 2.0], [0, 1, 2], indexing="ij"))
    time, replicate = np.repeat(time, n), np.repeat(replicate, n)
    x = rng.standard_normal((len(time), 3)) + np.c_[step * time, shift * replicate, np.zeros(len(time))]
    obs = pd.DataFrame({"time": time, "mouse": [f"m{r}" for r in replicate]}, index=map(str, range(len(time))))
    return AnnData(obs=obs, obsm={"X_pca": x})


def cells_of(adata):
    return read_course(adata, Recipe("time", replicate_key="mouse"))


def test_samples_of_one_population_are_zero_apart_on_average():
    found = [apart(cells_of(course(0.0, step=0.0, seed=s)), np.random.default_rng(s)) for s in range(20)]
    for values in zip(*found, strict=True):
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert apart(cells_of(course(3.0)), np.random.default_rng(0)).replicates > 1


def test_whole_replicates_are_drawn_where_there_are_several():
    cells = cells_of(course(0.0))
    drawn = cells.resampled(np.random.default_rng(0))
    for t in (0.0, 1.0, 2.0):
        _, counts = np.unique(drawn.replicate[drawn.rows(t)], return_counts=True)
        assert (counts % 40 == 0).all()
        assert counts.sum() == 80  # two of three, so that means scatter as those of other experiments
    one = course(0.0)
    one.obs["mouse"] = "only"
    one.obs.iloc[0, one.obs.columns.get_loc("mouse")] = "a single cell"  # which is no replicate
    alone = cells_of(one).resampled(np.random.default_rng(0))
    assert len(np.unique(alone.x[:, 0])) < len(alone.x) == 360  # single cells, with repeats


def test_a_fit_remarks_on_replicates_that_part_more_than_times(caplog):
    for shift, said in ((0.0, False), (4.0, True)):
        caplog.clear()
        tw.tl.fit(course(shift), "time", method="otcfm", replicate_key="mouse", config=SHORT, rng=0)
        assert (WARNING in caplog.text) is said
    caplog.clear()
    tw.tl.fit(course(4.0), "time", method="otcfm", config=SHORT, rng=0)
    assert WARNING not in caplog.text


def test_the_floor_of_replicates_is_the_mean_distance_of_their_pairs():
    adata = course(1.0)
    table = tw.tl.leave_one_out(adata, "time", methods="otcfm", n_seeds=1, replicate_key="mouse", config=SHORT)
    (row,) = table[table["method"] == "floor-replicates"].to_dict("records")
    x = [adata.obsm["X_pca"][(adata.obs["time"] == 1.0) & (adata.obs["mouse"] == f"m{r}")] for r in range(3)]
    pairs = [tw.metrics.wasserstein(x[i], x[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert row["w1"] == row["w1_both_ends"] == pytest.approx(np.mean(pairs))
    assert row["w1"] > table.loc[table["method"] == "floor-corrected", "w1"].item()
    assert np.isnan(row["share"])
    without = tw.tl.leave_one_out(adata, "time", methods="otcfm", n_seeds=1, config=SHORT)
    assert "floor-replicates" not in set(without["method"])
    adata.obs["mouse"] = "only"
    one = tw.tl.leave_one_out(adata, "time", methods="otcfm", n_seeds=1, replicate_key="mouse", config=SHORT)
    assert "floor-replicates" not in set(one["method"])


def test_a_cell_without_a_replicate_is_refused():
    adata = course(0.0)
    adata.obs.loc["3", "mouse"] = np.nan
    with pytest.raises(InputError, match=r"obs\['mouse'\] has 1 missing values; every cell needs a replicate"):
        tw.tl.fit(adata, "time", replicate_key="mouse")


def test_a_stored_fit_needs_no_replicates_afterwards():
    adata = course(0.0)
    tw.tl.fit(adata, "time", n_models=2, resample=True, replicate_key="mouse", config=SHORT, rng=0)
    del adata.obs["mouse"]
    tw.tl.velocity(adata)
    assert np.isfinite(adata.obsm["velocity_X_pca_sd"]).all()


def test_replicates_and_floors_are_of_one_condition():
    """Two conditions far apart: the floors are those of either, not the way between them."""
    near = course(0.0)
    near.obs["arm"] = np.where(np.arange(near.n_obs) % 2, "x", "y")
    near.obs["own"] = near.obs["arm"] + near.obs["mouse"]
    far = near.copy()
    far.obsm["X_pca"] = far.obsm["X_pca"] + np.where(far.obs["arm"] == "x", 50.0, 0.0)[:, None]
    keys = {"condition_key": "arm", "replicate_key": "own", "n_seeds": 1, "config": SHORT}
    found = []
    for adata in (near, far):
        table = tw.tl.leave_one_out(adata, "time", methods="otcfm", **keys).set_index("method")
        found.append(table.loc[["floor", "floor-corrected", "floor-replicates"], "w1"].to_numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=0.5)  # pairs no longer cross between the conditions
    assert found[1].max() < 3


def test_a_single_cell_is_no_replicate(caplog):
    adata = course(0.0)
    adata.obs["mouse"] = "m0"
    adata.obs.iloc[[0, 130, 250], adata.obs.columns.get_loc("mouse")] = "m1"
    tw.tl.fit(adata, "time", method="otcfm", replicate_key="mouse", config=SHORT, rng=0)
    assert WARNING not in caplog.text


def test_the_share_has_its_interval_over_replicates():
    """The scores are the same; where replicates lie apart, the interval is wider, and one replicate has none."""
    adata = course(1.0)
    keys = {"methods": "otcfm", "n_seeds": 1, "config": SHORT}
    plain = tw.tl.leave_one_out(adata, "time", **keys).set_index("method").loc["otcfm"]
    named = tw.tl.leave_one_out(adata, "time", replicate_key="mouse", **keys).set_index("method").loc["otcfm"]
    assert named[["w1", "w1_both_ends", "share"]].equals(plain[["w1", "w1_both_ends", "share"]])
    assert named["share_high"] - named["share_low"] > 1.5 * (plain["share_high"] - plain["share_low"])
    adata.obs["mouse"] = "only"
    alone = tw.tl.leave_one_out(adata, "time", replicate_key="mouse", **keys).set_index("method").loc["otcfm"]
    assert alone[["share_low", "share_high"]].isna().all()
