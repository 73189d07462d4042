r"""Unbalanced plans, on a scale of imbalance that no unit changes.

Between two populations the plan minimises, with ``C`` the squared distance and ``W`` the mean squared displacement of
balanced transport,

.. math:: \langle \pi, C \rangle + \epsilon\, KL(\pi | a b^T) + r W \left[KL(\pi 1 | a) + KL(\pi^T 1 | b)\right]

(Chizat et al. 2018). The relaxation ``r`` is a pure number: rescaling, rotating or shifting the data changes nothing.
Large values give balanced transport; as ``r`` falls, what would have to move much further than the average cell appears
and vanishes in place instead, and the populations change in their proportions.

Not guaranteed: that growth and movement are told apart, which snapshots alone cannot do. Growth at the front of a cloud
explains a part of any translation, so small ``r`` makes velocities too short.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.core import couplings

_REG = 0.01  # of the mean squared distance: close to exact, and solved in a second
_PER_ROW = 128  # entries of a cell where its plan with all of them does not fit the memory
_CELLS = 1500  # of each population behind the scale


def unbalanced(
    x0: Tensor,
    x1: Tensor,
    relaxation: float,
    *,
    a: Tensor | None = None,
    b: Tensor | None = None,
    max_memory: int | None = None,
) -> couplings.Plan:
    """Unbalanced plan, thinned if need be; the arguments are those of `thalweg.core.couplings.entropic`."""
    tau = relaxation * _displacement(x0, x1, a, b) or None
    return couplings.entropic(x0, x1, reg_relative=_REG, tau=tau, a=a, b=b, max_memory=max_memory, per_row=_PER_ROW)


def log_ratio(weights: Tensor, mass: Tensor) -> Tensor:
    """``log(weight / mass)`` with both summing to one; cells without mass are never drawn."""
    return torch.where(mass > 0, weights.log() - (mass / mass.sum()).log(), 0.0).float()


def _displacement(x0: Tensor, x1: Tensor, a: Tensor | None, b: Tensor | None) -> float:
    """Mean squared displacement of balanced transport, on a part of large populations drawn by their weights."""
    ends = [_some(x, k, w) for k, (x, w) in enumerate(((x0, a), (x1, b)))]
    plan = couplings.exact(*ends)
    moved = (ends[0][plan.rows] - ends[1][plan.cols]).double().square().sum(1)
    return float((plan.mass * moved).sum() / plan.mass.sum())


def _some(x: Tensor, seed: int, weights: Tensor | None = None) -> Tensor:
    """At most ``_CELLS`` cells, always the same ones."""
    generator = torch.Generator().manual_seed(seed)
    if weights is not None and not bool((weights == weights[0]).all()):
        return x[couplings.draw(weights.cumsum(0), min(len(x), _CELLS), generator)].cpu()
    return x[torch.randperm(len(x), generator=generator)[:_CELLS]].cpu()
