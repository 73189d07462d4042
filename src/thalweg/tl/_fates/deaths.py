"""Cells whose lineage ends before the last time: those that die in place, and those that die at a given rate."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from thalweg.core.neighbours import Neighbours
from thalweg.data.cells import Floats
from thalweg.flows.carry import Carrier

Mask = NDArray[np.bool_]


def died(carrier: Carrier, n_neighbors: int, bandwidth: float | None, held: Mask) -> Floats:
    """Probability that a cell dies before the last time of its condition, shape ``(n,)``.

    Until the next time a cell dies with the probability ``1 - (1 - lost) exp(-death rate dt)``. One that does not has
    the probability of the measured cells that it has become like.

    Parameters
    ----------
    carrier
        Carries the cells, without noise.
    n_neighbors, bandwidth
        Of the kernel by which a carried cell is like measured ones.
    held
        Whether each cell has arrived in an absorbing group; what becomes of them there does not count.
    """
    cells = carrier.cells
    out = np.zeros(len(cells.x))
    lost, deaths = (np.zeros(len(out)) if of is None else of for of in (cells.lost, cells.deaths))
    for condition in cells.strata:
        for t0, t1 in reversed(list(pairwise(cells.times_of(condition).tolist()))):
            rows, cols = cells.rows(t0, condition), cells.rows(t1, condition)
            own = 1 - (1 - lost[rows]) * np.exp(-deaths[rows] * (t1 - t0))
            near, p = Neighbours(cells.x[cols], n_neighbors, bandwidth, cells.weights[cols])(
                carrier.along(rows, [t0, t1]).x[-1]
            )
            out[rows] = own + (1 - own) * (p * out[cols][near]).sum(1)
            out[rows[held[rows]]] = 0.0
    return out
