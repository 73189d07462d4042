"""The fates of all cells of a course: where their futures end, and what the cells there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from thalweg.core.neighbours import Neighbours
from thalweg.data.cells import Cells, Floats, Rows
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier


@dataclass(frozen=True)
class Found:
    """What was found of all cells.

    Attributes
    ----------
    p, error
        Fates and their standard errors, shape ``(n, n_groups)``.
    bandwidth
        Mean over the ends.
    draws
        Fates by each draw of the cells or each model, shape ``(n, n_draws, n_groups)``; None without.
    """

    p: Floats
    error: Floats
    bandwidth: float
    draws: Floats | None = None


def mean_of(found: Sequence[Found]) -> Found:
    """The mean of fates found in several ways; their spread is part of the standard error."""
    p, error = (np.stack([getattr(one, name) for one in found]) for name in ("p", "error"))
    return Found(p.mean(0), np.sqrt((error**2).mean(0) + p.var(0)), float(np.mean([one.bandwidth for one in found])))


def over_models(found: Sequence[Found]) -> Found:
    """The mean of the fates by several models, each of which is a draw."""
    mean = mean_of(found)
    return mean if len(found) == 1 else replace(mean, draws=np.stack([one.p for one in found], 1))


def with_draws(make: Callable[[Cells], Found], cells: Cells, n: int, rng: np.random.Generator) -> Found:
    """Fates by all cells; how far draws of the cells differ is part of the standard error.

    A draw gives each cell an exponential weight, so that all cells keep their place (the Bayesian bootstrap).
    """
    whole = make(cells)
    if not n:
        return whole
    weights = [cells.weights * rng.standard_exponential(len(cells.x)) for _ in range(n)]
    draws = np.stack([make(replace(cells, weights=w)).p for w in weights], 1)
    spread = np.square(draws - whole.p[:, None]).mean(1)
    return replace(whole, error=np.sqrt(whole.error**2 + spread), draws=draws)


@dataclass(frozen=True)
class Fates:
    """Fates of all cells.

    Attributes
    ----------
    carrier
        Carries the cells of the course to their ends.
    n_samples
        Futures of each cell.
    codes
        Terminal group of each cell, -1 for none.
    n_groups
        Number of terminal groups.
    n_neighbors, bandwidth
        Of the kernels.
    """

    carrier: Carrier
    n_samples: int
    codes: Rows
    n_groups: int
    n_neighbors: int
    bandwidth: float | None

    def __call__(self) -> Found:
        """Fates, their standard errors and the mean bandwidth at the ends."""
        cells, widths = self.carrier.cells, []
        p, error = np.zeros((len(cells.x), self.n_groups)), np.zeros((len(cells.x), self.n_groups))
        for condition in cells.strata:
            own = cells.times_of(condition)
            last = float(own[-1])
            final = cells.rows(last, condition)
            labelled = final[self.codes[final] >= 0]
            if not len(labelled):
                raise InputError(f"no cell of a terminal group is left at time {last:g} of condition {condition}.")
            ends = Neighbours(cells.x[labelled], self.n_neighbors, self.bandwidth, cells.weights[labelled])
            widths.append(ends.bandwidth)
            for i, t in enumerate(own[:-1].tolist()):
                rows = cells.rows(t, condition)
                p[rows], error[rows] = self._carried(rows, own[i:].tolist(), ends, self.codes[labelled])
            p[labelled, self.codes[labelled]] = 1.0
            others = final[self.codes[final] < 0]
            if len(others):
                p[others] = self._shares(cells.x[others], ends, self.codes[labelled])
        return Found(p, error, float(np.mean(widths)))

    def _carried(self, rows: Rows, times: list[float], ends: Neighbours, codes: Rows) -> tuple[Floats, Floats]:
        cells = self.carrier.cells
        shares, growth = [], []
        for futures in self.carrier.futures(rows, times, self.n_samples):
            n, s, d = futures.x.shape
            shares.append(self._shares(futures.x.reshape(-1, d), ends, codes).reshape(n, s, -1))
            growth.append(futures.weight)
        q, weight = np.concatenate(shares), np.concatenate(growth)
        even = np.ones_like(weight)
        if self.carrier.noise is None:  # one future each: share those of the neighbours
            near = Neighbours(cells.x[rows], self.n_neighbors, self.bandwidth, cells.weights[rows])
            index, closeness = near(cells.x[rows])
            q, weight, even = q[index, 0], weight[index, 0] * closeness, closeness
        weight = np.where(weight.sum(1, keepdims=True) > 0, weight, even)  # of a cell that dies, as if it lived
        return weighted_mean(q, weight / weight.sum(1, keepdims=True))

    def _shares(self, x: Floats, ends: Neighbours, codes: Rows) -> Floats:
        """Share of the kernel on each group, shape ``(n, n_groups)``."""
        index, p = ends(x)
        return np.stack([(p * (codes[index] == k)).sum(1) for k in range(self.n_groups)], 1)


def weighted_mean(q: Floats, omega: Floats) -> tuple[Floats, Floats]:
    """Weighted mean over the futures, (n, s, K) to (n, K), and its standard error."""
    p = np.einsum("ns,nsk->nk", omega, q)
    square = omega**2
    effective = 1 / square.sum(1)
    spread = np.einsum("ns,nsk->nk", square, (q - p[:, None]) ** 2)
    inflate = np.divide(effective, effective - 1, out=np.zeros_like(effective), where=effective > 1 + 1e-9)
    return p / p.sum(1, keepdims=True), np.sqrt(spread * inflate[:, None])
