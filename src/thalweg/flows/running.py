"""How a flow is run, and what comes out: the solver, the noise, and cells carried through time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Carried(NamedTuple):
    """Cells carried through time.

    Attributes
    ----------
    x
        Coordinates, shape ``(n_times, n, d)``.
    weight
        Weight of each cell relative to its start, shape ``(n_times, n)``; ones without growth.
    """

    x: Floats
    weight: Floats


@dataclass(frozen=True)
class Noise:
    """How to run a flow as an SDE: noise ``strength`` times that of the bridge, drawn from ``generator``."""

    generator: torch.Generator
    strength: float = 1.0


@dataclass(frozen=True)
class Integrator:
    """ODE integrator, and steps between two times of a fixed-step one or of the SDE."""

    method: str = "dopri5"
    n_steps: int = 100
