"""What every manifold shares: the checks at its border, geodesic paths and their time derivative.

A manifold states its formulas in private methods; `thalweg.core.manifolds` has those of three and the conventions.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thalweg.errors import InputError

TOLERANCE = 1e-4  # how far a sphere point or a tangent vector may be off; catches wrong input, not rounding


def squared_length(v: Tensor) -> Tensor:
    """Squared length over the last axis, kept as size 1."""
    return (v * v).sum(-1, keepdim=True)


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
    t = t.contiguous()  # forward mode refuses expanded tensors, such as one time for all rows
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
            For shapes that differ, x off the manifold or v not tangent at x (to 1e-4, relative to ``|v|`` where it
            exceeds 1).
        """
        _same_shape(x=x, v=v)
        self._check_points(x=x)
        off = squared_length(v - self._to_tangent(x, v)) > TOLERANCE**2 * squared_length(v).clamp_min(1.0)
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
