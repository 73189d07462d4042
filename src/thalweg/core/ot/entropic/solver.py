"""Entropic optimal transport between two point clouds, balanced or with relaxed marginals.

For points ``x_i`` with weights ``a_i``, points ``y_j`` with weights ``b_j`` and the cost ``C_ij = |x_i - y_j|^2``, the
plan minimises

    <P, C> + eps KL(P | a b') + tau_a KL(P 1 | a) + tau_b KL(P' 1 | b),      KL(p | q) = sum p log(p/q) - p + q

where a missing ``tau`` means that this marginal holds exactly. The plan has the form (the convention of `EntropicPlan`)

    P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps)

and at the optimum ``P 1 = a exp(-f/tau_a)`` and ``P' 1 = b exp(-g/tau_b)`` (Chizat et al., Mathematics of Computation
2018), which is ``a`` and ``b`` for exact marginals. A Schrödinger bridge of diffusion ``sigma`` over unit time needs
``eps = 2 sigma^2``.

How it is solved. Coordinates are centred and divided by ``sqrt(eps)``, so neither offset nor unit matters. A random
subset of both clouds is solved at falling temperatures, and its potentials are extended to all points by the soft
minimum that defines them. Then, in rounds: one pass over all pairs chooses the entries that can matter and sums the
marginals of the *whole* plan; if these are right the work is done, else Newton steps on the chosen entries
(`thalweg.core.ot.entropic.newton`) improve the potentials. Keeping few entries follows Schmitzer (SIAM Journal on
Scientific Computing 2019). Nothing is drawn from a global generator: the subset comes from one with a fixed seed.

Not guaranteed: the same bits on another machine or number of threads; the constant in the potentials (in the
balanced problem ``f + k, g - k`` is the same plan); convergence for ``eps`` far below the distance of neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg._memory import DEFAULT, check_memory
from thalweg.core.ot.entropic.newton import ScalingProblem
from thalweg.core.ot.entropic.passes import blocks, factors, full_pass, restore, soft_min
from thalweg.core.ot.entropic.problem import Problem, balance, check_options, check_points, mean_cost, shuffled
from thalweg.core.ot.thinning import thin
from thalweg.errors import InputError, MemoryBudgetError, NotConvergedError

SUBSET = 1500  # points of each cloud in the warm start
COOLING = 4.0  # ratio of successive temperatures
ROUNDS = 100  # passes over all pairs
SAMPLE = 128  # rows from which the number of entries is foreseen
ENTRY = 48  # bytes of an entry of a plan: three numbers of eight, twice while blocks are joined


@dataclass(frozen=True)
class EntropicPlan:
    """The solution ``P_ij = a_i b_j exp((f_i + g_j - |x_i - y_j|^2) / epsilon)``.

    Attributes
    ----------
    f, g
        Potentials, float64, shapes ``(n,)`` and ``(m,)``, in units of the cost.
    a, b
        The weights used, float64, shapes ``(n,)`` and ``(m,)``.
    epsilon
        The regularisation, in units of the cost.
    iterations
        Pairs of products with the kernel on the full problem; a plain Sinkhorn iteration is one pair.
    marginal_error
        L1 errors of both marginals of the full plan, added and divided by the plan's mass.
    converged
        True for every plan that `solve_entropic` returns.
    """

    f: Tensor
    g: Tensor
    a: Tensor
    b: Tensor
    epsilon: float
    iterations: int
    marginal_error: float
    converged: bool = True


class PlanEntries(NamedTuple):
    """The entries of a plan that carry its mass, sorted by row.

    Attributes
    ----------
    rows, cols
        Indices, int64, shape ``(k,)``.
    mass
        ``P[rows, cols]``, float64, shape ``(k,)``.
    dropped
        Share of the plan's mass in the entries left out.
    """

    rows: Tensor
    cols: Tensor
    mass: Tensor
    dropped: float


def solve_entropic(
    x: Tensor,
    y: Tensor,
    *,
    a: Tensor | None = None,
    b: Tensor | None = None,
    epsilon: float,
    tau_a: float | None = None,
    tau_b: float | None = None,
    tol: float = 1e-3,
    max_iterations: int = 20_000,
    max_memory: int | None = None,
) -> EntropicPlan:
    """Solve entropic transport between two weighted point clouds for the squared Euclidean cost.

    Parameters
    ----------
    x, y
        Points, shapes ``(n, d)`` and ``(m, d)``, on one device.
    a, b
        Non-negative weights, shapes ``(n,)`` and ``(m,)``; None is uniform with sum one. With two exact marginals the
        sums must agree; a relative difference up to 1e-5 counts as rounding, and ``b`` is scaled to the sum of ``a``.
        Points of zero weight get a potential and no mass.
    epsilon
        Regularisation in units of the squared distance; see `relative_epsilon` for a scale-free choice.
    tau_a, tau_b
        Weights of the relaxed marginals, same unit; None means that the marginal holds exactly.
    tol
        Largest L1 error of the marginals of the full plan, both sides added, relative to its mass. Work is done in
        float32 where its rounding stays below ``tol``, in float64 otherwise.
    max_iterations
        Largest number of pairs of kernel products on the full problem.
    max_memory
        Bytes allowed for the kernel; default 4 GiB.

    Returns
    -------
    EntropicPlan
        Potentials and the error reached.

    Raises
    ------
    InputError
        Shapes, devices or signs are wrong, or a value is not finite.
    NotConvergedError
        ``tol`` was not reached.
    MemoryBudgetError
        The kernel does not fit ``max_memory``.
    """
    check_options(epsilon, tau_a, tau_b, tol, max_iterations)
    x, y, a, b = check_points(x, y, a, b)
    if tau_a is None and tau_b is None:
        b = balance(a, b)
    centre = x.mean(0)
    points = (x - centre) / epsilon**0.5, (y - centre) / epsilon**0.5
    order_x, order_y = shuffled(a), shuffled(b)
    size = max(float((z * z).sum(1).max()) for z in points)
    problem = Problem(
        points[0][order_x],
        points[1][order_y],
        a[order_x].log(),
        b[order_y].log(),
        math.inf if tau_a is None else tau_a / epsilon,
        math.inf if tau_b is None else tau_b / epsilon,
        torch.float32 if tol >= 1e-4 and size * 2.0**-24 < tol else torch.float64,
        DEFAULT if max_memory is None else max_memory,
    )
    part_f, part_g, error, iterations = _solve(problem, tol, max_iterations)
    if not error <= tol:
        raise NotConvergedError(
            f"entropic transport of {len(x)} x {len(y)} points: marginal error {error:.3g} after {iterations} "
            f"iterations, above tol={tol:g}, at epsilon={epsilon:g}, "
            f"{epsilon / max(mean_cost(x, y, a, b), 1e-300):.3g} of the mean squared distance. "
            "Raise epsilon, tol or max_iterations, or use exact transport."
        )
    f = restore(problem, points[0], order_x, part_f, part_g)
    g = restore(problem.flipped(), points[1], order_y, part_g, part_f)
    return EntropicPlan(f * epsilon, g * epsilon, a, b, float(epsilon), iterations, error)


def relative_epsilon(
    x: Tensor, y: Tensor, fraction: float, *, a: Tensor | None = None, b: Tensor | None = None
) -> float:
    """Return the regularisation that is a given fraction of the mean squared distance between the clouds.

    The mean, not the median, because the moments give it: ``|mean x - mean y|^2 + tr cov x + tr cov y``, one pass over
    the points and none over pairs. On single-cell principal components it is 10 to 20 % above the median.

    Parameters
    ----------
    x, y
        Points, shapes ``(n, d)`` and ``(m, d)``.
    fraction
        Positive share of the mean cost; .05 is smooth, .005 close to exact transport.
    a, b
        Weights of the mean; None is uniform.

    Returns
    -------
    float
        ``epsilon`` in units of the squared distance.

    Raises
    ------
    InputError
        ``fraction`` is not positive, the points are unusable, or all points of both clouds are equal: no scale exists.
    """
    if not (math.isfinite(fraction) and fraction > 0):
        raise InputError(f"fraction: expected a positive number, found {fraction!r}.")
    cost = mean_cost(*check_points(x, y, a, b))
    if cost == 0:
        raise InputError("x, y: all points are equal, so the cost has no scale. Give epsilon in absolute units.")
    return fraction * cost


def plan_entries(
    x: Tensor,
    y: Tensor,
    plan: EntropicPlan,
    *,
    drop: float = 1e-6,
    per_row: int | None = None,
    max_memory: int | None = None,
) -> PlanEntries:
    """Return a plan without its small entries: those below ``drop / m`` of their row's mass, together at most ``drop``.

    Parameters
    ----------
    x, y
        The points that the plan was solved for, shapes ``(n, d)`` and ``(m, d)``.
    plan
        The result of `solve_entropic`.
    drop
        Largest share of each row's mass left out; 0 keeps every entry that is not zero in float64.
    per_row
        Entries of each row to keep at most, in place of ``drop``: its largest, and others drawn to stand for the rest
        (`thalweg.core.ot.thinning`), from a generator with a fixed seed.
    max_memory
        Bytes allowed for the entries; default 4 GiB.

    Returns
    -------
    PlanEntries
        Rows, columns, masses and the dropped share.

    Raises
    ------
    InputError
        The points do not fit the plan, or ``drop`` is outside ``[0, 1)``.
    MemoryBudgetError
        The entries do not fit ``max_memory``.
    """
    if not 0 <= drop < 1:
        raise InputError(f"drop: expected a number in [0, 1), found {drop!r}.")
    x, y, _, _ = check_points(x, y, plan.a, plan.b)  # refuses points whose number or device differs from the plan's
    limit, m = DEFAULT if max_memory is None else max_memory, len(y)
    if per_row is not None:
        check_memory("thinned plan", len(x), min(per_row, m), ENTRY, limit, "use fewer points or entries of each row")
        return _thinned(_masses(x, y, plan), len(x), min(per_row, m))
    some = slice(None, None, max(1, len(x) // SAMPLE))
    sampled = [_kept(block, drop) for _, block in _masses(x[some], y, replace(plan, f=plan.f[some], a=plan.a[some]))]
    if (expected := ENTRY * len(x) * float(torch.cat(sampled).double().sum(1).mean())) > 1.25 * limit:
        raise _too_large(f"about {expected / ENTRY:.2g}", len(x), m, limit)  # before the memory is filled with them
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    count, total = 0, 0.0
    for start, block in _masses(x, y, plan):
        flat = _kept(block, drop).view(-1).nonzero()[:, 0]
        total += float(block.sum())
        count += len(flat)
        if ENTRY * count > limit:
            raise _too_large(f"{count} by row {start + len(block)}", len(x), m, limit)
        parts.append((flat // m + start, flat % m, block.view(-1)[flat]))
    rows, cols, masses = (torch.cat(part) for part in zip(*parts, strict=True))
    dropped = max(0.0, 1 - float(masses.sum()) / total) if total > 0 else 0.0
    return PlanEntries(rows, cols, masses, dropped)


def _kept(block: Tensor, drop: float) -> Tensor:
    return (block > 0) & (block >= block.sum(1, keepdim=True) * (drop / block.shape[1]))


def _too_large(found: str, n: int, m: int, limit: int) -> MemoryBudgetError:
    return MemoryBudgetError(
        f"plan entries: {found} of {n} rows x {m} columns, x {ENTRY} bytes, max_memory={limit}. Raise drop or "
        "max_memory, lower epsilon, or use fewer points."
    )


def _masses(x: Tensor, y: Tensor, plan: EntropicPlan) -> Iterator[tuple[int, Tensor]]:
    """The plan in blocks of rows, each with its first row."""
    centre, scale = x.mean(0), plan.epsilon**0.5
    log_a, log_b = plan.a.log() + plan.f / plan.epsilon, plan.b.log() + plan.g / plan.epsilon
    left, right = factors((x - centre) / scale, (y - centre) / scale, log_a, log_b)
    return ((start, block.exp_()) for start, block in blocks(left, right))


def _thinned(masses: Iterator[tuple[int, Tensor]], n: int, k: int) -> PlanEntries:
    """At most ``k`` entries of each row; written in place, as many small arrays would be scattered over the memory."""
    first, block = next(masses)
    mass, cols = block.new_empty(n, k), torch.empty(n, k, dtype=torch.int64, device=block.device)
    generator = torch.Generator(block.device).manual_seed(0)
    for start, part in chain([(first, block)], masses):
        mass[start : start + len(part)], cols[start : start + len(part)] = thin(part, k, generator).topk(k, 1)
    there = (mass > 0).nonzero(as_tuple=True)
    return PlanEntries(there[0], cols[there], mass[there], 0.0)


def _solve(problem: Problem, tol: float, max_iterations: int) -> tuple[Tensor, Tensor, float, int]:
    """Warm start on a subset at falling temperatures (in units of ``eps``), then the whole problem at temperature 1."""
    start = problem.subset(SUBSET)
    whole = len(start.x) == len(problem.x) and len(start.y) == len(problem.y)
    spread = mean_cost(start.x, start.y, start.log_a.exp(), start.log_b.exp())
    steps = math.ceil(math.log(max(spread, 1.0), COOLING))
    g = torch.zeros_like(start.log_b)
    for step in range(steps, 0 if whole else -1, -1):
        temperature = COOLING**step
        f = soft_min(start, g, temperature)
        _, g, _, _ = _rounds(start, f, temperature, max(tol, 0.1), max_iterations, rounds=3)
    f = soft_min(replace(problem, y=start.y, log_b=start.log_b), g, 1.0)
    return _rounds(problem, f, 1.0, tol, max_iterations, rounds=ROUNDS)


def _rounds(
    problem: Problem, f: Tensor, temperature: float, tol: float, max_iterations: int, rounds: int
) -> tuple[Tensor, Tensor, float, int]:
    """Alternate passes over all pairs with Newton steps on what they keep, until the full marginals hold."""
    used, refreshed = 0, True
    g = soft_min(problem.flipped(), f, temperature)
    for _ in range(rounds):
        kept, error = full_pass(problem, f, g, temperature, tol)
        if error <= tol or used >= max_iterations:
            break
        if not error < 2 and not (refreshed and math.isfinite(error)):  # too far off for the kernel: plain Sinkhorn
            f = soft_min(problem, g, temperature)
            g, refreshed = soft_min(problem.flipped(), f, temperature), True
            continue
        kappa = temperature / problem.tau_a, temperature / problem.tau_b
        scaling = ScalingProblem(*kept.kernel(), *kept.targets(), *kappa)
        phi, psi, pairs = scaling.solve(tol / 2, max_iterations - used)
        f, g, used, refreshed = f + temperature * phi, g + temperature * psi, used + pairs, False
        del kept, scaling  # or the next pass would make a second kernel beside this one
    return f, g, error, used
