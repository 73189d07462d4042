"""Snapshots and the sampler over them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from thalweg.core import couplings, paths
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError, MissingKeyError
from thalweg.flows.samplers import IntervalSampler


def test_rows_times_and_leaving_one_out(course):
    s = read_course(course, Recipe("time"))
    np.testing.assert_array_equal(s.times, [0, 1, 3])
    assert s.n_dims == 3
    assert len(s.at(1.0)) == 120
    rest = s.without(1.0)
    np.testing.assert_array_equal(rest.times, [0, 3])
    assert len(rest.x) == 240


def test_one_time_point_and_an_unused_category(course):
    with pytest.raises(InputError, match=r"two or more times, found only the time 0"):
        read_course(course[course.obs["time"] == 0], Recipe("time"))
    course.obs["time"] = course.obs["time"].astype("category").cat.add_categories([99.0])
    np.testing.assert_array_equal(read_course(course, Recipe("time")).times, [0, 1, 3])


def test_a_single_cell_at_a_time_is_said(course, caplog):
    few = course[[0, *range(120, 360)]].copy()
    read_course(few, Recipe("time"))
    assert "time 0 has a single cell" in caplog.text


def test_weights_and_conditions(course):
    course.obs["w"] = 2.0
    course.obs["drug"] = np.tile(["b", "a"], 180)
    s = read_course(course, Recipe("time", weight_key="w", condition_key="drug"))
    assert s.conditions == ("a", "b")
    np.testing.assert_array_equal(s.condition[:4], [1, 0, 1, 0])
    assert len(s.rows(1.0, 0)) == 60
    for bad in (0.0, -1.0, np.nan, np.inf):
        course.obs["w"] = [bad] + [1.0] * 359
        with pytest.raises(InputError, match=r"1 of 360"):
            read_course(course, Recipe("time", weight_key="w"))
    with pytest.raises(MissingKeyError, match="condition_key='no'"):
        read_course(course, Recipe("time", condition_key="no"))


def sampler(n_intervals=2):
    """Two points at 0, 1 and 3 (tau 0, 2/3, 2) with the only possible pairs."""
    z = torch.tensor([[0.0], [1.0], [5.0]])
    tau = torch.tensor([0.0, 2 / 3, 2.0])
    one = couplings.uniform(1)
    mixture = couplings.Mixture(
        [couplings.Independent(one, one)] * 2,
        [torch.tensor([0]), torch.tensor([1])],
        [torch.tensor([1]), torch.tensor([2])],
        torch.tensor([0.5, 0.5], dtype=torch.float64),
    )
    return IntervalSampler(z, tau, None, mixture, lambda length: paths.Linear(), n_intervals)


def test_batches_live_on_one_time_axis(generator):
    drawn = sampler().batch(500, generator)
    batch, weight = drawn.batch, drawn.weight
    first = batch.x0[:, 0] == 0
    tau = batch.t * 2
    # piecewise linear through (0, 0), (2/3, 1), (2, 5), with its slopes as velocities
    expected = torch.where(first, tau * 1.5, 1 + (tau - 2 / 3) * 3)
    torch.testing.assert_close(batch.x_t[:, 0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.u_t[:, 0], torch.where(first, 1.5, 3.0))
    torch.testing.assert_close(weight, torch.where(first, 4 / 9, 16 / 9))
    assert ((tau <= 2 / 3) == first).all()


def test_restriction_reaches_the_sampler(generator):
    s = sampler()
    first = s.restrict(torch.tensor([True, False, True])).batch(8, generator)
    assert not first.start.any()  # the coupling whose source was left out is not drawn from
    with pytest.raises(InputError, match="no source row of any part"):
        s.restrict(torch.tensor([False, False, True]))
    both = s.restrict(torch.tensor([True, True, False])).batch(8, generator)
    assert len(both.batch) == 8
    assert both.start.any()


def test_pairs_of_an_unbalanced_plan_carry_mass(generator):
    """From m0 = 1/2 to m1 = 2 at a constant rate, relative to their mean, by which pairs are drawn."""
    mass = (torch.full((3,), 0.5).log(), torch.full((3,), 2.0).log())
    drawn = replace(sampler(), log_mass=mass).batch(500, generator)
    torch.testing.assert_close(drawn.mass, 0.5 * 4**drawn.unit_t / 1.25)
    torch.testing.assert_close(drawn.weight, drawn.length**2 * drawn.mass)
    torch.testing.assert_close(drawn.unit_batch.t, drawn.unit_t)


def test_times_of_a_batch_are_uniform_and_even(generator):
    """Each is uniform; together they leave no gap larger than three mean spacings (Steinhaus: three distances)."""
    t = paths.Linear().spread_t(1000, generator, torch.float64).sort().values
    gaps = torch.diff(t)
    assert gaps.max() < 3e-3
    assert len(torch.unique((gaps * 1e9).round())) <= 3
    starts = torch.stack([paths.Linear().spread_t(1, generator, torch.float64)[0] for _ in range(2000)])
    assert abs(float(starts.mean()) - 0.5) < 0.03
