r"""The pairs that the dynamics of a course are learned from: plans that return the populations, births and deaths.

Between two times the plan joins what the cells before leave behind, ``a_i (1 - lost_i) exp(g_i)``, with the cells after
that have ancestors, ``b_j (1 - arrived_j)`` (`thalweg.flows.turnover`). Both have the same total, so the plan is
balanced, and cells that follow it and grow by ``g`` become the population that was observed.

A cell that dies in place is joined to itself, with a mass that decays; one that has arrived likewise, with a mass that
rises. They enter as rows of their own, copies of the cell at the other time, beside the rows of the cells.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg._settings import logger, settings
from thalweg.core import couplings
from thalweg.core.ot import unbalanced
from thalweg.core.ot.exact import check_fits
from thalweg.data.cells import Cells, Rows
from thalweg.data.rates import offspring
from thalweg.errors import MemoryBudgetError
from thalweg.flows.bridges import make_bridge
from thalweg.flows.coupling import Interval, PlanCache, intervals, normalised, taking_part
from thalweg.flows.population import SOME
from thalweg.flows.time_axis import TimeAxis

Floats = NDArray[np.float64]
_LEFT = 4.0  # a cell that dies or arrives in place has exp(-4) of its mass at the other end


class Pairs(NamedTuple):
    """The pairs of a course.

    Attributes
    ----------
    mixture
        Plans over rows, drawn from with the mean of the masses at both ends.
    origin
        The cell of each row, int64 of shape ``(n_rows,)``: first every cell, then the copies.
    time
        Time of each row, float64 of shape ``(n_rows,)``.
    log_mass
        ``log m_0`` and ``log m_1`` of each row (`thalweg.flows.samplers`), float32 of shape ``(n_rows,)``.
    table
        A row for each interval.
    """

    mixture: couplings.Mixture
    origin: Tensor
    time: Floats
    log_mass: tuple[Tensor, Tensor]
    table: pd.DataFrame

    def plans(self) -> couplings.Mixture:
        """The plans alone, without births and deaths in place, and with the masses that they join."""
        n, mixture = int(self.origin.max()) + 1, self.mixture
        keep = [k for k, rows in enumerate(mixture.sources) if bool((rows < n).all())]
        parts: list[couplings.Coupling] = []
        for k in keep:
            part, (m0, m1) = cast(couplings.Plan, mixture.parts[k]), self.log_mass
            ends = m0[mixture.sources[k]].double().exp()[part.rows], m1[mixture.targets[k]].double().exp()[part.cols]
            parts.append(replace(part, mass=part.mass * 2 / (ends[0] + ends[1])))
        sources, targets = ([side[k] for k in keep] for side in (mixture.sources, mixture.targets))
        share = mixture.weights[keep]
        return couplings.Mixture(parts, sources, targets, share / share.sum())


def couple_dynamics(cells: Cells, z: Tensor, axis: TimeAxis, sigma: Floats | None, cache: PlanCache) -> Pairs:
    """The pairs of a course.

    Parameters
    ----------
    cells, z, axis
        The course with its turnover, its normalised coordinates ``(n, d)`` and its time axis.
    sigma
        Diffusion of each component, for the plans of bridges; None for exact plans.
    cache
        Plans of an earlier call on the same cells; new ones are added.
    """
    found = _Rows(cells)
    for interval in intervals(cells):
        rows, cols = taking_part(cells, interval)
        where = ("dynamics", None if sigma is None else tuple(sigma.round(9).tolist()), interval.stratum,
                 interval.t0, interval.t1)  # fmt: skip
        if where not in cache:
            start = time.perf_counter()
            plan = _plan(cells, z, axis, sigma, interval, rows, cols)
            cache[where] = (plan, time.perf_counter() - start)
        coupling, seconds = cache[where]
        found.add(interval, rows, cols, cast(couplings.Plan, coupling), seconds)
    return found.pairs()


def _plan(
    cells: Cells, z: Tensor, axis: TimeAxis, sigma: Floats | None, interval: Interval, rows: Rows, cols: Rows
) -> couplings.Plan:
    if sigma is not None:
        return make_bridge(cells, z, axis, sigma, interval).thinned()
    x0, x1 = z[torch.from_numpy(rows)], z[torch.from_numpy(cols)]
    a, b = normalised(cells.grown(rows, interval.t1 - interval.t0)), normalised(cells.descended(cols))
    budget = settings.max_memory
    try:
        check_fits(len(x0), len(x1), x0.shape[1], max_memory=budget)
    except MemoryBudgetError:
        reg, few = unbalanced.REG, unbalanced.PER_ROW
        return couplings.entropic(x0, x1, reg_relative=reg, a=a, b=b, max_memory=budget, per_row=few)
    return couplings.exact(x0, x1, a=a, b=b, max_memory=budget)


class _Rows:
    """Gathers plans and rows."""

    def __init__(self, cells: Cells) -> None:
        self.cells, n = cells, len(cells.x)
        self.log_m0, self.log_m1, self.n_rows = np.zeros(n), np.zeros(n), n
        self.parts: list[couplings.Coupling] = []
        self.sources: list[Rows] = []
        self.targets: list[Rows] = []
        self.shares: list[float] = []
        self.copies: list[tuple[Rows, float, float, float]] = []  # cells, time, log m_0, log m_1
        self.table: list[dict[str, object]] = []

    def add(self, interval: Interval, rows: Rows, cols: Rows, plan: couplings.Plan, seconds: float) -> None:
        """The plan of an interval, and the cells that die or arrive in place in it."""
        cells, i = self.cells, interval
        logger.info("time %g to %g%s: plan of the dynamics of %d x %d cells (%.1f s)",
                    i.t0, i.t1, cells.of(i.stratum), *plan.shape, seconds)  # fmt: skip
        weights = cells.weights / cells.weights[i.rows].sum()
        grown = np.ones(len(cells.x)) if cells.rates is None else offspring(cells.rates, i.t1 - i.t0)
        stay = weights[i.rows] if cells.lost is None else weights[i.rows] * (1 - cells.lost[i.rows])
        moved = float((stay * grown[i.rows]).sum())  # mass of what has moved, for a mass of one before
        self.log_m0[rows], self.log_m1[cols] = np.log(moved / grown[rows]), np.log(moved)
        m0, m1 = (torch.from_numpy(np.exp(m[of])) for m, of in ((self.log_m0, rows), (self.log_m1, cols)))
        mass = plan.mass * (m0[plan.rows] + m1[plan.cols]) / 2
        parts: list[tuple[couplings.Coupling, Rows, Rows, float]] = [
            (couplings.Plan(plan.rows, plan.cols, mass, plan.shape, plan.thinned), rows, cols, float(mass.sum()))
        ]
        fresh = cells.weights[i.cols] / cells.weights[i.cols].sum()
        if cells.lost is not None and (dying := i.rows[cells.lost[i.rows] > SOME]).size:
            parts.append(self._in_place(dying, i, weights[dying] * cells.lost[dying], dying=True))
        if cells.arrived is not None and (new := i.cols[cells.arrived[i.cols] > SOME]).size:
            share = float(fresh @ cells.arrived[i.cols])
            arriving = fresh[np.isin(i.cols, new)] * cells.arrived[new] * moved / (1 - share)
            parts.append(self._in_place(new, i, arriving, dying=False))
        whole = cells.weights[i.rows].sum() / cells.weights[cells.time == i.t0].sum()
        total = sum(part[3] for part in parts)
        for coupling, sources, targets, part in parts:
            self.parts.append(coupling)
            self.sources.append(sources)
            self.targets.append(targets)
            self.shares.append(whole * part / total)
        self.table.append({"dynamics_seconds": seconds, "growth": _growth(cells, i, moved)})

    def _in_place(
        self, which: Rows, i: Interval, mass: Floats, *, dying: bool
    ) -> tuple[couplings.Coupling, Rows, Rows, float]:
        """Copies of cells at both times, each joined to itself."""
        n, weights = len(which), torch.from_numpy(mass / mass.sum())
        ends = [np.arange(k, k + n) for k in (self.n_rows, self.n_rows + n)]
        left = (0.0, -_LEFT) if dying else (-_LEFT, 0.0)
        self.copies += [(which, i.t0, left[0], 0.0), (which, i.t1, 0.0, left[1])]
        self.n_rows += 2 * n
        same = torch.arange(n)
        plan = couplings.Plan(same, same, weights, (n, n))
        return plan, ends[0], ends[1], float(mass.sum()) * (1 + np.exp(-_LEFT)) / 2

    def pairs(self) -> Pairs:
        """What was gathered."""
        cells, n = self.cells, len(self.cells.x)
        origin = np.concatenate([np.arange(n), *(rows for rows, *_ in self.copies)])
        at = np.concatenate([cells.time, *(np.full(len(rows), t) for rows, t, _, _ in self.copies)])
        m0 = np.concatenate([self.log_m0, *(np.full(len(rows), m) for rows, _, m, _ in self.copies)])
        m1 = np.concatenate([self.log_m1, *(np.full(len(rows), m) for rows, _, _, m in self.copies)])
        share = torch.tensor(self.shares, dtype=torch.float64)
        sources, targets = ([torch.from_numpy(r) for r in side] for side in (self.sources, self.targets))
        mixture = couplings.Mixture(self.parts, sources, targets, share / share.sum())
        masses = (torch.from_numpy(m0).float(), torch.from_numpy(m1).float())
        return Pairs(mixture, torch.from_numpy(origin), at, masses, pd.DataFrame(self.table))


def _growth(cells: Cells, interval: Interval, moved: float) -> float:
    """Size of a population after an interval, for a size of one before."""
    if cells.arrived is None:
        return moved
    fresh = cells.weights[interval.cols] / cells.weights[interval.cols].sum()
    return moved / (1 - float(fresh @ cells.arrived[interval.cols]))
