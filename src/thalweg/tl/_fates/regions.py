r"""Regions that cells enter and do not leave, found without labels.

**Regions.** A lineage ends at the last time of its condition, or where its cells die in place. The states of these
cells in their leading components (`thalweg.flows.states`) are the candidates. Two states whose gap is below `UNIMODAL`
spreads are one region, as two equal Gaussians make a single hump below that. A cell of any time is in a region if it is
typical of one of its states (within the 99 % ellipsoid of the Gaussian) and most probably in that one.

**Stability.** With ``P(j | i)`` what cell ``i`` becomes at the next observed time, ``w`` the weights of cells and ``l``
the share that dies in place,

.. math::
    S_R = \frac{\sum_{i \in R} w_i \, [l_i + (1 - l_i) \sum_{j \in R} P(j \mid i)]}{\sum_{i \in R} w_i} ,

over all intervals: a cell of the region is in it still at the next time, or has died there. It is the self transition
of a coarse-grained process, by which CellRank tells terminal states (Lange et al., Nature Methods 2022). Its standard
error is that of the Bayesian bootstrap of the cells (Rubin 1981), with the regions and the fit as they are.

**A course that moves on.** Every course has a front, which no cell leaves because nobody looked later. A population
moves on if its mean has moved by more than samples differ, and if it is in the last interval at least half as fast as
it ever was, or may be, by what samples differ. Such a course shows no end by itself. Then only regions count that lie
`APART` spreads or more from all others: their cells have parted for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import sparse

from thalweg.data.cells import Cells, Floats, Rows
from thalweg.data.replicates import FEWEST
from thalweg.flows.states import LARGEST, find_states, separation

UNIMODAL, APART = 2.0, 4.0  # spreads
_TYPICAL = 0.99
_CELLS = 40  # ends of lineages for each of the leading components that describe them
_SLOWER = 0.5  # share of the fastest speed
_NOISE, _DOUBT = 4.0, 2.0  # times the squared shift of two samples of one population: it moved, and may be faster by


@dataclass(frozen=True)
class Regions:
    """Where lineages end.

    Attributes
    ----------
    of
        Number of the region of each cell, -1 for none, shape ``(n,)``.
    apart
        Gap to the nearest other region in spreads, shape ``(k,)``; 0 if there is no other one.
    """

    of: Rows
    apart: Floats

    @property
    def members(self) -> Floats:
        """Indicator of each region, shape ``(n, k)``."""
        return (self.of[:, None] == np.arange(len(self.apart))).astype(np.float64)


def ends(cells: Cells) -> Rows:
    """The cells that lineages end with: those of the last time of their condition, and those that die in place."""
    last = np.zeros(len(cells.x), dtype=bool) if cells.lost is None else cells.lost > 0.5
    for condition in cells.strata:
        last[cells.rows(float(cells.times_of(condition)[-1]), condition)] = True
    return np.flatnonzero(last)


def find_regions(cells: Cells) -> Regions:
    """The regions of a course."""
    from scipy.sparse.csgraph import connected_components
    from scipy.stats import chi2

    final = ends(cells)
    n_columns = min(LARGEST, max(2, len(final) // _CELLS))  # covariances of small states need cells
    x = cells.x[:, np.sort(np.argsort(-cells.x.var(0), kind="stable")[:n_columns])]
    states = find_states(x[final], cells.weights[final])
    gap = separation(states, states)
    n, region = connected_components(gap < UNIMODAL)
    distance = np.stack(
        [
            ((x - mean) * np.linalg.solve(covariance, (x - mean).T).T).sum(1)
            for mean, covariance in zip(states.means, states.covariances, strict=True)
        ],
        axis=1,
    )
    typical = distance < chi2.ppf(_TYPICAL, x.shape[1])
    state = np.where(typical, states.membership(x), -1.0).argmax(1)
    of = np.where(typical.any(1), region[state], -1).astype(np.int64)
    others = region[:, None] != region
    nearest = [gap[others & (region[:, None] == r)].min() if n > 1 else 0.0 for r in range(n)]
    return Regions(of, np.array(nearest))


def moves_on(cells: Cells) -> bool:
    """Whether the populations still move at the end of the course."""
    last, whole, fastest = np.zeros(2), np.zeros(2), 0.0
    for condition in cells.strata:
        populations = [cells.rows(t, condition) for t in cells.times_of(condition).tolist()]
        if len(populations) > 1:
            found = [_shift(cells, before, after) for before, after in pairwise(populations)]
            n = len(populations[-1])
            last, whole = last + n * found[-1], whole + n * _shift(cells, populations[0], populations[-1])
            fastest += n * max(square for square, _ in found)
    moved = any(square > _NOISE * noise for square, noise in (last, whole))
    slowed = last[0] + _DOUBT * last[1] < _SLOWER**2 * fastest
    return bool(moved and not slowed)


def _shift(cells: Cells, before: Rows, after: Rows) -> Floats:
    """Squared speed of the mean of a population, and its expectation for two samples of one population."""
    w0, w1 = (cells.weights[rows] / cells.weights[rows].sum() for rows in (before, after))
    m0, m1 = w0 @ cells.x[before], w1 @ cells.x[after]
    spread = sum(
        float((w**2).sum() * (w @ (cells.x[rows] - m) ** 2).sum()) for w, rows, m in ((w0, before, m0), (w1, after, m1))
    )
    square = (cells.time[after[0]] - cells.time[before[0]]) ** 2
    return np.array([((m1 - m0) ** 2).sum(), spread]) / square


@dataclass(frozen=True)
class Step:
    """What cells become at the next observed time of their condition.

    Attributes
    ----------
    rows
        The cells.
    matrix
        Relative mass that each sends to each cell of the course, csr of shape ``(len(rows), n)``.
    """

    rows: Rows
    matrix: sparse.csr_matrix


@dataclass(frozen=True)
class Stability:
    """How well regions hold their cells.

    Attributes
    ----------
    stay, error
        Stability and its standard error, shape ``(k,)``; NaN for regions that fewer than ten cells were seen in before
        the last time.
    inflow
        Share of the cells that arrive in the region at a later time that come from outside, shape ``(k,)``; NaN where
        none arrives.
    """

    stay: Floats
    error: Floats
    inflow: Floats


def find_stability(
    cells: Cells, regions: Regions, steps: Sequence[Step], n_draws: int, rng: np.random.Generator
) -> Stability:
    """The stability of regions.

    Parameters
    ----------
    cells, regions, steps
        The course, its regions, and what its cells become.
    n_draws
        Draws of the cells behind the standard errors.
    rng
        Draws them.
    """
    members = regions.members
    stay, inflow = _coarse(cells, members, steps, np.ones(len(cells.x)))
    draws = [_coarse(cells, members, steps, rng.standard_exponential(len(cells.x)))[0] for _ in range(n_draws)]
    seen = sum((members[step.rows].sum(0) for step in steps), start=np.zeros(members.shape[1]))
    few = seen < FEWEST
    error = np.std(draws, axis=0, ddof=1)
    return Stability(np.where(few, np.nan, stay), np.where(few, np.nan, error), inflow)


def _coarse(cells: Cells, members: Floats, steps: Sequence[Step], draw: Floats) -> tuple[Floats, Floats]:
    """Stability and inflow of the regions if each cell counted ``draw`` times."""
    k, lost = members.shape[1], np.zeros(len(cells.x)) if cells.lost is None else cells.lost
    stayed, there, entered, arrived = (np.zeros(k) for _ in range(4))
    for step in steps:
        total = step.matrix @ draw
        to = step.matrix @ (draw[:, None] * members)
        p = np.divide(to, total[:, None], out=np.zeros_like(to), where=total[:, None] > 0)
        own, dies = members[step.rows], lost[step.rows, None]
        w = (cells.weights * draw)[step.rows, None]
        stayed += (w * own * (dies + (1 - dies) * p)).sum(0)
        there += (w * own).sum(0)
        entered += (w * (1 - own) * (1 - dies) * p).sum(0)
        arrived += (w * (1 - dies) * p).sum(0)
    ratio = [np.divide(a, b, out=np.full(k, np.nan), where=b > 0) for a, b in ((stayed, there), (entered, arrived))]
    return ratio[0], ratio[1]


def table(cells: Cells, regions: Regions, found: Stability, names: Sequence[str], why: Sequence[str]) -> pd.DataFrame:
    """A row for each region, terminal states first."""
    rows = [
        {
            "state": names[k],
            "n_cells": int((regions.of == k).sum()),
            "first_time": float(cells.time[regions.of == k].min()),
            "last_time": float(cells.time[regions.of == k].max()),
            "stability": float(found.stay[k]),
            "se": float(found.error[k]),
            "inflow": float(found.inflow[k]),
            "apart": float(regions.apart[k]),
            "verdict": why[k],
        }
        for k in _order(names, found)
    ]
    out = pd.DataFrame(rows)
    out.index = out.index.astype(str)
    return out


def _order(names: Sequence[str], found: Stability) -> Iterator[int]:
    return iter(
        sorted(range(len(names)), key=lambda k: (not names[k], int(names[k] or 0), -np.nan_to_num(found.stay[k])))
    )
