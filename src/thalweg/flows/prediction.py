r"""Predicted populations: where cells are expected, or cells with the noise they have.

The *mean* is for scores. Cells of one time are not all at one stage, and it is not known quite how far a population
has come. So a third of the cells, drawn at random, is carried a little less far, and another third a little further:
by a tenth of the interval in model time, less near an observed time. And where a cell will be is known up to noise.
The Wasserstein distance of a prediction is least where the noise is left out: in many dimensions it rewards a narrow
cloud. So each predicted cell moves towards the mean ``m`` of its neighbours in the predicted cloud, the 60 nearest or a
fifth of the cells,

.. math:: x \leftarrow x - \rho^{1/3} (x - m), \qquad \rho = \frac{E |x - m|^2}{E |x - E x|^2}.

In few dimensions neighbours are close, ``rho`` is small and hardly a cell moves; in fifty the noise of a cell is most
of what there is.

The *sample* is for eyes, and for what needs the spread of single cells: the cells as the SDE of a bridge carries them
where the prediction has one, otherwise with Gaussian noise of the covariance that is missing
(`thalweg.flows.dispersion`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.core.neighbours import Neighbours
from thalweg.data.cells import Cells, Rows
from thalweg.flows.carry import Carrier, Cloud
from thalweg.flows.dispersion import disperse_cloud

Floats = NDArray[np.float64]
Prediction = Literal["mean", "sample"]
_STAGES = 0.1  # of an interval: how far apart the stages of the cells are
_NEIGHBOURS, _PART = 60, 5  # neighbours of a cell: so many, or one in so many cells where there are few
_ROWS = 2048  # cells whose neighbours are gathered at once


def mean(carrier: Carrier, time: float, *, extrapolate: bool = False) -> Cloud:
    """The population between two observed times, from both ends, where its cells are expected.

    Parameters
    ----------
    carrier
        Carries the cells; where it does so with noise, they are left where they arrive.
    time, extrapolate
        As in `thalweg.flows.carry.Carrier.predict`.
    """
    if carrier.noise is not None:
        return carrier.predict(time, both_ends=True, extrapolate=extrapolate)
    return narrowed(_at_stages(carrier, time, extrapolate), carrier.cells)


def _at_stages(carrier: Carrier, time: float, extrapolate: bool) -> Cloud:
    """The population with its cells at stages that differ a little."""
    cells, times = carrier.cells, _stages(carrier, time)
    if len(times) == 1:
        return carrier.predict(time, both_ends=True, extrapolate=extrapolate)
    carrier.carried_to(time, extrapolate=extrapolate)  # says once which conditions are left out
    carrier = replace(carrier, quiet=True)
    group = _groups(cells, len(times))
    clouds = []
    for k, at in enumerate(times):
        rows = np.flatnonzero(group == k)
        cloud = replace(carrier, cells=cells.take(rows)).predict(at, both_ends=True, extrapolate=extrapolate)
        clouds.append(replace(cloud, rows=rows[cloud.rows]))
    x, weight, rows = (np.concatenate([getattr(c, name) for c in clouds]) for name in ("x", "weight", "rows"))
    logger.info("carried %d cells from both sides to time %g, a third each to stages around it", len(rows), time)
    order = np.lexsort((rows, cells.time[rows]))  # those of the time before first, each in the order of the cells
    return Cloud(x[order], weight[order] / len(times), rows[order], clouds[0].starts)


def _stages(carrier: Carrier, time: float) -> list[float]:
    """The times that the groups of cells are carried to."""
    from scipy.optimize import brentq

    observed, axis = carrier.cells.times, carrier.flow.axis
    if not observed[0] < time < observed[-1] or time in observed:
        return [time]
    if min(np.unique(carrier.cells.stratum[carrier.cells.rows(t)], return_counts=True)[1].min() for t in observed) < 3:
        return [time]
    lo, hi = float(observed[observed < time][-1]), float(observed[observed > time][0])
    share = axis.share(lo, time, hi)
    apart = _STAGES * min(1.0, 2 * share, 2 * (1 - share))
    return [
        float(brentq(lambda t, f=f: axis.share(lo, t, hi) - f, lo, hi)) if f != share else time
        for f in (share - apart, share, share + apart)
    ]


def _groups(cells: Cells, n: int) -> Rows:
    """Number of the group of each cell: each population is shared out at random, always the same way."""
    rng, out = np.random.default_rng(0), np.empty(len(cells.x), dtype=np.int64)
    for condition in cells.strata:
        for t in cells.times_of(condition).tolist():
            rows = cells.rows(t, condition)
            out[rng.permutation(rows)] = np.arange(len(rows)) % n
    return out


def narrowed(cloud: Cloud, cells: Cells) -> Cloud:
    """The cloud with the noise of its cells left out, within each condition."""
    x, labels = cloud.x.copy(), cells.stratum[cloud.rows]
    for condition in np.unique(labels).tolist():
        own = np.flatnonzero((labels == condition) & (cloud.weight > 0))
        if len(own) > 1:
            x[own] = _drawn_together(cloud.x[own], cloud.weight[own])
    return replace(cloud, x=x)


def sample(carrier: Carrier, cloud: Cloud, time: float, rng: np.random.Generator) -> Cloud:
    """The cloud with the noise of its cells; as it is where the SDE has carried it."""
    if carrier.noise is not None:
        return cloud
    return replace(cloud, x=disperse_cloud(cloud, carrier.cells, carrier.flow.axis, time, rng))


def _drawn_together(x: Floats, weight: Floats) -> Floats:
    share = weight / weight.sum()
    spread = float(share @ ((x - share @ x) ** 2).sum(1))
    if not 0 < spread < np.inf:  # one place, or coordinates that are no numbers: they are left as they are
        return x
    index, p = Neighbours(x, max(1, min(_NEIGHBOURS, len(x) // _PART)), weights=share)(x)
    away = np.concatenate(
        [
            x[i : i + _ROWS] - np.einsum("nk,nkd->nd", p[i : i + _ROWS], x[index[i : i + _ROWS]])
            for i in range(0, len(x), _ROWS)
        ]
    )
    out: Floats = x - np.cbrt(float(share @ (away**2).sum(1)) / spread) * away
    return out
