"""Log likelihood of continuous normalising flows, maximum-likelihood training, and bits per dimension of images.

If ``dx/dt = v(t, x)`` carries ``p_0`` to ``p_1``, then along each solution (Chen et al. 2018, theorem 1)

    d log p_t(x_t)/dt = - div v(t, x_t),
    log p_1(x1) = log p_0(x_0) - int_0^1 div v(t, x_t) dt.

``x_t`` and the integral are solved together, backwards from ``x1``. The divergence is exact, by ``d`` vector-Jacobian
products, or Hutchinson's estimate ``e^T (dv/dx) e`` with ``E e e^T = I`` (Grathwohl et al. 2019), unbiased for any such
``e``. The probe ``e`` has entries +-1, is drawn once for each row and held during a solve, so that the right-hand side
is a smooth function of time.

For images of 8 bits scaled to [-1, 1], a density ``p`` of the dequantised image bounds the code length from above:

    bits/dim = - log p / (d ln 2) + 7      (one grey level is 2/256 = 2^-7 wide),

tightened by averaging ``p`` over ``K`` dequantisations: a figure is comparable only with its ``K``.

Everything is differentiable in the parameters of the field, through the solver's own steps; run an evaluation under
``torch.no_grad()`` so that no graph is kept. Rows of ``field(t, x)`` must not depend on one another. With an adaptive
solver the error is controlled jointly over rows, coordinates and log density.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from thalweg.core.dynamics.ode import Field, odeint
from thalweg.core.losses import Model
from thalweg.core.paths import Batch
from thalweg.errors import InputError

LogDensity = Callable[[Tensor], Tensor]
Trace = Literal["exact", "hutchinson"]


@dataclass(frozen=True)
class Solver:
    """How the augmented ODE is solved; the fields are the options of `ode.odeint`.

    Tolerances are tighter than for samples: an error of ``x_0`` enters the log density times ``|grad log p_0|``, large
    for outliers.
    """

    method: str = "dopri5"
    n_steps: int = 100
    rtol: float = 1e-6
    atol: float = 1e-6


DEFAULT_SOLVER = Solver()


def log_standard_normal(x: Tensor) -> Tensor:
    """Log density in nats of N(0, I) at the rows of ``x`` (n, ...), shape ``(n,)``."""
    return -0.5 * (x.flatten(1).square() + math.log(2 * math.pi)).sum(1)


def divergence(field: Field, t: Tensor, x: Tensor) -> Tensor:
    """Exact divergence ``sum_i d v_i/d x_i`` at each row, by one backward pass for each coordinate.

    Parameters
    ----------
    field
        ``field(t, x)`` of the shape of ``x``, row by row.
    t
        Scalar time.
    x
        Points, shape ``(n, ...)``; meant for up to some hundred coordinates.

    Returns
    -------
    Divergences, shape ``(n,)``; differentiable when gradients are enabled.

    Raises
    ------
    InputError
        If the field returns another shape.
    """
    return _value_and_divergence(field, t, x, None)[1]


def hutchinson(field: Field, t: Tensor, x: Tensor, probe: Tensor) -> Tensor:
    """Estimate ``e^T (dv/dx) e`` of the divergence at each row, by one backward pass (Grathwohl et al. 2019).

    Parameters
    ----------
    field, t, x
        As in `divergence`.
    probe
        ``e``, of the shape of ``x``, with independent entries of mean 0 and variance 1; signs (`rademacher`) have the
        smallest variance and are exact where the Jacobian is diagonal.

    Returns
    -------
    Estimates, shape ``(n,)``; differentiable when gradients are enabled.

    Raises
    ------
    InputError
        If the field's value or the probe has another shape than ``x``.
    """
    if probe.shape != x.shape:
        raise InputError(f"probe must have the shape of x {tuple(x.shape)}, found {tuple(probe.shape)}.")
    return _value_and_divergence(field, t, x, probe)[1]


def rademacher(x: Tensor, generator: torch.Generator) -> Tensor:
    """Independent signs +-1 of the shape and dtype of ``x``."""
    return torch.randint(0, 2, x.shape, generator=generator, device=x.device).to(x) * 2 - 1


def log_likelihood(
    field: Field,
    x1: Tensor,
    log_source: LogDensity,
    *,
    method: Trace = "exact",
    generator: torch.Generator | None = None,
    solver: Solver = DEFAULT_SOLVER,
) -> Tensor:
    """Log density of the flow at ``t = 1``.

    Parameters
    ----------
    field
        Velocity ``field(t, x)`` with ``t`` a scalar tensor.
    x1
        Points, shape ``(n, ...)``.
    log_source
        Log density at ``t = 0`` in nats: rows ``(n, ...)`` to ``(n,)``; `log_standard_normal` for Gaussian noise.
    method
        ``"exact"`` divergence, or ``"hutchinson"``: unbiased for the log density, with one backward pass an evaluation.
    generator
        Source of the probe, on the device of ``x1``; required by ``"hutchinson"`` alone.
    solver
        Options of the ODE solver.

    Returns
    -------
    Log densities in nats, shape ``(n,)``.

    Raises
    ------
    InputError
        If ``method`` is unknown, the generator is missing or not needed, or a shape does not match.
    NotConvergedError
        If the solution stops being finite.
    """
    if method not in get_args(Trace):
        raise InputError(f"method={method!r} is unknown; choose one of {', '.join(get_args(Trace))}.")
    if (method == "hutchinson") != (generator is not None):
        raise InputError("generator is the source of the probe: give one with method='hutchinson', and only then.")
    if x1.ndim < 2:
        raise InputError(f"x1 must have shape (n, ...) with at least two axes, found {tuple(x1.shape)}.")
    probe = None if generator is None else rademacher(x1, generator)

    def augmented(t: Tensor, state: Tensor) -> Tensor:
        v, div = _value_and_divergence(field, t, state[:, :-1].reshape(x1.shape), probe)
        return torch.cat([v.flatten(1), div[:, None]], 1)

    start = torch.cat([x1.flatten(1), x1.new_zeros(len(x1), 1)], 1)
    options = {"n_steps": solver.n_steps, "rtol": solver.rtol, "atol": solver.atol}
    end = odeint(augmented, start, (1.0, 0.0), method=solver.method, **options)[-1]  # type: ignore[arg-type]
    log_p0 = log_source(end[:, :-1].reshape(x1.shape))
    if log_p0.shape != x1.shape[:1]:
        raise InputError(f"log_source must return shape ({len(x1)},), found {tuple(log_p0.shape)}.")
    return log_p0 + end[:, -1]


def negative_log_likelihood(
    model: Model,
    batch: Batch,
    log_source: LogDensity = log_standard_normal,
    *,
    method: Trace = "exact",
    generator: torch.Generator | None = None,
    solver: Solver = DEFAULT_SOLVER,
) -> Tensor:
    """Maximum-likelihood loss ``-log p_1(x1)`` of a model used as a flow (Chen et al. 2018; Grathwohl et al. 2019).

    Parameters
    ----------
    model
        Velocity field ``model(t, x, condition)`` with one time for each row.
    batch
        Batch of ``n`` samples; of it, ``x1`` and ``condition`` are used.
    log_source, method, generator, solver
        As in `log_likelihood`.

    Returns
    -------
    Loss of each sample in nats (not divided by the number of coordinates), shape ``(n,)``.

    Raises
    ------
    InputError, NotConvergedError
        As `log_likelihood`.
    """

    def field(t: Tensor, x: Tensor) -> Tensor:
        return model(t.expand(len(x)), x, batch.condition)

    return -log_likelihood(field, batch.x1, log_source, method=method, generator=generator, solver=solver)


def bits_per_dim(log_p: Tensor, d: int) -> Tensor:
    """Code length ``-log p/(d ln 2) + 7`` of 8-bit images scaled to [-1, 1], in bits for each of ``d`` values.

    Parameters
    ----------
    log_p
        Log density in nats, shape ``(n,)``.
    d
        Number of values of an image (3072 for 32 x 32 colour).
    """
    if d < 1:
        raise InputError(f"d must be at least 1, found {d}.")
    return log_p / (-d * math.log(2)) + 7


def dequantise(x: Tensor, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform dequantisation ``(x + U[0,1))/128 - 1`` of 8-bit values, into [-1, 1].

    Raises
    ------
    InputError
        If ``x`` is not of dtype uint8.
    """
    if x.dtype != torch.uint8:
        raise InputError(
            f"x must hold 8-bit values, dtype uint8, found {x.dtype}; scaled images cannot be dequantised."
        )
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=dtype)
    return (x.to(dtype) + noise) / 128 - 1


