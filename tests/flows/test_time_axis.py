"""The time axis: spacing kept, positions interpolated, slopes right."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.errors import InputError
from thalweg.flows.time_axis import make_axis

TIMES = np.array([2.0, 3.0, 4.0, 7.0])


def test_real_spacing_is_kept():
    axis = make_axis(TIMES, "real")
    # five units over three intervals: 5/3 days are one unit of tau
    np.testing.assert_allclose(axis.tau(TIMES), (TIMES - 2) * 3 / 5)
    np.testing.assert_allclose(axis.slope([2.0, 3.5, 7.0]), 3 / 5)


def test_index_spacing_is_piecewise_linear():
    axis = make_axis(TIMES, "index")
    np.testing.assert_allclose(axis.tau([2, 3, 4, 5.5, 7]), [0, 1, 2, 2.5, 3])
    np.testing.assert_allclose(axis.slope([3.5, 4.0, 6.0, 7.0]), [1, 1 / 3, 1 / 3, 1 / 3])


def test_a_mapping_may_hold_times_that_were_not_observed():
    axis = make_axis(np.array([2.0, 4.0, 7.0]), {2: 0, 3: 1, 4: 2, 7: 3})
    np.testing.assert_allclose(axis.tau([2, 3, 4, 7]), np.array([0, 1, 2, 3]) * 2 / 3)


def test_slopes_are_the_derivative_of_tau():
    axis = make_axis(TIMES, "index")
    t = np.linspace(1.5, 8, 50)
    np.testing.assert_allclose((axis.tau(t + 1e-6) - axis.tau(t - 1e-6)) / 2e-6, axis.slope(t), rtol=1e-5)


@pytest.mark.parametrize("way", [(0.0, 3.0), (3.0, 0.0), (0.5, 1.5), (-1.0, 0.2), (3.5, 2.0), (1.0, 2.0)])
def test_legs_make_up_the_way_and_hold_no_observed_time_inside(way):
    legs = list(make_axis(TIMES, "index").legs(*way))
    assert [leg.start for leg in legs] == [way[0], *(leg.end for leg in legs[:-1])]
    assert legs[-1].end == way[1]
    for leg in legs:
        first, last = sorted(leg[:2])
        assert not any(first < knot < last for knot in (1.0, 2.0))
        # The bounds keep an evaluation at a knot on this leg's side of it; nothing bounds the ends of the axis.
        low, high = [(-np.inf, 1), (1, 2), (2, np.inf)][int(np.clip((first + last) / 2, 0, 2.5))]
        assert leg.low == pytest.approx(low, abs=1e-5)
        assert leg.high == pytest.approx(high, abs=1e-5)
        assert not {1.0, 2.0} & {leg.low, leg.high}


def test_what_is_not_an_axis():
    with pytest.raises(InputError, match=r"no entry for the observed times \[7.0\]"):
        make_axis(TIMES, {2: 0, 3: 1, 4: 2})
    with pytest.raises(InputError, match="must increase"):
        make_axis(TIMES, {2: 0, 3: 1, 4: 1, 7: 2})
    with pytest.raises(InputError, match="spacing must be"):
        make_axis(TIMES, "even")


def test_outside_the_range():
    axis = make_axis(TIMES, "real")
    with pytest.raises(InputError, match=r"time=8 lies outside the observed range 2 to 7"):
        axis.check(8.0, extrapolate=False)
    with pytest.raises(InputError, match="finite"):
        axis.check(float("nan"), extrapolate=True)
    axis.check(8.0, extrapolate=True)
