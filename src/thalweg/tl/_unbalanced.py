r"""Unbalanced plans, and how much imbalance a course calls for.

Between two populations the plan minimises, with ``C`` the squared distance and ``W`` the mean squared displacement of
balanced transport,

.. math:: \langle \pi, C \rangle + \epsilon\, KL(\pi | a b^T) + r W \left[KL(\pi 1 | a) + KL(\pi^T 1 | b)\right]

(Chizat et al. 2018). The relaxation ``r`` is a pure number: rescaling, rotating or shifting the data changes nothing.
Large values give balanced transport; as ``r`` falls, what would have to move much further than the average cell appears
and vanishes in place instead, and the populations change in their proportions.

Choice of ``r``. Each interior time of the course is predicted from its neighbours by the straight paths of the plan,
weighted by the mass on them, and scored by W1, for each candidate; the lowest mean, relative to balanced transport,
wins. That uses the times of the fit alone, so a time left out by `leave_one_out` stays unseen. With two times there is
nothing to choose by: ``r = 1``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg._settings import logger
from thalweg.core import couplings, distances

CANDIDATES = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)
DEFAULT = 1.0
_REG = 0.01  # of the mean squared distance: close to exact, and solved in a second
_CELLS = 1500  # of each population behind the choice and the scale


def unbalanced(
    x0: Tensor,
    x1: Tensor,
    relaxation: float,
    *,
    a: Tensor | None = None,
    b: Tensor | None = None,
    max_memory: int | None = None,
) -> couplings.Plan:
    """Unbalanced plan; the arguments are those of `thalweg.core.couplings.entropic`."""
    tau = relaxation * _displacement(x0, x1, a, b)
    return couplings.entropic(x0, x1, reg_relative=_REG, tau=tau or None, a=a, b=b, max_memory=max_memory)


def log_ratio(weights: Tensor, mass: Tensor) -> Tensor:
    """``log(weight / mass)`` with both summing to one; cells without mass are never drawn."""
    return torch.where(mass > 0, weights.log() - (mass / mass.sum()).log(), 0.0).float()


def choose_relaxation(populations: Sequence[Tensor], tau: NDArray[np.float64]) -> float:
    """Choose the relaxation of a course.

    Parameters
    ----------
    populations
        Cells of each time, shape ``(n_k, d)``.
    tau
        Model time of each.
    """
    if len(populations) < 3:
        return DEFAULT
    some = [_some(x, k) for k, x in enumerate(populations)]
    scores = np.zeros(len(CANDIDATES))
    for k in range(1, len(some) - 1):
        share = float((tau[k] - tau[k - 1]) / (tau[k + 1] - tau[k - 1]))
        balanced = _error(some[k - 1], some[k], some[k + 1], share, None)
        scores += [_error(some[k - 1], some[k], some[k + 1], share, r) / balanced for r in CANDIDATES]
    chosen = CANDIDATES[int(scores.argmin())]
    logger.info("relaxation %g predicts the interior times of the fit best", chosen)
    return chosen


def _error(x0: Tensor, real: Tensor, x1: Tensor, share: float, relaxation: float | None) -> float:
    """W1 of the plan's straight paths at ``share`` of the way to the real cells."""
    plan = couplings.exact(x0, x1) if relaxation is None else unbalanced(x0, x1, relaxation)
    rows, cols = plan.sample(2 * _CELLS, torch.Generator().manual_seed(0))
    log_mass = torch.zeros(len(rows))
    if relaxation is not None:
        leaving, arriving = plan.marginals()
        m0 = log_ratio(couplings.uniform(len(x0)), leaving)[rows]
        m1 = log_ratio(couplings.uniform(len(x1)), arriving)[cols]
        log_mass = (1 - share) * m0 + share * m1
    weights = torch.softmax(log_mass.double(), 0).numpy()
    points = (1 - share) * x0[rows] + share * x1[cols]
    return distances.wasserstein(points.numpy(), real.numpy(), a=weights)


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
