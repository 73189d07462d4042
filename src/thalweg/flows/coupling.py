"""Couplings of a time course: one for each pair of neighbouring times, within each condition."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg._settings import logger, settings
from thalweg.core import couplings
from thalweg.core.ot.exact import check_fits
from thalweg.core.ot.unbalanced import log_ratio
from thalweg.core.sampling import uniform
from thalweg.data.cells import Cells, Rows
from thalweg.errors import InputError, MemoryBudgetError
from thalweg.flows.config import FitConfig
from thalweg.flows.methods import Method
from thalweg.flows.time_axis import TimeAxis

PlanCache = dict[tuple[object, ...], tuple[couplings.Coupling, float]]
"""Whole plans already computed, and the seconds each took, by (kind, regularisation, relaxation, condition, times)."""


LARGEST = 2**14
"""Cells of a population that take part in the plans of a bridge."""
_NEARLY = 0.999  # of a cell dies in place, or has arrived: it takes no part in plans


@dataclass(frozen=True)
class Coupled:
    """The couplings of a course.

    Attributes
    ----------
    mixture
        Over rows of the cells.
    intervals
        A row for each coupling: times, condition, numbers of cells, kind, regularisation, seconds.
    log_mass
        For methods with growth, see `thalweg.flows.samplers`: for each cell ``log m_0`` and ``log m_1``; None
        otherwise.
    """

    mixture: couplings.Mixture
    intervals: pd.DataFrame
    log_mass: tuple[Tensor, Tensor] | None

    def drawn(self) -> couplings.Mixture:
        """What pairs are drawn from: the plans, each entry times the mean of its masses at both ends."""
        if self.log_mass is None:
            return self.mixture
        parts: list[couplings.Coupling] = []
        for part, rows, cols in zip(self.mixture.parts, self.mixture.sources, self.mixture.targets, strict=True):
            if isinstance(part, couplings.Plan):
                m0, m1 = self.log_mass[0][rows].double().exp(), self.log_mass[1][cols].double().exp()
                part = replace(part, mass=part.mass * (m0[part.rows] + m1[part.cols]) / 2)
            parts.append(part)
        return replace(self.mixture, parts=parts)

    @property
    def seconds(self) -> float:
        """Time spent on plans, also when they came out of the cache."""
        return float(self.intervals["seconds"].sum())


@dataclass(frozen=True)
class Interval:
    """Two neighbouring times of a condition, and the rows of their cells."""

    condition: int
    t0: float
    t1: float
    rows: Rows
    cols: Rows


def couple(
    cells: Cells, z: Tensor, axis: TimeAxis, method: Method, config: FitConfig, sigma: float, cache: PlanCache
) -> Coupled:
    """Couple neighbouring times of each condition.

    Parameters
    ----------
    cells
        The time course.
    z
        Normalised coordinates, shape ``(n, d)``.
    axis
        Time axis; gives the length of each interval.
    method, config, sigma
        Kind of coupling, its size and the bridge's diffusion.
    cache
        Plans of an earlier call on the same cells; new ones are added.
    """
    if method.coupling == "none":
        return _populations(cells)
    if method.coupling == "unbalanced" and config.coupling == "minibatch":
        raise InputError("coupling='minibatch' has no unbalanced plans, as each block would grow alone; use 'whole'.")
    parts, shares, table, used = [], [], [], []
    found = intervals(cells, remark=True)
    if method.bridged:
        for i in found:
            if (n := max(len(i.rows), len(i.cols))) > LARGEST:
                logger.info("time %g to %g: %d of %d cells, drawn at random, represent a population in its plan",
                            i.t0, i.t1, LARGEST, n)  # fmt: skip
    log_mass = (torch.zeros(len(z)), torch.zeros(len(z)))
    for interval in found:
        start, rows, cols = time.perf_counter(), interval.rows, interval.cols
        share = cells.weights[rows].sum() / cells.weights[cells.time == interval.t0].sum()
        if method.bridged:
            rows, cols = representatives(rows), representatives(cols)
        rows, cols = moving(rows, cells.lost), moving(cols, cells.arrived)
        interval = replace(interval, rows=rows, cols=cols)
        length = float(np.diff(axis.tau([interval.t0, interval.t1]))[0])
        pairing = _Pairing(method, config, 2 * sigma**2 * length if method.coupling == "entropic" else 0.0)
        grown = normalised(cells.grown(rows, interval.t1 - interval.t0))
        ends = _Ends(z[rows], z[cols], grown, normalised(cells.descended(cols)))
        coupling, kind, spent = pairing(ends, cache, (interval.condition, interval.t0, interval.t1))
        if method.growth and isinstance(coupling, couplings.Plan):
            leaving, arriving = coupling.marginals()
            prior = normalised(cells.weights[rows])
            log_mass[0][rows], log_mass[1][cols] = log_ratio(prior, leaving), log_ratio(ends.b, arriving)
        parts.append(coupling)
        shares.append(share)
        used.append(interval)
        table.append(_row(cells, interval, kind, pairing, spent or time.perf_counter() - start))
    total = torch.tensor(shares, dtype=torch.float64)
    sources, targets = ([torch.from_numpy(getattr(i, name)) for i in used] for name in ("rows", "cols"))
    mixture = couplings.Mixture(parts, sources, targets, total / total.sum())
    return Coupled(mixture, pd.DataFrame(table), log_mass if method.growth else None)


def intervals(cells: Cells, *, remark: bool = False) -> list[Interval]:
    """Neighbouring times of each condition, which skips the times at which that condition was not observed.

    With ``remark`` a warning names the conditions that have none.
    """
    out = []
    for condition in range(max(1, len(cells.conditions))):
        observed = cells.times_of(condition).tolist()
        if len(observed) < 2 and remark:
            logger.warning(
                "condition %r is observed at %s only; it is not trained on", cells.conditions[condition], observed
            )
        for t0, t1 in pairwise(observed):
            out.append(Interval(condition, t0, t1, cells.rows(t0, condition), cells.rows(t1, condition)))
    return out


def representatives(rows: Rows) -> Rows:
    """At most `LARGEST` of the rows of a population, drawn at random and always the same."""
    if len(rows) <= LARGEST:
        return rows
    out: Rows = np.sort(np.random.default_rng(0).choice(rows, LARGEST, replace=False))
    return out


def moving(rows: Rows, share: NDArray[np.float64] | None) -> Rows:
    """The rows of cells that take part in a plan, given the share of each cell that does not."""
    return rows if share is None else rows[share[rows] < _NEARLY]


def taking_part(cells: Cells, interval: Interval) -> tuple[Rows, Rows]:
    """The rows before and after that take part in a plan of the dynamics."""
    rows, cols = representatives(interval.rows), representatives(interval.cols)
    return moving(rows, cells.lost), moving(cols, cells.arrived)


def _row(cells: Cells, interval: Interval, kind: str, pairing: _Pairing | None, seconds: float) -> dict[str, object]:
    i, reg = interval, 0.0 if pairing is None else pairing.reg
    n0, n1 = len(i.rows), len(i.cols)
    logger.info("time %g to %g: %s coupling of %d x %d cells (%.1f s)", i.t0, i.t1, kind, n0, n1, seconds)
    row: dict[str, object] = {"t0": i.t0, "t1": i.t1, "n0": n0, "n1": n1, "coupling": kind, "regularisation": reg}
    row["seconds"] = seconds
    if cells.conditions:
        row["condition"] = cells.conditions[i.condition]
    if pairing is not None and pairing.method.coupling == "unbalanced":
        row["relaxation"] = pairing.config.relaxation
    return row


def _populations(cells: Cells) -> Coupled:
    """Every population by itself, all times alike: what a flow from noise learns."""
    parts, groups, table = [], [], []
    for condition in range(max(1, len(cells.conditions))):
        for t in cells.times_of(condition).tolist():
            rows = cells.rows(t, condition)
            weights = normalised(cells.weights[rows])
            parts.append(couplings.Independent(weights, weights))
            groups.append(torch.from_numpy(rows))
            table.append(_row(cells, Interval(condition, t, t, rows, rows), "none", None, 0.0))
    return Coupled(couplings.Mixture(parts, groups, groups, uniform(len(parts))), pd.DataFrame(table), None)


@dataclass(frozen=True)
class _Ends:
    x0: Tensor
    x1: Tensor
    a: Tensor
    b: Tensor


def normalised(weights: NDArray[np.float64]) -> Tensor:
    """Weights that sum to one, float64."""
    return torch.from_numpy(weights / weights.sum())


@dataclass(frozen=True)
class _Pairing:
    """How two populations are coupled: ``reg`` is the regularisation of an entropic plan."""

    method: Method
    config: FitConfig
    reg: float

    def __call__(
        self, ends: _Ends, cache: PlanCache, where: tuple[object, ...]
    ) -> tuple[couplings.Coupling, str, float]:
        """The coupling, its kind in words, and the seconds that a plan took (0 for one that is no plan)."""
        method, config, name = self.method, self.config, self.method.coupling_name
        if method.coupling == "independent":
            return couplings.Independent(ends.a, ends.b), name, 0.0
        built_in = not callable(method.coupling)
        if built_in and (config.coupling == "minibatch" or (config.coupling == "auto" and self._too_large(ends))):
            block = couplings.Minibatch(ends.x0, ends.x1, ends.a, ends.b, self.plan, config.block)
            return block, f"minibatch {name}", 0.0
        key = (method.coupling, round(self.reg, 12), config.relaxation, *where)
        if key not in cache:
            start = time.perf_counter()
            solve = method.coupling if callable(method.coupling) else self.plan
            cache[key] = (solve(ends.x0, ends.x1, ends.a, ends.b), time.perf_counter() - start)
        coupling, seconds = cache[key]
        if not isinstance(coupling, couplings.Coupling):
            raise InputError(
                f"the coupling {name!r} of method {method.name!r} must return a thalweg.core.couplings.Coupling, found "
                f"{type(coupling).__name__}."
            )
        kind = "thinned" if isinstance(coupling, couplings.Plan) and coupling.thinned else "whole"
        return coupling, f"{kind} {name}" if built_in else name, seconds

    def plan(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> couplings.Plan:
        """The plan between two sets of cells."""
        budget = settings.max_memory
        if self.method.coupling == "exact":
            return couplings.exact(x0, x1, a=a, b=b, max_memory=budget)
        if self.method.coupling == "entropic":
            return couplings.entropic(x0, x1, reg=self.reg, a=a, b=b, max_memory=budget)
        return couplings.unbalanced(x0, x1, self.config.relaxation, a=a, b=b, max_memory=budget)

    def _too_large(self, ends: _Ends) -> bool:
        """Whether the cost matrix, or what the exact solver holds, exceeds the budget; unbalanced plans are not cut."""
        n0, n1 = len(ends.x0), len(ends.x1)
        try:
            if self.method.coupling == "exact":
                check_fits(n0, n1, ends.x0.shape[1], max_memory=settings.max_memory)
        except MemoryBudgetError:
            return True
        return self.method.coupling != "unbalanced" and n0 * n1 * 8 > settings.max_memory
