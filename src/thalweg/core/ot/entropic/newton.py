"""Newton steps for diagonal scalings: the inner solver of `thalweg.core.ot.entropic`.

Given a positive kernel ``K`` (dense, or sparse with its small entries left out) the plan is ``P = diag(u) K diag(v)``
with ``u = exp(phi)``, ``v = exp(psi)``. For every ``phi`` the best ``psi`` is known, so what is left is a smooth convex
problem in ``phi``. With ``r = P 1``, ``c = P' 1``, ``kappa = eps/tau`` of each side and ``a~ = a exp(-f/tau_a)``:

    gradient   r - a~
    Hessian    diag(kappa_a a~ + r) - P diag(1/c) P' / (1 + kappa_b)

Plain Sinkhorn sees the diagonal of that Hessian alone, and needs iterations of the order of its condition number;
conjugate gradients need about the square root. A product with the Hessian costs two products with ``K``, as much as a
Sinkhorn iteration, and no exponential. Conjugate gradients stop where the step leaves the region in which the
quadratic model means anything (Steihaug, SIAM Journal on Numerical Analysis 1983). Newton steps on sparse kernels: Tang
et al. (ICLR 2024); relaxed marginals: Chizat et al. (Mathematics of Computation 2018).

Not guaranteed: convergence. The caller reads the returned error, and checks the full plan.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_STEP = 8.0  # largest change of log u in one Newton step: the quadratic model says nothing further out
MAX_REACH = 30.0  # change of log u or log v from which the kept entries are no longer the ones that matter
MAX_CONJUGATE = 60


def sparse_kernel(rows: Tensor, cols: Tensor, values: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Compress a kernel, given by entries sorted by row, and its transpose.

    Both are kept because a product with the transpose of a compressed matrix is a hundred times slower.
    """
    order = torch.argsort(cols, stable=True)
    forward = _compressed(rows, cols, values, shape)
    return forward, _compressed(cols[order], rows[order], values[order], (shape[1], shape[0]))


def _compressed(rows: Tensor, cols: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    starts = torch.zeros(shape[0] + 1, dtype=torch.int32, device=rows.device)
    starts[1:] = torch.bincount(rows, minlength=shape[0]).cumsum(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch announces that compressed tensors are in beta
        return torch.sparse_csr_tensor(starts, cols.int(), values, shape)


@dataclass(frozen=True)
class _Point:
    """Everything known at one ``phi``: scalings, marginals, target of the rows."""

    phi: Tensor
    psi: Tensor
    u: Tensor
    v: Tensor
    r: Tensor
    c: Tensor
    target: Tensor

    @property
    def gradient(self) -> Tensor:
        return self.r - self.target

    @property
    def reach(self) -> float:
        return max(float(self.phi.abs().max()), float(self.psi.abs().max()))

    @property
    def error(self) -> float:
        return float(self.gradient.abs().sum() / self.r.sum())


class ScalingProblem:
    """Scale one kernel to (possibly relaxed) marginals.

    Parameters
    ----------
    forward, backward
        ``K`` of shape ``(n, m)`` and its transpose.
    log_a, log_b
        Logarithms of the target marginals at ``phi = psi = 0``, shapes ``(n,)`` and ``(m,)``: ``log a - f/tau_a``,
        ``log b - g/tau_b``.
    kappa_a, kappa_b
        ``eps/tau`` of each side; 0 for a marginal that must hold exactly.
    """

    def __init__(
        self, forward: Tensor, backward: Tensor, log_a: Tensor, log_b: Tensor, kappa_a: float, kappa_b: float
    ) -> None:
        self.forward, self.backward = forward, backward
        self.log_a, self.log_b = log_a, log_b
        self.kappa_a, self.kappa_b = kappa_a, kappa_b
        self.pairs = 0

    def solve(self, tol: float, max_pairs: int) -> tuple[Tensor, Tensor, int]:
        """Minimise until the rows' L1 error is below ``tol`` times the mass.

        Stops early after ``max_pairs`` pairs of products, or when a scaling has moved so far that the entries of a
        sparse kernel should be chosen anew.

        Returns
        -------
        tuple
            ``phi``, ``psi`` in float64 and the pairs of products used.
        """
        at = self._at(torch.zeros_like(self.log_a))
        while at.error >= tol and self.pairs < max_pairs and at.reach < MAX_REACH:
            update = (at.target.log() - at.r.log()) / (1 + self.kappa_a)
            new = self._at(at.phi + update.clamp(-MAX_REACH, MAX_REACH))
            if not math.isfinite(new.error):
                break
            at = self._newton(new, max_pairs) if new.error >= tol else new
        return at.phi.double(), at.psi.double(), self.pairs

    def _at(self, phi: Tensor) -> _Point:
        self.pairs += 1
        u = phi.exp()
        column = self.backward @ u
        psi = (self.log_b - column.log()) / (1 + self.kappa_b)
        v = psi.exp()
        return _Point(phi, psi, u, v, u * (self.forward @ v), v * column, (self.log_a - self.kappa_a * phi).exp())

    def _newton(self, at: _Point, max_pairs: int) -> _Point:
        step = self._direction(at, min(0.1, at.error**0.5), max_pairs)
        largest, slope = float(step.abs().max()), float(at.gradient @ step)
        if not (slope < 0 and largest > 0):
            return at
        size = min(1.0, MAX_STEP / largest)
        while self.pairs < max_pairs and size > 1e-4:
            new = self._at(at.phi + size * step)
            # The objective is convex: a slope turned round as steep as it began means the minimum was overshot.
            if float(new.gradient @ step) <= -0.9 * slope:
                return new
            size /= 2
        return at

    def _direction(self, at: _Point, accuracy: float, max_pairs: int) -> Tensor:
        """Conjugate gradients on ``Hessian step = -gradient``, preconditioned by the diagonal part."""
        diagonal = self.kappa_a * at.target + at.r
        inner = at.v * at.v / (at.c * (1 + self.kappa_b))
        step = torch.zeros_like(at.phi)
        residual = -at.gradient
        scaled = residual / diagonal
        search, size = scaled, float(residual @ scaled)
        goal = accuracy**2 * size
        for _ in range(MAX_CONJUGATE):
            image = diagonal * search - at.u * (self.forward @ (inner * (self.backward @ (at.u * search))))
            self.pairs += 1
            curvature = float(search @ image)
            if curvature <= 0:  # rounding: the remaining directions are flat
                break
            step = step + (size / curvature) * search
            residual = residual - (size / curvature) * image
            scaled = residual / diagonal
            previous, size = size, float(residual @ scaled)
            if size <= goal or self.pairs >= max_pairs or float(self._centred(at, step).abs().max()) > MAX_STEP:
                break
            search = scaled + (size / previous) * search
        return self._centred(at, step)

    def _centred(self, at: _Point, step: Tensor) -> Tensor:
        """Without its constant part, which changes no balanced plan."""
        return step - (at.target @ step) / at.target.sum() if self.kappa_a == self.kappa_b == 0 else step
