"""How a flow is run, and what comes out: its networks, the solver, the noise, and cells carried through time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.errors import InputError

Floats = NDArray[np.float64]


class Network(Protocol):
    """What a flow runs: fields of model time, normalised coordinates and condition."""

    @property
    def grows(self) -> bool:
        """Whether cells carry a weight."""

    @property
    def score(self) -> Any:
        """``(sigma^2/2) grad log p`` as a function of the same, or None."""

    def velocity(self, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """Velocity, shape ``(n, d)``."""

    def growth_rate(self, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """Growth rate, shape ``(n,)``."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of a module of torch."""

    def modules(self) -> Iterator[nn.Module]:
        """As of a module of torch."""


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


def check_samples(n_samples: int) -> None:
    """Refuse a number of futures that is none.

    Raises
    ------
    InputError
        If ``n_samples`` is not an integer of 1 or more.
    """
    if isinstance(n_samples, bool) or not isinstance(n_samples, int | np.integer) or n_samples < 1:
        raise InputError(f"n_samples must be a positive integer, found {n_samples!r}.")
