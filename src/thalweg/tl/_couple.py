"""Couplings of a time course: one for each pair of neighbouring times, within each condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg._settings import logger, settings
from thalweg.core import couplings
from thalweg.data import Snapshots
from thalweg.tl._axis import TimeAxis
from thalweg.tl._config import FitConfig
from thalweg.tl._methods import Method

PlanCache = dict[tuple[object, ...], tuple[couplings.Plan, float]]
"""Whole plans already computed, and the seconds each took, by (kind, regularisation, condition, times)."""


@dataclass(frozen=True)
class Coupled:
    """The couplings of a course.

    Attributes
    ----------
    mixture
        Over rows of the snapshots.
    intervals
        A row for each coupling: times, condition, numbers of cells, kind, regularisation, seconds.
    """

    mixture: couplings.Mixture
    intervals: pd.DataFrame

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
    parts, sources, targets, shares, table = [], [], [], [], []
    for condition, t0, t1, rows, cols in _intervals(snapshots):
        length = float(np.diff(axis.tau([t0, t1]))[0])
        reg = 2 * sigma**2 * length if method.coupling == "entropic" else 0.0
        start = time.perf_counter()
        key = (method.coupling, round(reg, 12), condition, t0, t1)
        ends = _Ends(z[rows], z[cols], *(_normalised(snapshots.weights[r]) for r in (rows, cols)))
        coupling, kind, spent = _coupling(ends, method, config, reg, cache, key)
        parts.append(coupling)
        sources.append(torch.from_numpy(rows))
        targets.append(torch.from_numpy(cols))
        shares.append(snapshots.weights[rows].sum() / snapshots.weights[snapshots.time == t0].sum())
        row = {"t0": t0, "t1": t1, "n0": len(rows), "n1": len(cols), "coupling": kind, "regularisation": reg}
        row["seconds"] = spent or time.perf_counter() - start
        table.append(row | ({"condition": snapshots.conditions[condition]} if snapshots.conditions else {}))
        logger.info(
            "time %g to %g: %s coupling of %d x %d cells (%.1f s)", t0, t1, kind, len(rows), len(cols), row["seconds"]
        )
    weights = torch.tensor(shares, dtype=torch.float64)
    return Coupled(couplings.Mixture(parts, sources, targets, weights / weights.sum()), pd.DataFrame(table))


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


def _coupling(
    ends: _Ends, method: Method, config: FitConfig, reg: float, cache: PlanCache, key: tuple[object, ...]
) -> tuple[couplings.Coupling, str, float]:
    if method.coupling == "independent":
        return couplings.Independent(ends.a, ends.b), "independent", 0.0
    size = len(ends.x0) * len(ends.x1) * 8
    if config.coupling == "minibatch" or (config.coupling == "auto" and size > settings.max_memory):
        solve = _solver(method, reg)
        return (
            couplings.Minibatch(ends.x0, ends.x1, ends.a, ends.b, solve, config.block),
            f"minibatch {method.coupling}",
            0.0,
        )
    if key not in cache:
        start = time.perf_counter()
        cache[key] = (_solver(method, reg)(ends.x0, ends.x1, ends.a, ends.b), time.perf_counter() - start)
    plan, seconds = cache[key]
    return plan, f"whole {method.coupling}", seconds


def _solver(method: Method, reg: float) -> Callable[..., couplings.Plan]:
    def solve(x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> couplings.Plan:
        if method.coupling == "exact":
            return couplings.exact(x0, x1, a=a, b=b)
        return couplings.entropic(x0, x1, reg=reg, a=a, b=b)

    return solve