def importance_bits(log_density: LogDensity, x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Bits per dimension from ``k`` dequantisations: ``log mean_k p`` in place of ``log p``.

    In expectation never larger than with fewer samples, and never below the code length of the discrete image
    (Burda et al. 2016, theorem 1). State ``k`` beside the figure.

    Parameters
    ----------
    log_density
        Log density in nats: images ``(n, ...)`` in [-1, 1] to ``(n,)``.
    x
        Images of dtype uint8, shape ``(n, ...)``.
    k
        Number of samples; evaluated one after another.
    generator
        Source of the dequantisation noise, on the device of ``x``.

    Returns
    -------
    Bits per dimension, shape ``(n,)``.

    Raises
    ------
    InputError
        If ``k < 1`` or ``x`` is not of dtype uint8.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, found {k}.")
    log_p = torch.stack([log_density(dequantise(x, generator)) for _ in range(k)])
    return bits_per_dim(torch.logsumexp(log_p, 0) - math.log(k), x[0].numel())


def _value_and_divergence(field: Field, t: Tensor, x: Tensor, probe: Tensor | None) -> tuple[Tensor, Tensor]:
    """Field and its divergence, exact or along the probe; part of the caller's graph when gradients are enabled."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        point = x if keep and x.requires_grad else x.detach().requires_grad_()
        v = field(t, point)
        if v.shape != x.shape:
            raise InputError(f"the field returned shape {tuple(v.shape)} for x of shape {tuple(x.shape)}.")
        if not v.requires_grad:  # a constant field
            return v, x.new_zeros(len(x))
        if probe is None:
            div = _exact_trace(v, point, keep)
        else:
            (row,) = torch.autograd.grad(v, point, probe, create_graph=keep, materialize_grads=True)
            div = (row * probe).flatten(1).sum(1)
    return (v, div) if keep else (v.detach(), div)


def _exact_trace(v: Tensor, point: Tensor, keep: bool) -> Tensor:
    total = point.new_zeros(len(point))
    # Rows are independent, so the gradient of one coordinate summed over rows is its row of each Jacobian.
    for i, column in enumerate(v.flatten(1).unbind(1)):
        (row,) = torch.autograd.grad(column.sum(), point, create_graph=keep, retain_graph=True, materialize_grads=True)
        total = total + row.flatten(1)[:, i]
    return total
