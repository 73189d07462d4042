"""Scores of held-out times: weights and conditions on both sides, nothing of the held-out time, the memory allowed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.core import distances
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError
from thalweg.flows import evaluate, folds, references
from thalweg.flows.folds import make_folds
from thalweg.flows.growth import rates_from_plans

CONFIG = tw.tl.FitConfig(max_steps=150, width=16)


def branches(n: int = 300, seed: int = 0) -> tuple[AnnData, AnnData]:
    """A course of two branches, four to one, and the same with the larger one thinned tenfold and weighted back."""
    r = np.random.default_rng(seed)
    t, up = np.repeat([0.0, 1, 2], n), r.random(3 * n) < 0.8
    x = r.normal(size=(3 * n, 2)) * 0.5
    x[:, 0] += 2 * t
    x[:, 1] += np.where(up, 3, -3)
    obs = pd.DataFrame({"day": t, "w": 1.0}, index=[f"c{i}" for i in range(3 * n)])
    full = AnnData(obs=obs, obsm={"X_pca": x})
    tenth = np.zeros(3 * n, dtype=bool)
    for day in (0.0, 1.0, 2.0):
        tenth[np.flatnonzero(up & (t == day))[::10]] = True
    thin = full[~up | tenth].copy()
    thin.obs["w"] = np.where(thin.obsm["X_pca"][:, 1] > 0, 10.0, 1.0)
    return full, thin


@pytest.mark.parametrize("method", ["otcfm", "uotcfm"])
def test_thinned_cells_that_weigh_more_score_as_all_of_them(method):
    scores = [
        tw.tl.leave_one_out(a, "day", methods=method, n_seeds=1, weight_key="w", config=CONFIG).set_index("method")
        for a in branches()
    ]
    for name in (method, "copy-previous", "ot-midpoint"):
        for score in ("w1", "w1_both_ends"):
            full, thin = (table.loc[name, score] for table in scores)
            assert thin == pytest.approx(full, abs=0.35), (name, score)
    unweighted = tw.tl.leave_one_out(branches()[1], "day", methods=method, n_seeds=1, config=CONFIG)
    assert unweighted.set_index("method")["w1"]["floor"] < 1.0  # and the floor is within the thinned cells


def test_the_floor_is_of_weighted_halves():
    _, thin = branches()
    cells = read_course(thin, Recipe("day", weight_key="w"))
    (fold,) = make_folds(cells, [1.0], "real")
    row = references._floor(fold, 0)
    order = np.random.default_rng(0).permutation(len(fold.truth.x))
    half = len(order) // 2
    one, other = order[:half], order[half:]
    x, w = fold.truth.x, fold.truth.weights
    assert row["w1"] == distances.wasserstein(x[one], x[other], a=w[one], b=w[other])


def test_the_density_of_the_first_population_is_weighted():
    """The thinned branch weighs ten times as much, so its cells are as likely as if none had been left out."""
    by_branch = []
    for adata in branches():
        tw.tl.fit(adata, "day", method="otcfm", rng=0, weight_key="w", config=CONFIG)
        tw.tl.log_likelihood(adata)
        up = adata.obsm["X_pca"][:, 1] > 0
        by_branch.append([adata.obs["log_likelihood"][m].mean() for m in (up, ~up)])
    np.testing.assert_allclose(by_branch[1], by_branch[0], atol=0.6)
    assert by_branch[1][0] - by_branch[1][1] > 1.0  # log 4, which is what the branches differ by


def two_conditions(days_of_b, n: int = 60) -> AnnData:
    rng, x, rows = np.random.default_rng(0), [], []
    for name, days, far in (("A", [0, 1, 2, 3], 0.0), ("B", days_of_b, 12.0)):
        for t in days:
            x.append(rng.normal(size=(n, 3)) * 0.5 + [2 * t, far, 0])
            rows += [(name, float(t))] * n
    obs = pd.DataFrame(rows, columns=["cond", "day"], index=[f"c{i}" for i in range(len(rows))])
    return AnnData(obs=obs, obsm={"X_pca": np.concatenate(x)})


@pytest.mark.parametrize("days", [[0, 1, 2, 3], [0, 2, 3], [0, 1, 3]])
def test_every_condition_is_predicted_by_its_own_neighbours_and_scored_where_it_was_seen(days):
    adata = two_conditions(days)
    table = tw.tl.leave_one_out(
        adata, "day", condition_key="cond", methods="otcfm", n_seeds=1, config=tw.tl.FitConfig(max_steps=400, width=32)
    )
    w1 = table.set_index(["method", "time"])["w1"]
    for time in (1.0, 2.0):
        assert w1["ot-midpoint", time] < w1["floor", time]  # 3.65 when pairs cross to the other condition
        assert w1["otcfm", time] < 1.2  # 4.19 when B is compared with a day that has none


def test_shares_of_conditions_are_those_of_the_truth():
    adata = two_conditions([0, 1, 2, 3])
    some = adata[(adata.obs["day"] != 0) | (adata.obs["cond"] == "A") | (np.arange(adata.n_obs) % 3 == 0)].copy()
    cells = read_course(some, Recipe("day", condition_key="cond"))
    (fold,) = make_folds(cells, [1.0], "real")
    rows = cells.rows(0.0)
    x, weights = fold.weighted(cells.x[rows], cells.weights[rows], cells.condition[rows])
    assert weights[x[:, 1] > 6].sum() == pytest.approx(0.5)  # 20 of 80 cells, half of the truth
    assert len(x) == 80


def test_a_condition_of_the_held_out_time_alone_is_named_and_one_alone_is_an_error(caplog):
    adata = two_conditions([1])
    adata.obs.loc[adata.obs["cond"] == "B", "day"] = 1.0
    cells = read_course(adata, Recipe("day", condition_key="cond"))
    (fold,) = make_folds(cells, [1.0], "real")
    assert set(fold.truth.condition.tolist()) == {0}
    assert "condition 'B' has no observed time on one side of 1; it is left out of the scores there" in caplog.text
    lonely = cells.take((cells.time != 1.0) | (cells.condition == 1))
    with pytest.raises(InputError, match="no condition of time 1 was observed both before and after it"):
        _ = evaluate.Fold(lonely, 1.0, "real").truth


def test_rates_of_plans_are_made_again_without_the_held_out_time(caplog):
    adata, _ = branches(n=80)
    tw.pp.growth(adata, method="unbalanced", time_key="day")
    seen = []

    def spy(cells, time):
        seen.append(cells.rates)
        return cells.at(0.0)

    tw.tl.leave_one_out(adata, "day", methods=spy, n_seeds=1, growth_key="growth")
    without = read_course(adata, Recipe("day")).without(1.0)
    expected = np.nan_to_num(rates_from_plans(without, adata.uns["growth"]["relaxation"])[0])
    np.testing.assert_array_equal(seen[0], expected)
    leaked = adata.obs["growth"].to_numpy()[(adata.obs["day"] == 0).to_numpy()]
    assert np.abs(seen[0][: len(leaked)] - leaked).max() > 1e-3
    del adata.uns["growth"]  # rates of one's own are taken as they are
    tw.tl.leave_one_out(adata, "day", methods=spy, n_seeds=1, growth_key="growth")
    np.testing.assert_array_equal(seen[1][: len(leaked)], leaked)


def test_the_memory_allowed_is_handed_on_to_every_score(monkeypatch):
    limits = []
    for module, name in (
        (evaluate.distances, "wasserstein_shares"),
        (folds, "fresh_distance"),
        (evaluate.distances, "energy"),
        (references, "solve_exact"),
    ):
        call = getattr(module, name)

        def spy(*args, call=call, **options):
            limits.append(options.get("max_memory"))
            return call(*args, **options)

        monkeypatch.setattr(module, name, spy)
    tw.settings.max_memory = 123 * 2**20
    adata, _ = branches(n=30)
    tw.tl.leave_one_out(adata, "day", methods="otcfm", n_seeds=1, config=CONFIG)
    assert len(limits) >= 9
    assert set(limits) == {123 * 2**20}
