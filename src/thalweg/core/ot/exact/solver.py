"""Exact discrete optimal transport between two point clouds, proved optimal at run time.

Primal and dual of the problem with weights a, b (positive, each summing to one) and ground cost c_ij = |x_i − y_j| or
|x_i − y_j|²:

    P = min Σ π_ij c_ij  over π ≥ 0 with row sums a and column sums b,
    D = max Σ a_i u_i + Σ b_j v_j  over u_i + v_j ≤ c_ij for all pairs;
    D ≤ P, equal at the optimum.

Method: column generation. A few arcs of low reduced cost c − u − v are chosen with entropic potentials; the network
simplex of POT solves the problem on these arcs; its potentials are then tested against all n × m pairs in blocks, the
violating arcs are added, and the solver runs again on the reduced costs of the last round (the same problem, but the
solver starts close to the answer). The end is a feasible plan π and potentials (u, v) feasible for all pairs; the
relative gap (P − D) / P bounds the error of P. It is returned, and it never exceeds `rtol`: `NotConvergedError`
otherwise. Flows are whole numbers (multiples of 1/lcm(n, m) for uniform weights, of 2⁻⁵² for others), so the simplex
adds and subtracts them without rounding.

When P is smaller than 2⁻¹⁰ S, S being the mean cost of independent pairs, the gap is taken relative to 2⁻¹⁰ S: the
distance of a cloud to itself is zero, and the rounding of the potentials is not.

Not guaranteed: which optimal plan is returned when there are several.

References: Peyré & Cuturi, Computational Optimal Transport, 2019 (duality, chapters 2-4); Schmitzer, A sparse
multiscale algorithm for dense optimal transport, 2016 (restricting the arcs, with a dual test).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import ot
from scipy.sparse import coo_array
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from thalweg._memory import check_memory
from thalweg.core.ot.exact.arcs import ARCS_PER_POINT, POOL_PER_POINT, pool_of_arcs, refine, start_potentials
from thalweg.core.ot.exact.pairs import Arcs, Array, Index, below, cheapest, ground_cost, merge
from thalweg.core.ot.exact.problem import Problem, Solution, checked, extended, problem, staircase
from thalweg.errors import InputError, NotConvergedError

Cost = Literal["euclidean", "sqeuclidean"]

SMALL = 1_000_000  # pairs up to which the whole cost matrix is given to the solver
PAIR_BYTES, ARC_BYTES, COPIES = 64, 128, 6  # measured, and rounded up: see `check_fits`
MAX_PIVOTS = 2_000_000_000
MAX_ROUNDS = 300
LATER_ARCS_PER_POINT = 6


@dataclass(frozen=True)
class ExactPlan:
    """An optimal transport plan, its cost, and the proof of its optimality.

    Attributes
    ----------
    rows, cols
        Support of the plan: row indices into `x` and `y`, int64, shape (k,).
    mass
        Mass of each pair of the support, float64, shape (k,), positive, summing to one.
    cost
        Sum of mass times ground cost, in the unit of the coordinates (squared for 'sqeuclidean').
    u, v
        Dual potentials of the rows of `x` and `y`, shapes (n,) and (m,): u_i + v_j <= c_ij for all pairs.
    gap
        Upper bound of the relative error of `cost`: (P - D) / max(P, 2⁻¹⁰ S), see the module.
    """

    rows: Index
    cols: Index
    mass: Array
    cost: float
    u: Array
    v: Array
    gap: float


def _emd(p: Problem, costs: Any) -> tuple[Any, Array, Array]:
    """Network simplex on a dense or sparse cost matrix; any warning of the solver is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the status is in the log
        plan, log = ot.emd(p.a, p.b, costs, numItermax=MAX_PIVOTS, log=True, center_dual=False)
    if log["warning"] is not None:
        raise NotConvergedError(f"the network simplex of POT stopped early: {log['warning']}")
    return plan, log["u"], log["v"]


def _restricted(p: Problem, arcs: Arcs, u: Array, v: Array) -> Solution:
    """Exact transport on some arcs alone, from reduced costs: a start near the answer makes few pivots."""
    reduced = arcs.cost - u[arcs.rows] - v[arcs.cols]
    # Artificial arcs of the solver cost (1 + largest) (n + m). That is enough to empty them if no cost is negative,
    # and it rounds the potentials less if the 1 does not dominate.
    lowest = float(reduced.min())
    reduced -= lowest
    factor = 2.0 ** (20 - math.frexp(float(reduced.max()))[1])
    plan, du, dv = _emd(p, coo_array((reduced * factor, (arcs.rows, arcs.cols)), shape=(len(p.x), len(p.y))))
    u, v = u + du / factor + lowest, v + dv / factor
    return Solution(plan.row.astype(np.int64), plan.col.astype(np.int64), plan.data, u, v)


