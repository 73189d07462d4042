r"""The cells' clock: how far apart the populations of neighbouring times are.

Cells do not change at one speed. Where a course slows down, a time halfway between two others holds cells that are
nearer to the later one. So with ``spacing="clock"`` model time runs as the populations move: the length of an interval
is the distance between the populations at its ends,

.. math:: D_k^2 = \max(0, S_k - b_k) + \bar b \, (\Delta_k / \bar\Delta)^2, \qquad
    b_k = \frac{v_k}{n_k} + \frac{v_{k+1}}{n_{k+1}},

with ``S_k`` the Sinkhorn divergence (Feydy et al. 2019) of two populations of ``n`` cells and total variance ``v``, and
``b_k`` what sampling alone adds to it. Where nothing can be told from sampling, the days ``Delta_k`` between the times
decide. Between two times the clock is a monotone cubic of time (`thalweg.flows.time_axis`), so that its speed is
continuous. Only the observed times of a fit take part: a time that was left out is placed without having been seen.

Not guaranteed: that cells change as their populations do. Cells that turn over in a population at rest leave no trace.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.core.distances import sinkhorn
from thalweg.data.cells import Cells
from thalweg.flows.time_axis import Spacing, TimeAxis, make_axis

Floats = NDArray[np.float64]
_CELLS = 1000  # of each population that take part
_EPSILON = 0.5  # of the divergence, in total variances of both populations


def course_axis(cells: Cells, spacing: Spacing) -> TimeAxis:
    """The time axis of a course; see `thalweg.flows.time_axis.make_axis`."""
    axis = make_axis(cells.times, spacing, lambda: lengths(cells))
    if axis.smooth and len(cells.times) > 2:
        places = axis.tau(axis.times) / axis.n_intervals
        logger.info(
            "spacing='clock', the default since 0.2: as the populations move, the times %s lie at %s of the way; by "
            "the calendar, spacing='real', at %s",
            *(_listed(v) for v in (axis.times, places, axis.calendar.tau(axis.times) / axis.n_intervals)),
        )
    return axis


def lengths(cells: Cells) -> Floats:
    """``D`` between neighbouring times, the mean over the conditions observed at both, shape ``(n_times - 1,)``.

    Where no condition was, the populations of all conditions are compared.
    """
    times = cells.times.tolist()
    found = np.array([_apart(cells, t0, t1) for t0, t1 in pairwise(times)])
    moved, noise = found.T
    days = np.diff(times) / np.diff(times).mean()
    out: Floats = np.sqrt(np.maximum(moved - noise, 0) + noise.mean() * days**2)
    if not out.min() > 0:  # cells that are all the same
        return np.diff(times)
    return np.array([float(f"{v:.5g}") for v in out / out.mean()])  # last bits differ with the number of threads


def _apart(cells: Cells, t0: float, t1: float) -> tuple[float, float]:
    """Squared distance of the populations of two times, and what sampling adds to it."""
    pairs = [(cells.rows(t0, c), cells.rows(t1, c)) for c in cells.strata]
    pairs = [pair for pair in pairs if len(pair[0]) and len(pair[1])] or [(cells.rows(t0), cells.rows(t1))]
    shares = np.array([cells.weights[rows].sum() + cells.weights[cols].sum() for rows, cols in pairs])
    found = []
    for pair in pairs:
        ends = [_some(rows) for rows in pair]
        (x, a), (y, b) = ((cells.x[rows], cells.weights[rows] / cells.weights[rows].sum()) for rows in ends)
        noise = sum(float(w @ w) * float(w @ ((z - w @ z) ** 2).sum(1)) for z, w in ((x, a), (y, b)))
        found.append((sinkhorn(x, y, epsilon=_EPSILON, a=a, b=b), noise))
    moved, noise = (np.average(v, weights=shares) for v in zip(*found, strict=True))
    return float(moved), float(noise)


def _some(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """A part of the cells, always the same."""
    return rows if len(rows) <= _CELLS else np.random.default_rng(0).permutation(rows)[:_CELLS]


def _listed(values: Floats) -> str:
    return ", ".join(f"{v:.3g}" for v in values)
