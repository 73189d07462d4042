"""Couplings of a time course: one for each pair of neighbouring times, within each condition."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg._settings import logger, settings
from thalweg.core import couplings, exact_ot
from thalweg.core.unbalanced import log_ratio, unbalanced
from thalweg.data import Snapshots
from thalweg.errors import InputError, MemoryBudgetError
from thalweg.tl._axis import TimeAxis
from thalweg.tl._config import FitConfig
from thalweg.tl._methods import Method

PlanCache = dict[tuple[object, ...], tuple[couplings.Plan, float]]
"""Whole plans already computed, and the seconds each took, by (kind, regularisation, relaxation, condition, times)."""


@dataclass(frozen=True)
class Coupled:
    """The couplings of a course.

    Attributes
    ----------
    mixture
        Over rows of the snapshots.
    intervals
        A row for each coupling: times, condition, numbers of cells, kind, regularisation, seconds.
    log_mass
        Of unbalanced plans, see `thalweg.data.sampler`: for each cell ``log m_0`` and ``log m_1``; None otherwise.
    """

    mixture: couplings.Mixture
    intervals: pd.DataFrame
    log_mass: tuple[Tensor, Tensor] | None

    @property
    def seconds(self) -> float:
        """Time spent on plans, also when they came out of the cache."""
        return float(self.intervals["seconds"].sum())


def couple(
    snapshots: Snapshots, z: Tensor, axis: TimeAxis, method: Method, config: FitConfig, sigma: float, cache: PlanCache
) -> Coupled:
    """Couple neighbouring times of each condition.

    Parameters
    ----------
    snapshots
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
        return _populations(snapshots)
    if method.coupling == "unbalanced" and config.coupling == "minibatch":
        raise InputError("coupling='minibatch' has no unbalanced plans, as each block would grow alone; use 'whole'.")
    parts, sources, targets, shares, table = [], [], [], [], []
    log_mass = (torch.zeros(len(z)), torch.zeros(len(z)))
    for condition, t0, t1, rows, cols in _intervals(snapshots):
        length = float(np.diff(axis.tau([t0, t1]))[0])
        reg = 2 * sigma**2 * length if method.coupling == "entropic" else 0.0
        start = time.perf_counter()
        prior = _normalised(snapshots.weights[rows])
        ends = _Ends(
            z[rows], z[cols], _normalised(snapshots.grown(rows, t1 - t0)), _normalised(snapshots.weights[cols])
        )
        key = (method.coupling, round(reg, 12), config.relaxation, condition, t0, t1)
        coupling, kind, spent = _coupling(ends, _Solver(method, reg, config.relaxation), config, cache, key)
        if method.coupling == "unbalanced" and isinstance(coupling, couplings.Plan):
            leaving, arriving = coupling.marginals()
            log_mass[0][rows], log_mass[1][cols] = log_ratio(prior, leaving), log_ratio(ends.b, arriving)
        parts.append(coupling)
        sources.append(torch.from_numpy(rows))
        targets.append(torch.from_numpy(cols))
        shares.append(snapshots.weights[rows].sum() / snapshots.weights[snapshots.time == t0].sum())
        seconds = spent or time.perf_counter() - start
        row = _row(snapshots, condition, (t0, t1), (rows, cols), kind, reg, seconds)
        table.append(row | ({"relaxation": config.relaxation} if method.coupling == "unbalanced" else {}))
    share = torch.tensor(shares, dtype=torch.float64)
    mixture = couplings.Mixture(parts, sources, targets, share / share.sum())
    return Coupled(mixture, pd.DataFrame(table), log_mass if method.coupling == "unbalanced" else None)