def _dense(p: Problem) -> Solution:
    """Exact transport on all pairs of a small problem."""
    n, m = len(p.x), len(p.y)
    rows, cols = np.divmod(np.arange(n * m), m)
    plan, u, v = _emd(p, ground_cost(p.x, p.y, rows, cols, p.squared).reshape(n, m))
    rows, cols = np.nonzero(plan)
    return Solution(rows, cols, plan[rows, cols], u, v)


def _cost(p: Problem, s: Solution) -> float:
    return float(s.flow @ ground_cost(p.x, p.y, s.rows, s.cols, p.squared)) / p.total


def _certify(p: Problem, s: Solution, rtol: float) -> tuple[float, float, Array, Array, Arcs]:
    """Cost, relative gap, feasible potentials, and the pairs that the given potentials violate.

    Potentials lowered by `slack` ignore violations of the size of rounding at a known price: the masses sum to one.
    """
    cost = _cost(p, s)
    size = max(cost, p.floor)
    u = s.u - rtol * size / 32
    found = below(p.x, p.y, u, s.v, p.squared)
    excess = np.zeros(len(s.v))
    np.maximum.at(excess, found.cols, u[found.rows] + s.v[found.cols] - found.cost)
    v = s.v - excess
    gap = (cost - float(p.a @ u + p.b @ v) / p.total) / size if found.complete else math.inf
    return cost, gap, u, v, found


def _generate(p: Problem, rtol: float) -> ExactPlan:
    """Column generation, see the module docstring."""
    n, m = len(p.x), len(p.y)
    stairs = staircase(p)
    forced = Arcs(stairs.rows, stairs.cols, ground_cost(p.x, p.y, stairs.rows, stairs.cols, p.squared))
    a, b = p.a / p.total, p.b / p.total
    u, v, eps = start_potentials(p.x, p.y, a, b, p.squared)
    pool = pool_of_arcs(p.x, p.y, u, v, p.squared)
    u, v = refine(pool, a, b, u, v, eps)
    arcs = merge(cheapest(pool, pool.cost - u[pool.rows] - v[pool.cols], ARCS_PER_POINT * (n + m), p.floor), forced, m)
    pool = merge(pool, forced, m)
    for _ in range(MAX_ROUNDS):
        s = _restricted(p, arcs, u, v)
        u, v = s.u, s.v
        size = max(_cost(p, s), p.floor)
        reduced = pool.cost - u[pool.rows] - v[pool.cols]
        if reduced.min() > -rtol * size / 32:
            cost, gap, feasible_u, feasible_v, found = _certify(p, s, rtol)
            if gap <= rtol:
                return ExactPlan(s.rows, s.cols, s.flow / p.total, cost, feasible_u, feasible_v, gap)
            if not len(found.rows):
                raise _gap_error(gap, rtol)
            pool = merge(pool, found, m)
            reduced = pool.cost - u[pool.rows] - v[pool.cols]
        added = cheapest(pool, reduced, LATER_ARCS_PER_POINT * (n + m), size)
        # Arcs dropped at every round would come back in a later one; kept for ever they would slow the solver.
        arcs = added if len(arcs.rows) > 2 * LATER_ARCS_PER_POINT * (n + m) else merge(arcs, added, m)
    raise NotConvergedError(f"no proof of rtol={rtol:.1e} after {MAX_ROUNDS} rounds; a larger rtol may be reached.")


def _gap_error(gap: float, rtol: float) -> NotConvergedError:
    return NotConvergedError(f"relative duality gap {gap:.1e} above rtol={rtol:.1e}; a larger rtol may be reached.")


def _direct(p: Problem, s: Solution, rtol: float) -> ExactPlan:
    """Certify the plan of a solver that saw all pairs."""
    cost, gap, u, v, _ = _certify(p, s, rtol)
    if not gap <= rtol:
        raise _gap_error(gap, rtol)
    return ExactPlan(s.rows, s.cols, s.flow / p.total, cost, u, v, gap)


def _solve(p: Problem, rtol: float, small: int) -> ExactPlan:
    """Solve for points of positive weight by the method that suits the size, in the problem's own units."""
    n, m = len(p.x), len(p.y)
    if p.x.shape[1] == 1 or min(n, m) == 1 or not (p.x.any() or p.y.any()):
        return _direct(p, staircase(p), rtol)
    return _direct(p, _dense(p), rtol) if n * m <= small else _generate(p, rtol)


