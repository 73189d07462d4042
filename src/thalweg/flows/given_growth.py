"""Growth on the way by the rates that cells were given, forwards and backwards.

A cell observed at ``T_k`` has the rate it was given until the next observed time of its condition. From there on its
descendants have the rate of the measured cells they have become like: the mean over the nearest ones, by the kernel of
`thalweg.core.neighbours`. Backwards a cell shrinks to its ancestor at the ancestor's rate: that of the cells at the
start of the interval, nearest to where the ancestor lies there. Carried forwards and back, a cell weighs what it did.

Not guaranteed: anything between cells whose rates jump from one neighbour to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thalweg.core.neighbours import Neighbours
from thalweg.data.cells import Cells, Floats, Rows

_NEIGHBOURS = 15


def stops(cells: Cells, rows: Rows, times: Sequence[float]) -> list[float]:
    """The times of a way with those between at which a rate changes, and for a way back the start of its last interval.

    Parameters
    ----------
    cells
        The course.
    rows
        Cells that set out at ``times[0]``.
    times
        Two or more strictly monotone times.
    """
    low, high = min(times[0], times[-1]), max(times[0], times[-1])
    back, found = times[-1] < times[0], set(times)
    for condition in np.unique(cells.condition[rows]).tolist():
        own = cells.times_of(condition)
        found |= set(own[(own > low) & (own < high)].tolist())
        if back and (own <= low).any():
            found.add(float(own[own <= low][-1]))
    return sorted(found, reverse=back)


def log_growth(cells: Cells, rows: Rows, at: Sequence[float], x: Floats) -> Floats:
    """Logarithm of the growth of some cells since ``at[0]``, shape ``(len(at), n)``.

    Parameters
    ----------
    cells
        The course, with rates.
    rows
        The cells that set out at ``at[0]``.
    at
        What `stops` returned.
    x
        Their coordinates at these times, shape ``(len(at), n, d)``.
    """
    out = np.zeros((len(at), len(rows)))
    for condition in np.unique(cells.condition[rows]).tolist():
        of = np.flatnonzero(cells.condition[rows] == condition)
        own, total = cells.times_of(condition), np.zeros(len(of))
        rates: dict[float, Floats] = {at[0]: _given(cells, rows[of])} if at[-1] > at[0] else {}
        for k in range(1, len(at)):
            before = own[own <= at[k - 1]] if at[k] > at[k - 1] else own[own < at[k - 1]]
            start = float(before[-1]) if len(before) else None  # before the first time nothing is known to grow
            if start is not None and start not in rates:
                rates[start] = _like(cells, cells.rows(start, condition), x[at.index(start)][of])
            if start is not None:
                total = total + rates[start] * (at[k] - at[k - 1])
            out[k, of] = total
    return out


def _given(cells: Cells, rows: Rows) -> Floats:
    rates = np.zeros(len(cells.x)) if cells.rates is None else cells.rates
    return rates[rows]


def _like(cells: Cells, rows: Rows, x: Floats) -> Floats:
    """Rate of the measured cells that some points are like."""
    near, p = Neighbours(cells.x[rows], _NEIGHBOURS, weights=cells.weights[rows])(x)
    mean: Floats = (p * _given(cells, rows)[near]).sum(1)
    return mean
