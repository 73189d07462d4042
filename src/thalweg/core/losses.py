"""Losses: compare a model with a batch, one value for each sample.

A model is called ``model(t, x_t, condition)`` with ``t`` of shape ``(n,)`` and ``x_t`` of shape ``(n, ...)`` and
returns the shape of ``x_t``. Squared norms are means over the feature axes, ``||r||^2 / d``, so that weights published
for image models keep their meaning. Nothing is reduced over samples: the caller averages.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from thalweg.core.manifolds import Manifold
from thalweg.core.paths import Batch, expand
from thalweg.errors import InputError

Model = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def mean_square(residual: Tensor) -> Tensor:
    """``||r||^2 / d`` for each row, shape ``(n,)``."""
    return residual.flatten(1).square().mean(1)


def predict(model: Model, batch: Batch) -> Tensor:
    """Value of the model on the batch; refuses an output of another shape than ``x_t``.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    out = model(batch.t, batch.x_t, batch.condition)
    if out.shape != batch.x_t.shape:
        raise InputError(f"the model returned shape {tuple(out.shape)} for x_t of shape {tuple(batch.x_t.shape)}.")
    return out


def velocity(model: Model, batch: Batch) -> Tensor:
    """Conditional flow-matching loss ``||v(t, x_t) - u_t||^2 / d`` (Lipman et al. 2023, eq. 9; Tong et al. 2024).

    Parameters
    ----------
    model
        Velocity field ``v``.
    batch
        Batch of ``n`` samples.

    Returns
    -------
    Loss of each sample, shape ``(n,)``.

    Raises
    ------
    InputError
        If the model's output has another shape than ``x_t``.
    """
    return mean_square(predict(model, batch) - batch.u_t)


def score(model: Model, batch: Batch, *, scale: float | Tensor = 1.0) -> Tensor:
    """Denoising score-matching loss ``||scale sigma_t s(t, x_t) + eps||^2 / d``.

    With ``scale = 1`` the minimiser is the score ``grad log p_t`` (Song et al. 2021). With ``scale = 2 / sigma^2`` on a
    Brownian bridge of diffusion ``sigma`` this is the [SF]2M loss with ``lambda_t = 2 sqrt(t(1-t)) / sigma``, whose
    minimiser is ``(sigma^2 / 2) grad log p_t`` (Tong et al. 2024, eq. 12): the drift to add to the velocity.

    Parameters
    ----------
    model
        Score field ``s``.
    batch
        Batch of ``n`` samples.
    scale
        Positive factor, scalar or shape ``(n,)``.

    Returns
    -------
    Loss of each sample, shape ``(n,)``.

    Raises
    ------
    InputError
        If the model's output has another shape than ``x_t``.
    """
    return mean_square(expand(scale * batch.sigma_t, batch.eps) * predict(model, batch) + batch.eps)


def riemannian_velocity(model: Model, batch: Batch, manifold: Manifold) -> Tensor:
    """Riemannian flow-matching loss ``||P v(t, x_t) - u_t||^2_g / d`` (Chen & Lipman 2023).

    ``P`` projects the model's output on the tangent space at ``x_t``. The squared length is divided by
    the number of coordinates of a sample, so that on flat space this is `velocity`.

    Parameters
    ----------
    model
        Velocity field ``v``, in coordinates of the surrounding space.
    batch
        Batch of ``n`` samples, ``x_t`` of shape ``(n, ..., d)`` on the manifold and ``u_t`` tangent there.
    manifold
        The manifold, which holds the metric ``g``.

    Returns
    -------
    Loss of each sample, shape ``(n,)``.

    Raises
    ------
    InputError
        If the model's output has another shape or dtype than ``x_t``.
    """
    v = manifold.to_tangent(batch.x_t, model(batch.t, batch.x_t, batch.condition))
    squared = manifold.sqnorm(batch.x_t, v - batch.u_t)
    return squared.reshape(len(batch), -1).sum(1) / batch.x_t[0].numel()
