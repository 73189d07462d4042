"""The size of a population, and the cells that take part in it without having been carried there.

Sizes are relative to the first observed time of a condition. Over an interval a population grows by what its cells
leave behind, over the share of the next one that has ancestors.

Carried forwards, a population gains the cells that have no ancestors (``Cells.arrived``): at an observed time as they
are, between two times in place and in proportion to the way that lies behind. Carried backwards it gains those that die
in place (``Cells.lost``) in the same manner.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from thalweg.data.cells import Cells, Floats, Rows

SOME = 1e-3
"""Share of a cell that dies in place or has arrived, from which on it does."""


class Entrants(NamedTuple):
    """Cells that enter a population on its way.

    Attributes
    ----------
    rows
        The cells.
    mass
        What each weighs when it enters, in units of the weights that the way starts with.
    time
        The observed time at which they enter, to be carried on from there; None for cells that appear in place at the
        end of the way, between two times.
    """

    rows: Rows
    mass: Floats
    time: float | None


def sizes(cells: Cells, condition: int) -> dict[float, float]:
    """Size of the population at each observed time, relative to the first."""
    times = cells.times_of(condition).tolist()
    out = {times[0]: 1.0}
    for t0, t1 in pairwise(times):
        rows, cols = cells.rows(t0, condition), cells.rows(t1, condition)
        left = cells.grown(rows, t1 - t0).sum() / cells.weights[rows].sum()
        out[t1] = out[t0] * float(left * cells.weights[cols].sum() / cells.descended(cols).sum())
    return out


def size(cells: Cells, condition: int, time: float) -> float:
    """Size of the population at any time, relative to the first observed one; constant before it and after the last."""
    known = sizes(cells, condition)
    times = list(known)
    if time <= times[0] or time >= times[-1]:
        return known[times[0] if time <= times[0] else times[-1]]
    k = int(np.searchsorted(times, time, side="right")) - 1
    t0, t1 = times[k], times[k + 1]
    share, rows, cols = (time - t0) / (t1 - t0), cells.rows(t0, condition), cells.rows(t1, condition)
    lost = np.zeros(len(rows)) if cells.lost is None else cells.lost[rows]
    rates = np.zeros(len(rows)) if cells.rates is None else cells.rates[rows]
    w = cells.weights[rows] / cells.weights[rows].sum()
    carried = float(w @ (np.exp(rates * (time - t0)) * (1 - lost * share)))
    arrived = 1 - float(cells.descended(cols).sum() / cells.weights[cols].sum())
    return known[t0] * carried + known[t1] * arrived * share


def total_size(cells: Cells, time: float, conditions: Iterable[int]) -> float:
    """Size of some conditions together, relative to their first observed times."""
    first = {c: cells.weights[cells.rows(float(cells.times_of(c)[0]), c)].sum() for c in conditions}
    return float(sum(w * size(cells, c, time) for c, w in first.items()) / sum(first.values()))


def entrants(cells: Cells, condition: int, start: float, time: float) -> list[Entrants]:
    """The cells that enter a population carried from ``start`` to ``time``."""
    forward, known = time > start, sizes(cells, condition)
    share = cells.arrived if forward else cells.lost
    if share is None:
        return []
    times = [t for t in (known if forward else reversed(known)) if (t > start) == forward and t != start]
    unit = cells.weights[cells.rows(start, condition)].sum() / known[start]
    out, before = [], start
    for t in times:
        rows = cells.rows(t, condition)
        rows = rows[share[rows] > SOME]
        every = cells.weights[cells.rows(t, condition)].sum()
        mass = unit * known[t] * share[rows] * cells.weights[rows] / every
        passed = t <= time if forward else t >= time
        if len(rows):
            out.append(Entrants(rows, mass if passed else mass * (time - before) / (t - before), t if passed else None))
        if not passed:
            break
        before = t
    return out


def in_place(
    cells: Cells, condition: int, rows: Rows, start: float, time: float, x: Floats, grown: Floats
) -> tuple[Floats, Floats]:
    """Cells carried by a flow with a growth of its own, and what they weigh by that of the process.

    Cells that die (backwards: that have no ancestors) stay where they are and fade. The others weigh together what the
    population has without them, and without those that enter it.
    """
    forward = time > start
    fading = cells.lost if forward else cells.arrived
    share = np.zeros(len(rows)) if fading is None else fading[rows]
    entering = sum(float(group.mass.sum()) for group in entrants(cells, condition, start, time))
    own = cells.times_of(condition)
    ahead = own[own > start] if forward else own[own < start][::-1]
    left = max(0.0, 1 - (time - start) / (ahead[0] - start)) if len(ahead) else 1.0
    dying = cells.weights[rows] * share * left
    unit = cells.weights[cells.rows(start, condition)].sum() / size(cells, condition, start)
    part = cells.weights[rows].sum() / cells.weights[cells.rows(start, condition)].sum()
    moving = part * (unit * size(cells, condition, time) - entering) - float(dying.sum())
    kept = grown * (1 - share)
    x = np.where((share > 0.5)[:, None], cells.x[rows], x)
    return x, dying + (kept * max(moving, 0.0) / kept.sum() if kept.sum() > 0 else 0.0)
