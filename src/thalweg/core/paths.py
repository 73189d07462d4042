"""Probability paths: how a pair of end points becomes a training example.

One direction everywhere: ``t = 0`` is the source ``x0``, ``t = 1`` the target ``x1``. A conditional Gaussian path is

    x_t = mu_t(x0, x1) + sigma_t eps,          eps ~ N(0, I)
    u_t = d mu_t/dt    + d sigma_t/dt eps      (the derivative of x_t at fixed eps)

so a path is its four moments ``mu_t, d mu_t/dt, sigma_t, d sigma_t/dt``; everything else follows from them.

Paths with Gaussian source (`GaussianOT`, `VPDiffusion`) do not use ``x0``: their noise *is* the source.
Not guaranteed: values at times outside ``t_range``, where some velocities are unbounded; draw times with `Path.draw_t`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.errors import InputError

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Batch:
    """What a loss sees; all tensors share their first axis.

    Attributes
    ----------
    t
        Times handed to the model, shape ``(n,)``.
    x_t
        Points on the path, shape ``(n, ...)``.
    u_t
        Conditional velocities, same shape as ``x_t``.
    x0, x1
        End points of each pair, same shape as ``x_t``.
    eps
        The noise of each sample, same shape as ``x_t``.
    sigma_t
        Standard deviation of ``x_t`` given its pair, shape ``(n,)``.
    condition
        Integer label of each sample, shape ``(n,)``, or None.
    """

    t: Tensor
    x_t: Tensor
    u_t: Tensor
    x0: Tensor
    x1: Tensor
    eps: Tensor
    sigma_t: Tensor
    condition: Tensor | None = None

    def __len__(self) -> int:
        return self.t.shape[0]


class Moments(NamedTuple):
    """``mu_t``, ``d mu_t/dt`` of shape ``(n, ...)`` and ``sigma_t``, ``d sigma_t/dt`` of shape ``(n,)``."""

    mu: Tensor
    dmu: Tensor
    sigma: Tensor
    dsigma: Tensor


def expand(t: Tensor, like: Tensor) -> Tensor:
    """Reshape ``t`` of shape ``(n,)`` to ``(n, 1, ..., 1)`` so that it multiplies ``like`` row by row."""
    return t.reshape(-1, *[1] * (like.ndim - 1))


def check_pair(x0: Tensor, x1: Tensor, t: Tensor) -> None:
    """Refuse shapes that would broadcast by accident and times outside [0, 1].

    Raises
    ------
    InputError
        If ``x0`` and ``x1`` differ in shape, ``t`` is not ``(n,)``, or a time lies outside [0, 1].
    """
    if x0.shape != x1.shape or x0.ndim < 2:
        raise InputError(
            f"x0 and x1 must have one shape (n, ...), found {tuple(x0.shape)} and {tuple(x1.shape)}; "
            "pair the rows first."
        )
    if t.shape != x0.shape[:1]:
        raise InputError(f"t must have shape ({x0.shape[0]},), one time for each pair, found {tuple(t.shape)}.")
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise InputError(f"t must lie in [0, 1], found [{t.min().item():g}, {t.max().item():g}].")


class Path(ABC):
    """A conditional probability path between the two ends of a pair."""

    #: Times at which the velocity is bounded; `draw_t` stays inside.
    t_range: tuple[float, float] = (0.0, 1.0)

    def draw_t(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw ``n`` uniform times within `t_range`, shape ``(n,)``, on the generator's device."""
        lo, hi = self.t_range
        return lo + (hi - lo) * torch.rand(n, generator=generator, device=generator.device, dtype=dtype)

    def spread_t(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float32, *, n_values: int | None = None
    ) -> Tensor:
        """Draw ``n`` times, each uniform within `t_range`, that together cover it evenly, shape ``(n,)``.

        Multiples of the golden ratio from a random start, modulo one: any run of rows is spread as well as it can be,
        so a mean over a batch has far less noise from its times than with `draw_t`. Rows are not independent. With
        ``n_values``, each time is the middle of the one of as many equal parts that it falls into.
        """
        lo, hi = self.t_range
        start = torch.rand(1, generator=generator, device=generator.device, dtype=torch.float64)
        steps = torch.arange(n, device=generator.device, dtype=torch.float64) * _GOLDEN
        share = (start + steps) % 1.0
        if n_values is not None:
            share = ((share * n_values).floor() + 0.5) / n_values
        return lo + (hi - lo) * share.to(dtype)

    def __call__(self, x0: Tensor, x1: Tensor, t: Tensor, generator: torch.Generator) -> Batch:
        """Draw one point of the path for each pair.

        Parameters
        ----------
        x0, x1
            Ends of each pair, shape ``(n, ...)``.
        t
            Times in [0, 1], shape ``(n,)``.
        generator
            Source of the noise, on the device of ``x0``.

        Returns
        -------
        The batch ``(t, x_t, u_t, ...)``.

        Raises
        ------
        InputError
            If the shapes do not match or a time lies outside [0, 1].
        """
        check_pair(x0, x1, t)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        return self.at(x0, x1, t, eps)

    @abstractmethod
    def at(self, x0: Tensor, x1: Tensor, t: Tensor, eps: Tensor) -> Batch:
        """Evaluate the path at given noise ``eps`` of shape ``(n, ...)``."""


