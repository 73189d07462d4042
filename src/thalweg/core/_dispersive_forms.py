"""Closed forms behind `thalweg.core.dispersive`: value and gradient of each kind, computed together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InputError

ClosedForm = Callable[[Tensor], tuple[Tensor, Tensor, Tensor | float]]
"""Features (n, d) -> a scalar, and its gradient as a tensor (n, d) and a divisor, applied when backward scales it."""


class WithGradient(torch.autograd.Function):
    """A scalar whose gradient is computed with it: no graph of n x n tensors, and only (n, d) kept for backward.

    Small batches cost as many microseconds as there are operations, so the closed forms use few.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, closed_form: ClosedForm) -> Tensor:
        value, gradient, ctx.divisor = closed_form(z)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():  # the stored gradient would count as a constant, silently
            raise InputError("the dispersive loss is differentiable once: its backward pass takes no create_graph=True")
        (gradient,) = ctx.saved_tensors
        return gradient * (grad / ctx.divisor), None


def on_rows_of_norm(norm: float, closed_form: ClosedForm) -> ClosedForm:
    """The same function of rows scaled to one norm."""

    def of_scaled(z: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        scale = torch.linalg.vector_norm(z, dim=1, keepdim=True).div_(norm)
        scale.masked_fill_(scale == 0, 1.0)
        x = z / scale
        value, gradient, divisor = closed_form(x)
        radial = (x * gradient).sum(1, keepdim=True)
        return value, gradient.addcmul_(x, radial, value=-1 / norm**2).div_(scale), divisor

    return of_scaled


def _deal(x: Tensor, group: int | None) -> Tensor:
    """Rows (n, d) as groups (k, m, d), a view. Dealt in turn: neighbours in a batch may come from one interval."""
    n, d = x.shape
    k = 1 if group is None else max(n // group, 1)
    return x.as_strided((k, n // k, d), (x.stride(0), k * x.stride(0), x.stride(1)))


def _weighted(w: Tensor, x: Tensor, group: int | None) -> Tensor:
    """``sum_j w_ij x_j`` over the group of row i, (n, d); zero for rows that sit out."""
    out, dealt = torch.empty_like(x), w.shape[0] * w.shape[1]
    if dealt < len(x):
        out[dealt:] = 0
    torch.bmm(w, _deal(x, group), out=_deal(out, group))
    return out


def infonce_l2(z: Tensor, tau: float, group: int | None) -> tuple[Tensor, Tensor, Tensor]:
    x = z - z[0]  # exact where rows are close
    dealt, d = _deal(x, group), x.shape[1]
    square, scale = dealt.square().sum(2), 1 / (d * tau * math.log(2))
    e = torch.baddbmm(square.unsqueeze(1), dealt, dealt.mT, beta=-scale, alpha=2 * scale)
    e.sub_(square.unsqueeze(2), alpha=scale).clamp_max_(0)  # e^(-D / tau) = 2^e
    diagonal = e.exp2_().diagonal(dim1=1, dim2=2)  # exp2 is several times faster than exp on CPUs, and as accurate
    # The diagonal is 1 and pulls nowhere; beside it the pairs of well dispersed features would be lost to rounding.
    diagonal.zero_()
    rows = e.sum(2)
    diagonal.sub_(rows)  # sum_j e_ij (x_j - x_i)
    total = rows.sum() + rows.numel()
    return (total / e.numel()).log(), _weighted(e, x, group), total * (d * tau / 4)


def infonce_cosine(x: Tensor, group: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """For rows with |x|^2 = 1 / (tau log 2), so that exp(cos / tau) = 2^(x_i.x_j)."""
    dealt = _deal(x, group)
    e = torch.bmm(dealt, dealt.mT)
    top = e.amax()  # of rows that are all zero, 0
    total = e.sub_(top).exp2_().sum()
    value = (total / e.numel()).log() + top * math.log(2)
    e.diagonal(dim1=1, dim2=2).zero_()  # radial
    return value, _weighted(e, x, group), total / (2 * math.log(2))


def hinge(z: Tensor, margin: float, group: int | None) -> tuple[Tensor, Tensor, float]:
    x = z - z[0]
    dealt, d = _deal(x, group), x.shape[1]
    square = dealt.square().sum(2)
    e = torch.baddbmm(square.unsqueeze(1), dealt, dealt.mT, beta=-1 / d, alpha=2 / d)
    e.sub_(square.unsqueeze(2), alpha=1 / d).add_(margin).clamp_(0, margin)  # max(0, margin - D), and D >= 0
    diagonal = e.diagonal(dim1=1, dim2=2)
    diagonal.zero_()
    squares = torch.linalg.vector_norm(e, dim=2).square()  # of each row; no second n x n matrix
    value = squares.sum() / e.numel() + margin**2 / e.shape[1]
    diagonal.sub_(e.sum(2))
    return value, _weighted(e, x, group), d * e.numel() / 8


def covariance(z: Tensor) -> tuple[Tensor, Tensor, float]:
    n, d = z.shape
    x = centred(z)
    if d <= n:
        cov = (x.T @ x).fill_diagonal_(0)
        return cov.square().sum() / n**2, x @ cov, n**2 / 4
    # ||x^T x||_F = ||x x^T||_F: n x n instead of d x d, which image features would not fit.
    gram, square = x @ x.T, x.square().sum(0)
    value = (gram.square().sum() - square.square().sum()) / n**2
    return value, (gram @ x).addcmul_(x, square, value=-1), n**2 / 4


def unit_rows(z: Tensor) -> Tensor:
    square = z.square().sum(1, keepdim=True)
    return z / square.masked_fill(square == 0, 1.0).sqrt()


def centred(z: Tensor) -> Tensor:
    # Subtracting one row first is exact where rows are close, so the mean is of small numbers and keeps its digits.
    z = z - z[:1].detach()
    return z - z.mean(0)
