"""Draws from a discrete distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(weights_cdf: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw ``n`` indices with replacement from a cumulative distribution of shape ``(k,)`` (float64)."""
    u = torch.rand(n, generator=generator, device=weights_cdf.device, dtype=weights_cdf.dtype)
    return torch.searchsorted(weights_cdf, u * weights_cdf[-1], right=True).clamp_max(len(weights_cdf) - 1)


def uniform(n: int, device: torch.device | None = None) -> Tensor:
    """Equal weights summing to one, float64 of shape ``(n,)``."""
    return torch.full((n,), 1.0 / n, dtype=torch.float64, device=device)
