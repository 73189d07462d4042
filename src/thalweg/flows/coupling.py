"""Couplings of a time course: one for each pair of neighbouring times, within each condition."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

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
        For methods with growth, see `thalweg.flows.samplers`: ``log m_0`` and ``log m_1`` of each cell, one after the
        other for each relaxation, shape ``(n_relaxations * n,)``; None otherwise.
    """

    mixture: couplings.Mixture
    intervals: pd.DataFrame
    log_mass: tuple[Tensor, Tensor] | None
    n_cells: int = 0

    def drawn(self) -> couplings.Mixture:
        """What pairs are drawn from: the plans, each entry times the mean of its masses at both ends."""
        if self.log_mass is None:
            return self.mixture
        parts: list[couplings.Coupling] = []
        for k, part in enumerate(self.mixture.parts):
            if isinstance(part, couplings.Plan):
                m0, m1 = self.masses(k)
                part = replace(part, mass=part.mass * (m0[part.rows] + m1[part.cols]) / 2)
            parts.append(part)
        return replace(self.mixture, parts=parts)

    def masses(self, part: int) -> tuple[Tensor, Tensor]:
        """``m_0`` of the sources and ``m_1`` of the targets of a part, float64; without growth they are one."""
        mixture = self.mixture
        ends = mixture.sources[part], mixture.targets[part]
        if self.log_mass is None:
            return torch.ones(len(ends[0]), dtype=torch.float64), torch.ones(len(ends[1]), dtype=torch.float64)
        first = 0 if mixture.tags is None else int(mixture.tags[part]) * self.n_cells
        m0, m1 = (log[rows + first].double().exp() for log, rows in zip(self.log_mass, ends, strict=True))
        return m0, m1

    @property
    def seconds(self) -> float:
        """Time spent on plans, also when they came out of the cache."""
        return float(self.intervals["seconds"].sum())


@dataclass(frozen=True)
class Interval:
    """Two neighbouring times of a stratum, and the rows of their cells."""

    stratum: int
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
    found = intervals(cells, remark=True)
    if method.bridged:
        _remark_representatives(cells, found)
    relaxations = config.relaxations if method.coupling == "unbalanced" else (None,)
    gathered, table = _Gathered(cells, len(z), len(relaxations)), []
    for whole in found:
        start = time.perf_counter()
        rows, cols = taking_part(cells, whole, some=method.bridged)
        interval = replace(whole, rows=rows, cols=cols)
        length = float(np.diff(axis.tau([whole.t0, whole.t1]))[0])
        reg = 2 * sigma**2 * length if method.coupling == "entropic" else 0.0
        grown = normalised(cells.grown(rows, whole.t1 - whole.t0))
        ends, where = (
            _Ends(z[rows], z[cols], grown, normalised(cells.descended(cols))),
            (whole.stratum, whole.t0, whole.t1),
        )
        solved = [_Pairing(method, config, reg, r)(ends, cache, where) for r in relaxations]
        share = cells.weights[whole.rows].sum() / cells.weights[cells.time == whole.t0].sum()
        gathered.add(interval, share, [coupling for coupling, _, _ in solved], ends.b if method.growth else None)
        spent = sum(seconds for _, _, seconds in solved) or time.perf_counter() - start
        table.append(_row(cells, interval, solved[0][1], reg, spent, relaxations))
    return Coupled(gathered.mixture(), pd.DataFrame(table), gathered.log_mass if method.growth else None, len(z))


class _Gathered:
    """Couplings of all intervals, and the masses that their pairs start and end with."""

    def __init__(self, cells: Cells, n: int, n_relaxations: int) -> None:
        self.cells, self.n, self.n_relaxations = cells, n, n_relaxations
        self.log_mass = torch.zeros(n_relaxations * n), torch.zeros(n_relaxations * n)
        self.parts: list[couplings.Coupling] = []
        self.ends: list[Interval] = []
        self.shares: list[float] = []

    def add(self, interval: Interval, share: float, found: list[couplings.Coupling], arrived: Tensor | None) -> None:
        """The couplings of an interval, one for each relaxation; ``arrived`` are its target weights, with growth."""
        for tag, coupling in enumerate(found):
            if arrived is not None and isinstance(coupling, couplings.Plan):
                leaving, arriving = coupling.marginals()
                prior = normalised(self.cells.weights[interval.rows])
                self.log_mass[0][interval.rows + tag * self.n] = log_ratio(prior, leaving)
                self.log_mass[1][interval.cols + tag * self.n] = log_ratio(arrived, arriving)
            self.parts.append(coupling)
            self.ends.append(interval)
            self.shares.append(share / len(found))

    def mixture(self) -> couplings.Mixture:
        """All of them, each by its share."""
        total = torch.tensor(self.shares, dtype=torch.float64)
        sources, targets = ([torch.from_numpy(getattr(i, name)) for i in self.ends] for name in ("rows", "cols"))
        tags = torch.arange(len(self.parts)) % self.n_relaxations
        return couplings.Mixture(self.parts, sources, targets, total / total.sum(), tags)