class GaussianPath(Path):
    """A path that is Gaussian given its pair; subclasses state its moments."""

    @abstractmethod
    def moments(self, x0: Tensor, x1: Tensor, t: Tensor) -> Moments:
        """Mean, standard deviation and their time derivatives at ``t``."""

    def at(self, x0: Tensor, x1: Tensor, t: Tensor, eps: Tensor) -> Batch:
        m = self.moments(x0, x1, t)
        x_t = m.mu + expand(m.sigma, eps) * eps
        u_t = m.dmu + expand(m.dsigma, eps) * eps
        return Batch(t, x_t, u_t, x0, x1, eps, m.sigma)


@dataclass(frozen=True)
class Linear(GaussianPath):
    """Straight line with constant noise: I-CFM and OT-CFM (Tong et al. 2024); rectified flow at ``sigma = 0``.

    ``mu_t = (1-t) x0 + t x1``, ``sigma_t = sigma``, so ``u_t = x1 - x0``.
    """

    sigma: float | Tensor = 0.0

    def moments(self, x0: Tensor, x1: Tensor, t: Tensor) -> Moments:
        tt = expand(t, x0)
        return Moments((1 - tt) * x0 + tt * x1, x1 - x0, self.sigma * torch.ones_like(t), torch.zeros_like(t))


@dataclass(frozen=True)
class Trigonometric(GaussianPath):
    """Variance-preserving interpolant of Albergo & Vanden-Eijnden (2023).

    ``mu_t = cos(pi t/2) x0 + sin(pi t/2) x1``, ``sigma_t = 0``.
    """

    def moments(self, x0: Tensor, x1: Tensor, t: Tensor) -> Moments:
        angle = expand(t, x0) * (math.pi / 2)
        cos, sin = torch.cos(angle), torch.sin(angle)
        zero = torch.zeros_like(t)
        return Moments(cos * x0 + sin * x1, (math.pi / 2) * (cos * x1 - sin * x0), zero, zero)


@dataclass(frozen=True)
class BrownianBridge(GaussianPath):
    """Brownian bridge of diffusion ``sigma``: SB-CFM and [SF]2M (Tong et al. 2024).

    ``mu_t = (1-t) x0 + t x1``, ``sigma_t = sigma sqrt(t(1-t))``, hence
    ``u_t = (1-2t)/(2t(1-t)) (x_t - mu_t) + x1 - x0``. Its variance grows like ``sigma^2/(4 t(1-t))``, so times are
    drawn from ``[clip, 1-clip]`` and ``d sigma_t/dt`` is held at its value there beyond; the pairs of a Schrödinger
    bridge come from the entropic plan with regularisation ``2 sigma^2``.

    ``sigma`` may be a tensor of shape ``(n,)``: the diffusion of a bridge over an interval of length ``D`` is
    ``sqrt(D)`` times that over a unit interval.
    """

    sigma: float | Tensor = 1.0
    clip: float = 0.01

    @property
    def t_range(self) -> tuple[float, float]:  # type: ignore[override]
        """Times at which the velocity is bounded."""
        return (self.clip, 1 - self.clip)

    def moments(self, x0: Tensor, x1: Tensor, t: Tensor) -> Moments:
        tt = expand(t, x0)
        spread = t * (1 - t)
        held = spread.clamp_min(self.clip * (1 - self.clip))
        return Moments(
            (1 - tt) * x0 + tt * x1,
            x1 - x0,
            self.sigma * spread.sqrt(),
            self.sigma * (1 - 2 * t) / (2 * held.sqrt()),
        )


