"""Passes over all pairs of two point clouds: the outer part of `thalweg.core.ot.entropic`.

Every pass forms blocks of the exponent ``(f_i + g_j - C_ij)/t`` and uses each block at once, so that no pass but the
one that stores a dense kernel needs memory for all pairs. For the squared distance ``C_ij = |x_i - y_j|^2`` one matrix
product gives a block; for the distance itself the product gives the squares, and the roots are taken in place.
Coordinates are centred and in units in which ``eps = 1``: temperature ``t = 1`` is the problem asked for, a higher one
the same with more regularisation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.core.ot.entropic.newton import sparse_kernel
from thalweg.core.ot.entropic.problem import Problem
from thalweg.errors import MemoryBudgetError

_DENSE_ABOVE = 0.08  # share of kept entries from which a dense kernel, cheap to form, is the faster
_SMALL = 2**18  # pairs up to which choosing entries costs more than it saves
_BYTES_PER_ENTRY = 48  # kernel, transpose and the sort between them
_LOWEST_TARGET = -70.0  # logarithm of a share of the mass that no one will miss: the floor below reaches it
_LOWEST_EXPONENT = -80.0  # smaller exponentials are denormal in float32, and ten times slower to add up


def soft_min(problem: Problem, g: Tensor, temperature: float) -> Tensor:
    """Return the best ``f``: ``-t lambda log sum_j b_j exp((g_j - C_ij)/t)``, ``lambda = tau_a/(tau_a + t)``."""
    sums = []
    for _, block in exponents(problem, None, problem.log_b + g / temperature, temperature).blocks():
        top = block.amax(1, keepdim=True)
        sums.append((block.sub_(top).clamp_(min=_LOWEST_EXPONENT).exp_().sum(1).log_() + top[:, 0]).double())
    return -temperature / (1 + temperature / problem.tau_a) * torch.cat(sums)


def restore(problem: Problem, points: Tensor, order: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """Put a potential into the order of ``points``; a point of zero weight gets that of a point of vanishing weight."""
    full = f.new_empty(len(points))
    full[order] = f
    absent = torch.ones(len(points), dtype=torch.bool, device=points.device)
    absent[order] = False
    if absent.any():
        full[absent] = soft_min(replace(problem, x=points[absent]), g, 1.0)
    return full


def factors(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices whose product is ``f_i + g_j - |x_i - y_j|^2``: one call to the fastest routine there is."""
    one_x, one_y = torch.ones_like(f)[:, None], torch.ones_like(g)[:, None]
    left = torch.cat([2 * x, (f - x.square().sum(1))[:, None], one_x], 1)
    right = torch.cat([y, one_y, (g - y.square().sum(1))[:, None]], 1)
    return left, right.T.contiguous()


