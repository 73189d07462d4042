r"""The dynamics of a course: the drift of its cells and the score of its populations, along bridges between them.

Between the cells ``x_0`` and ``x_1`` of a pair lies a Brownian bridge. With ``t`` running from 0 to 1 over an interval
of length ``D`` (`thalweg.flows.samplers` has the common time ``tau``), and a little noise ``delta`` so that observed
populations have a density too,

.. math:: x_t = (1 - t) x_0 + t x_1 + \sigma l_t \epsilon, \qquad l_t^2 = t (1 - t) D + \delta .

Two networks are trained. The displacement ``m`` is the mean of ``(x_1 - x_0)/D`` at a point, whose target is bounded
everywhere. The denoiser predicts ``epsilon`` for noise of any size ``l``, not only that of the bridge, which makes it
far more accurate where there is little (Song & Ermon 2019). They give, per unit of ``tau`` and for each component,

.. math::
    \text{score: } s = \tfrac{\sigma^2}{2} \nabla \log p = -\frac{\sigma}{2 l_t} E[\epsilon \mid x], \qquad
    \text{flow: } v = m - (1 - 2t) s, \qquad \text{drift: } b = v + s .

``v`` moves the populations as an ODE, ``b`` with noise ``sigma`` as an SDE (Tong et al. 2024). At an observed time the
bridges on both sides know a half each: their drifts are those of two populations that relax towards it, and away from
it. Their mean is exact for a population at rest whatever its ``sigma``; at the first and last time the one side is
completed by half of the score.

Not guaranteed: that the drift is that of the cells. It is the one of least change against a Brownian motion, and no
snapshot can tell it from others with the same populations. Nor is ``v`` exact for a condition that skips an observed
time: ``t`` and ``D`` are then those of the course, and not of the longer interval of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from thalweg.core import fields
from thalweg.core.couplings import Mixture
from thalweg.core.fields.affine import ROUNDING, AffineMLP
from thalweg.flows.config import FitConfig
from thalweg.flows.samplers import pair_masses

DELTA = 1 / 32
"""Noise of an observed population, in variances of the diffusion over a mean interval."""
_LEVELS = (1 / 64, 1.0)  # variances that the denoiser learns, in the same unit; more where an interval is longer
_AFFINE_TIMES, _AFFINE_SAMPLES, _PER_ROW = 16, 1024, 256  # times of an interval, samples of each, and per coefficient
_AT_ENDS = 0.5  # share of its samples that lie at an observed time
AFFINE_DIMS = 256  # beyond, the affine part would outweigh the network it helps: 4 d^2 numbers for each interval


def velocity_net(dim: int, config: FitConfig, n_conditions: int, n_intervals: int) -> nn.Module:
    """Network of a velocity: with its affine part where there is one."""
    sizes = {"width": config.width, "depth": config.depth, "n_conditions": n_conditions}
    if config.affine and dim <= AFFINE_DIMS:
        return AffineMLP(dim, n_intervals, **sizes)
    return fields.MLP(dim, **sizes)


class Dynamics(nn.Module):
    """Flow and score of a course; the same functions as `thalweg.flows.networks.FlowNet`.

    Parameters
    ----------
    dim
        Number of coordinates.
    config
        Sizes of the networks.
    n_conditions, n_intervals
        Of the course.

    Attributes
    ----------
    displacement
        Network of ``m``.
    denoiser
        Network of ``epsilon``; its input is a point and the logarithm of ``l``.
    edges
        Observed times on the scale of ``s``, shape ``(n_intervals + 1,)``.
    sigma
        Diffusion of each component, shape ``(dim,)``.
    """

    edges: Tensor
    sigma: Tensor
    grows = False

    def __init__(self, dim: int, config: FitConfig, n_conditions: int, n_intervals: int) -> None:
        super().__init__()
        self.displacement = velocity_net(dim, config, n_conditions, n_intervals)
        self.denoiser = fields.MLP(
            dim + 1, out_dim=dim, width=config.width, depth=config.depth, n_conditions=n_conditions
        )
        self.register_buffer("edges", torch.zeros(n_intervals + 1))
        self.register_buffer("sigma", torch.zeros(dim))

    def begin(self, sampler: BridgeSampler, edges: Tensor, generator: torch.Generator) -> None:
        """Take the time axis and the diffusion, and fit the affine part of the displacement in closed form."""
        self.edges.copy_(edges)
        self.sigma.copy_(sampler.sigma)
        if isinstance(self.displacement, AffineMLP):
            affine = self.displacement.affine
            n = max(_AFFINE_SAMPLES, _PER_ROW * (affine.degree + 1) * (affine.dim + 1) // _AFFINE_TIMES)
            affine.fit(self.edges, sampler.along(n, _AFFINE_TIMES, generator))

    def place(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """``t`` and ``D`` of model times, each of shape ``(n,)``; at an edge those of the interval to its right."""
        k = torch.bucketize(s + ROUNDING, self.edges[1:-1], right=True)
        start, end = self.edges[k], self.edges[k + 1]
        return ((s - start) / (end - start)).clamp(0, 1), (end - start) * (len(self.edges) - 1)

    def velocity(self, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """``v``, shape ``(n, d)``."""
        t, _ = self.place(s)
        moved: Tensor = self.displacement(s, z, condition)
        return moved - (1 - 2 * t)[:, None] * self.score(s, z, condition)

    def score(self, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """``(sigma^2 / 2) grad log p``, shape ``(n, d)``."""
        t, length = self.place(s)
        level = (t * (1 - t) * length + DELTA).sqrt()[:, None]
        return -self.sigma / (2 * level) * self.predicted(s, z, level, condition)

    def growth_rate(self, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """Zero: what grows is known of the cells (`thalweg.flows.turnover`), not learned."""
        return torch.zeros_like(s)

    def predicted(self, s: Tensor, z: Tensor, level: Tensor, condition: Tensor | None) -> Tensor:
        """``E[epsilon | z]`` under noise of size ``level``, shape ``(n, 1)``."""
        out: Tensor = self.denoiser(s, torch.cat([z, level.log()], 1), condition)
        return out


@dataclass(frozen=True)
class Bridged:
    """Samples of the bridges of a course.

    Attributes
    ----------
    s, x, condition
        Model time, point and condition of each, ``x`` of shape ``(n, d)``.
    moved
        ``(x_1 - x_0) / D``, shape ``(n, d)``.
    length
        ``D``, shape ``(n,)``.
    level, eps
        Size of the noise, shape ``(n, 1)``, and the noise, shape ``(n, d)``.
    mass
        Mass of each, relative to how often it is drawn, shape ``(n,)``; see `thalweg.flows.samplers`.
    """

    s: Tensor
    x: Tensor
    condition: Tensor | None
    moved: Tensor
    length: Tensor
    level: Tensor
    eps: Tensor
    mass: Tensor


@dataclass(frozen=True)
class BridgeSampler:
    """Draws points of the bridges.

    Attributes
    ----------
    z, tau, condition, n_intervals, log_mass
        As in `thalweg.flows.samplers.IntervalSampler`.
    mixture
        The plans, over rows of ``z``.
    sigma
        Diffusion of each component, float32 of shape ``(d,)``.
    """

    z: Tensor
    tau: Tensor
    condition: Tensor | None
    mixture: Mixture
    sigma: Tensor
    n_intervals: int
    log_mass: tuple[Tensor, Tensor]

    def batch(self, n: int, generator: torch.Generator) -> tuple[Bridged, Bridged]:
        """``n`` points with the noise of their bridge, and ``2 n`` with noise of any size between the same pairs.

        A share of the latter lies at observed times.
        """
        rows, cols, _ = self.mixture.sample(n, generator)
        u = torch.rand(6, n, generator=generator, device=self.z.device)
        own = self._noisy(rows, cols, u[0], self._bridge_level(rows, cols, u[0]), generator)
        rows, cols = rows.repeat(2), cols.repeat(2)
        t, at_end, share = u[1:3].flatten(), u[3:5].flatten() < _AT_ENDS, torch.cat([u[5], 1 - u[5]])
        low, high = math.log(_LEVELS[0]), math.log(max(_LEVELS[1], float(own.length.max()) / 4))
        level = torch.exp((low + share * (high - low)) / 2)
        return own, self._noisy(rows, cols, torch.where(at_end, t.round(), t), level, generator)

    def along(self, n: int, times: int, generator: torch.Generator) -> Iterator[tuple[float, Tensor, Tensor, Tensor]]:
        """Samples for the affine part: ``s``, points, ``m`` and weights, at some times of each interval."""
        for rows, cols, part in zip(self.mixture.sources, self.mixture.targets, self.mixture.parts, strict=True):
            for i in range(times):
                k, j = part.sample(n, generator)
                t = torch.full((n,), (i + 0.5) / times, device=self.z.device)
                level = self._bridge_level(rows[k], cols[j], t)
                drawn = self._noisy(rows[k], cols[j], t, level, generator)
                yield float(drawn.s[0]), drawn.x, drawn.moved, drawn.length.square() * drawn.mass

    def restrict(self, keep: Tensor) -> BridgeSampler:
        """The sampler given that the source cell lies in ``keep`` (bool of shape ``(n,)``)."""
        return replace(self, mixture=self.mixture.restrict(keep))

    def _bridge_level(self, rows: Tensor, cols: Tensor, t: Tensor) -> Tensor:
        return (t * (1 - t) * (self.tau[cols] - self.tau[rows]) + DELTA).sqrt()

    def _noisy(self, rows: Tensor, cols: Tensor, t: Tensor, level: Tensor, generator: torch.Generator) -> Bridged:
        start, x0, way = self.tau[rows], self.z[rows], self.z[cols] - self.z[rows]
        length = self.tau[cols] - start
        eps = torch.randn(x0.shape, generator=generator, device=self.z.device)
        mean = x0 + t[:, None] * way
        condition = None if self.condition is None else self.condition[rows]
        s, moved = (start + t * length) / self.n_intervals, way / length[:, None]
        m0, m1 = pair_masses(self.log_mass, rows, cols)
        mass = torch.exp((1 - t) * m0 + t * m1)
        return Bridged(s, mean + level[:, None] * self.sigma * eps, condition, moved, length, level[:, None], eps, mass)


def terms(net: Dynamics, drawn: tuple[Bridged, Bridged]) -> dict[str, Tensor]:
    """Scalar losses by name, whose sum is minimised.

    Parameters
    ----------
    net
        The networks.
    drawn
        Points with the noise of their bridge, and with noise of any size.
    """
    own, noised = drawn
    moved: Tensor = net.displacement(own.s, own.x, own.condition)
    error = (own.length.square() * own.mass * (moved - own.moved).square().mean(1)).mean()
    eps = net.predicted(noised.s, noised.x, noised.level, noised.condition)
    return {"displacement": error, "denoising": (noised.mass * (eps - noised.eps).square().mean(1)).mean()}
