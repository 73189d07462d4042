"""The problem that `thalweg.core.ot.entropic` solves, and every check of what the caller gave."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.errors import InputError


@dataclass(frozen=True)
class Problem:
    """Centred points in units of ``sqrt(eps)``, logarithms of positive weights, ``tau`` in units of ``eps``; float64.

    ``dtype`` is that of the kernel. The cost is the squared distance; where ``squared`` is False it is the distance,
    and the points are in units of ``eps``.
    """

    x: Tensor
    y: Tensor
    log_a: Tensor
    log_b: Tensor
    tau_a: float
    tau_b: float
    dtype: torch.dtype
    max_memory: int
    squared: bool = True

    def flipped(self) -> Problem:
        """Swap the two sides."""
        return replace(self, x=self.y, y=self.x, log_a=self.log_b, log_b=self.log_a, tau_a=self.tau_b, tau_b=self.tau_a)

    def subset(self, size: int) -> Problem:
        """Keep the first ``size`` points of each side, and give them the total mass."""
        log_a, log_b = self.log_a[:size], self.log_b[:size]
        log_a = log_a + self.log_a.logsumexp(0) - log_a.logsumexp(0)
        log_b = log_b + self.log_b.logsumexp(0) - log_b.logsumexp(0)
        return replace(self, x=self.x[:size], y=self.y[:size], log_a=log_a, log_b=log_b)

    def targets(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return the logarithms of the marginals that an optimal plan with these potentials has, and of their mass.

        The marginals are divided by the mass, which relaxed problems can make too small for floating point.
        """
        log_r, log_c = self.log_a - f / self.tau_a, self.log_b - g / self.tau_b
        shift = log_r.logsumexp(0)
        return log_r - shift, log_c - shift, float(shift)


def shuffled(weights: Tensor) -> Tensor:
    """Return the indices of the positive weights in a fixed random order, so that any prefix is a random subset."""
    order = torch.randperm(len(weights), generator=torch.Generator().manual_seed(0)).to(weights.device)
    return order[weights[order] > 0]


def mean_cost(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> float:
    """Return the mean squared distance over all pairs, from the moments."""
    a, b = a / a.sum(), b / b.sum()
    x, y = x - x[0], y - x[0]  # squares of a large offset would cancel
    mean_x, mean_y = a @ x, b @ y
    spread = a @ (x - mean_x).square().sum(1) + b @ (y - mean_y).square().sum(1)
    return float((mean_x - mean_y).square().sum() + spread)


def balance(a: Tensor, b: Tensor) -> Tensor:
    """Return ``b`` with exactly the sum of ``a``, or refuse if that is more than rounding."""
    mass_a, mass_b = float(a.sum()), float(b.sum())
    if abs(mass_a - mass_b) > 1e-5 * mass_a:
        raise InputError(
            f"a, b: sums {mass_a:g} and {mass_b:g} differ, so no plan has both marginals. Normalise them, or relax "
            "one marginal with tau_a or tau_b."
        )
    return b * (mass_a / mass_b)


def check_options(epsilon: float, tau_a: float | None, tau_b: float | None, tol: float, max_iterations: int) -> None:
    """Refuse numbers outside their range."""
    for name, value in (("epsilon", epsilon), ("tau_a", tau_a), ("tau_b", tau_b)):
        if value is not None and not (math.isfinite(value) and value > 0):
            exact = "" if name == "epsilon" else " None makes the marginal exact."
            raise InputError(f"{name}: expected a positive finite number, found {value!r}.{exact}")
    if not 0 < tol < 1:
        raise InputError(f"tol: expected a number in (0, 1), found {tol!r}.")
    if max_iterations < 1:
        raise InputError(f"max_iterations: expected at least 1, found {max_iterations!r}.")


def check_points(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the arguments in float64, detached, or raise an error naming the first one that is unusable."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1:] != y.shape[1:] or 0 in (*x.shape, *y.shape):
        raise InputError(
            f"x, y: expected shapes (n, d) and (m, d), none of them 0, found {tuple(x.shape)} and {tuple(y.shape)}."
        )
    if x.device != y.device:
        raise InputError(f"x, y: expected one device, found {x.device} and {y.device}. Move one with .to().")
    for name, points in (("x", x), ("y", y)):
        bad = ~torch.isfinite(points).all(1)
        if bad.any():
            raise InputError(
                f"{name}: {int(bad.sum())} rows hold NaN or infinite values, the first is row {int(bad.nonzero()[0])}."
            )
    return x.detach().double(), y.detach().double(), _check_weights("a", a, x), _check_weights("b", b, y)


def _check_weights(name: str, weights: Tensor | None, points: Tensor) -> Tensor:
    n = len(points)
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64, device=points.device)
    if weights.shape != (n,):
        raise InputError(f"{name}: expected shape ({n},), one weight per point, found {tuple(weights.shape)}.")
    if not (torch.isfinite(weights).all() and (weights >= 0).all() and (weights > 0).any()):
        raise InputError(
            f"{name}: weights must be finite, not negative and not all zero. Drop or correct the points concerned."
        )
    return weights.detach().to(points.device, torch.float64)