def blocks(left: Tensor, right: Tensor, out: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
    """Row blocks of ``left @ right`` that fit the cache of a CPU, or are worth a launch on a GPU.

    Without ``out`` each block is written over the one before.
    """
    rows = max(1, 2 ** (25 if left.is_cuda else 21) // right.shape[1])
    room = left.new_empty(min(rows, len(left)), right.shape[1]) if out is None else out
    for start in range(0, len(left), rows):
        part = left[start : start + rows]
        first = 0 if out is None else start
        yield start, torch.mm(part, right, out=room[first : first + len(part)])


@dataclass(frozen=True)
class Exponents:
    """A matrix of exponents, made in blocks of rows.

    It is ``left @ right``. Where ``g`` is given it is ``f_i + g_j`` less the roots of that product; ``f`` None is 0.
    """

    left: Tensor
    right: Tensor
    f: Tensor | None = None
    g: Tensor | None = None

    def blocks(self, out: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
        """Blocks with their first row, written to ``out`` if that is given; the caller may overwrite them."""
        for start, block in blocks(self.left, self.right, out):
            if self.g is not None:
                torch.sub(self.g, block.clamp_(min=0).sqrt_(), out=block)
                if self.f is not None:
                    block += self.f[start : start + len(block), None]
            yield start, block


def exponents(problem: Problem, f: Tensor | None, g: Tensor, temperature: float, shift: float = 0.0) -> Exponents:
    """``f_i + g_j - C_ij/t - shift``, with ``f`` (None is 0) and ``g`` divided by ``t``, in the kernel's data type."""
    scale, dtype = temperature**0.5 if problem.squared else temperature, problem.dtype
    zero = torch.zeros_like(problem.x[:, 0])
    if problem.squared:
        left, right = factors(problem.x / scale, problem.y / scale, zero if f is None else f, g)
        left[:, -2] -= shift
        return Exponents(left.to(dtype), right.to(dtype))
    left, right = factors(problem.x / scale, problem.y / scale, zero, torch.zeros_like(g))
    return Exponents(left.neg_().to(dtype), right.to(dtype), None if f is None else (f - shift).to(dtype), g.to(dtype))


def full_pass(problem: Problem, f: Tensor, g: Tensor, temperature: float, tol: float) -> tuple[Kept, float]:
    """Find the entries of ``a_i b_j exp((f_i + g_j - C_ij)/t)`` that matter, and the marginals' L1 error with all.

    The error adds both sides and is relative to the mass of the plan.
    """
    log_r, log_c, shift = problem.targets(f, g)
    levels = problem.log_a + f / temperature, problem.log_b + g / temperature
    whole = exponents(problem, *levels, temperature, shift)
    kept = Kept(log_r.to(problem.dtype), log_c.to(problem.dtype), math.log(10 * max(len(log_r), len(log_c)) / tol))
    if kept.fits_dense(whole, problem.max_memory):
        kept.dense = whole.left.new_empty(len(log_r), len(log_c))
        parts = whole.blocks(kept.dense)
    else:
        parts = kept.collect(whole.blocks())
    rows, columns = _sums(parts)
    wrong = (rows - log_r.exp()).abs().sum() + (columns - log_c.exp()).abs().sum()
    return kept, float(wrong / rows.sum())


def _sums(parts: Iterator[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    """Exponentiate blocks in place; return the sums over rows and over columns, float64."""
    rows, columns = [], []
    for _, block in parts:
        block.clamp_(min=_LOWEST_EXPONENT).exp_()
        rows.append(block.sum(1).double())
        columns.append(block.sum(0).double())
    return torch.cat(rows), torch.stack(columns).sum(0)


class Kept:
    """The entries that matter: all but ``exp(-depth)`` of the mass of their row and of their column."""

    def __init__(self, log_r: Tensor, log_c: Tensor, depth: float) -> None:
        self.log_r, self.log_c, self.depth = log_r, log_c, depth
        self.dense: Tensor | None = None
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def mask(self, start: int, block: Tensor) -> Tensor:
        # A row whose potential is still far too low keeps its largest entries all the same.
        top = torch.minimum(block.amax(1), self.log_r[start : start + len(block)])
        return (block > (top - self.depth)[:, None]) | (block > self.log_c - self.depth)

    def fits_dense(self, whole: Exponents, max_memory: int) -> bool:
        """Whether to store the kernel dense, judged by its first rows (the points are in random order)."""
        n, m, size = len(whole.left), whole.right.shape[1], whole.left.element_size()
        dense = n * m * size
        if n * m <= _SMALL and dense <= max_memory:
            return True
        _, block = next(whole.blocks())
        share = float(self.mask(0, block).double().mean())
        sparse = share * n * m * _BYTES_PER_ENTRY
        if min(dense, sparse) > max_memory:
            raise MemoryBudgetError(
                f"entropic kernel: {n} rows x {m} columns x {size} bytes = {dense} bytes dense, "
                f"about {sparse:.3g} sparse, max_memory={max_memory}. Raise it, use fewer points, or lower epsilon."
            )
        return dense <= max_memory and (share > _DENSE_ABOVE or sparse > max_memory)

    def collect(self, parts: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
        """Remember the kept entries of each block and hand it on."""
        m = len(self.log_c)
        for start, block in parts:
            flat = self.mask(start, block).view(-1).nonzero()[:, 0]
            values = block.view(-1)[flat].clamp_(min=_LOWEST_EXPONENT).exp_()
            self.parts.append(((flat // m + start).int(), (flat % m).int(), values))
            yield start, block

    def targets(self) -> tuple[Tensor, Tensor]:
        """Return the logarithms of the marginals that the kernel can reach."""
        return self.log_r.clamp(min=_LOWEST_TARGET), self.log_c.clamp(min=_LOWEST_TARGET)

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Return the kernel and its transpose."""
        if self.dense is not None:
            return self.dense, self.dense.T
        rows, cols, values = (torch.cat(part) for part in zip(*self.parts, strict=True))
        return sparse_kernel(rows, cols, values, (len(self.log_r), len(self.log_c)))
