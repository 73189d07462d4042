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

from thalweg.tl._flow import Floats, Labels

Cloud = tuple[Floats, Floats]
"""Coordinates ``(n, d)`` and weights ``(n,)``."""


def disperse(predicted: Cloud, sides: Sequence[Cloud], share: float, rng: np.random.Generator) -> Floats:
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


def disperse_within(
    predicted: tuple[Floats, Floats, Labels],
    sides: Sequence[tuple[Floats, Floats, Labels]],
    share: float,
    rng: np.random.Generator,
) -> Floats:
    """`disperse` within each condition, the third entry; one that a side lacks stays as it is."""
    out = predicted[0].copy()
    for label in np.unique(predicted[2]):
        here, *around = [(x[c == label], w[c == label]) for x, w, c in (predicted, *sides)]
        if all(len(x) for x, _ in around):
            out[predicted[2] == label] = disperse(here, around, share, rng)
    return out


def _covariance(x: Floats, weights: Floats) -> Floats:
    w = weights / weights.sum()
    centred = x - w @ x
    out: Floats = centred.T @ (w[:, None] * centred)
    return out
