"""Training batches over a whole time course.

Each pair of neighbouring times is an interval in which the path's ``t`` runs from 0 to 1. The model lives on one time
axis ``s`` in [0, 1] over the course, and its velocity is a derivative in ``tau = s K``, with ``K`` the number of
intervals, so that displacements over an average interval and velocities have the same size:

    s = (tau0 + t D) / K,     v target = u_t / D,     weight = D^2

with ``tau0`` the start and ``D`` the length of the interval. The weight makes every interval count by the error of its
displacement: without it a short interval, whose velocities are large, would drown the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.core.couplings import Mixture
from thalweg.core.paths import Batch, Path, expand


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
        Couplings of the intervals (and conditions), over rows of ``z``.
    path_of
        Path for interval lengths ``D`` of shape ``(n,)``.
    n_intervals
        ``K``.
    """

    z: Tensor
    tau: Tensor
    condition: Tensor | None
    mixture: Mixture
    path_of: Callable[[Tensor], Path]
    n_intervals: int

    def batch(self, n: int, generator: torch.Generator) -> tuple[Batch, Tensor]:
        """Draw ``n`` samples and their weights, shape ``(n,)``."""
        rows, cols, _ = self.mixture.sample(n, generator)
        start, length = self.tau[rows], self.tau[cols] - self.tau[rows]
        path = self.path_of(length)
        t = path.draw_t(n, generator, self.z.dtype)
        inner = path(self.z[rows], self.z[cols], t, generator)
        condition = None if self.condition is None else self.condition[rows]
        return (
            replace(
                inner,
                t=(start + t * length) / self.n_intervals,
                u_t=inner.u_t / expand(length, inner.u_t),
                condition=condition,
            ),
            length.square(),
        )

    def restrict(self, keep: Tensor) -> IntervalSampler:
        """The sampler given that the source cell lies in ``keep`` (bool of shape ``(n,)``)."""
        return replace(self, mixture=self.mixture.restrict(keep))
