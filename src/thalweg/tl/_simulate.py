"""Ends of many simulated futures of each cell, in blocks that bound the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg._random import torch_generator
from thalweg.errors import InputError
from thalweg.tl._flow import ROWS, Floats, Flow, Integrator, Labels, Noise


@dataclass(frozen=True)
class Futures:
    """A block of cells and where they end.

    Attributes
    ----------
    rows
        Rows of the cells in what was given, shape ``(n,)``.
    x
        Their ends, shape ``(n, n_samples, d)``.
    weight
        Their growth on the way, shape ``(n, n_samples)``.
    """

    rows: NDArray[np.int64]
    x: Floats
    weight: Floats


@dataclass(frozen=True)
class Simulator:
    """Carries cells to their ends.

    Attributes
    ----------
    flow
        The fitted flow.
    noise
        Of the SDE; None for the ODE.
    n_samples
        Futures of each cell; 1 for the ODE.
    integrator
        Options of the solver, whose steps are per interval of ``times``.
    """

    flow: Flow
    noise: Noise | None
    n_samples: int
    integrator: Integrator

    def __call__(self, x: Floats, times: Sequence[float], condition: Labels | None) -> Iterator[Futures]:
        """Carry cells at ``times[0]``, shape ``(n, d)``, through ``times`` to the last of them."""
        if self.noise is None:  # the stops on the way only set the steps of the SDE
            times = [times[0], times[-1]]
        block = max(1, ROWS // self.n_samples)
        for first in range(0, len(x), block):
            rows = np.arange(first, min(first + block, len(x)))
            many = np.repeat(rows, self.n_samples)
            labels = None if condition is None else condition[many]
            carried = self.flow.push(x[many], times, condition=labels, noise=self.noise, integrator=self.integrator)
            ends = carried.x[-1].reshape(len(rows), self.n_samples, -1)
            yield Futures(rows, ends, carried.weight[-1].reshape(len(rows), self.n_samples))


def make_simulator(
    flow: Flow,
    stochastic: bool | float | None,
    n_samples: int,
    integrator: Integrator,
    rng: np.random.Generator,
) -> Simulator:
    """A simulator; ``stochastic=None`` is the SDE where the flow has a score.

    Raises
    ------
    InputError
        If ``n_samples`` is below 1, ``stochastic`` is negative, or asked of a flow without a score.
    """
    if isinstance(n_samples, bool) or not isinstance(n_samples, int | np.integer) or n_samples < 1:
        raise InputError(f"n_samples must be a positive integer, found {n_samples!r}.")
    strength = float(flow.net.score is not None if stochastic is None else stochastic)
    if not 0 <= strength < np.inf:
        raise InputError(f"stochastic must be True, False, None or a non-negative number, found {stochastic!r}.")
    if not strength:
        return Simulator(flow, None, 1, integrator)
    return Simulator(flow, Noise(torch_generator(rng, flow.device), strength), n_samples, integrator)
