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
subset of both clouds is solved at falling temperatures, and its potentials are extended to all points; then all points
are solved in rounds (``thalweg.core.ot.entropic.start`` describes both). The work is done when the marginals of the
*whole* plan are right. Nothing is drawn from a global generator: the subset comes from one with a fixed seed.

Not guaranteed: the same bits on another machine or number of threads; the constant in the potentials (in the
balanced problem ``f + k, g - k`` is the same plan); convergence for ``eps`` far below the distance of neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg._memory import DEFAULT
from thalweg.core.ot.entropic.passes import restore
from thalweg.core.ot.entropic.problem import Problem, balance, check_options, check_points, mean_cost, shuffled
from thalweg.core.ot.entropic.start import alternate, warm_start
from thalweg.errors import InputError, NotConvergedError

ROUNDS = 100  # passes over all pairs


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


def _solve(problem: Problem, tol: float, max_iterations: int) -> tuple[Tensor, Tensor, float, int]:
    """Warm start, then the whole problem at temperature 1."""
    f = warm_start(problem, tol=max(tol, 0.1), max_iterations=max_iterations, rounds=3, solved_next=True)
    return alternate(problem, f, 1.0, tol, max_iterations, rounds=ROUNDS)
