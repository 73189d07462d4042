r"""Affine velocity fields, fitted in closed form: the part of a flow that needs no training.

Among the fields ``v(s, x) = A(s) x + b(s)`` the one closest to the velocities of a path solves a linear regression. On
each interval of ``s`` the coefficients are polynomials in the interval's own ``t``, so with

.. math:: \phi(t, x) = (x, 1) \otimes (1, 2t - 1, \dots, (2t - 1)^p), \qquad v = \Theta^T \phi(t, x)

the minimiser of ``E[w |v - u_t|^2] + ridge |Theta|^2`` is ``Theta = (E[w phi phi^T] + ridge I)^{-1} E[w phi u_t^T]``.
Between Gaussians the conditional mean ``E[u_t | x_t]``, which flow matching learns, is affine, so this is the whole
flow; between other populations it carries their means and covariances, and a network is left with the rest.

Why it is worth having: coordinates that are mostly noise must contract towards the middle of an interval and expand
again, because there a cell is the average of two. In high dimension a network learns this slowly; here it is exact.

Not guaranteed: beyond the intervals the coefficients stay what they were at the ends.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from thalweg.core.fields.mlp import MLP
from thalweg.errors import InputError

DEGREE = 3  # between standard normals A(t) = (2t - 1) / (t^2 + (1 - t)^2), whose flow a cubic follows within .003
RIDGE = 1e-4  # in units of normalised coordinates, so a hundredth of a standard deviation: enough for a unique solution
ROUNDING = 3e-7  # of a single-precision time: at an edge the interval to its right holds, whatever the last bits are
FEW = 2**22  # floating-point operations that take less time than sorting rows by their interval


class Affine(nn.Module):
    """An affine field, polynomial in time on each interval; zero until it is fitted.

    Parameters
    ----------
    dim
        Number of coordinates.
    n_intervals
        Number of intervals of ``s``.
    degree
        Degree in time, at least 1.

    Attributes
    ----------
    edges
        Ends of the intervals, shape ``(n_intervals + 1,)``.
    theta
        Coefficients, shape ``(n_intervals, dim + 1, (degree + 1) dim)``; the last row is ``b``.
    """

    edges: Tensor
    theta: Tensor

    def __init__(self, dim: int, n_intervals: int, degree: int = DEGREE) -> None:
        super().__init__()
        self.dim, self.degree = dim, degree
        self.register_buffer("edges", torch.zeros(n_intervals + 1))
        self.register_buffer("theta", torch.zeros(n_intervals, dim + 1, (degree + 1) * dim))
        self.start()

    def start(self) -> None:
        """Intervals of equal length, and no velocity."""
        self.edges.copy_(torch.linspace(0, 1, len(self.edges)))
        self.theta.zero_()

    def forward(self, s: Tensor, x: Tensor) -> Tensor:
        """Velocity at times ``s``, shape ``(n,)``, and points ``x``, shape ``(n, dim)``."""
        interval, unit = self._locate(s[:1] if s.stride() == (0,) else s)
        if len(interval) == 1:  # one time for all, expanded as in a solver
            return self._at(unit, self._coefficients(int(interval), x))
        k = len(self.theta)
        if 2 * x.numel() * self.theta.shape[-1] * (k - 1) <= FEW:  # too much is computed, but nothing sorted
            every = torch.addmm(self.theta[:, -1].reshape(-1), x, self.theta[:, :-1].transpose(0, 1).flatten(1))
            every = every.view(len(x), k, self.degree + 1, self.dim)
            return self._at(unit, every[torch.arange(len(x), device=x.device), interval])
        order = interval.argsort(stable=True)
        parts = torch.split(x[order], torch.bincount(interval, minlength=k).tolist())
        ordered = torch.cat([self._coefficients(i, part) for i, part in enumerate(parts)])
        return self._at(unit, ordered[order.argsort()])

    def fit(self, edges: Tensor, samples: Iterable[tuple[float, Tensor, Tensor, Tensor]]) -> None:
        """Fit in closed form, in double precision; an interval without samples stays zero.

        Parameters
        ----------
        edges
            Ends of the intervals, ascending, shape ``(n_intervals + 1,)``.
        samples
            Of one time each: ``s``, points ``x_t`` and velocities ``u_t``, shape ``(n, dim)``, and weights ``(n,)``.
            Time enters through the moments of its samples alone, so the fewer times, the cheaper.

        Raises
        ------
        InputError
            If ``edges`` has another shape or does not ascend.
        """
        if edges.shape != self.edges.shape or not bool((edges.diff() > 0).all()):
            raise InputError(f"edges must be {len(self.edges)} ascending numbers, found {edges.tolist()}.")
        self.edges.copy_(edges)
        k, d, order = len(self.theta), self.dim, torch.arange(2 * self.degree + 1, device=self.theta.device)
        # E[w (2t-1)^(a+b) ...] depends on a + b alone, so 2 p + 1 moments stand for (p + 1)^2 blocks.
        moments = self.theta.new_zeros(k, len(order), d + 1, 2 * d + 1, dtype=torch.float64)
        total = self.theta.new_zeros(k, dtype=torch.float64)
        for s, x, u, weight in samples:
            at, unit = self._locate(self.edges.new_tensor([s]))
            i = int(at)
            both = torch.cat([x, torch.ones_like(x[:, :1]), u], 1).double()
            now = (weight.double()[:, None] * both[:, : d + 1]).T @ both
            moments[i] += unit.double() ** order[:, None, None] * now
            total[i] += weight.double().sum()
        square, cross = moments[..., : d + 1], moments[:, : self.degree + 1, :, d + 1 :]
        self.theta.copy_(_solve(square, cross, total.clamp_min(torch.finfo(total.dtype).tiny)))

    def _locate(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Interval of each time, and ``2t - 1``, both of shape ``(n,)``."""
        interval = torch.bucketize(s.detach() + ROUNDING, self.edges[1:-1], right=True)
        start, end = self.edges[interval], self.edges[interval + 1]
        return interval, 2 * ((s - start) / (end - start)).clamp(0, 1) - 1

    def _coefficients(self, i: int, x: Tensor) -> Tensor:
        """Of the polynomial in ``2t - 1`` that the velocity is on interval ``i``, shape ``(n, degree + 1, dim)``."""
        return torch.addmm(self.theta[i, -1], x, self.theta[i, :-1]).view(len(x), self.degree + 1, self.dim)

    def _at(self, unit: Tensor, coefficients: Tensor) -> Tensor:
        """The polynomial at ``2t - 1``, of one time or one for each row."""
        powers = torch.stack([unit**p for p in range(self.degree + 1)], 1)
        return (powers[..., None] * coefficients).sum(1)


