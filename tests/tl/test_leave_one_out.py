"""Leave-one-out: the held-out time is never seen, the references are what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

import thalweg as tw
from thalweg.errors import InputError
from thalweg.flows import evaluate


@pytest.fixture
def scores(course, quick):
    return tw.tl.leave_one_out(course, "time", methods=("otcfm", "icfm"), n_seeds=2, config=quick, rng=5)


def test_a_tidy_row_for_each_method_time_and_seed(scores):
    assert list(scores.columns) == evaluate.COLUMNS
    assert scores.groupby("method").size().to_dict() == {
        "otcfm": 2, "icfm": 2, "copy-previous": 1, "ot-midpoint": 1, "floor": 2, "floor-corrected": 1,
    }  # fmt: skip
    assert set(scores.loc[scores["method"] == "otcfm", "seed"]) == {5, 6}
    assert (scores.loc[scores["method"].isin(["otcfm", "icfm"]), "fit_seconds"] > 0).all()


def test_references_are_what_they_say(course, scores):
    """Clouds of one shape, moved by 2 per unit of time: day 1 lies a third of the way from 0 to 3."""
    one = scores.set_index("method")
    x = course.obsm["X_pca"].astype(float)
    assert one.loc["copy-previous", "w1"] == pytest.approx(tw.metrics.wasserstein(x[:120], x[120:240]), rel=1e-9)
    assert one.loc["copy-previous", "w1"] == pytest.approx(2, abs=0.2)
    assert one.loc["ot-midpoint", "w1"] < 0.5
    assert one.loc["floor", "w1"].mean() < 0.5
    assert one.loc["ot-midpoint", "variance_ratio"] == pytest.approx(1, abs=0.3)


def test_the_midpoint_follows_the_spacing(course, quick):
    """By index, day 1 is half-way from 0 to 3: one unit too far along, at speed 2."""
    real, index, clock = (
        tw.tl.leave_one_out(course, "time", methods=(), spacing=s, n_seeds=1).set_index("method")
        for s in ("real", "index", "clock")
    )
    gap = wasserstein_distance(
        course.obsm["X_pca"][120:240, 0], 3 + 0.5 * np.random.default_rng(0).standard_normal(120)
    )
    assert index.loc["ot-midpoint", "w1"] == pytest.approx(gap, abs=0.25)
    assert real.loc["ot-midpoint", "w1"] < 0.5 * index.loc["ot-midpoint", "w1"]
    assert clock.loc["ot-midpoint", "w1"] == real.loc["ot-midpoint", "w1"]  # a reference keeps the calendar


def test_the_held_out_time_is_never_trained_on(course, quick, monkeypatch):
    seen = []
    original = evaluate.train_flow

    def spy(snapshots, *args, **kwargs):
        seen.append(snapshots.times.tolist())
        assert not np.isin(snapshots.x, course.obsm["X_pca"][120:240].astype(float)).any()
        return original(snapshots, *args, **kwargs)

    monkeypatch.setattr(evaluate, "train_flow", spy)
    tw.tl.leave_one_out(course, "time", methods=("otcfm",), n_seeds=1, config=quick)
    assert seen == [[0.0, 3.0]]


def test_equals_a_fit_by_hand(course, quick):
    """The same predictions as leaving the cells out oneself, fitting with the same seed, and interpolating."""
    scores = tw.tl.leave_one_out(course, "time", methods=("otcfm",), n_seeds=1, config=quick, rng=7).set_index("method")
    rest = course[(course.obs["time"] != 1.0).to_numpy()].copy()
    tw.tl.fit(rest, "time", method="otcfm", config=quick, rng=7)
    for column, options in (("w1", {"both_ends": False}), ("w1_both_ends", {})):
        predicted = tw.tl.interpolate(rest, 1.0, **options)
        x, weights = predicted.obsm["X_pca"], predicted.obs["weight"]
        w1 = tw.metrics.wasserstein(x, course.obsm["X_pca"][120:240], weights_x=weights)
        assert scores.loc["otcfm", column] == pytest.approx(w1, rel=1e-5)


def test_input_is_not_changed_and_seeds_repeat(course, quick):
    before = course.copy()
    a, b = (
        tw.tl.leave_one_out(course, "time", methods=("sf2m",), n_seeds=1, config=quick, stochastic=True) for _ in (0, 1)
    )
    for column in set(evaluate.COLUMNS) - {"fit_seconds"}:
        np.testing.assert_array_equal(a[column], b[column], err_msg=column)
    assert not course.uns
    np.testing.assert_array_equal(course.obsm["X_pca"], before.obsm["X_pca"])


def test_bad_requests(course):
    with pytest.raises(InputError, match="three or more"):
        tw.tl.leave_one_out(course[course.obs["time"] < 2], "time")
    with pytest.raises(InputError, match=r"times=\[0.0\] are not interior .* \[1.0\]"):
        tw.tl.leave_one_out(course, "time", times=[0.0])
    with pytest.raises(InputError, match="unknown"):
        tw.tl.leave_one_out(course, "time", methods=("nonsense",))
    with pytest.raises(InputError, match="n_seeds"):
        tw.tl.leave_one_out(course, "time", n_seeds=0)
