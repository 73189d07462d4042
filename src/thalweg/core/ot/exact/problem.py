"""The transport problem in convenient units, and the plan that is optimal in one dimension.

Points are centred and divided by a power of two, so that neither a large offset nor a tiny scale reaches the solver;
weights are counted in whole units, so that the solver adds and subtracts flows without rounding: multiples of
1/lcm(n, m) for uniform weights, of 2⁻⁵² for others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thalweg.core.ot.exact.pairs import Array, Index, ground_cost
from thalweg.errors import InputError

UNITS = 2.0**52


@dataclass(frozen=True)
class Problem:
    """Points of positive weight, centred and divided by `scale`; weights in whole units, `total` of them."""

    x: Array
    y: Array
    a: Array
    b: Array
    total: float
    squared: bool
    scale: float

    @property
    def floor(self) -> float:
        """The smallest cost that gaps are taken relative to."""
        mean_x, mean_y = self.a @ self.x / self.total, self.b @ self.y / self.total
        squares = self.a @ (self.x**2).sum(1) / self.total + self.b @ (self.y**2).sum(1) / self.total
        mean = max(float(squares - 2 * mean_x @ mean_y), 0.0)
        return 2.0**-10 * (mean if self.squared else math.sqrt(mean)) or 2.0**-1000

    @property
    def unit(self) -> float:
        """Ground cost of the caller's coordinates for one unit of ground cost here."""
        return self.scale**2 if self.squared else self.scale


@dataclass(frozen=True)
class Solution:
    """A feasible flow in whole units on some arcs, and potentials for these arcs."""

    rows: Index
    cols: Index
    flow: Array
    u: Array
    v: Array


def _points(x: object, name: str) -> Array:
    out = np.asarray(x, dtype=np.float64)
    if out.ndim != 2 or 0 in out.shape:
        raise InputError(
            f"{name} must be a matrix of shape (points, dimensions), none of them zero; found {out.shape}."
        )
    bad = np.flatnonzero(~np.isfinite(out).all(1))
    if len(bad):
        raise InputError(
            f"{name} holds NaN or infinity in {len(bad)} rows, first {bad[:5].tolist()}; remove or impute them."
        )
    return out


def _weights(w: object, n: int, name: str) -> Array:
    if w is None:
        return np.full(n, 1.0)
    out = np.asarray(w, dtype=np.float64)
    if out.shape != (n,):
        raise InputError(f"{name} must hold one weight per point, shape ({n},); found {out.shape}.")
    if not np.isfinite(out).all() or (out < 0).any() or not out.sum() > 0:
        raise InputError(
            f"{name} must hold finite weights >= 0 with a positive sum; check for NaN and negative values."
        )
    return out


def checked(x: object, y: object, a: object, b: object, cost: str) -> tuple[Array, Array, Array, Array]:
    """Points as float64, weights summing to one each; every check of the caller's input is here."""
    xs, ys = _points(x, "x"), _points(y, "y")
    if xs.shape[1] != ys.shape[1]:
        raise InputError(f"x has {xs.shape[1]} dimensions and y has {ys.shape[1]}; both clouds must live in one space.")
    if cost not in ("euclidean", "sqeuclidean"):
        raise InputError(f"cost must be 'euclidean' or 'sqeuclidean'; found {cost!r}.")
    aw, bw = _weights(a, len(xs), "a"), _weights(b, len(ys), "b")
    if a is not None and b is not None and abs(aw.sum() - bw.sum()) > 1e-6 * aw.sum():
        raise InputError(f"a sums to {aw.sum():.9g} and b to {bw.sum():.9g}; scale both to the same total mass.")
    return xs, ys, aw / aw.sum(), bw / bw.sum()


def _whole_units(a: Array, b: Array) -> tuple[Array, Array, float]:
    """Both weights as whole numbers of equal sum, exact for uniform weights and to 2⁻⁵³ of the total for others."""
    n, m = len(a), len(b)
    total = math.lcm(n, m)
    if np.ptp(a) == 0 and np.ptp(b) == 0 and total * (total // min(n, m)) < 2**53:
        return np.full(n, float(total // n)), np.full(m, float(total // m)), float(total)
    units = []
    for w in (a, b):
        whole = np.maximum(np.rint(w * UNITS), 1.0)
        whole[np.argmax(whole)] += UNITS - whole.sum()
        units.append(whole)
    return units[0], units[1], UNITS


def problem(x: Array, y: Array, a: Array, b: Array, cost: str) -> Problem:
    """Centre, scale by a power of two (which rounds nothing) and count the weights."""
    x, y = x - x[0], y - x[0]  # first, so that equal points far from the origin are zero afterwards, not nearly so
    centre = (x.sum(0) + y.sum(0)) / (len(x) + len(y))
    x, y = x - centre, y - centre
    largest = max(np.abs(x).max(), np.abs(y).max())
    scale = 2.0 ** math.frexp(largest)[1] if largest > 0 else 1.0
    return Problem(x / scale, y / scale, *_whole_units(a, b), cost == "sqeuclidean", scale)


def staircase(p: Problem) -> Solution:
    """Build the monotone plan along the axis of largest spread; optimal, with these potentials, in one dimension.

    Both costs are convex functions of the difference there (Monge property), so that the north-west corner plan of the
    sorted points is optimal, and the potentials that make its arcs tight are feasible.
    """
    axis = int(np.argmax(p.x.var(0) + p.y.var(0)))
    order_x, order_y = np.argsort(p.x[:, axis], kind="stable"), np.argsort(p.y[:, axis], kind="stable")
    ends_x, ends_y = np.cumsum(p.a[order_x]), np.cumsum(p.b[order_y])
    # A tie, where both clouds move on, gets an arc of its own with flow zero: it keeps the potentials connected.
    starts = np.sort(np.concatenate([[0.0], ends_x[:-1], ends_y[:-1]]))
    tie = np.flatnonzero(np.diff(starts) == 0)
    i, j = np.searchsorted(ends_x, starts, side="right"), np.searchsorted(ends_y, starts, side="right")
    i[tie] -= 1
    rows, cols = order_x[i], order_y[j]
    cost = ground_cost(p.x, p.y, rows, cols, p.squared)
    rise = np.diff(cost)
    u, v = np.empty(len(p.x)), np.empty(len(p.y))
    u[order_x] = np.concatenate([[0.0], np.cumsum(rise[np.diff(i) == 1])])
    v[order_y] = np.concatenate([[0.0], np.cumsum(rise[np.diff(j) == 1])]) + cost[0]
    return Solution(rows, cols, np.diff(starts, append=p.total), u, v)


def extended(p: Problem, x: Array, y: Array, u: Array, v: Array, i: Index, j: Index) -> tuple[Array, Array]:
    """Potentials of all points: those without weight get the largest value that keeps every pair feasible."""
    full_u, full_v = np.full(len(x), np.inf), np.full(len(y), np.inf)
    full_u[i], full_v[j] = u, v
    for k in np.flatnonzero(np.isinf(full_u)):
        full_u[k] = (_one_to_all(x[k], y[j], p.squared) - v).min()
    for k in np.flatnonzero(np.isinf(full_v)):
        full_v[k] = (_one_to_all(y[k], x, p.squared) - full_u).min()
    return full_u, full_v


def _one_to_all(point: Array, others: Array, squared: bool) -> Array:
    return ground_cost(point[None], others, np.zeros(len(others), np.int64), np.arange(len(others)), squared)
