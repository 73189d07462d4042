r"""Flows from Gaussian noise to the population of each time (``method="fm"``).

A field ``v(t, z, s)`` carries N(0, I) at ``t = 0`` to the population at model time ``s`` at ``t = 1``. It is trained on
the cells of all times by flow matching on the optimal-transport path (Lipman et al. 2023), with ``s`` as an input. With
``T_s`` its map at fixed ``s``, cells move through time by keeping their noise:

.. math:: x(s') = T_{s'}(T_s^{-1}(x)), \qquad \frac{dx}{ds} = \partial_s T_s(\epsilon), \quad \epsilon = T_s^{-1}(x).

The state ``(z, s)`` is integrated as one, and the derivative comes with it: ``w = dz/ds`` obeys the linearised equation
``dw/dt = (dv/dz) w + dv/ds``, ``w = 0`` at ``t = 0``. The log density at each time is that of the noise transported by
``T_s``; no other population enters.

Not guaranteed: that cells move along biological paths; nothing but smoothness in ``s`` joins the times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core.dynamics import likelihood, ode
from thalweg.core.manifolds import time_derivative
from thalweg.errors import InputError
from thalweg.flows.flow import Floats, Flow, Labels, LogDensity
from thalweg.flows.running import Carried, Integrator, Noise


@dataclass(frozen=True)
class NoiseFlow(Flow):
    """A flow from noise; the same functions as `Flow`."""

    def push(
        self,
        x: ArrayLike,
        times: ArrayLike,
        *,
        condition: Labels | None = None,
        noise: Noise | None = None,
        integrator: Integrator | None = None,
    ) -> Carried:
        if noise is not None:
            raise InputError("stochastic needs a method that learns a score ('sf2m' or 'eam'); 'fm' learns none.")
        options = integrator or Integrator()
        first, *others = (self.axis.tau(times) / self.axis.n_intervals).tolist()

        def carry(z: Tensor, c: Tensor | None) -> Tensor:
            eps = self._through(z, first, c, options, to_noise=True)
            return torch.stack([z, *(self._through(eps, s, c, options, to_noise=False) for s in others)])

        z = self._blocks(carry, x, condition, axis=1)
        return Carried(z * self.scale + self.center, np.ones(z.shape[:2]))

    def velocity(self, x: ArrayLike, time: ArrayLike, condition: Labels | None = None) -> Floats:
        at = np.broadcast_to(np.asarray(time, dtype=np.float64), len(np.asarray(x)))
        out = np.empty((len(at), self.n_dims))
        for value in np.unique(at):
            s = float(self.axis.tau(value)) / self.axis.n_intervals

            def rate(z: Tensor, c: Tensor | None, s: float = s) -> Tensor:
                return self._sensitivity(self._through(z, s, c, Integrator(), to_noise=True), s, c)

            rows = at == value
            part = self._blocks(rate, np.asarray(x)[rows], None if condition is None else condition[rows])
            out[rows] = part * self.scale * self.axis.slope(value) / self.axis.n_intervals
        return out

    def log_density(
        self,
        x: ArrayLike,
        time: float,
        source: LogDensity,
        condition: Labels | None = None,
        generator: torch.Generator | None = None,
        start: float | None = None,
    ) -> Floats:
        s = float(self.axis.tau(time)) / self.axis.n_intervals

        def log_p(z: Tensor, c: Tensor | None) -> Tensor:
            return likelihood.log_likelihood(
                lambda t, y: self._field(t, _timed(y, s), c)[:, :-1],
                z,
                likelihood.log_standard_normal,
                method="exact" if generator is None else "hutchinson",
                generator=generator,
            )

        return self._blocks(log_p, x, condition) - self.n_dims * math.log(self.scale)

    def _field(self, t: Tensor, state: Tensor, condition: Tensor | None) -> Tensor:
        return self.net.velocity(t.expand(len(state)), state, condition)

    def _through(self, z: Tensor, s: float, condition: Tensor | None, options: Integrator, *, to_noise: bool) -> Tensor:
        """``T_s(z)``, or its inverse."""
        span = (1.0, 0.0) if to_noise else (0.0, 1.0)
        state = ode.odeint(
            lambda t, y: self._field(t, y, condition),
            _timed(z, s),
            span,
            method=options.method,
            n_steps=options.n_steps,
        )
        return state[-1][:, :-1]

    def _sensitivity(self, eps: Tensor, s: float, condition: Tensor | None) -> Tensor:
        """``d T_s(eps) / ds``, shape ``(n, d)``."""
        d = self.n_dims

        def linearised(t: Tensor, both: Tensor) -> Tensor:
            state, tangent = both[:, : d + 1], both[:, d + 1 :]
            still = torch.zeros_like(state[:, 0])
            along = time_derivative(lambda h: self._field(t, state + h[:, None] * tangent, condition), still)
            return torch.cat(along, 1)

        moving = torch.zeros(len(eps), d + 1, dtype=eps.dtype, device=eps.device)
        moving[:, -1] = 1.0
        both = ode.odeint(linearised, torch.cat([_timed(eps, s), moving], 1), (0.0, 1.0))[-1]
        return both[:, d + 1 : -1]


def _timed(z: Tensor, s: float) -> Tensor:
    return torch.cat([z, torch.full_like(z[:, :1], s)], 1)
