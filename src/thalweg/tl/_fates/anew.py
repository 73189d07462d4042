"""Fates of the first cells of a course, by a fit of its own."""

from __future__ import annotations

import numpy as np

from thalweg.data.cells import Cells, Floats, Rows
from thalweg.flows.carry import Carrier, make_noise
from thalweg.flows.refit import refit
from thalweg.flows.running import Integrator
from thalweg.flows.store import Stored
from thalweg.tl._fates.futures import Fates
from thalweg.tl._fates.plans import PlanFates

_SAMPLES, _STEPS = 20, 25  # futures of a cell under an SDE, and steps of each in an interval


def first_fates(
    stored: Stored,
    course: Cells,
    codes: Rows,
    n_groups: int,
    n_neighbors: int,
    bandwidth: float | None,
    rng: np.random.Generator,
) -> tuple[Floats, int]:
    """Share of the first cells that ends in each group, shape ``(n_groups,)``, and how many first cells there are.

    Parameters
    ----------
    stored
        The fit whose method and options are used.
    course
        Cells of one condition.
    codes
        Group of each cell, -1 for none.
    n_groups, n_neighbors, bandwidth
        As in `thalweg.tl.fate`.
    rng
        Source of the fit.
    """
    flow, alive = refit(stored, course, rng)
    ends = codes, n_groups, n_neighbors, bandwidth, ()
    if stored.method.bridged:
        p = PlanFates(flow, alive, *ends, stored.counted)().p
    else:
        noise = make_noise(flow, None, rng)
        p = Fates(Carrier(flow, alive, noise, Integrator(n_steps=_STEPS)), _SAMPLES if noise else 1, *ends)().p
    first = np.flatnonzero(course.time == course.time.min())
    share: Floats = course.weights[first] @ p[first]
    return share / share.sum(), len(first)
