"""The choice of a method: the default stays where nothing tells, and goes where another one is better."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thalweg as tw
from thalweg.errors import InputError
from thalweg.flows.choice import Choice, _decided

CONFIG = tw.tl.FitConfig(max_steps=40, width=16, depth=2)


def table(one: list[float], other: list[float]) -> pd.DataFrame:
    rows = [("usb", t, w) for t, w in enumerate(one)] + [("fm", t, w) for t, w in enumerate(other)]
    return pd.DataFrame(rows, columns=["method", "time", "w1_both_ends"])


def test_a_clear_gain_is_taken_and_noise_is_not():
    assert _decided(table([1, 1, 1, 1], [0.8, 0.82, 0.81, 0.79]), "usb").method == "fm"
    noise = _decided(table([1, 1, 1, 1], [0.7, 1.2, 0.9, 1.1]), "usb")
    assert noise.method == "usb"
    assert "no gain by fm" in noise.reason
    assert _decided(table([1, 1, 1], [1.2, 1.2, 1.2]), "usb").method == "usb"


def test_whether_the_difference_is_certain_is_said():
    sure = _decided(table([1, 1, 1, 1], [0.8, 0.82, 0.8, 0.78]), "usb")
    assert sure.reason.endswith("its W1 is 20% below that of usb (95% interval 17% to 23%)")
    unsure = _decided(table([1, 1, 1], [0.6, 0.95, 0.9]), "usb")
    assert unsure.method == "fm"
    assert unsure.reason.endswith("18% below that of usb (95% interval -29% to 65%: no difference is certain)")
    half = 0.5 * np.std([0.1, -0.05, 0.0], ddof=1) / np.sqrt(3)  # the limit of the rule, .022, is above the mean, .017
    assert np.mean([0.1, -0.05, 0.0]) < half
    assert _decided(table([1, 1, 1], [0.9, 1.05, 1.0]), "usb").method == "usb"


@pytest.fixture(scope="module")
def line():
    """Five times on a line, of which predictions that stand still or overshoot are told at once."""
    rng, time = np.random.default_rng(0), np.repeat(np.arange(5.0), 30)
    x = rng.standard_normal((150, 2)) * 0.2 + np.c_[4 * time, np.zeros(150)]
    obs = pd.DataFrame({"time": time}, index=[f"c{i}" for i in range(150)])
    from anndata import AnnData

    return AnnData(obs=obs, obsm={"X_pca": x})


def still(cells, time):
    return cells.x[cells.time == cells.times[cells.times < time][-1]]


def exact(cells, time):
    before = cells.times[cells.times < time][-1]
    return cells.x[cells.time == before] + [4 * (time - before), 0]


def test_a_better_predictor_takes_the_place_of_the_default(line):
    found = tw.tl.choose(line, "time", methods=(still, exact), n_seeds=1)
    assert found.method == "exact"
    assert "below that of still" in found.reason
    assert set(found.scores["time"]) == {1.0, 2.0, 3.0}
    assert tw.tl.choose(line, "time", methods=(exact, still), n_seeds=1).method == "exact"
    assert tw.tl.choose(line, "time", methods=(exact,)).reason.endswith("it is the only candidate")


def test_few_inner_times_keep_the_default(line):
    found = tw.tl.choose(line[line.obs["time"] < 3.5].copy(), "time", methods=(still, exact))
    assert found.method == "still"
    assert "2 inner times are too few" in found.reason
    assert found.scores.empty


def test_a_choice_is_scored_by_a_time_that_took_no_part_in_it(line, monkeypatch):
    seen = []
    original = tw.flows.choice.choose

    def spy(cells, *args, **options):
        seen.append(cells.times.tolist())
        return original(cells, *args, **options)

    monkeypatch.setattr(tw.flows.choice, "choose", spy)
    scores = tw.tl.leave_one_out(line, "time", methods="auto", times=[2.0], n_seeds=1, config=CONFIG)
    assert seen == [[0.0, 1.0, 3.0, 4.0]]
    assert "auto" in set(scores["method"])


def test_a_fit_by_choice_is_that_of_the_method(line):
    two = line[line.obs["time"] < 3.5].copy()
    tw.tl.fit(two, "time", method="auto", config=CONFIG, rng=0)
    assert two.uns["thalweg"]["params"]["method"] == "usb"


def test_bad_requests(line):
    with pytest.raises(InputError, match="at least one"):
        tw.tl.choose(line, "time", methods=())
    with pytest.raises(InputError, match="n_seeds"):
        tw.tl.choose(line, "time", n_seeds=0)


def test_a_fit_by_choice_refuses_bad_options_before_it_trains(line):
    for options, words in (
        ({"n_models": 0}, "n_models"),
        ({"resample": True}, "two models"),
        ({"resume": True}, "folder"),
    ):
        with pytest.raises(InputError, match=words):
            tw.tl.fit(line, "time", method="auto", config=CONFIG, **options)


def test_a_fit_by_choice_makes_rates_of_plans_again_in_each_fold(line, monkeypatch):
    """Or they would have seen the time that is left out."""
    adata, seen = line.copy(), []
    tw.pp.growth(adata, time_key="time", method="unbalanced", key_added="rate")

    def spy(cells, methods, trial, seeds, relaxation=None):
        seen.append(relaxation)
        return Choice("otcfm", "because", pd.DataFrame())

    monkeypatch.setattr("thalweg.tl._fit.choose", spy)
    tw.tl.fit(adata, "time", method="auto", growth_key="rate", config=CONFIG, rng=0, check=False)
    assert seen == [adata.uns["rate"]["relaxation"]]