def _row(
    snapshots: Snapshots,
    condition: int,
    times: tuple[float, float],
    ends: tuple[NDArray[np.int64], NDArray[np.int64]],
    kind: str,
    reg: float,
    seconds: float,
) -> dict[str, object]:
    n0, n1 = map(len, ends)
    logger.info("time %g to %g: %s coupling of %d x %d cells (%.1f s)", *times, kind, n0, n1, seconds)
    row = {"t0": times[0], "t1": times[1], "n0": n0, "n1": n1, "coupling": kind, "regularisation": reg}
    return row | {"seconds": seconds} | ({"condition": snapshots.conditions[condition]} if snapshots.conditions else {})


def _populations(snapshots: Snapshots) -> Coupled:
    """Every population by itself, all times alike: what a flow from noise learns."""
    parts, groups, table = [], [], []
    for condition in range(max(1, len(snapshots.conditions))):
        for t in snapshots.times.tolist():
            rows = snapshots.rows(t, condition)
            if len(rows):
                weights = _normalised(snapshots.weights[rows])
                parts.append(couplings.Independent(weights, weights))
                groups.append(torch.from_numpy(rows))
                table.append(_row(snapshots, condition, (t, t), (rows, rows), "none", 0.0, 0.0))
    return Coupled(couplings.Mixture(parts, groups, groups, couplings.uniform(len(parts))), pd.DataFrame(table), None)


def _intervals(
    snapshots: Snapshots,
) -> list[tuple[int, float, float, NDArray[np.int64], NDArray[np.int64]]]:
    """Neighbouring times of each condition, which skips the times at which that condition was not observed."""
    out = []
    for condition in range(max(1, len(snapshots.conditions))):
        observed = [t for t in snapshots.times.tolist() if len(snapshots.rows(t, condition))]
        if len(observed) < 2:
            logger.warning(
                "condition %r is observed at %s only; it is not trained on", snapshots.conditions[condition], observed
            )
        for t0, t1 in pairwise(observed):
            out.append((condition, t0, t1, snapshots.rows(t0, condition), snapshots.rows(t1, condition)))
    return out


@dataclass(frozen=True)
class _Ends:
    x0: Tensor
    x1: Tensor
    a: Tensor
    b: Tensor


def _normalised(weights: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(weights / weights.sum())


@dataclass(frozen=True)
class _Solver:
    """A plan between two sets of cells."""

    method: Method
    reg: float
    relaxation: float

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> couplings.Plan:
        budget = settings.max_memory
        if self.method.coupling == "exact":
            return couplings.exact(x0, x1, a=a, b=b, max_memory=budget)
        if self.method.coupling == "entropic":
            return couplings.entropic(x0, x1, reg=self.reg, a=a, b=b, max_memory=budget)
        return unbalanced(x0, x1, self.relaxation, a=a, b=b, max_memory=budget)


def _coupling(
    ends: _Ends, solve: _Solver, config: FitConfig, cache: PlanCache, key: tuple[object, ...]
) -> tuple[couplings.Coupling, str, float]:
    name = solve.method.coupling
    if name == "independent":
        return couplings.Independent(ends.a, ends.b), name, 0.0
    if config.coupling == "minibatch" or (config.coupling == "auto" and _too_large(name, ends)):
        block = couplings.Minibatch(ends.x0, ends.x1, ends.a, ends.b, solve, config.block)
        return block, f"minibatch {name}", 0.0
    if key not in cache:
        start = time.perf_counter()
        cache[key] = (solve(ends.x0, ends.x1, ends.a, ends.b), time.perf_counter() - start)
    plan, seconds = cache[key]
    return plan, f"{'thinned' if plan.thinned else 'whole'} {name}", seconds


def _too_large(name: str, ends: _Ends) -> bool:
    """Whether the cost matrix, or what the exact solver holds, exceeds the budget; unbalanced plans are never cut."""
    n0, n1 = len(ends.x0), len(ends.x1)
    try:
        if name == "exact":
            exact_ot.check_fits(n0, n1, ends.x0.shape[1], max_memory=settings.max_memory)
    except MemoryBudgetError:
        return True
    return name != "unbalanced" and n0 * n1 * 8 > settings.max_memory
