r"""Paths that bend at an observed time, so that cells do not turn on the spot.

Straight paths between the cells of two times cut the corners of a course. Here the path of a pair is a cubic
(`thalweg.core.paths.Cubic`) that brings the mean velocities on both sides of an observed time closer together.
The mean displacements between neighbouring times are those of the plans, so that what grows does not count as movement.

The bend is one vector for the cells of a time and condition. A vector for each cell, from the displacements of its
neighbours, follows a curve more closely, but it takes noise for a bend: the partner of a cell lies closer to the mean
than the cell itself, on both sides, which looks like a turn.

With few observed times a bend is little more than the noise of three means. The first inner time of a condition bends
nothing, and with ``k`` of them the bend is drawn to none by the weight of half a time: it is multiplied by
``(k - 1)/(k - 1/2)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg._settings import logger
from thalweg.core import couplings
from thalweg.core.paths import Cubic, Path, bends
from thalweg.data.cells import Cells
from thalweg.flows.coupling import Coupled
from thalweg.flows.time_axis import TimeAxis

Floats = NDArray[np.float64]
_PRIOR = 0.5  # inner times that a straight path counts for


@dataclass(frozen=True)
class Bend:
    """How the paths of a course bend.

    Attributes
    ----------
    population
        Number of the time and condition of each cell, int64 of shape ``(n,)``.
    e0, e1
        For each population, ``e0`` of the paths that leave it and ``e1`` of those that arrive, ``(n_populations, d)``.
    """

    population: Tensor
    e0: Tensor
    e1: Tensor

    def of(self, path: Path, rows: Tensor, cols: Tensor) -> Cubic:
        """The path of some pairs."""
        return Cubic(path, self.e0[self.population[rows]], self.e1[self.population[cols]])

    def to(self, device: torch.device) -> Bend:
        """The same with its tensors on ``device``."""
        return Bend(*(tensor.to(device) for tensor in (self.population, self.e0, self.e1)))


class _Way(NamedTuple):
    """Between two populations: their numbers, mean displacement and length."""

    start: int
    end: int
    moved: Tensor
    length: float


def find_bend(cells: Cells, z: Tensor, axis: TimeAxis, coupled: Coupled) -> Bend | None:
    """The bend of the paths of a course; None where they stay straight.

    Parameters
    ----------
    cells, z, axis
        The course, its normalised coordinates ``(n, d)`` and its time axis.
    coupled
        The plans.
    """
    numbers = cells.stratum * len(cells.times) + np.searchsorted(cells.times, cells.time)
    population = torch.from_numpy(numbers)
    ways: dict[tuple[int, int], list[Tensor]] = {}
    for part, rows, cols in zip(coupled.mixture.parts, coupled.mixture.sources, coupled.mixture.targets, strict=True):
        moved = _moved(part, z[rows], z[cols])
        if moved is None or not len(rows) or not len(cols):
            return None
        ways.setdefault((int(population[rows[0]]), int(population[cols[0]])), []).append(moved)
    tau = axis.tau(cells.times)
    e = torch.zeros(2, int(population.max()) + 1, z.shape[1], dtype=torch.float64)
    for chain in _chains(ways, tau):
        more = len(chain) - 2  # inner times beyond the first
        if more > 0:
            found = bends(torch.stack([w.moved for w in chain]), torch.tensor([w.length for w in chain]).double())
            for side, of in ((0, [w.start for w in chain]), (1, [w.end for w in chain])):
                e[side, of] = more / (more + _PRIOR) * found[side]
    if not bool(e.any()):
        return None
    logger.info("paths bend at the inner times, the default since 0.2; FitConfig(path='straight') has none that bend")
    return Bend(population, e[0].to(z.dtype), e[1].to(z.dtype))


def _chains(ways: dict[tuple[int, int], list[Tensor]], tau: Floats) -> list[list[_Way]]:
    """The ways of each condition, one after the other."""
    chains: dict[int, list[_Way]] = {}
    for (start, end), moved in sorted(ways.items()):
        condition, n = divmod(start, len(tau))
        length = float(tau[end - condition * len(tau)] - tau[n])
        chains.setdefault(condition, []).append(_Way(start, end, torch.stack(moved).mean(0), length))
    return list(chains.values())


def _moved(part: couplings.Coupling, x0: Tensor, x1: Tensor) -> Tensor | None:
    """Mean displacement of the pairs of a coupling, float64; None where it says nothing of them."""
    if isinstance(part, couplings.Plan):
        leaving, arriving = part.marginals()
        return (arriving @ x1.double() - leaving @ x0.double()) / part.mass.sum()
    if isinstance(part, couplings.Independent | couplings.Minibatch):  # whatever pairs a balanced plan makes
        return part.b @ x1.double() / part.b.sum() - part.a @ x0.double() / part.a.sum()
    return None
