"""Everything after a fit respects its design: baselines that arms share, several columns, and strata."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import thalweg as tw
from thalweg.data.cells import read_cells
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError
from thalweg.flows.folds import make_folds

QUICK = tw.tl.FitConfig(max_steps=300)
TINY = tw.tl.FitConfig(max_steps=5)


def course(n=40):
    """Two arms that part from one untreated day: the control goes up, the knock-out down."""
    rng, parts = np.random.default_rng(0), []
    for day, arm in [(0, "untreated"), *((d, a) for d in (1, 2, 3) for a in ("control", "knock-out"))]:
        place = [day, -day if arm == "knock-out" else day, 0]
        x = rng.normal(scale=0.3, size=(n, 3)) + place
        parts.append(pd.DataFrame(x).assign(day=float(day), arm=arm))
    table = pd.concat(parts, ignore_index=True)
    table.index = [f"cell{i}" for i in range(len(table))]
    obs = table[["day", "arm"]].assign(
        arm=pd.Categorical(table["arm"], ["untreated", "knock-out", "control"]),
        kind=np.where(table[1] > 0, "up", "down"),
        donor=rng.choice(["d1", "d2"], len(table)),
        drug=np.where(table["day"] == 0, "untreated", rng.choice(["x", "y"], len(table))),
    )
    return anndata.AnnData(obs=obs, obsm={"X_pca": table[[0, 1, 2]].to_numpy()})


@pytest.fixture(scope="module", params=["usb", "otcfm"])
def fitted(request):
    adata = course()
    tw.tl.fit(
        adata, "day", method=request.param, condition_key="arm", baseline="untreated", config=QUICK, rng=0, check=False
    )
    return adata


@pytest.fixture
def start(fitted):
    return (fitted.obs["day"] == 0).to_numpy()


def test_each_arm_is_trained_from_the_baseline_on(fitted):
    table = fitted.uns["thalweg"]["intervals"]
    spans = table.groupby("condition")[["t0", "t1"]].agg({"t0": "min", "t1": "max"})
    assert spans.index.tolist() == ["control", "knock-out"]
    assert spans.to_numpy().tolist() == [[0, 3], [0, 3]]


def test_velocities_and_likelihoods_are_of_the_rows_of_the_anndata(fitted, start):
    tw.tl.velocity(fitted)
    v = fitted.obsm["velocity_X_pca"]
    assert v.shape == (fitted.n_obs, 3)
    arms = fitted.obs["arm"]
    assert (v[arms == "control", 1] > 0).mean() > 0.9
    assert (v[arms == "knock-out", 1] < 0).mean() > 0.9
    assert abs(v[start, 1].mean()) < 0.5  # the mean of both arms, which go opposite ways
    assert v[start, 0].mean() == pytest.approx(1, abs=0.4)
    tw.tl.log_likelihood(fitted)
    assert np.isfinite(fitted.obs["log_likelihood"]).all()


def test_fates_of_the_baseline_are_those_of_an_arm_or_their_mean(fitted, start):
    means = {}
    for condition in (None, "control", "knock-out"):
        tw.tl.fate(fitted, "kind", condition=condition, rng=0)
        means[condition] = fitted.obsm["fate_kind"].loc[start, "up"].to_numpy()
        assert fitted.obsm["fate_kind"].shape == (fitted.n_obs, 2)
    assert means["control"].min() > 0.9
    assert means["knock-out"].max() < 0.1
    np.testing.assert_allclose(means[None], (means["control"] + means["knock-out"]) / 2, atol=1e-6)
    with pytest.raises(InputError, match="condition='untreated' is none of the fit"):
        tw.tl.fate(fitted, "kind", condition="untreated")


def test_predictions_and_paths_name_the_arm(fitted):
    there = tw.tl.interpolate(fitted, 0.5)
    assert there.obs_names.is_unique  # a cell of the baseline is there once for each arm
    assert there.obs["source"].duplicated().sum() == 40
    means = pd.DataFrame(there.obsm["X_pca"]).groupby(there.obs["arm"].to_numpy()).mean()
    assert means.index.tolist() == ["control", "knock-out"]
    assert means.loc["control", 1] > 0.2 > -0.2 > means.loc["knock-out", 1]
    name = fitted.obs_names[0]
    paths = tw.tl.trajectories(fitted, [name], n_times=4, rng=0)
    assert sorted(set(paths.obs["trajectory"])) == [f"{name}, control", f"{name}, knock-out"]
    assert set(paths.obs["source"]) == {name}
    ends = paths.obs["day"].to_numpy() == 3
    assert dict(zip(paths.obs["arm"][ends], np.sign(paths.obsm["X_pca"][ends, 1]), strict=True)) == {
        "control": 1, "knock-out": -1,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["flow", "plan"])
def test_couplings_go_to_every_arm(fitted, start, kind):
    tw.tl.transition(fitted, kind=kind)
    matrix, day, arms = fitted.obsp["transition"].tocsr(), fitted.obs["day"].to_numpy(), fitted.obs["arm"].to_numpy()
    sums = np.asarray(matrix.sum(1)).ravel()
    assert sums[start].mean() == pytest.approx(1, abs=1e-5)
    to = {arm: matrix[start][:, (day == 1) & (arms == arm)].sum() for arm in ("control", "knock-out")}
    assert to["control"] == pytest.approx(to["knock-out"], rel=1e-4)
    table = tw.get.flow_df(fitted, "kind", condition_key="arm")
    assert list(dict.fromkeys(table["condition"])) == ["knock-out", "control"]  # in the order of the categories
    np.testing.assert_allclose(table.groupby(["condition", "t0"])["share"].sum(), 1)
    first = table[table["t0"] == 0].groupby(["condition", "target"])["share"].sum()
    assert first["control", "up"] > 0.95 < first["knock-out", "down"]


def test_a_part_of_the_cells_keeps_its_arm(fitted):
    """Without the knock-out beside them, control cells are still none of it."""
    tw.tl.velocity(fitted)
    late = fitted[(fitted.obs["arm"] == "control") & (fitted.obs["day"] >= 2)].copy()
    again = tw.tl.velocity(late, copy=True)
    np.testing.assert_allclose(again.obsm["velocity_X_pca"], late.obsm["velocity_X_pca"], atol=1e-5)


def test_tables_and_files(fitted, tmp_path):
    shares = tw.get.populations(fitted, "day", "kind", condition_key="arm")
    assert list(dict.fromkeys(shares["condition"])) == ["control", "knock-out"]
    assert set(shares.loc[shares["time"] == 0, "n"].groupby(shares["condition"]).sum()) == {40}
    fitted.write_h5ad(tmp_path / "fitted.h5ad")
    again = anndata.read_h5ad(tmp_path / "fitted.h5ad")
    tw.tl.velocity(fitted), tw.tl.velocity(again)
    np.testing.assert_allclose(again.obsm["velocity_X_pca"], fitted.obsm["velocity_X_pca"], atol=1e-5)


def test_a_time_left_out_is_scored_once_where_arms_share_it():
    """Two days of baseline: the second is the truth of both arms, and counts once."""
    adata = course()
    adata.obs["arm"] = adata.obs["arm"].astype(str).where(adata.obs["day"] > 1, "untreated")
    scores = tw.tl.leave_one_out(
        adata, "day", methods=["otcfm"], n_seeds=1, condition_key="arm", baseline="untreated", config=TINY
    )
    alone = tw.tl.leave_one_out(adata, "day", methods=["otcfm"], n_seeds=1, config=TINY)
    for name in ("floor", "copy-previous"):  # of the same cells, whoever shares them
        of = [s[(s["method"] == name) & (s["time"] == 1)]["w1"].mean() for s in (scores, alone)]
        assert of[0] == pytest.approx(of[1], rel=0.15)


def test_a_prediction_of_a_shared_time_counts_by_all_arms():
    """Their predictions are of one population, and weigh alike."""
    adata = course()
    adata.obs["arm"] = adata.obs["arm"].astype(str).where(adata.obs["day"] > 1, "untreated")
    cells = read_cells(adata, Recipe("day", condition_key="arm", baseline="untreated"))
    fold = make_folds(cells, [1.0], "real")[0]
    rows = cells.rows(2.0)
    x, weights = fold.weighted(cells.x[rows], cells.weights[rows], cells.stratum[rows])
    np.testing.assert_array_equal(x, cells.x[rows])
    np.testing.assert_allclose(weights / weights.sum(), 1 / len(rows))
    assert len(fold.truth.x) == 80  # of both arms' cells of the day, once


def test_several_columns_and_strata():
    adata = course()
    tw.tl.fit(
        adata, "day", method="otcfm", condition_key=["arm", "drug"], baseline="untreated", couple_within="donor",
        config=TINY, check=False,
    )  # fmt: skip
    table = adata.uns["thalweg"]["intervals"]
    assert sorted(set(table["condition"])) == ["control & x", "control & y", "knock-out & x", "knock-out & y"]
    assert "control & x & d1" in set(table["stratum"])
    there = tw.tl.interpolate(adata, 0.5)
    assert set(there.obs["arm"]) == {"control", "knock-out"}
    assert set(there.obs["drug"]) == {"x", "y"}
    tw.tl.velocity(adata)
    tw.tl.transition(adata)
    matrix = adata.obsp["transition"].tocoo()
    donors = adata.obs["donor"].to_numpy()
    assert (donors[matrix.row] == donors[matrix.col]).all()


def test_logs_name_the_condition(caplog):
    with caplog.at_level("INFO", "thalweg"):
        tw.tl.fit(course(), "day", method="usb", condition_key="arm", baseline="untreated", config=TINY, check=False)
    assert "time 0 to 1 of condition 'control': whole unbalanced coupling" in caplog.text
    assert "time 0 to 1 of condition 'knock-out': plan of the dynamics" in caplog.text
    assert "time 2 to 3 of condition 'control': the population grows" in caplog.text


def test_a_condition_of_one_day_is_named(caplog):
    tw.tl.fit(course(), "day", method="otcfm", condition_key="arm", config=TINY, check=False)
    assert "the cells of condition 'untreated' are observed at [0.0] only" in caplog.text
    assert "baseline=" in caplog.text


def test_assess_and_next_time_keep_the_design():
    adata = course(20)
    given = {"condition_key": "arm", "baseline": "untreated", "config": TINY}
    tw.tl.assess(adata, "day", n_cells=15, n_models=1, **given)
    assert adata.uns["assessment"]["scores"]["method"].notna().all()
    table = tw.tl.next_time(adata, "day", methods=("icfm",), n_between=1, **given)
    assert len(table) == 3


def test_sizes_are_by_arm():
    adata = course(20)
    sizes = {"control": {0: 1, 1: 2, 2: 4, 3: 8}, "knock-out": {0: 1, 1: 1, 2: 1, 3: 1}}
    tw.tl.fit(
        adata, "day", condition_key="arm", baseline="untreated", population_size=sizes, config=TINY, rng=0, check=False
    )
    tw.tl.velocity(adata)
    rate = adata.obs.groupby("arm", observed=True)["growth_rate"].mean()
    assert rate["control"] == pytest.approx(np.log(2), abs=0.1)
    assert rate["knock-out"] == pytest.approx(0, abs=0.1)
    assert rate["untreated"] == pytest.approx(np.log(2) / 2, abs=0.1)


def test_draws_of_the_cells_are_the_same_in_all_arms():
    adata = course(20)
    tw.tl.fit(adata, "day", condition_key="arm", baseline="untreated", config=TINY, rng=0, check=False)
    tw.tl.fate(adata, "kind", n_draws=3, rng=0)
    draws = adata.obsm["fate_kind_draws"]
    assert draws.shape == (adata.n_obs, 6)
    assert np.isfinite(draws.to_numpy()).all()
