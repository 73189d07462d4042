"""The warm start of both transport solvers, and the rounds that solve an entropic problem.

For points in units in which ``eps = 1`` the entropic problem at temperature ``t`` has potentials ``f, g`` such that
the plan ``P_ij = a_i b_j exp((f_i + g_j - C_ij)/t)`` has the marginals asked for. As ``t`` falls they tend to those of
exact transport. Each potential is the soft minimum of the other (`passes.soft_min`):

    f_i = -t log sum_j b_j exp((g_j - C_ij)/t),        times tau_a/(tau_a + t) for a relaxed marginal.

`warm_start` solves a subset of both clouds, the first points of their random order, at ``t = 4^k, ..., 16, 4, 1``.
Each temperature starts from the potentials of the last. The soft minimum then extends them to all points.

`alternate` solves one problem at one temperature, in rounds. A pass over all pairs chooses the entries of ``P`` that
can matter, and sums the marginals of the *whole* plan. If these are right the work is done. Else Newton steps on the
chosen entries (`newton`) improve the potentials. Keeping few entries follows Schmitzer (SIAM Journal on Scientific
Computing 2019).

The entropic solver starts at the mean cost and goes on with `alternate` on all points. The exact solver sets ``eps``
to a small share of the spread of its costs, starts at 4, and takes one round at each temperature. For the distance
in place of its square, points are in units of ``eps`` (`Problem.squared`).

Not guaranteed: that the potentials of a warm start are accurate; the same bits on another number of threads.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from thalweg.core.ot.entropic.newton import ScalingProblem
from thalweg.core.ot.entropic.passes import full_pass, soft_min
from thalweg.core.ot.entropic.problem import Problem, mean_cost

SUBSET = 1500  # points of each cloud in the warm start
COOLING = 4.0  # ratio of successive temperatures


def warm_start(
    problem: Problem,
    hottest: float | None = None,
    *,
    tol: float,
    max_iterations: int,
    rounds: int,
    solved_next: bool,
) -> Tensor:
    """Potential ``f`` of all points near that of temperature 1, from a subset.

    Parameters
    ----------
    problem
        Points in random order.
    hottest
        The first temperature is the lowest power of four that is not below this; None is the mean squared distance in
        the subset.
    tol, max_iterations, rounds
        See `alternate`; they hold for each temperature.
    solved_next
        Whether the caller solves the whole problem next. If the subset is the whole, temperature 1 is left to it.
    """
    part = problem.subset(SUBSET)
    whole = len(part.x) == len(problem.x) and len(part.y) == len(problem.y)
    if hottest is None:
        hottest = mean_cost(part.x, part.y, part.log_a.exp(), part.log_b.exp())
    steps = math.ceil(math.log(max(hottest, 1.0), COOLING))
    g = torch.zeros_like(part.log_b)
    for step in range(steps, 0 if whole and solved_next else -1, -1):
        temperature = COOLING**step
        f = soft_min(part, g, temperature)
        _, g, _, _ = alternate(part, f, temperature, tol, max_iterations, rounds)
    return soft_min(replace(problem, y=part.y, log_b=part.log_b), g, 1.0)


def alternate(
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
