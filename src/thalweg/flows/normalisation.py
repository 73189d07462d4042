"""Coordinates as the networks take them: centred, in units of an average standard deviation, in single precision."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


def measure(x: Floats) -> tuple[Floats, float]:
    """The mean cell, shape ``(d,)``, and the average standard deviation of a coordinate."""
    return x.mean(0), float(np.sqrt(x.var(0).mean())) or 1.0  # identical cells: any unit serves


def normalise(x: Floats, center: Floats, scale: float, device: torch.device | None = None) -> Tensor:
    """``(x - center) / scale``, float32 of shape ``(n, d)``."""
    return torch.as_tensor((x - center) / scale, dtype=torch.float32, device=device)
