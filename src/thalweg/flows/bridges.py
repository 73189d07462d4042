r"""Bridges between neighbouring times: their plans, and what cells become.

Between two times the plan is entropic for the cost ``sum_j (x_j - y_j)^2 / sigma_j^2`` with ``reg = 2 D``, ``D`` the
length of the interval (`thalweg.core.ot.bridge`), for in coordinates divided by ``sigma_j`` every component diffuses
alike. The plan is kept as its potentials. Training draws its pairs from a thinned copy; fates sum over all of it.

The dynamics are learned from plans that are balanced between what the cells before leave behind and the cells after
that have ancestors (`thalweg.flows.turnover`), so that their bridges end as the population that was observed.

Populations above 16,384 cells are represented by so many of them, drawn once with a fixed seed; what any other cell
becomes follows from the potentials, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg._settings import settings
from thalweg.core import couplings
from thalweg.core.ot import bridge, unbalanced
from thalweg.core.ot.entropic import EntropicPlan, plan_entries, solve_entropic
from thalweg.data.cells import Cells, Rows
from thalweg.flows.coupling import Interval, normalised, taking_part
from thalweg.flows.time_axis import TimeAxis

Floats = NDArray[np.float64]
PER_ROW = 64
"""Partners of a cell that training draws from."""
TOLERANCE = 5e-3
"""Error of a plan's marginals, as a share of its mass; that of having sampled a thousand cells is much larger."""


@dataclass(frozen=True)
class Bridge:
    """The bridge between the cells of two times.

    Attributes
    ----------
    rows, cols
        Rows of the cells that take part, before and after.
    before, after
        Their coordinates divided by ``sigma``.
    plan
        The entropic plan between them.
    """

    rows: Rows
    cols: Rows
    before: Tensor
    after: Tensor
    plan: EntropicPlan

    def thinned(self) -> couplings.Plan:
        """The plan with a few entries of each row, the largest and others that stand for the rest."""
        found = plan_entries(self.before, self.after, self.plan, per_row=PER_ROW, max_memory=settings.max_memory)
        shape = (len(self.before), len(self.after))
        return couplings.Plan(found.rows, found.cols, found.mass, shape, shape[1] > PER_ROW)

    def mean(self, x: Tensor, values: Tensor) -> bridge.Mean:
        """Mean of the later cells' ``values`` over what cells at ``x`` become, ``x`` divided by ``sigma``."""
        return bridge.conditional_mean(x, self.after, self.plan, values)


def make_bridge(
    cells: Cells, z: Tensor, axis: TimeAxis, sigma: Floats, interval: Interval, relaxation: float | None = None
) -> Bridge:
    """Solve the plan of an interval.

    Parameters
    ----------
    cells, z, axis
        The course, its normalised coordinates and its time axis.
    sigma
        Diffusion of each component, shape ``(d,)``.
    interval
        The two times and their cells.
    relaxation
        Weight of the populations' sizes in mean squared displacements; None keeps both marginals exact.
    """
    rows, cols = taking_part(cells, interval)
    y = z.double().cpu() / torch.from_numpy(sigma)
    before, after = y[torch.from_numpy(rows)], y[torch.from_numpy(cols)]
    epsilon = _epsilon(axis, interval)
    a, b = normalised(cells.grown(rows, interval.t1 - interval.t0)), normalised(cells.descended(cols))
    tau = None if relaxation is None else relaxation * unbalanced.displacement(before, after, a, b) or None
    plan = solve_entropic(
        before, after, a=a, b=b, epsilon=epsilon, tau_a=tau, tau_b=tau, tol=TOLERANCE, max_memory=settings.max_memory
    )
    return Bridge(rows, cols, before, after, plan)


def _epsilon(axis: TimeAxis, interval: Interval) -> float:
    """``2 D``, in coordinates divided by ``sigma``."""
    return 2 * float(np.diff(axis.tau([interval.t0, interval.t1]))[0])
