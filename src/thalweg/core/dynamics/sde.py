"""The family of SDEs with the marginals of an ODE, and conversions between velocity and score.

If ``dx/dt = v(t, x)`` carries ``p_0`` to ``p_t`` and ``s = grad log p_t``, then for any ``w(t) >= 0`` so do
(Song et al. 2021; Albergo et al. 2023)

    forwards    dX = [v + w s/2] dt + sqrt(w) dW,          X_0 ~ p_0
    backwards   dX = [v - w s/2] dt + sqrt(w) dW,          X_1 ~ p_1, t from 1 to 0

``w = 0`` is the ODE. A Schrödinger bridge of diffusion ``sigma`` is ``w = sigma^2``; [SF]2M learns ``(sigma^2/2) s``
itself, which is added to ``v`` as it is.

For a path from Gaussian noise, ``x_t = alpha_t x1 + sigma_t eps``, velocity and score of the marginal determine each
other:

    v = (alpha'/alpha) x + (sigma^2 alpha'/alpha - sigma sigma') s
    s = (alpha v - alpha' x) / (sigma (sigma alpha' - alpha sigma'))

and ``s = (t v - x)/(1-t)`` on the straight path ``alpha = t, sigma = 1-t``.

Not guaranteed: that ``s`` is the score of ``v``'s own flow. Where both are learned, marginals differ by their errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.core.dynamics.marginal import check_points
from thalweg.core.dynamics.ode import Field
from thalweg.core.paths import GaussianPath, expand
from thalweg.errors import InputError

Noise = float | Callable[[float], float]


def _noise_at(w: Noise, t: float) -> float:
    value = w(t) if callable(w) else w
    if not (value >= 0 and math.isfinite(value)):
        raise InputError(f"w must be finite and not negative, found {value} at t={t:g}.")
    return value


def diffusion(w: Noise) -> Callable[[float], float]:
    """``sqrt(w)`` as a function of time: the ``diffusion`` argument of `ode.sdeint`.

    Raises
    ------
    InputError
        On use, if ``w`` is negative or not finite.
    """
    return lambda t: math.sqrt(_noise_at(w, t))


def forward_drift(velocity: Field, score: Field, w: Noise) -> Field:
    """Drift ``v + w s/2`` of the SDE run forwards in time.

    Parameters
    ----------
    velocity, score
        Fields ``(t, x) -> (n, ...)`` with ``t`` a scalar tensor.
    w
        Variance of the noise in unit time: a number or a function of time.

    Returns
    -------
    The drift, for `ode.sdeint` with ``diffusion(w)`` and increasing times.

    Raises
    ------
    InputError
        On use, if ``w`` is negative or not finite.
    """
    return lambda t, x: velocity(t, x) + (0.5 * _noise_at(w, t.item())) * score(t, x)


def reverse_drift(velocity: Field, score: Field, w: Noise) -> Field:
    """Drift ``v - w s/2``, for `ode.sdeint` with decreasing times; arguments as `forward_drift`."""
    return lambda t, x: velocity(t, x) - (0.5 * _noise_at(w, t.item())) * score(t, x)


def score_from_velocity(path: GaussianPath, t: Tensor, x: Tensor, velocity: Tensor) -> Tensor:
    """Score of the marginal at ``x``, given its velocity there.

    Parameters
    ----------
    path
        Path from Gaussian noise, ``mu_t = alpha_t x1``: `paths.GaussianOT`, `paths.VPDiffusion` or a `maps.GaussianMap`
        of that form. ``GaussianOT(sigma_min=0)`` is the straight path.
    t
        Times, shape ``(n,)``.
    x, velocity
        Points and the marginal velocity there, shape ``(n, ...)``.

    Returns
    -------
    Score, shape ``(n, ...)``.

    Raises
    ------
    InputError
        If shapes do not match, the path's mean depends on ``x0``, or ``sigma_t = 0`` at a time.
    """
    alpha, dalpha, sigma, dsigma = _schedule(path, t, x, velocity)
    if not bool((sigma > 0).all()):
        raise InputError(
            "sigma_t is 0 at a time in t: the score is unbounded there; use times where the path has noise."
        )
    return (alpha * velocity - dalpha * x) / (sigma * (sigma * dalpha - alpha * dsigma))


def velocity_from_score(path: GaussianPath, t: Tensor, x: Tensor, score: Tensor) -> Tensor:
    """Velocity of the marginal at ``x``, given its score there; arguments as `score_from_velocity`.

    Raises
    ------
    InputError
        If shapes do not match, the path's mean depends on ``x0``, or ``alpha_t = 0`` at a time, where the score is that
        of the noise whatever the velocity.
    """
    alpha, dalpha, sigma, dsigma = _schedule(path, t, x, score)
    if not bool((alpha != 0).all()):
        raise InputError(
            "alpha_t is 0 at a time in t: the score does not determine the velocity there; use later times."
        )
    return (dalpha * x + sigma * (sigma * dalpha - alpha * dsigma) * score) / alpha


def _schedule(path: GaussianPath, t: Tensor, x: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """``alpha_t, d alpha_t/dt, sigma_t, d sigma_t/dt``, each of shape ``(n, 1, ..., 1)``."""
    check_points(t, x)
    if value.shape != x.shape:
        raise InputError(f"velocity or score must have the shape of x {tuple(x.shape)}, found {tuple(value.shape)}.")
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    if bool((path.moments(one, zero, t).mu != 0).any()):
        raise InputError(
            f"the mean of {type(path).__name__} depends on x0, so its noise is not its source; for the straight path"
            " from Gaussian noise pass GaussianOT(sigma_min=0)."
        )
    m = path.moments(zero, one, t)
    return m.mu, m.dmu, expand(m.sigma, x), expand(m.dsigma, x)
