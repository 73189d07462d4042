"""Training batches over a whole time course.

Each pair of neighbouring times is an interval in which the path's ``t`` runs from 0 to 1. The model lives on one time
axis ``s`` in [0, 1] over the course, and its velocity is a derivative in ``tau = s K``, with ``K`` the number of
intervals, so that displacements over an average interval and velocities have the same size:

    s = (tau0 + t D) / K,     v target = u_t / D,     weight = D^2 m_t

with ``tau0`` the start and ``D`` the length of the interval. The factor ``D^2`` makes every interval count by the error
of its displacement: without it a short interval, whose velocities are large, would drown the others.

Mass. Pairs ``(i, j)`` are drawn from a plan ``pi``. Where its marginals are the weights ``a, b`` of the cells, every
pair carries ``m_t = 1``. An unbalanced plan has others; a pair then starts with the mass ``m_0 = a_i / (pi 1)_i`` and
ends with ``m_1 = b_j / (pi' 1)_j``, relative to its share of the plan, so that both ends carry the right masses, and
grows at a constant rate in between:

    m_t = m_0^(1-t) m_1^t,     growth target = log(m_1 / m_0) / D.

The masses on all paths, moving with ``u_t`` and growing at that rate, solve ``d rho/dtau + div(rho v) = g rho`` with
``v, g`` the conditional means under ``m_t``, which are what regression weighted by ``m_t`` finds.

Where a population vanishes, ``m_0`` is large and its share of the plan small: drawn from the plan it would hardly
ever be seen, and then with a huge weight. So pairs are drawn from ``pi (m_0 + m_1) / 2``, under which each population
appears as often as its cells are many at either end, and weigh ``2 m_t / (m_0 + m_1)``, which never exceeds two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.core.couplings import Mixture
from thalweg.core.paths import Batch, Path, expand
from thalweg.flows.bending import Bend


@dataclass(frozen=True)
class IntervalBatch:
    """Samples of the paths of a course.

    Attributes
    ----------
    batch
        On the common axis: ``t`` is ``s`` above and ``u_t`` the target of the velocity in ``tau``.
    unit_t
        ``t`` within the interval, shape ``(n,)``.
    start, length
        ``tau0`` and ``D``, shape ``(n,)``.
    log_mass
        ``log m_0`` and ``log m_1`` relative to ``(m_0 + m_1) / 2``, each of shape ``(n,)``; None where every pair
        carries one.
    """

    batch: Batch
    unit_t: Tensor
    start: Tensor
    length: Tensor
    log_mass: tuple[Tensor, Tensor] | None

    @property
    def unit_batch(self) -> Batch:
        """The batch with the interval's own time; its ``u_t`` stays in ``tau``."""
        return replace(self.batch, t=self.unit_t)

    @property
    def mass(self) -> Tensor | float:
        """``2 m_t / (m_0 + m_1)``, shape ``(n,)``, or 1."""
        if self.log_mass is None:
            return 1.0
        m0, m1 = self.log_mass
        return torch.exp((1 - self.unit_t) * m0 + self.unit_t * m1)

    @property
    def weight(self) -> Tensor:
        """Weight of each sample, shape ``(n,)``."""
        return self.length.square() * self.mass


def pair_masses(log_mass: tuple[Tensor, Tensor], rows: Tensor, cols: Tensor) -> tuple[Tensor, Tensor]:
    """``log m_0`` and ``log m_1`` of some pairs, relative to how often each is drawn, ``(m_0 + m_1) / 2``."""
    m0, m1 = log_mass[0][rows], log_mass[1][cols]
    drawn = torch.logaddexp(m0, m1) - math.log(2)
    return m0 - drawn, m1 - drawn


@dataclass(frozen=True)
class IntervalSampler:
    """Draws batches: coupling, then path, then the common time axis.

    Attributes
    ----------
    z
        Normalised coordinates of all cells, float32 of shape ``(n, d)``.
    tau
        Time of each cell on the model's axis, float32 of shape ``(n,)``.
    condition
        Condition of each cell, int64 of shape ``(n,)``, or None.
    mixture
        Couplings of the intervals (and conditions), over rows of ``z``; with ``log_mass`` those of
        `thalweg.flows.coupling.Coupled.drawn`.
    path_of
        Path for interval lengths ``D`` of shape ``(n,)``.
    n_intervals
        ``K``.
    log_mass
        For each cell ``log m_0`` as a source and ``log m_1`` as a target, float32 of shape ``(n,)``, or None; with tags
        of the mixture one after the other for each of them.
    bend
        How the paths bend; None for those of ``path_of`` as they are.
    """

    z: Tensor
    tau: Tensor
    condition: Tensor | None
    mixture: Mixture
    path_of: Callable[[Tensor], Path]
    n_intervals: int
    log_mass: tuple[Tensor, Tensor] | None = None
    bend: Bend | None = None

    def batch(self, n: int, generator: torch.Generator, *, n_times: int | None = None) -> IntervalBatch:
        """Draw ``n`` samples; with ``n_times``, at no more than so many times between the cells of a pair."""
        rows, cols, part = self.mixture.sample(n, generator)
        start, length = self.tau[rows], self.tau[cols] - self.tau[rows]
        path = self.path_of(length)
        if self.bend is not None:
            path = self.bend.of(path, rows, cols)
        t = path.spread_t(n, generator, self.z.dtype, n_values=n_times)
        inner = path(self.z[rows], self.z[cols], t, generator)
        batch = replace(
            inner,
            t=(start + t * length) / self.n_intervals,
            u_t=inner.u_t / expand(length, inner.u_t),
            condition=None if self.condition is None else self.condition[rows],
        )
        masses = None
        if self.log_mass is not None:
            first = 0 if self.mixture.tags is None else self.mixture.tags[part] * len(self.z)
            masses = pair_masses(self.log_mass, rows + first, cols + first)
        return IntervalBatch(batch, t, start, length, masses)

    def restrict(self, keep: Tensor) -> IntervalSampler:
        """The sampler given that the source cell lies in ``keep`` (bool of shape ``(n,)``)."""
        return replace(self, mixture=self.mixture.restrict(keep))


@dataclass(frozen=True)
class NoiseSampler:
    """Draws cells of all times and points on their paths from noise; the state carries the time.

    Attributes
    ----------
    z, tau, condition, n_intervals
        As in `IntervalSampler`.
    mixture
        A population for each time (and condition).
    path
        Path from noise.
    """

    z: Tensor
    tau: Tensor
    condition: Tensor | None
    mixture: Mixture
    path: Path
    n_intervals: int

    def batch(self, n: int, generator: torch.Generator) -> IntervalBatch:
        """Draw ``n`` samples."""
        rows, _, _ = self.mixture.sample(n, generator)
        x1 = self.z[rows]
        t = self.path.spread_t(n, generator, x1.dtype)
        inner = self.path(torch.zeros_like(x1), x1, t, generator)
        s = self.tau[rows, None] / self.n_intervals
        still = torch.zeros_like(s)
        batch = replace(
            inner,
            x_t=torch.cat([inner.x_t, s], 1),
            u_t=torch.cat([inner.u_t, still], 1),
            condition=None if self.condition is None else self.condition[rows],
        )
        return IntervalBatch(batch, t, still[:, 0], torch.ones_like(t), None)

    def restrict(self, keep: Tensor) -> NoiseSampler:
        """The sampler of the cells in ``keep`` (bool of shape ``(n,)``)."""
        return replace(self, mixture=self.mixture.restrict(keep))


Sampler = IntervalSampler | NoiseSampler
