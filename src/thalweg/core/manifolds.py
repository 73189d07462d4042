r"""Riemannian manifolds on which a path can run: flat space, the unit sphere, the flat torus.

Symbols. A point x and a tangent vector v are tensors (..., d) in the coordinates of the surrounding space; the last
axis is the point, the others are the batch. Times t have shape (...), exactly the batch. In each manifold here the
metric is that of the surrounding space, <u, v>_x = sum_k u_k v_k.

The path from x0 (t = 0) to x1 (t = 1) is the geodesic of Chen & Lipman, "Flow Matching on General Geometries" (2023),

    x_t = exp_x0(t log_x0 x1),        u_t = d x_t / dt   (forward-mode automatic differentiation),

whose speed |u_t| is constant and equals dist(x0, x1).

| manifold  | points              | exp_x(v)                       | log_x(y)                                       |
|-----------|---------------------|--------------------------------|------------------------------------------------|
| Euclidean | R^d                 | x + v                          | y - x                                          |
| Sphere    | abs(x) = 1 in R^d   | cos(abs v) x + sinc(abs v) v   | theta / sin(theta) (y - cos(theta) x)          |
| Torus     | angles in [0, 2 pi) | (x + v) mod 2 pi               | y - x, shifted by 2 pi k into [-pi, pi]        |

Precision. theta is 2 atan2(|x - y|, |x + y|), never acos, and functions of the form f(theta) are evaluated as power
series of theta^2 near 0, so values and all gradients are finite and right for nearby and for equal points.

What is not guaranteed.

- Opposite points of the sphere have no unique shortest path: `log` and `geodesic` raise for |x + y| <= 4 eps (eps of
  the dtype); `dist` is still pi. A little further off, the path is accurate but its derivatives with respect to the
  end points grow like 1/(pi - theta), which is the geometry's own doing.
- Torus angles exactly half a turn apart have two shortest ways: the one that does not pass through angle 0 is taken.
- On the sphere, derivatives with respect to a point mean something along the sphere only.
- `dist` has no derivative at x = y; the gradient returned there is 0.
- Sphere points are accepted up to 1e-4 off unit norm, and results are then as inexact as the points.
- The value checks read one flag back from the device, so the public methods do not run under `torch.func.vmap`.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from thalweg.core._manifold import TOLERANCE, Manifold, squared_length, time_derivative

__all__ = ["Euclidean", "Manifold", "Sphere", "Torus", "time_derivative"]

_TURN = 2 * math.pi
_SERIES_BELOW = 1e-5  # below this the three terms of each series are exact to 5e-16 relative
_COS = (1.0, -1 / 2, 1 / 24)  # cos(r) in powers of r^2
_SINC = (1.0, -1 / 6, 1 / 120)  # sin(r)/r in powers of r^2
_ANGLE_OVER_SINE = (1.0, 2 / 3, 8 / 15)  # theta/sin(theta) in powers of sin^2(theta/2)


def _series(coefficients: tuple[float, float, float], q: Tensor) -> Tensor:
    c0, c1, c2 = coefficients
    return (c2 * q + c1) * q + c0


def _safe_sqrt(q: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    zero = q == 0
    return q.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


class _Flat(Manifold):
    """What flat manifolds share: tangent spaces are all of R^d, and distance is the length of the logarithm."""

    def _to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def _dist(self, x: Tensor, y: Tensor) -> Tensor:
        return _safe_sqrt(squared_length(self._log(x, y))).squeeze(-1)

    def _has_unique_log(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)


@final
class Euclidean(_Flat):
    """Flat space R^d; the geodesic is the straight line and u_t = x1 - x0."""

    def contains(self, x: Tensor) -> Tensor:
        """Which points (..., d) are finite."""
        return x.isfinite().all(-1)

    def _project(self, x: Tensor) -> Tensor:
        return x

    def _exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x + v

    def _log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def _random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)


@final
class Sphere(Manifold):
    """Unit sphere of dimension d - 1 in R^d; geodesics are great circles, with dist the angle in radians."""

    def contains(self, x: Tensor) -> Tensor:
        """Which points (..., d) have unit norm to 1e-4."""
        return (squared_length(x.detach()).sqrt() - 1).abs().squeeze(-1) <= TOLERANCE

    def _project(self, x: Tensor) -> Tensor:
        return x / squared_length(x).sqrt()

    def _to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v - (x * v).sum(-1, keepdim=True) * x

    def _exp(self, x: Tensor, v: Tensor) -> Tensor:
        q = squared_length(v)
        near = q < _SERIES_BELOW
        r = q.masked_fill(near, 1.0).sqrt()
        cos = torch.where(near, _series(_COS, q), r.cos())
        sinc = torch.where(near, _series(_SINC, q), r.sin() / r)
        return cos * x + sinc * v

    def _log(self, x: Tensor, y: Tensor) -> Tensor:
        minus, plus = y - x, y + x
        sin2, cos2 = squared_length(minus) / 4, squared_length(plus) / 4  # of theta/2
        # Both have the tangent part of y; the shorter one gives it without cancellation.
        w = self._to_tangent(x, torch.where(sin2 < cos2, minus, plus))
        near = sin2 < _SERIES_BELOW
        theta = 2 * torch.atan2(sin2.masked_fill(near, 1.0).sqrt(), cos2.masked_fill(near, 1.0).sqrt())
        far_scale = theta / squared_length(w).masked_fill(near, 1.0).sqrt()
        return torch.where(near, _series(_ANGLE_OVER_SINE, sin2), far_scale) * w

    def _dist(self, x: Tensor, y: Tensor) -> Tensor:
        return 2 * torch.atan2(_safe_sqrt(squared_length(y - x)), _safe_sqrt(squared_length(y + x))).squeeze(-1)

    def _has_unique_log(self, x: Tensor, y: Tensor) -> Tensor:
        return squared_length((x + y).detach()).squeeze(-1) > (4 * torch.finfo(x.dtype).eps) ** 2

    def _random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)


@final
class Torus(_Flat):
    """Flat torus: d angles in [0, 2 pi) per point, every angle a circle of length 2 pi."""

    def contains(self, x: Tensor) -> Tensor:
        """Which points (..., d) have all angles in [0, 2 pi)."""
        return ((x >= 0) & (x < _TURN)).all(-1)

    def _project(self, x: Tensor) -> Tensor:
        r = x.remainder(_TURN)
        return torch.where(r >= _TURN, r - _TURN, r)  # a tiny negative angle rounds up to 2 pi itself

    def _exp(self, x: Tensor, v: Tensor) -> Tensor:
        return self._project(x + v)

    def _log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x - _TURN * ((y - x) / _TURN).round()

    def _random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        return _TURN * torch.rand(shape, generator=generator, dtype=dtype, device=generator.device)