@dataclass(frozen=True)
class Cubic(Path):
    """Another path, bent by a cubic that is zero at both ends; Hermite's cubic where the other one is straight.

    ``x_t + h10(t) e0 + h11(t) e1`` with ``h10 = t^3 - 2 t^2 + t`` and ``h11 = t^3 - t^2``. At the ends the velocity of
    the path is that of the other one plus ``e0`` and ``e1``; `bends` chains them over several intervals.

    Attributes
    ----------
    base
        The path that is bent.
    e0, e1
        What the velocities at ``t = 0`` and ``t = 1`` have more, of the shape of the points or one that broadcasts.
    """

    base: Path
    e0: Tensor
    e1: Tensor

    @property
    def t_range(self) -> tuple[float, float]:  # type: ignore[override]
        """Times at which the velocity is bounded."""
        return self.base.t_range

    def at(self, x0: Tensor, x1: Tensor, t: Tensor, eps: Tensor) -> Batch:
        batch, tt = self.base.at(x0, x1, t, eps), expand(t, x0)
        bend = (tt**3 - 2 * tt**2 + tt) * self.e0 + (tt**3 - tt**2) * self.e1
        slope = (3 * tt**2 - 4 * tt + 1) * self.e0 + (3 * tt**2 - 2 * tt) * self.e1
        return replace(batch, x_t=batch.x_t + bend, u_t=batch.u_t + slope)


def bends(moved: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """``e0`` and ``e1`` of `Cubic` for a chain of intervals: the velocities on both sides of a knot agree.

    At a knot between two intervals the velocity is that of the parabola through the three points,
    ``m = (s_left D_right + s_right D_left) / (D_left + D_right)`` with the slopes ``s`` of the straight paths and the
    lengths ``D``; at the first and the last point nothing is known beyond the slope itself. Positions on a smooth
    curve are exact to the third order of the lengths between two knots, to the second in the outer intervals.

    Parameters
    ----------
    moved
        Displacement of each interval, shape ``(k, ...)``.
    length
        Lengths of the intervals, positive, shape ``(k,)``.

    Returns
    -------
    For each interval the excess at its start and at its end, per interval, each of the shape of ``moved``.
    """
    d = expand(length, moved)
    slope = moved / d
    m = (slope[:-1] * d[1:] + slope[1:] * d[:-1]) / (d[:-1] + d[1:])
    start, end = torch.cat([slope[:1], m]), torch.cat([m, slope[-1:]])
    return d * (start - slope), d * (end - slope)


@dataclass(frozen=True)
class GaussianOT(GaussianPath):
    """Optimal-transport path from Gaussian noise to data (Lipman et al. 2023, eq. 20-23).

    ``mu_t = t x1``, ``sigma_t = 1 - (1 - sigma_min) t``, so ``u_t = x1 - (1 - sigma_min) eps``. ``x0`` is not used.
    """

    sigma_min: float = 1e-4

    def moments(self, x0: Tensor, x1: Tensor, t: Tensor) -> Moments:
        slope = 1 - self.sigma_min
        return Moments(expand(t, x1) * x1, x1, 1 - slope * t, torch.full_like(t, -slope))


@dataclass(frozen=True)
class VPDiffusion(GaussianPath):
    """Variance-preserving diffusion path (Song et al. 2021; Lipman et al. 2023, eq. 18-19). ``x0`` is not used.

    ``alpha_t = exp(-T(1-t)/2)``, ``sigma_t^2 = 1 - exp(-T(1-t))`` with ``T(s) = s^2 (beta_max - beta_min)/2 + s
    beta_min``. ``d sigma_t/dt`` is unbounded at ``t = 1``; times are drawn up to ``1 - clip``.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    clip: float = 1e-3

    @property
    def t_range(self) -> tuple[float, float]:  # type: ignore[override]
        """Times at which the velocity is bounded."""
        return (0.0, 1 - self.clip)

    def moments(self, x0: Tensor, x1: Tensor, t: Tensor) -> Moments:
        s = 1 - t
        big_t = s**2 * (self.beta_max - self.beta_min) / 2 + s * self.beta_min
        beta = self.beta(t)
        alpha = torch.exp(-big_t / 2)
        sigma = torch.sqrt(-torch.expm1(-big_t))
        floor = math.sqrt(
            -math.expm1(-(self.clip**2 * (self.beta_max - self.beta_min) / 2 + self.clip * self.beta_min))
        )
        dsigma = -beta * alpha**2 / (2 * sigma.clamp_min(floor))
        return Moments(expand(alpha, x1) * x1, expand(alpha * beta / 2, x1) * x1, sigma, dsigma)

    def beta(self, t: Tensor) -> Tensor:
        """Noise rate ``dT/ds`` at ``s = 1 - t``: the likelihood weighting of the score-matching loss."""
        return (1 - t) * (self.beta_max - self.beta_min) + self.beta_min
