"""Growth on the way by the rates of cells, forwards and backwards.

A cell observed at ``T_k`` has its own rate until the next observed time of its condition. From there on its descendants
have the rate of the measured cells they have become like: the mean over the nearest ones, by the kernel of
`thalweg.core.neighbours`. Backwards a cell shrinks to its ancestor at the ancestor's rate: that of the cells at the
start of the interval, nearest to where the ancestor lies there. Carried forwards and back, a cell weighs what it did.

The share of a cell that dies in place (``Cells.lost``) fades linearly until the next observed time. Backwards, the
share of a cell that has no ancestor (``Cells.arrived``) fades in the same way until the observed time before.

Not guaranteed: anything between cells whose rates jump from one neighbour to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thalweg.core.neighbours import Neighbours
from thalweg.data.cells import Cells, Floats, Rows
from thalweg.data.rates import offspring

_NEIGHBOURS = 15


def stops(cells: Cells, rows: Rows, times: Sequence[float]) -> list[float]:
    """The times of a way with those between at which a rate changes, and for a way back the start of its last interval.

    Parameters
    ----------
    cells
        The course.
    rows
        Cells of one condition that set out at ``times[0]``.
    times
        Two or more strictly monotone times.
    """
    low, high = min(times[0], times[-1]), max(times[0], times[-1])
    back, own = bool(times[-1] < times[0]), cells.times_of(int(cells.stratum[rows[0]]))
    found = {*map(float, times), *own[(own > low) & (own < high)].tolist()}
    if back and (own <= low).any():
        found.add(float(own[own <= low][-1]))
    return sorted(found, reverse=back)


def growth(cells: Cells, rows: Rows, at: Sequence[float], x: Floats) -> Floats:
    """Growth of some cells since ``at[0]``, shape ``(len(at), n)``; 0 for a cell that has died.

    Parameters
    ----------
    cells
        The course, with rates.
    rows
        The cells that set out at ``at[0]``, of one condition.
    at
        What `stops` returned.
    x
        Their coordinates at these times, shape ``(len(at), n, d)``.

    Raises
    ------
    InputError
        If rates are too large or small for the times between.
    """
    out, forward, condition = np.ones((len(at), len(rows))), at[-1] > at[0], int(cells.stratum[rows[0]])
    own, turn = cells.times_of(condition), _at(cells, rows)
    fading = turn.lost if forward else turn.arrived  # from the time that the cells are at
    rates: dict[float, Floats] = {at[0]: turn.rate} if forward else {}
    for k in range(1, len(at)):
        a, b = at[k - 1], at[k]
        if a in own and k > 1:
            turn = _like(cells, cells.rows(a, condition), x[k - 1])
            fading = turn.lost if forward else turn.arrived
            rates[a] = turn.rate
        before = own[own <= a] if forward else own[own < a]
        start = float(before[-1]) if len(before) else None  # before the first time nothing is known to grow
        if start is not None and start not in rates:
            rates[start] = _like(cells, cells.rows(start, condition), x[at.index(start)]).rate
        grown = 1.0 if start is None else offspring(rates[start], b - a)
        out[k] = out[k - 1] * grown * _faded(own, a, b, fading)
    return out


class _Turn(NamedTuple):
    rate: Floats
    lost: Floats
    arrived: Floats


def _at(cells: Cells, rows: Rows) -> _Turn:
    zero = np.zeros(len(rows))
    return _Turn(*(zero if of is None else of[rows] for of in (cells.rates, cells.lost, cells.arrived)))


def _like(cells: Cells, rows: Rows, x: Floats) -> _Turn:
    """The turnover of the measured cells that some points are like."""
    near, p = Neighbours(cells.x[rows], _NEIGHBOURS, weights=cells.weights[rows])(x)
    rate, lost, arrived = ((p * of[near]).sum(1) for of in _at(cells, rows))
    return _Turn(rate, np.clip(lost, 0, 1), np.clip(arrived, 0, 1))  # means of shares, but for rounding


def _faded(own: Floats, a: float, b: float, share: Floats) -> Floats | float:
    """What is left at ``b``, of one at ``a``, of cells a share of which fades until the next observed time."""
    past, ahead = (own[own <= a][::-1], own[own > a]) if b > a else (own[own >= a], own[own < a][::-1])
    if not len(past) or not len(ahead):
        return 1.0
    before, after = (1 - share * (t - past[0]) / (ahead[0] - past[0]) for t in (a, b))
    out: Floats = np.divide(after, before, out=np.zeros(len(share)), where=before > 0)
    return out
