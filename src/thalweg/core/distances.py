"""Distances between weighted point clouds ``x`` of shape ``(n, d)`` and ``y`` of shape ``(m, d)``.

- Wasserstein: ``W_p = (min_pi sum pi_ij |x_i - y_j|^p)^(1/p)``, exact, for p = 1 and 2.
- Energy distance (Székely & Rizzo 2013): ``2 E|X-Y| - E|X-X'| - E|Y-Y'|``, as V-statistic (a squared distance, no
  root).
- Sinkhorn divergence (Feydy et al. 2019): the entropic transport cost less those of each cloud to itself. Between
  ``W_2^2``, for a small regularisation, and the squared distance of the means, for a large one, it needs far fewer
  points than the former; of a translation it is the squared distance, whatever the regularisation.
- MMD^2 with a Gaussian kernel ``exp(-|x-y|^2 / (2 h^2))`` (Gretton et al. 2012), as V-statistic.

All are computed in float64 on coordinates centred at the pooled mean, blockwise, so memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg._memory import DEFAULT, check_memory
from thalweg.core.ot.entropic import solve_entropic
from thalweg.core.ot.exact import solve_exact
from thalweg.errors import InputError

Array = NDArray[np.floating]
_BLOCK_ENTRIES = 2**24  # pairwise distances held at once: 128 MiB in float64
_ROUNDING = 1e-20  # of a variance, in squared distances of the clouds
_TOLERANCE = 1e-5  # of the marginals of an entropic plan behind a divergence
_PAIR_BYTES = 32  # of a distance on its way through a kernel: float64, four times


def wasserstein(
    x: Array,
    y: Array,
    *,
    p: int = 1,
    a: Array | None = None,
    b: Array | None = None,
    max_memory: int | None = None,
) -> float:
    """Exact Wasserstein distance of order ``p`` with Euclidean ground distance.

    Parameters
    ----------
    x, y
        Points, shape ``(n, d)`` and ``(m, d)``.
    p
        1 or 2.
    a, b
        Weights, normalised to one; uniform by default.
    max_memory
        Bytes allowed; 4 GiB by default.

    Raises
    ------
    InputError
        If ``p`` is neither 1 nor 2, or the points or weights cannot be used.
    NotConvergedError
        If optimality could not be proven.
    MemoryBudgetError
        If the problem does not fit ``max_memory``.
    """
    if p not in (1, 2):
        raise InputError(f"p must be 1 or 2, found {p!r}.")
    (u, wu), (v, wv) = _prepare(x, y, a, b, max_memory)
    plan = solve_exact(u, v, a=wu, b=wv, cost="euclidean" if p == 1 else "sqeuclidean", max_memory=max_memory)
    return float(max(plan.cost, 0.0) ** (1 / p))


def wasserstein_shares(
    x: Array, y: Array, *, a: Array | None = None, b: Array | None = None, max_memory: int | None = None
) -> tuple[float, NDArray[np.float64]]:
    """Exact Wasserstein-1 distance, and the share that each point of ``y`` has in it, shape ``(m,)``.

    The share of a point is the distance plus the dual potential of the point, less the mean potential. To first order
    the weighted mean of the shares is the distance under other weights of ``y``. So a bootstrap of the shares gives the
    error that comes of the sampling of ``y`` (Sommerfeld and Munk 2018). Arguments and errors are those of
    `wasserstein`.

    *Reference.* M. Sommerfeld, A. Munk, "Inference for empirical Wasserstein distances on finite spaces", Journal of
    the Royal Statistical Society B 2018.
    """
    (u, wu), (v, wv) = _prepare(x, y, a, b, max_memory)
    plan = solve_exact(u, v, a=wu, b=wv, cost="euclidean", max_memory=max_memory)
    return plan.cost, plan.cost + plan.v - float(wv.numpy() @ plan.v)


def sinkhorn(
    x: Array,
    y: Array,
    *,
    epsilon: float = 1.0,
    a: Array | None = None,
    b: Array | None = None,
    max_memory: int | None = None,
) -> float:
    """Sinkhorn divergence for the squared distance, ``OT(x, y) - OT(x, x)/2 - OT(y, y)/2``, a squared distance.

    Parameters
    ----------
    x, y
        Points, shape ``(n, d)`` and ``(m, d)``.
    epsilon
        Regularisation, as a multiple of the total variances of both clouds together.
    a, b
        Weights, normalised to one; uniform by default.
    max_memory
        Bytes allowed; 4 GiB by default.

    Raises
    ------
    InputError
        If the points, weights or ``epsilon`` cannot be used.
    NotConvergedError
        If the transport did not converge.
    """
    (u, wu), (v, wv) = clouds = _prepare(x, y, a, b, max_memory)
    spread = sum(float((w @ (z - w @ z).square()).sum()) for z, w in clouds)
    apart = float((wu @ u - wv @ v).square().sum())
    if spread <= _ROUNDING * apart or spread == 0:  # two points
        return apart

    def cost(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
        plan = solve_entropic(
            one[0], other[0], a=one[1], b=other[1], epsilon=epsilon * spread, tol=_TOLERANCE, max_memory=max_memory
        )
        return float(plan.f @ plan.a + plan.g @ plan.b)

    return max(0.0, cost((u, wu), (v, wv)) - cost((u, wu), (u, wu)) / 2 - cost((v, wv), (v, wv)) / 2)


def energy(
    x: Array, y: Array, *, a: Array | None = None, b: Array | None = None, max_memory: int | None = None
) -> float:
    """Energy distance ``2 E|X-Y| - E|X-X'| - E|Y-Y'|`` (no root), with weights ``a`` and ``b`` (uniform by default).

    Pairs are looked at in blocks that fit ``max_memory`` bytes (4 GiB by default).

    Raises
    ------
    InputError
        If the points cannot be used.
    MemoryBudgetError
        If not even the points and one row of distances fit ``max_memory``.
    """
    (u, wu), (v, wv) = _prepare(x, y, a, b, max_memory)

    def mean_distance(p: Tensor, wp: Tensor, q: Tensor, wq: Tensor) -> float:
        return _bilinear(_distance, p, wp, q, wq, max_memory)

    value = 2 * mean_distance(u, wu, v, wv) - mean_distance(u, wu, u, wu) - mean_distance(v, wv, v, wv)
    return max(value, 0.0)  # less is rounding


def mmd(
    x: Array,
    y: Array,
    *,
    bandwidth: float | None = None,
    a: Array | None = None,
    b: Array | None = None,
    max_memory: int | None = None,
) -> float:
    """Squared maximum mean discrepancy with a Gaussian kernel.

    Parameters
    ----------
    x, y
        Points, shape ``(n, d)`` and ``(m, d)``.
    bandwidth
        Kernel width ``h`` in units of the coordinates; by default the root mean squared distance between ``x`` and
        ``y`` over the square root of two, which has a closed form and scales with the data.
    a, b
        Weights; uniform by default.
    max_memory
        Bytes that a block of pairs may take; 4 GiB by default.

    Raises
    ------
    InputError
        If ``bandwidth`` is not positive or the points cannot be used.
    MemoryBudgetError
        If not even the points and one row of distances fit ``max_memory``.
    """
    (u, wu), (v, wv) = _prepare(x, y, a, b, max_memory)
    if bandwidth is None:
        gap = (wu @ u - wv @ v).square().sum()
        spread = (wu @ (u - wu @ u).square()).sum() + (wv @ (v - wv @ v).square()).sum()
        bandwidth = float(torch.sqrt((gap + spread) / 2)) or 1.0  # all points identical: any width gives zero
    if not bandwidth > 0:
        raise InputError(f"bandwidth must be positive, found {bandwidth}.")
    scaled_u, scaled_v = u / bandwidth, v / bandwidth

    def kernel(s: Tensor, t: Tensor) -> Tensor:
        return torch.exp(-_distance(s, t).square() / 2)

    value = (
        _bilinear(kernel, scaled_u, wu, scaled_u, wu, max_memory)
        + _bilinear(kernel, scaled_v, wv, scaled_v, wv, max_memory)
        - 2 * _bilinear(kernel, scaled_u, wu, scaled_v, wv, max_memory)
    )
    return max(value, 0.0)  # less is rounding


def variance_ratio(x: Array, y: Array, *, a: Array | None = None, b: Array | None = None) -> float:
    """Total variance of ``x`` over that of ``y``: 1 is right, below 1 the cloud ``x`` is too narrow."""
    (u, wu), (v, wv) = _prepare(x, y, a, b)
    total = [float((w @ (z - w @ z).square()).sum()) for z, w in ((u, wu), (v, wv))]
    if total[1] <= 1e-24 * float(v.square().max()):
        raise InputError("y has no variance: its points are identical, so a variance ratio is not defined.")
    return total[0] / total[1]


def _distance(s: Tensor, t: Tensor) -> Tensor:
    # Not by matrix products: those leave 1e-8 where a point meets itself.
    return torch.cdist(s, t, compute_mode="donot_use_mm_for_euclid_dist")


def _bilinear(
    kernel: Callable[[Tensor, Tensor], Tensor], u: Tensor, wu: Tensor, v: Tensor, wv: Tensor, max_memory: int | None
) -> float:
    check_memory("distances from one point", 1, len(v), _PAIR_BYTES, max_memory, "score fewer points")
    entries = min(_BLOCK_ENTRIES, (DEFAULT if max_memory is None else max_memory) // _PAIR_BYTES)
    rows = max(1, entries // len(v))
    blocks = zip(torch.split(u, rows), torch.split(wu, rows), strict=True)
    return float(sum(w @ (kernel(block, v) @ wv) for block, w in blocks))


def _prepare(
    x: Array, y: Array, a: Array | None, b: Array | None, max_memory: int | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    count, width = len(x) + len(y), x.shape[-1] if np.ndim(x) == 2 else 1
    check_memory("x and y in float64, twice", count, width, 16, max_memory, "score fewer points or coordinates")
    clouds = []
    for name, points, weights in (("x", x, a), ("y", y, b)):
        z = torch.as_tensor(np.array(points, dtype=np.float64, order="C"))
        if z.ndim != 2 or len(z) == 0 or not bool(torch.isfinite(z).all()):
            raise InputError(f"{name} must be a finite array of shape (n, d) with n > 0, found shape {tuple(z.shape)}.")
        w = (
            torch.ones(len(z), dtype=torch.float64)
            if weights is None
            else torch.as_tensor(np.asarray(weights, np.float64))
        )
        if w.shape != z.shape[:1] or not bool(torch.isfinite(w).all()) or bool((w < 0).any()) or float(w.sum()) <= 0:
            raise InputError(f"weights of {name} must be {len(z)} non-negative numbers with a positive sum.")
        clouds.append((z, w / w.sum()))
    (u, wu), (v, wv) = clouds
    if u.shape[1] != v.shape[1]:
        raise InputError(f"x and y must have the same number of columns, found {u.shape[1]} and {v.shape[1]}.")
    center = (wu @ u + wv @ v) / 2
    return (u - center, wu), (v - center, wv)
