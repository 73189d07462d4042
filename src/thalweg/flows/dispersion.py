r"""The dispersion that averaging takes away, and how to give it back.

Along straight paths between coupled cells the covariance of ``x_t = (1 - t) x_0 + t x_1`` falls short of the
interpolated one by that of the displacements,

.. math:: \operatorname{Cov}(x_t) = (1-t) \operatorname{Cov}(x_0) + t \operatorname{Cov}(x_1)
    - t (1-t) \operatorname{Cov}(x_1 - x_0),

because two coupled cells do not share their noise. Real populations do not contract between two samplings. Gaussian
noise with the covariance that is missing, where it is missing, makes up for it: a Brownian bridge at one time, whose
diffusion is that of the data in every direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thalweg.data.cells import Cells
from thalweg.flows.carry import Cloud
from thalweg.flows.time_axis import TimeAxis

Floats = NDArray[np.float64]
Weighted = tuple[Floats, Floats]
"""Coordinates ``(n, d)`` and weights ``(n,)``."""


def disperse(predicted: Weighted, sides: Sequence[Weighted], share: float, rng: np.random.Generator) -> Floats:
    """Predicted cells with noise of the missing covariance.

    Parameters
    ----------
    predicted
        The cells carried to a time.
    sides
        The cells observed before and after it.
    share
        How far between them it lies, from 0 to 1.
    rng
        Source of the noise.
    """
    x, _ = predicted
    target = (1 - share) * _covariance(*sides[0]) + share * _covariance(*sides[1])
    values, vectors = np.linalg.eigh(target - _covariance(*predicted))
    return x + rng.normal(size=x.shape) @ (vectors * np.sqrt(values.clip(0))).T


def disperse_cloud(cloud: Cloud, cells: Cells, axis: TimeAxis, time: float, rng: np.random.Generator) -> Floats:
    """Coordinates of a predicted cloud, dispersed within each condition that has a time on both sides."""
    out, labels = cloud.x.copy(), cells.stratum[cloud.rows]
    for condition in np.unique(labels).tolist():
        observed = cells.times_of(condition)
        before, after = observed[observed < time], observed[observed > time]
        if len(before) and len(after):
            own, lo, hi = labels == condition, float(before[-1]), float(after[0])
            sides = [(cells.x[r], cells.weights[r]) for r in (cells.rows(t, condition) for t in (lo, hi))]
            out[own] = disperse((cloud.x[own], cloud.weight[own]), sides, axis.share(lo, time, hi), rng)
    return out


def _covariance(x: Floats, weights: Floats) -> Floats:
    w = weights / weights.sum()
    centred = x - w @ x
    out: Floats = centred.T @ (w[:, None] * centred)
    return out
