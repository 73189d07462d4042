"""The cells' clock: model time runs as the populations move."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.data.cells import Cells
from thalweg.flows.clock import course_axis, lengths
from thalweg.flows.time_axis import TimeAxis, monotone_cubic

TIMES = np.array([0.0, 1.0, 4.0, 5.0])


def course(places, times=TIMES, n=200, d=3, seed=0, spread=1.0, condition=None):
    """The same cells at each time, moved along the first axis; fresh ones without ``spread``."""
    rng = np.random.default_rng(seed)
    own = [spread * rng.normal(size=(n, d)) for _ in times]
    x = np.concatenate([cells + np.eye(d)[0] * at for cells, at in zip(own, places, strict=True)])
    labels = np.zeros(len(x), dtype=np.int64) if condition is None else np.tile(condition, len(times))
    return Cells(x, np.repeat(times, n), np.ones(len(x)), labels, () if condition is None else ("a", "b"))


@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_at_constant_speed_the_clock_is_the_calendar(spread):
    axis = course_axis(course(3 * TIMES, spread=spread), "clock")
    at = np.linspace(0, 5, 21)
    np.testing.assert_allclose(axis.tau(at), axis.calendar.tau(at), atol=0.02 if spread < 0.1 else 0.15)


def test_where_cells_slow_down_a_time_lies_nearer_to_the_next_one():
    places = 10 * (1 - np.exp(-TIMES))
    axis = course_axis(course(places), "clock")
    np.testing.assert_allclose(axis.tau(TIMES) / 3, places / places[-1], atol=0.03)
    share = axis.share(1.0, 2.0, 4.0)
    true = (np.exp(-1) - np.exp(-2)) / (np.exp(-1) - np.exp(-4))  # .67, where the calendar has a third
    assert abs(share - true) < abs(1 / 3 - true) / 2


def test_where_nothing_moves_the_days_decide():
    found = np.mean([lengths(course(np.zeros(4), n=100, seed=s)) for s in range(10)], axis=0)
    assert found[1] == max(found)
    np.testing.assert_allclose(found / found.sum(), np.diff(TIMES) / 5, atol=0.2)  # of chance alone the third is .33
    same = Cells(np.zeros((40, 2)), np.repeat(TIMES, 10), np.ones(40), np.zeros(40, dtype=np.int64))
    np.testing.assert_array_equal(lengths(same), np.diff(TIMES))


def test_two_times_and_other_spacings_have_no_clock():
    two = course([0.0, 3.0], TIMES[:2])
    at = np.linspace(0, 1, 5)
    np.testing.assert_allclose(course_axis(two, "clock").tau(at), at, atol=1e-12)
    assert not course_axis(two, "real").smooth
    np.testing.assert_array_equal(course_axis(course(TIMES**2), "index").tau(TIMES), [0, 1, 2, 3])


def test_conditions_are_compared_with_themselves():
    """One that is rare at a time does not make the population jump."""
    half = np.repeat([0, 1], 100)
    cells = course(3 * TIMES, condition=half)
    cells.x[cells.condition == 1] += [0, 50, 0]
    fewer = cells.take(np.flatnonzero((cells.condition == 0) | (cells.time != 1.0) | (np.arange(800) % 10 == 0)))
    np.testing.assert_allclose(lengths(fewer), lengths(cells), rtol=0.15)
    apart = cells.take(np.flatnonzero((cells.condition == 0) ^ (cells.time >= 4.0)))  # no condition at both 1 and 4
    assert lengths(apart)[1] > 2.5  # of a mean of one: fifty, where the others are three


def test_the_clock_is_monotone_and_its_speed_has_no_jump():
    values = np.array([0.0, 5.0, 5.2, 5.3])
    axis = TimeAxis(TIMES, TIMES, values, smooth=True)
    at = np.linspace(-1, 6, 200)
    assert (np.diff(axis.tau(at)) > 0).all()
    np.testing.assert_allclose(axis.slope(TIMES[1:3] - 1e-9), axis.slope(TIMES[1:3] + 1e-9), rtol=1e-5)
    inside = at[(np.abs(at[:, None] - TIMES) > 1e-2).all(1)]
    np.testing.assert_allclose(
        (axis.tau(inside + 1e-6) - axis.tau(inside - 1e-6)) / 2e-6, axis.slope(inside), rtol=1e-4
    )
    np.testing.assert_allclose(axis.tau(TIMES), 3 * values / values[-1], atol=1e-12)
    ends = monotone_cubic(np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.1, 10.0])).derivative()(0.0)
    assert ends == pytest.approx(0.025)  # a quarter of the slope of the first segment, where the formula gives zero


def test_the_log_says_where_the_times_lie(caplog):
    with caplog.at_level(logging.INFO, logger="thalweg"):
        course_axis(course(10 * (1 - np.exp(-TIMES))), "clock")
    assert "as the populations move, the times 0, 1, 4, 5 lie at 0, 0.6" in caplog.text
    assert "by the calendar, spacing='real', at 0, 0.2, 0.8, 1" in caplog.text


@pytest.mark.parametrize("method", ["usb", "otcfm"])
def test_populations_of_one_point_each_can_be_fitted(method):
    x = np.repeat([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]], 20, axis=0)
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0, 2.0], 20)}, index=[f"c{i}" for i in range(60)])
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    tw.tl.fit(adata, "day", method=method, rng=0, config=tw.tl.FitConfig(max_steps=30), check=False)
    assert np.isfinite(tw.tl.interpolate(adata, 1.5).obsm["X_pca"]).all()
