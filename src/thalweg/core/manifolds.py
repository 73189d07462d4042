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
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from thalweg.errors import InputError

_TURN = 2 * math.pi
_TOLERANCE = 1e-4  # how far a sphere point or a tangent vector may be off; catches wrong input, not rounding
_SERIES_BELOW = 1e-5  # below this the three terms of each series are exact to 5e-16 relative
_COS = (1.0, -1 / 2, 1 / 24)  # cos(r) in powers of r^2
_SINC = (1.0, -1 / 6, 1 / 120)  # sin(r)/r in powers of r^2
_ANGLE_OVER_SINE = (1.0, 2 / 3, 8 / 15)  # theta/sin(theta) in powers of sin^2(theta/2)


def _sq(v: Tensor) -> Tensor:
    """Squared length over the last axis, kept as size 1."""
    return (v * v).sum(-1, keepdim=True)


def _series(coefficients: tuple[float, float, float], q: Tensor) -> Tensor:
    c0, c1, c2 = coefficients
    return (c2 * q + c1) * q + c0


def _safe_sqrt(q: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    zero = q == 0
    return q.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _same_shape(**tensors: Tensor) -> None:
    """Every tensor floating, of one dtype and of exactly one shape (..., d), or InputError."""
    (first, x), *others = tensors.items()
    if not x.is_floating_point() or x.ndim == 0 or x.shape[-1] == 0:
        raise InputError(f"`{first}` must be a floating tensor (..., d), d >= 1; found {x.dtype} {tuple(x.shape)}")
    for name, y in others:
        if y.shape != x.shape or y.dtype != x.dtype:
            raise InputError(
                f"`{name}` must have the shape and dtype of `{first}`, {tuple(x.shape)} {x.dtype}; found "
                f"{tuple(y.shape)} {y.dtype}: reshape or convert it, nothing is broadcast"
            )


def time_derivative(path: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """Value x_t = path(t) and its derivative d x_t / dt, both (..., d), for times t (...), one per row.

    Forward-mode automatic differentiation (`torch.func.jvp`): row k of the path may depend on t_k only. Gradients
    reach every tensor that `path` closes over. Torch loads its forward-mode rules on the first call of a process,
    which takes seconds.
    """
    with warnings.catch_warnings():
        # On first use torch compiles its own rules for forward mode with a function it has itself deprecated.
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        result = torch.func.jvp(path, (t,), (torch.ones_like(t),))
    return result[0], result[1]


class Manifold(ABC):
    """A complete manifold in coordinates of the surrounding space, with that space's metric.

    Public methods check their input once; the formulas of each manifold are in its private methods.
    """

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Boolean tensor (...): which points (..., d) lie on the manifold."""

    @abstractmethod
    def _project(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _to_tangent(self, x: Tensor, v: Tensor) -> Tensor: ...

    @abstractmethod
    def _exp(self, x: Tensor, v: Tensor) -> Tensor: ...

    @abstractmethod
    def _log(self, x: Tensor, y: Tensor) -> Tensor: ...

    @abstractmethod
    def _dist(self, x: Tensor, y: Tensor) -> Tensor: ...

    @abstractmethod
    def _has_unique_log(self, x: Tensor, y: Tensor) -> Tensor: ...

    @abstractmethod
    def _random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor: ...

    def project(self, x: Tensor) -> Tensor:
        """Nearest point of the manifold to each row of x (..., d); on a torus, the angle modulo 2 pi.

        Raises
        ------
        InputError
            When a row has no nearest point (the sphere's centre) or is not finite.
        """
        _same_shape(x=x)
        y = self._project(x)
        failed = ~self.contains(y)
        if bool(failed.any()):
            raise InputError(
                f"`x` has {int(failed.sum())} of {failed.numel()} rows with no nearest point on the "
                f"{type(self).__name__.lower()}: zero, too large or not finite; remove those rows"
            )
        return y

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Orthogonal projection of v (..., d) on the tangent space at x (..., d)."""
        _same_shape(x=x, v=v)
        return self._to_tangent(x, v)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Point reached after unit time along the geodesic that leaves x (..., d) with tangent velocity v (..., d).

        Raises
        ------
        InputError
            For shapes that differ, x off the manifold or v not tangent at x (to 1e-4, relative to |v| where |v| > 1).
        """
        _same_shape(x=x, v=v)
        self._check_points(x=x)
        off = _sq(v - self._to_tangent(x, v)) > _TOLERANCE**2 * _sq(v).clamp_min(1.0)
        if bool(off.any()):
            raise InputError(f"`v` leaves the tangent space at `x` in {int(off.sum())} rows: pass `to_tangent(x, v)`")
        return self._exp(x, v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Tangent vector (..., d) at x that leads to y in unit time along the shortest geodesic.

        Raises
        ------
        InputError
            For shapes that differ, points off the manifold, or a pair with no unique shortest geodesic (sphere).
        """
        _same_shape(x=x, y=y)
        self._check_points(x=x, y=y)
        unique = self._has_unique_log(x, y)
        if not bool(unique.all()):
            raise InputError(
                f"{int((~unique).sum())} of {unique.numel()} pairs are opposite points, which no unique shortest "
                "geodesic joins: move or drop one point of each such pair"
            )
        return self._log(x, y)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        """Geodesic distance (...) between the rows of x and y (..., d); gradient 0 where they are equal."""
        _same_shape(x=x, y=y)
        self._check_points(x=x, y=y)
        return self._dist(x, y)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Metric <u, v>_x, shape (...), of tangent vectors u and v (..., d) at x (..., d)."""
        _same_shape(x=x, u=u, v=v)
        return (u * v).sum(-1)

    def sqnorm(self, x: Tensor, v: Tensor) -> Tensor:
        """Squared length <v, v>_x, shape (...), of the tangent vector v (..., d) at x (..., d)."""
        return self.inner(x, v, v)

    def geodesic(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """Point x_t = exp_x0(t log_x0 x1) of the shortest path from x0 to x1.

        Parameters
        ----------
        x0, x1
            End points (..., d) on the manifold.
        t
            Times (...), one per pair; 0 gives x0 exactly and 1 gives x1 to rounding.

        Raises
        ------
        InputError
            As `log`, and when t has not exactly the batch shape of x0 or not its dtype.
        """
        v = self._start_velocity(x0, x1, t)
        return self._exp(x0, t.unsqueeze(-1) * v)

    def geodesic_and_velocity(self, x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_t as `geodesic` does and its derivative u_t = d x_t / dt, tangent at x_t; both (..., d).

        Differentiable in x0 and x1, as the plain geodesic is.
        """
        v = self._start_velocity(x0, x1, t)
        return time_derivative(lambda s: self._exp(x0, s.unsqueeze(-1) * v), t)

    def random(self, shape: Sequence[int], generator: torch.Generator, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw points of the given shape (..., d) on the generator's device.

        Uniform on sphere and torus; standard normal in flat space, which has no uniform distribution.
        """
        return self.project(self._random(tuple(shape), generator, dtype))

    def _start_velocity(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        v = self.log(x0, x1)
        if t.shape != x0.shape[:-1] or t.dtype != x0.dtype:
            raise InputError(
                f"`t` must have one {x0.dtype} time per pair, shape {tuple(x0.shape[:-1])} for points "
                f"{tuple(x0.shape)}; found {tuple(t.shape)} {t.dtype}: nothing is broadcast"
            )
        return v

    def _check_points(self, **points: Tensor) -> None:
        for name, x in points.items():
            on = self.contains(x)
            if not bool(on.all()):
                raise InputError(
                    f"`{name}` has {int((~on).sum())} of {on.numel()} points off the {type(self).__name__.lower()} or "
                    "not finite: pass it through `project` first, or remove those rows"
                )


class _Flat(Manifold):
    """What flat manifolds share: tangent spaces are all of R^d, and distance is the length of the logarithm."""

    def _to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def _dist(self, x: Tensor, y: Tensor) -> Tensor:
        return _safe_sqrt(_sq(self._log(x, y))).squeeze(-1)

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
        return (_sq(x.detach()).sqrt() - 1).abs().squeeze(-1) <= _TOLERANCE

    def _project(self, x: Tensor) -> Tensor:
        return x / _sq(x).sqrt()

    def _to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v - (x * v).sum(-1, keepdim=True) * x

    def _exp(self, x: Tensor, v: Tensor) -> Tensor:
        q = _sq(v)
        near = q < _SERIES_BELOW
        r = q.masked_fill(near, 1.0).sqrt()
        cos = torch.where(near, _series(_COS, q), r.cos())
        sinc = torch.where(near, _series(_SINC, q), r.sin() / r)
        return cos * x + sinc * v

    def _log(self, x: Tensor, y: Tensor) -> Tensor:
        minus, plus = y - x, y + x
        sin2, cos2 = _sq(minus) / 4, _sq(plus) / 4  # of theta/2
        # Both have the tangent part of y; the shorter one gives it without cancellation.
        w = self._to_tangent(x, torch.where(sin2 < cos2, minus, plus))
        near = sin2 < _SERIES_BELOW
        theta = 2 * torch.atan2(sin2.masked_fill(near, 1.0).sqrt(), cos2.masked_fill(near, 1.0).sqrt())
        far_scale = theta / _sq(w).masked_fill(near, 1.0).sqrt()
        return torch.where(near, _series(_ANGLE_OVER_SINE, sin2), far_scale) * w

    def _dist(self, x: Tensor, y: Tensor) -> Tensor:
        return 2 * torch.atan2(_safe_sqrt(_sq(y - x)), _safe_sqrt(_sq(y + x))).squeeze(-1)

    def _has_unique_log(self, x: Tensor, y: Tensor) -> Tensor:
        return _sq((x + y).detach()).squeeze(-1) > (4 * torch.finfo(x.dtype).eps) ** 2

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
