"""The fates of all cells of a course: where their futures end, and what the cells there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from thalweg.core.neighbours import Neighbours
from thalweg.data.cells import Cells, Floats, Rows
from thalweg.flows.carry import Carrier
from thalweg.tl._fates.absorbing import Numbers, Shares, last_labelled, through


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

    def of(self, cells: Cells) -> Found:
        """The same for the cells of a course, from that for the rows of the AnnData."""
        at, draws = cells.sources, self.draws
        return replace(self, p=self.p[at], error=self.error[at], draws=None if draws is None else draws[at])

    def merged(self, cells: Cells, condition: int | None) -> Found:
        """The same for the rows of the AnnData, see `thalweg.data.cells.Cells.merged`."""
        draws = None if self.draws is None else cells.merged(self.draws, condition)
        return Found(cells.merged(self.p, condition), cells.merged(self.error, condition), self.bandwidth, draws)


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

    A draw gives each cell, or each replicate, a random weight, so that all keep their place (the Bayesian bootstrap).
    """
    whole = make(cells)
    if not n:
        return whole
    draws = np.stack([make(one).p for one in [cells.reweighted(rng) for _ in range(n)]], 1)
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
    absorbing
        Numbers of the groups that hold cells at any time.
    """

    carrier: Carrier
    n_samples: int
    codes: Rows
    n_groups: int
    n_neighbors: int
    bandwidth: float | None
    absorbing: Numbers = ()

    def __call__(self) -> Found:
        """Fates, their standard errors and the mean bandwidth at the ends."""
        cells, widths = self.carrier.cells, []
        p, error = np.zeros((len(cells.x), self.n_groups)), np.zeros((len(cells.x), self.n_groups))
        for condition in cells.strata:
            own = cells.times_of(condition)
            last = float(own[-1])
            final = cells.rows(last, condition)
            labelled = last_labelled(cells, self.codes, final)
            ends = Neighbours(cells.x[labelled], self.n_neighbors, self.bandwidth, cells.weights[labelled])
            widths.append(ends.bandwidth)
            at_end = partial(self._shares, ends=ends, codes=self.codes[labelled])
            before = [self._holding(t, condition) for t in own[1:-1].tolist()]
            for i, t in enumerate(own[:-1].tolist()):
                rows = cells.rows(t, condition)
                held = self._held(rows)
                p[held, self.codes[held]] = 1.0
                free = np.setdiff1d(rows, held)
                if len(free):
                    p[free], error[free] = self._carried(free, own[i:].tolist(), [*before[i:], at_end])
            p[labelled, self.codes[labelled]] = 1.0
            others = final[self.codes[final] < 0]
            if len(others):
                p[others] = at_end(cells.x[others])
        return Found(p, error, float(np.mean(widths)))

    def _carried(self, rows: Rows, times: list[float], shares: Sequence[Shares]) -> tuple[Floats, Floats]:
        cells = self.carrier.cells
        found = list(self._ends(rows, times, shares))
        q, weight = (np.concatenate(parts) for parts in zip(*found, strict=True))
        even = np.ones_like(weight)
        if self.carrier.noise is None:  # one future each: share those of the neighbours
            near = Neighbours(cells.x[rows], self.n_neighbors, self.bandwidth, cells.weights[rows])
            index, closeness = near(cells.x[rows])
            q, weight, even = q[index, 0], weight[index, 0] * closeness, closeness
        weight = np.where(weight.sum(1, keepdims=True) > 0, weight, even)  # of a cell that dies, as if it lived
        return weighted_mean(q, weight / weight.sum(1, keepdims=True))

    def _ends(self, rows: Rows, times: list[float], shares: Sequence[Shares]) -> Iterator[tuple[Floats, Floats]]:
        """Groups of the futures, shape ``(n, n_samples, n_groups)``, and their growth, block by block."""
        if self.absorbing:
            yield from through(self.carrier, rows, times, self.n_samples, shares)
            return
        for futures in self.carrier.futures(rows, times, self.n_samples):
            n, s, d = futures.x.shape
            yield shares[-1](futures.x.reshape(-1, d)).reshape(n, s, -1), futures.weight

    def _held(self, rows: Rows) -> Rows:
        """Those that belong to an absorbing group."""
        return rows[np.isin(self.codes[rows], self.absorbing)]

    def _holding(self, time: float, condition: int) -> Shares:
        """The part of a future that each absorbing group holds at a time: that of the kernel on its cells."""
        cells = self.carrier.cells
        rows = cells.rows(time, condition)
        near = Neighbours(cells.x[rows], self.n_neighbors, self.bandwidth, cells.weights[rows])
        codes = np.where(np.isin(self.codes[rows], self.absorbing), self.codes[rows], -1)
        return partial(self._shares, ends=near, codes=codes)

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