class AffineMLP(MLP):
    """An `MLP` that learns what an affine field leaves over: ``affine(s, x) + mlp(s, x, condition)``.

    Parameters
    ----------
    dim, width, depth, n_conditions
        As in `MLP`.
    n_intervals
        As in `Affine`, the field in the attribute ``affine``.
    """

    def __init__(self, dim: int, n_intervals: int, *, width: int = 64, depth: int = 3, n_conditions: int = 0) -> None:
        super().__init__(dim, width=width, depth=depth, n_conditions=n_conditions)
        self.affine = Affine(dim, n_intervals)

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        rest = super().forward(t, x, condition)  # refuses wrong shapes
        return rest + self.affine(t, x)


def _solve(square: Tensor, cross: Tensor, total: Tensor) -> Tensor:
    """``Theta`` of each interval from its moments, in the layout of `Affine`."""
    k, n, rows, d = cross.shape
    power = torch.arange(n, device=cross.device)
    gram = square[:, power[:, None] + power].transpose(2, 3).reshape(k, n * rows, n * rows)
    gram = gram / total[:, None, None] + RIDGE * torch.eye(n * rows, dtype=gram.dtype, device=gram.device)
    right = cross.reshape(k, n * rows, d) / total[:, None, None]
    # One at a time: on several CPU threads PyTorch's batched LU raises, or returns a wrong answer (its issue 142815).
    theta = torch.stack([torch.linalg.solve(a, b) for a, b in zip(gram, right, strict=True)])
    return theta.view(k, n, rows, d).transpose(1, 2).flatten(2)
