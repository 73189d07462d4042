r"""Scores of samples against real images, in a space of features (n, d), float64 throughout.

- Fréchet distance FD between the Gaussians with the moments of both clouds (Dowson & Landau 1982):
  ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^{1/2} C_b C_a^{1/2})^{1/2})``. Its estimate is biased upwards by an amount
  that grows with d^2/n: only equal n compare, and d is held at 32 or less. It is not FID, whose features are
  Inception's.
- KID: unbiased squared maximum mean discrepancy with the kernel ``(x.y/d + 1)^3`` (Bińkowski et al. 2018); its
  expectation between equal distributions is 0 whatever n, so single values may be negative.
- Precision and recall (Kynkäänniemi et al. 2019): share of samples within a ball around a real image that reaches its
  k-th real neighbour, and the same with the roles exchanged; k = 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.errors import InputError

MAX_FEATURES = 32


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or len(a) != len(b) or len(a) < 2:
        raise InputError(
            f"features must be (n, d) with equal n and d, found {tuple(a.shape)} and {tuple(b.shape)}; scores of "
            "unequal numbers do not compare."
        )
    if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise InputError("features hold values that are not finite; the samples diverged.")
    return a.double(), b.double()


def _root(c: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(c)
    root: Tensor = vectors @ (values.clamp_min(0).sqrt()[:, None] * vectors.T)
    return root


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between two clouds of features, a squared distance.

    Raises
    ------
    InputError
        If the clouds have unequal shapes, values that are not finite, or more than 32 features.
    """
    a, b = _pair(a, b)
    if a.shape[1] > MAX_FEATURES:
        raise InputError(
            f"FD is held to {MAX_FEATURES} features, found {a.shape[1]}: its bias grows with their square."
        )
    gap = (a.mean(0) - b.mean(0)).square().sum()
    ca, cb = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    root = _root(ca)
    cross = torch.linalg.eigvalsh(root @ cb @ root).clamp_min(0).sqrt().sum()
    return float(gap + ca.trace() + cb.trace() - 2 * cross)


def kid(a: Tensor, b: Tensor) -> float:
    """Kernel distance KID of two clouds of features of equal shape; unbiased."""
    a, b = _pair(a, b)
    n, d = a.shape

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / d + 1) ** 3

    within = sum((k.sum() - k.diagonal().sum()) / (n * (n - 1)) for k in (kernel(a, a), kernel(b, b)))
    return float(within - 2 * kernel(a, b).mean())


def precision_recall(samples: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall of samples against real images, from features of equal shape.

    Raises
    ------
    InputError
        If there are not more than ``k`` rows, or as the other scores.
    """
    samples, real = _pair(samples, real)
    if len(real) <= k:
        raise InputError(f"precision and recall with k={k} need more than {k} images, found {len(real)}.")

    def covered(x: Tensor, y: Tensor) -> float:
        """Share of ``x`` in the union of the balls of ``y``."""
        exact = "donot_use_mm_for_euclid_dist"
        radius = torch.cdist(y, y, compute_mode=exact).kthvalue(k + 1, dim=1).values  # itself is the first
        return float((torch.cdist(x, y, compute_mode=exact) <= radius).any(1).double().mean())

    return covered(samples, real), covered(real, samples)


def all_scores(samples: Tensor, real: Tensor) -> dict[str, float]:
    """FD, KID, precision and recall of features of equal shape."""
    precision, recall = precision_recall(samples, real)
    return {"fd": frechet(samples, real), "kid": kid(samples, real), "precision": precision, "recall": recall}


def mean_scores(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each score over several draws."""
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
