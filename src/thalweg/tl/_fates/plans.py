r"""The fates of all cells along the entropic plans of a bridge: what each becomes, day by day, without a network.

With ``p(j | i)`` what a cell becomes at the next time (`thalweg.core.ot.bridge`) the fates go back from the last time,

.. math:: u_i = e^{r_i \Delta} \sum_j p(j \mid i) \, u_j, \qquad \text{fate}_i = u_i / \textstyle\sum_k u_{ik},

``u`` of a last cell being its group, and ``r`` the growth rate of a cell where rates were given; else growth is left
out. At the last time only cells of a terminal group take part, so that fates are those of cells that end in one. A cell
of an absorbing group has its group for ``u`` at any time.

Two things are unknown and averaged over: whether a change of proportions came about by growth or by movement (plans
that are balanced, and two that are relaxed), which the standard error contains. The plans have more entropy than the
bridge of the fit: an entropic plan of few cells is too sure of where each goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from thalweg.core.neighbours import Neighbours
from thalweg.data.cells import Cells, Rows
from thalweg.data.rates import offspring
from thalweg.flows import normalisation
from thalweg.flows.bridges import make_bridge
from thalweg.flows.coupling import Interval
from thalweg.flows.flow import Flow
from thalweg.tl._fates.absorbing import Numbers, last_labelled
from thalweg.tl._fates.futures import Found, mean_of

RELAXATIONS = (None, 4.0, 1.0)  # of the plans that are averaged, None for exact marginals
SPREAD = 1.3  # of the plans' diffusion over that of the fit


@dataclass(frozen=True)
class PlanFates:
    """Fates of all cells.

    Attributes
    ----------
    flow
        The fitted process; gives the diffusion, the time axis and the scale of coordinates.
    cells
        The course.
    codes
        Terminal group of each cell, -1 for none.
    n_groups
        Number of terminal groups.
    n_neighbors, bandwidth
        Of the kernel that shares a last cell of no terminal group among those that have one.
    absorbing
        Numbers of the groups that hold cells at any time.
    weigh
        Whether the growth of a cell weighs: of two futures, the one with more descendants counts more.
    """

    flow: Flow
    cells: Cells
    codes: Rows
    n_groups: int
    n_neighbors: int
    bandwidth: float | None
    absorbing: Numbers
    weigh: bool

    def __call__(self) -> Found:
        """Fates, their standard errors and the mean bandwidth at the ends."""
        cells, widths = self.cells, []
        p, error = np.zeros((len(cells.x), self.n_groups)), np.zeros((len(cells.x), self.n_groups))
        z = normalisation.normalise(cells.x, self.flow.center, self.flow.scale)
        for condition in cells.strata:
            times = cells.times_of(condition).tolist()
            final = cells.rows(times[-1], condition)
            labelled = last_labelled(cells, self.codes, final)
            found = mean_of([self._along(z, times, condition, labelled, relaxation) for relaxation in RELAXATIONS])
            earlier = np.concatenate([cells.rows(t, condition) for t in times[:-1]] or [final[:0]])
            p[earlier], error[earlier] = found.p[earlier], found.error[earlier]
            p[labelled, self.codes[labelled]] = 1.0
            ends = Neighbours(cells.x[labelled], self.n_neighbors, self.bandwidth, cells.weights[labelled])
            widths.append(ends.bandwidth)
            others = final[self.codes[final] < 0]
            if len(others):
                index, share = ends(cells.x[others])
                of = self.codes[labelled][index]
                p[others] = np.stack([(share * (of == k)).sum(1) for k in range(self.n_groups)], 1)
        return Found(p, error, float(np.mean(widths)))

    def _along(self, z: Tensor, times: list[float], condition: int, labelled: Rows, relaxation: float | None) -> Found:
        """Fates along plans of one kind; zero for cells of other conditions."""
        cells = self.cells
        sigma = SPREAD * np.broadcast_to(self.flow.sigma, cells.n_dims)
        y = z.double() / torch.from_numpy(sigma)
        p, variance = (np.zeros((len(cells.x), self.n_groups)) for _ in range(2))
        mass = np.ones(len(cells.x))  # descendants at the last time
        p[labelled, self.codes[labelled]] = 1.0
        for t0, t1 in reversed(list(pairwise(times))):
            rows, cols = cells.rows(t0, condition), labelled if t1 == times[-1] else cells.rows(t1, condition)
            bridge = make_bridge(cells, z, self.flow.axis, sigma, Interval(condition, t0, t1, rows, cols), relaxation)
            later = torch.from_numpy(np.concatenate([p * mass[:, None], variance], 1)[bridge.cols])
            mean = bridge.mean(y[torch.from_numpy(rows)], later)
            value, square = (v[:, : self.n_groups].numpy() for v in (mean.value, mean.square))
            total, n = value.sum(1, keepdims=True), mean.effective.numpy()[:, None]
            p[rows] = value / total
            inflate = np.divide(n, n - 1, out=np.zeros_like(n), where=n > 1 + 1e-9)
            variance[rows] = square / total**2 * inflate + mean.value[:, self.n_groups :].numpy() / n
            mass[rows] = total[:, 0]
            if self.weigh and cells.rates is not None:
                mass[rows] *= offspring(cells.rates[rows], t1 - t0)
            held = rows[np.isin(self.codes[rows], self.absorbing)]
            p[held], variance[held], mass[held] = np.eye(self.n_groups)[self.codes[held]], 0.0, 1.0
        return Found(p, np.sqrt(variance), np.nan)
