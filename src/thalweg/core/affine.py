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

from thalweg.core.fields import MLP
from thalweg.errors import InputError

DEGREE = 3  # between standard normals A(t) = (2t - 1) / (t^2 + (1 - t)^2), whose flow a cubic follows within .003
RIDGE = 1e-4  # in units of normalised coordinates, so a hundredth of a standard deviation: enough for a unique solution


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
        self.register_buffer("edges", torch.linspace(0, 1, n_intervals + 1))
        self.register_buffer("theta", torch.zeros(n_intervals, dim + 1, (degree + 1) * dim))

    def forward(self, s: Tensor, x: Tensor) -> Tensor:
        """Velocity at times ``s``, shape ``(n,)``, and points ``x``, shape ``(n, dim)``."""
        interval, powers = self._locate(s)
        counts = torch.bincount(interval, minlength=len(self.theta)).tolist()
        if len(x) in counts:  # one time for all, as in a solver
            return self._evaluate(counts.index(len(x)), x, powers)
        order = interval.argsort(stable=True)
        parts = zip(torch.split(x[order], counts), torch.split(powers[order], counts), strict=True)
        ordered = torch.cat([self._evaluate(k, *part) for k, part in enumerate(parts)])
        return ordered[order.argsort()]

    def fit(self, edges: Tensor, samples: Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]) -> None:
        """Fit in closed form, in double precision; an interval without samples stays zero.

        Parameters
        ----------
        edges
            Ends of the intervals, ascending, shape ``(n_intervals + 1,)``.
        samples
            Batches of ``s`` with shape ``(n,)``, ``x_t`` and ``u_t`` with shape ``(n, dim)``, and weights ``(n,)``.

        Raises
        ------
        InputError
            If ``edges`` has another shape or does not ascend.
        """
        if edges.shape != self.edges.shape or not bool((edges.diff() > 0).all()):
            raise InputError(f"edges must be {len(self.edges)} ascending numbers, found {edges.tolist()}.")
        self.edges.copy_(edges)
        n, k, d = self.degree + 1, len(self.theta), self.dim
        # E[w (2t-1)^(a+b) ...] depends on a + b alone, so 2 p + 1 moments stand for (p + 1)^2 blocks.
        square = self.theta.new_zeros(k, 2 * self.degree + 1, d + 1, d + 1, dtype=torch.float64)
        cross = self.theta.new_zeros(k, n, d + 1, d, dtype=torch.float64)
        total = self.theta.new_zeros(k, dtype=torch.float64)
        for s, x, u, weight in samples:
            interval, powers = self._locate(s)
            for i in torch.unique(interval).tolist():
                rows = interval == i
                one = torch.cat([x[rows], torch.ones_like(x[rows][:, :1])], 1).double()
                unit, target, w = powers[rows, 1:2].double(), u[rows].double(), weight[rows].double()
                for m in range(2 * self.degree + 1):
                    weighted = (w[:, None] * unit**m * one).T
                    square[i, m] += weighted @ one
                    if m < n:
                        cross[i, m] += weighted @ target
                total[i] += w.sum()
        self.theta.copy_(_solve(square, cross, total.clamp_min(torch.finfo(total.dtype).tiny)))

    def _locate(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Interval of each time, and the powers of ``2t - 1``, shape ``(n, degree + 1)``."""
        interval = (torch.bucketize(s.detach().contiguous(), self.edges, right=True) - 1).clamp(0, len(self.theta) - 1)
        start, end = self.edges[interval], self.edges[interval + 1]
        unit = 2 * ((s - start) / (end - start)).clamp(0, 1) - 1
        return interval, torch.stack([unit**p for p in range(self.degree + 1)], 1)

    def _evaluate(self, k: int, x: Tensor, powers: Tensor) -> Tensor:
        values = torch.addmm(self.theta[k, -1], x, self.theta[k, :-1]).reshape(len(x), self.degree + 1, self.dim)
        return (powers[..., None] * values).sum(1)


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
    theta = torch.linalg.solve(gram, cross.reshape(k, n * rows, d) / total[:, None, None])
    return theta.view(k, n, rows, d).transpose(1, 2).flatten(2)
