"""Paths defined by functions, and by geodesics: the velocity comes from automatic differentiation.

| path          | given                           | x_t                 | u_t                            | sigma_t |
|---------------|---------------------------------|---------------------|--------------------------------|---------|
| `GaussianMap` | mu(x0, x1, t), sigma(x0, x1, t) | mu_t + sigma_t eps  | d mu_t/dt + d sigma_t/dt eps   | sigma_t |
| `MapPath`     | T(t, eps, x0, x1)               | T                   | dT/dt at fixed eps, x0, x1     | NaN     |
| `Geodesic`    | a manifold                      | exp_x0(t log_x0 x1) | d x_t/dt, tangent at x_t       | 0       |

The first is the general Gaussian path of Lipman et al. (2023, theorem 3), the second any conditional flow, the third
that of Chen & Lipman (2023) where geodesics have a closed form. Derivatives are forward-mode
(`manifolds.time_derivative`), exact to rounding, and gradients reach every parameter of the functions, so that a path
can itself be learned.

The functions are called on the whole batch: ``x0, x1, eps`` of shape ``(n, ...)``, ``t`` of shape ``(n,)``. Row ``k``
of what they return may depend on row ``k`` of their arguments only; this is not checked.

Not guaranteed: end points (they are what the functions say at 0 and 1), and velocities at times where a function has no
finite derivative: set ``t_range`` so that no time is drawn there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.manifolds import Manifold, time_derivative
from thalweg.core.paths import Batch, GaussianPath, Moments, Path, expand
from thalweg.errors import InputError

PairFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
Transport = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _check_output(name: str, value: Tensor, shape: torch.Size) -> None:
    if value.shape != shape:
        raise InputError(f"{name} must return shape {tuple(shape)}, found {tuple(value.shape)}; nothing is broadcast.")


@dataclass(frozen=True)
class GaussianMap(GaussianPath):
    """Gaussian path with any differentiable mean and standard deviation (Lipman et al. 2023, theorem 3).

    Attributes
    ----------
    mu
        ``mu(x0, x1, t)``, shape ``(n, ...)``.
    sigma
        ``sigma(x0, x1, t) >= 0``, shape ``(n,)``.
    t_range
        Times at which both have finite derivatives.

    Raises
    ------
    InputError
        On use, if a function returns another shape or ``sigma`` a negative value or NaN.
    """

    mu: PairFunction
    sigma: PairFunction
    t_range: tuple[float, float] = (0.0, 1.0)

    def moments(self, x0: Tensor, x1: Tensor, t: Tensor) -> Moments:
        """Values of ``mu`` and ``sigma`` at ``t``, and their time derivatives."""
        mu, dmu = time_derivative(lambda s: self.mu(x0, x1, s), t)
        sigma, dsigma = time_derivative(lambda s: self.sigma(x0, x1, s), t)
        _check_output("mu", mu, x0.shape)
        _check_output("sigma", sigma, t.shape)
        if not bool((sigma >= 0).all()):
            raise InputError(
                f"sigma must not be negative, found {sigma.min().item():g}; a standard deviation is meant."
            )
        return Moments(mu, dmu, sigma, dsigma)


@dataclass(frozen=True)
class MapPath(Path):
    """Path given by a map of the noise, Gaussian or not: ``x_t = T(t, eps, x0, x1)``, ``u_t = dT/dt``.

    ``sigma_t`` of its batches is NaN, because the density of ``x_t`` is not known: a score cannot be learned on it, and
    `losses.score` is NaN rather than wrong.

    Attributes
    ----------
    transport
        ``T(t, eps, x0, x1)``, shape ``(n, ...)``, with ``eps`` standard normal.
    t_range
        Times at which it has a finite derivative.

    Raises
    ------
    InputError
        On use, if the map returns another shape than ``x0``.
    """

    transport: Transport
    t_range: tuple[float, float] = (0.0, 1.0)

    def at(self, x0: Tensor, x1: Tensor, t: Tensor, eps: Tensor) -> Batch:
        """Value of the map at given noise ``eps`` of shape ``(n, ...)``, and its time derivative."""
        x_t, u_t = time_derivative(lambda s: self.transport(s, eps, x0, x1), t)
        _check_output("transport", x_t, x0.shape)
        return Batch(t, x_t, u_t, x0, x1, eps, torch.full_like(t, torch.nan))


@dataclass(frozen=True)
class Geodesic(Path):
    """Shortest path on a manifold, of constant speed (Chen & Lipman 2023). ``eps`` is not used and ``sigma_t = 0``.

    Points are the last axis: ``x0`` of shape ``(n, ..., d)`` holds one or more points in each row, at the row's time.

    Attributes
    ----------
    manifold
        Where the path runs.

    Raises
    ------
    InputError
        On use, for points off the manifold or pairs without a unique shortest path (see `manifolds`).
    """

    manifold: Manifold

    def at(self, x0: Tensor, x1: Tensor, t: Tensor, eps: Tensor) -> Batch:
        """Point and velocity of the geodesic; ``eps`` is passed through."""
        times = expand(t, x0[..., 0]).expand(x0.shape[:-1])
        x_t, u_t = self.manifold.geodesic_and_velocity(x0, x1, times)
        return Batch(t, x_t, u_t, x0, x1, eps, torch.zeros_like(t))
