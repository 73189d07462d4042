r"""The scale of unbalanced plans: how dear growth is, in a number that no unit changes.

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

from thalweg.core.ot.entropic import relative_epsilon
from thalweg.core.ot.exact.pairing import optimal_entries
from thalweg.core.sampling import draw

REG = 0.01
"""``epsilon`` as a share of the mean squared distance: close to exact, and solved in a second."""

PER_ROW = 128
"""Entries of a cell where its plan with all of them does not fit the memory."""

_CELLS = 1500  # of each population behind the scale


def displacement(x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> float:
    """``W``: mean squared displacement of balanced transport, on a part of large populations drawn by their weights.

    Parameters
    ----------
    x0, x1
        Points, shape ``(n0, d)`` and ``(n1, d)``.
    a, b
        Weights; uniform by default.
    """
    start, end = _some(x0, 0, a), _some(x1, 1, b)
    rows, cols, mass = optimal_entries(start, end)
    moved = (start[rows] - end[cols]).double().square().sum(1)
    return float((mass * moved).sum() / mass.sum())


def regularisation(x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> float:
    """``epsilon``: a share of the mean squared distance; where all points are one, any number will do."""
    points = torch.cat([x0, x1])
    return 1.0 if bool((points == points[0]).all()) else relative_epsilon(x0, x1, REG, a=a, b=b)


def log_ratio(weights: Tensor, mass: Tensor) -> Tensor:
    """``log(weight / mass)`` with both summing to one; cells without mass are never drawn."""
    return torch.where(mass > 0, weights.log() - (mass / mass.sum()).log(), 0.0).float()


def _some(x: Tensor, seed: int, weights: Tensor | None = None) -> Tensor:
    """At most ``_CELLS`` cells, always the same ones whatever the device; on the CPU, where the exact solver is."""
    generator, x = torch.Generator().manual_seed(seed), x.cpu()
    if weights is not None and not bool((weights == weights[0]).all()):
        return x[draw(weights.cpu().cumsum(0), min(len(x), _CELLS), generator)]
    return x[torch.randperm(len(x), generator=generator)[:_CELLS]]
