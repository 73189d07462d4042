"""An optimal plan between two sets of points: by assignment where that is faster, else by the certified solver."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from thalweg.core.ot.exact.problem import checked
from thalweg.core.ot.exact.solver import solve_exact
from thalweg.core.sampling import uniform

ASSIGNMENT = 512  # points up to which a dense assignment beats sparse transport

Entries = tuple[Tensor, Tensor, Tensor]
"""Rows, columns and masses of a plan, on the device of the points."""


def optimal_entries(
    x0: Tensor, x1: Tensor, *, a: Tensor | None = None, b: Tensor | None = None, max_memory: int | None = None
) -> Entries:
    """Entries of an optimal plan for the squared Euclidean cost; see `thalweg.core.couplings.exact`."""
    if a is None and b is None and x0.ndim == 2 and x0.shape == x1.shape and len(x0) <= ASSIGNMENT:
        return _assignment(x0, x1)
    plan = solve_exact(_numpy(x0), _numpy(x1), a=_numpy(a), b=_numpy(b), cost="sqeuclidean", max_memory=max_memory)
    rows, cols, mass = (torch.from_numpy(v).to(x0.device) for v in (plan.rows, plan.cols, plan.mass))
    return rows, cols, mass


def _assignment(x0: Tensor, x1: Tensor) -> Entries:
    """The plan between as many points as points, a permutation, which is faster to find for small blocks."""
    y0, y1 = x0 - x0.mean(0), x1 - x1.mean(0)  # a shift of one cloud changes no assignment
    cost = torch.addmm(y1.square().sum(1)[None], y0, y1.T, alpha=-2)  # |y0|^2 is common to a row, and changes nothing
    if not bool(cost.isfinite().all()):
        checked(_numpy(x0), _numpy(x1), None, None, "sqeuclidean")  # names what is wrong
    rows, cols = (torch.from_numpy(v).to(x0.device) for v in linear_sum_assignment(cost.cpu().numpy()))
    return rows, cols, uniform(len(x0), x0.device)


def _numpy(x: Tensor | None) -> object:
    return None if x is None else x.detach().cpu().numpy()