def intervals(cells: Cells, *, remark: bool = False) -> list[Interval]:
    """Neighbouring times of each condition, which skips the times at which that condition was not observed.

    With ``remark`` a warning names the conditions that have none.
    """
    out = []
    for condition in range(max(1, len(cells.stratum_names))):
        observed = cells.times_of(condition).tolist()
        if len(observed) < 2 and remark:
            logger.warning(
                "the cells%s are observed at %s only; they are not trained on. If they belong to every condition, name "
                "them: baseline=",
                cells.of(condition),
                observed,
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


def taking_part(cells: Cells, interval: Interval, *, some: bool = True) -> tuple[Rows, Rows]:
    """The rows before and after that take part in a plan; of a large population, with ``some``, its representatives."""
    rows, cols = interval.rows, interval.cols
    if some:
        rows, cols = representatives(rows), representatives(cols)
    return moving(rows, cells.lost), moving(cols, cells.arrived)


def _remark_representatives(cells: Cells, found: list[Interval]) -> None:
    for i in found:
        if (n := max(len(i.rows), len(i.cols))) > LARGEST:
            logger.info("time %g to %g%s: %d of %d cells, drawn at random, represent a population in its plan",
                        i.t0, i.t1, cells.of(i.stratum), LARGEST, n)  # fmt: skip


def _row(
    cells: Cells, interval: Interval, kind: str, reg: float, seconds: float, relaxations: tuple[float | None, ...]
) -> dict[str, object]:
    i = interval
    n0, n1 = len(i.rows), len(i.cols)
    logger.info("time %g to %g%s: %s coupling of %d x %d cells (%.1f s)",
                i.t0, i.t1, cells.of(i.stratum), kind, n0, n1, seconds)  # fmt: skip
    row: dict[str, object] = {"t0": i.t0, "t1": i.t1, "n0": n0, "n1": n1, "coupling": kind, "regularisation": reg}
    row["seconds"] = seconds
    if cells.conditions:
        row["condition"] = cells.conditions[cells.condition_of(i.stratum)]
    if cells.within is not None:
        row["stratum"] = cells.stratum_names[i.stratum]
    if relaxations[0] is not None:
        row["relaxation"] = ", ".join(f"{r:g}" for r in relaxations)
    return row


def _populations(cells: Cells) -> Coupled:
    """Every population by itself, all times alike: what a flow from noise learns."""
    parts, groups, table = [], [], []
    for condition in range(max(1, len(cells.stratum_names))):
        for t in cells.times_of(condition).tolist():
            rows = cells.rows(t, condition)
            weights = normalised(cells.weights[rows])
            parts.append(couplings.Independent(weights, weights))
            groups.append(torch.from_numpy(rows))
            table.append(_row(cells, Interval(condition, t, t, rows, rows), "none", 0.0, 0.0, (None,)))
    mixture = couplings.Mixture(parts, groups, groups, uniform(len(parts)))
    return Coupled(mixture, pd.DataFrame(table), None, len(cells.x))


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
    """How two populations are coupled; with the regularisation and the relaxation of its plan, where it has them."""

    method: Method
    config: FitConfig
    reg: float
    relaxation: float | None

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
        key = (method.coupling, round(self.reg, 12), self.relaxation, *where)
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
        return couplings.unbalanced(x0, x1, cast(float, self.relaxation), a=a, b=b, max_memory=budget)

    def _too_large(self, ends: _Ends) -> bool:
        """Whether the cost matrix, or what the exact solver holds, exceeds the budget; unbalanced plans are not cut."""
        n0, n1 = len(ends.x0), len(ends.x1)
        try:
            if self.method.coupling == "exact":
                check_fits(n0, n1, ends.x0.shape[1], max_memory=settings.max_memory)
        except MemoryBudgetError:
            return True
        return self.method.coupling != "unbalanced" and n0 * n1 * 8 > settings.max_memory