def solve_exact(
    x: object,
    y: object,
    *,
    a: object = None,
    b: object = None,
    cost: Cost = "sqeuclidean",
    rtol: float = 1e-9,
    small: int = SMALL,
    max_memory: int | None = None,
) -> ExactPlan:
    """Optimal transport plan between two weighted point clouds, with a proof of its optimality.

    Parameters
    ----------
    x, y
        Points, shapes (n, d) and (m, d): arrays or CPU tensors, computed in float64 on centred coordinates.
    a, b
        Weights >= 0 of the points, shapes (n,) and (m,), of equal sum; they are scaled to sum one. None is uniform.
        Points of weight zero are left out of the plan.
    cost
        Ground cost 'sqeuclidean' (default; `ExactPlan.cost` is W2²) or 'euclidean' (W1).
    rtol
        Bound of the relative duality gap, default 1e-9.
    small
        Number of pairs up to which the solver gets the whole cost matrix; above, only candidate arcs are held.
    max_memory
        Bytes allowed; 4 GiB by default.

    Returns
    -------
    ExactPlan
        Plan, cost, potentials and the certified gap, at most `rtol`.

    Raises
    ------
    InputError
        If points or weights are not finite, have wrong shapes, or weights are negative or of different total mass.
    NotConvergedError
        If the gap cannot be brought to `rtol`, or the network simplex stops early.
    MemoryBudgetError
        If the problem does not fit `max_memory`.
    """
    xs, ys, aw, bw = checked(x, y, a, b, cost)
    if not 0 < rtol < 1:
        raise InputError(f"rtol must lie between 0 and 1; found {rtol}.")
    check_fits(len(xs), len(ys), xs.shape[1], small=small, max_memory=max_memory)
    i, j = np.flatnonzero(aw), np.flatnonzero(bw)
    p = problem(xs[i], ys[j], aw[i], bw[j], cost)
    with threadpool_limits(1):  # the products are too short for threads, which wait for each other on a busy machine
        s = _solve(p, rtol, small)
    u, v = s.u * p.unit, s.v * p.unit
    if len(i) < len(xs) or len(j) < len(ys):
        u, v = extended(p, xs, ys, u, v, i, j)
    return ExactPlan(i[s.rows], j[s.cols], s.mass, s.cost * p.unit, u, v, s.gap)


def check_fits(n: int, m: int, d: int, *, small: int = SMALL, max_memory: int | None = None) -> None:
    """Refuse a problem of `n` and `m` points that would take more than `max_memory` bytes (None: 4 GiB).

    Up to `small` pairs the solver and the proof hold the cost matrix several times; beyond, what counts are the arcs of
    the pool. With 12,000 x 12,000 points in 50 dimensions the process grew by 188 MB; the estimate is 242 MB.

    Raises
    ------
    MemoryBudgetError
        If the problem does not fit.
    """
    fix, copies = "use fewer points, or minibatches (coupling='minibatch')", 8 * COPIES * d
    if n * m <= small:
        check_memory(f"exact transport of {n} x {m} points", n, m, PAIR_BYTES, max_memory, fix)
    else:
        width = ARC_BYTES * POOL_PER_POINT + copies
        check_memory(f"exact transport of {n} x {m} points, their arcs", n + m, 1, width, max_memory, fix)


def certify(
    plan: ExactPlan, x: object, y: object, *, a: object = None, b: object = None, cost: Cost = "sqeuclidean"
) -> float:
    """Relative duality gap of a plan, from its support and potentials alone.

    The cost is computed again, the potentials are tested against all pairs and lowered where they violate one. The
    arguments are those of `solve_exact`.

    Returns
    -------
    float
        An upper bound of the plan's relative excess over the optimal cost; infinite if the potentials are so wrong
        that the violations cannot be listed.

    Raises
    ------
    InputError
        If the plan's marginals differ from `a` and `b` by more than 1e-9 of the total mass, or a mass is negative.
    """
    xs, ys, aw, bw = checked(x, y, a, b, cost)
    rows = np.bincount(plan.rows, plan.mass, len(xs))
    cols = np.bincount(plan.cols, plan.mass, len(ys))
    off = max(float(np.abs(rows - aw).sum()), float(np.abs(cols - bw).sum()))
    if off > 1e-9 or (plan.mass < 0).any():
        raise InputError(f"the plan's marginals miss a and b by {off:.2e} of the mass; was it made for other weights?")
    p = replace(problem(xs, ys, aw, bw, cost), a=aw, b=bw, total=1.0)
    solution = Solution(plan.rows, plan.cols, plan.mass, plan.u / p.unit, plan.v / p.unit)
    with threadpool_limits(1):
        return _certify(p, solution, 1e-12)[1]
