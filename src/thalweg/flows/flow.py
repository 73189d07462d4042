"""A fitted flow: networks, scaling and time axis, as functions on arrays in the data's own units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from thalweg._memory import check_memory
from thalweg._settings import logger, settings
from thalweg.core.dynamics import likelihood, ode
from thalweg.core.fields.affine import Affine
from thalweg.errors import InputError
from thalweg.flows import normalisation
from thalweg.flows.running import Carried, Integrator, Network, Noise
from thalweg.flows.time_axis import Leg, TimeAxis

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
LogDensity = Callable[[Floats], Floats]
ROWS = 2**14  # cells integrated at once, or fewer if they exceed the budget: a few hundred MB in 100 dimensions
STAGES = 24  # states and slopes that a solver holds for each cell, its error estimate included


@dataclass(frozen=True)
class Flow:
    """A fitted flow.

    Attributes
    ----------
    net
        Networks on normalised coordinates ``z = (x - center) / scale``.
    axis
        Time axis.
    center, scale
        Normalisation: the mean cell, and the average standard deviation of a coordinate.
    sigma
        Diffusion of the bridge per square root of an average interval, in units of ``scale``; a number, or one for
        each coordinate.
    spans
        For each condition the first and the last time between which it was trained; empty where all of them were
        trained over the whole course.
    conditions
        Names of the conditions, for messages.
    dynamics
        The process of the cells, where it was learned apart from this flow, which then predicts populations.
    """

    net: Network
    axis: TimeAxis
    center: Floats
    scale: float
    sigma: float | Floats
    spans: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    dynamics: Flow | None = None

    @property
    def process(self) -> Flow:
        """What cells follow: the dynamics where they were learned beside the prediction, else this flow."""
        return self if self.dynamics is None else self.dynamics

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return next(self.net.parameters()).device

    @property
    def n_dims(self) -> int:
        """Number of coordinates."""
        return len(self.center)

    @property
    def grows(self) -> bool:
        """Whether cells carry a weight that the flow has learned."""
        return bool(self.net.grows)

    @property
    def has_score(self) -> bool:
        """Whether the flow can be run as an SDE, too."""
        return self.net.score is not None

    def span(self, condition: int) -> tuple[float, float]:
        """First and last time between which a condition was trained; infinite in the wrong order for never."""
        if not self.spans:
            return float(self.axis.times[0]), float(self.axis.times[-1])
        return self.spans.get(condition, (np.inf, -np.inf))

    def velocity(self, x: ArrayLike, time: ArrayLike, condition: Labels | None = None) -> Floats:
        """Velocity of cells.

        Parameters
        ----------
        x
            Coordinates, shape ``(n, d)``.
        time
            Physical time, scalar or shape ``(n,)``.
        condition
            Condition index of each cell, shape ``(n,)``, for conditional flows.

        Returns
        -------
        Units of ``x`` per unit of time, shape ``(n, d)``.
        """
        v = self.per_time(self.net.velocity, x, time, condition)
        if self.spans:
            v[self._untrained(condition, len(v))] = np.nan
        return v

    def growth(self, x: ArrayLike, time: ArrayLike, condition: Labels | None = None) -> Floats:
        """Growth rate of cells, the derivative of their log weight per unit of time, shape ``(n,)``."""
        rate = self._at_times(self.net.growth_rate, x, time, condition)
        return rate * self._slope(rate, time)

    def push(
        self,
        x: ArrayLike,
        times: ArrayLike,
        *,
        condition: Labels | None = None,
        noise: Noise | None = None,
        integrator: Integrator | None = None,
    ) -> Carried:
        """Carry cells through time.

        Parameters
        ----------
        x
            Coordinates at ``times[0]``, shape ``(n, d)``.
        times
            Two or more strictly monotone physical times.
        condition
            Condition index of each cell, shape ``(n,)``.
        noise
            Run the SDE; None for the ODE.
        integrator
            Options of the solver.

        Raises
        ------
        InputError
            If noise is asked of a flow without a score.
        """
        if noise is not None and self.net.score is None:
            raise InputError(
                "stochastic needs a method that learns a score ('sf2m' or 'eam'); this flow has only a velocity."
            )
        tau, options = self.axis.tau(times).tolist(), integrator or Integrator()
        columns = len(tau) * (self.n_dims + 1)
        end = self._blocks(lambda z, c: self._carry(z, tau, c, noise, options), x, condition, axis=1, columns=columns)
        if self.spans:
            end[:, self._untrained(condition, end.shape[1])] = np.nan
        return Carried(end[..., : self.n_dims] * self.scale + self.center, np.exp(end[..., self.n_dims]))

    def log_density(
        self,
        x: ArrayLike,
        time: float,
        source: LogDensity,
        condition: Labels | None = None,
        generator: torch.Generator | None = None,
        start: float | None = None,
    ) -> Floats:
        """Log density of the population at a time, carried there from an earlier one.

        Parameters
        ----------
        x
            Coordinates, shape ``(n, d)``.
        time
            Their physical time, at or after ``start``.
        source
            Log density of the population at ``start`` in normalised coordinates, ``(n, d)`` to ``(n,)``.
        condition
            Condition index of each cell.
        generator
            Source of the probe of Hutchinson's estimate; None for the exact divergence.
        start
            Time of the source; the first observed one by default.

        Returns
        -------
        Nats, for a density in units of ``x``, shape ``(n,)``.
        """
        start = float(self.axis.times[0]) if start is None else start
        first, now = self.axis.tau([start, time]).tolist()

        def log_source(z: Tensor) -> Tensor:
            return torch.as_tensor(source(z.double().cpu().numpy()), dtype=z.dtype, device=z.device)

        def log_p(z: Tensor, c: Tensor | None) -> Tensor:
            return self._log_density(z, first, now, log_source, c, generator) if now > first else log_source(z)

        out = self._blocks(log_p, x, condition) - self.n_dims * math.log(self.scale)
        if self.net.grows and now > first:  # d log p/dtau = - div v + g along a path
            out -= np.log(self.push(x, [time, start], condition=condition).weight[-1])
        if self.spans:
            out[self._untrained(condition, len(out))] = np.nan
        return out

    def _untrained(self, condition: Labels | None, n: int) -> NDArray[np.bool_]:
        """Which rows are of a condition that was never trained: its networks' input is random, so its answer is NaN."""
        if condition is None:
            return np.zeros(n, dtype=bool)
        never = ~np.isin(condition, list(self.spans))
        if never.any():
            names = ", ".join(repr(self.conditions[c]) for c in np.unique(condition[never]).tolist())
            logger.warning("condition %s was observed at one time only and not trained; its cells get NaN", names)
        return never

    def _carry(
        self, z: Tensor, tau: list[float], condition: Tensor | None, noise: Noise | None, integrator: Integrator
    ) -> Tensor:
        """States ``(z, log weight)`` at ``tau``, shape ``(len(tau), n, d + 1)``."""
        net, k, d = self.net, self.axis.n_intervals, self.n_dims
        side = 0.0 if noise is None else noise.strength**2 * (1.0 if tau[-1] > tau[0] else -1.0)

        def drift(time: Tensor, state: Tensor) -> Tensor:
            """``v``; as an SDE ``v + s`` forwards, ``v - s`` backwards (Tong et al. 2024), ``s`` times the strength."""
            s, x = (time / k).expand(len(state)), state[:, :d]
            v = net.velocity(s, x, condition)
            if net.score is not None and side:
                v = v + side * net.score(s, x, condition)
            return torch.cat([v, net.growth_rate(s, x, condition)[:, None]], 1) if net.grows else v

        def solved(field: ode.Field, state: Tensor, span: tuple[float, float], n_steps: int) -> Tensor:
            if noise is None:
                return ode.odeint(field, state, span, method=integrator.method, n_steps=n_steps)[-1]
            # Coordinates diffuse, the logarithm of a weight does not: it is integrated along the path.
            diffusion = torch.zeros(state.shape[1], dtype=state.dtype, device=state.device)
            diffusion[:d] = noise.strength * torch.as_tensor(self.sigma, dtype=state.dtype)
            return ode.sdeint(field, diffusion, state, span, noise.generator, n_steps=n_steps)[-1]

        ode.check_times(tau)
        states = [torch.cat([z, torch.zeros_like(z[:, :1])], 1) if net.grows else z]
        for start, end in pairwise(tau):
            state = states[-1]
            for leg in self.axis.legs(start, end):
                n_steps = math.ceil(integrator.n_steps * ((leg.end - leg.start) / (end - start)))
                state = solved(_within(leg, drift), state, leg[:2], n_steps)
            states.append(state)
        out = torch.stack(states)
        return out if net.grows else torch.cat([out, torch.zeros_like(out[..., :1])], -1)

    def _log_density(
        self,
        z: Tensor,
        first: float,
        now: float,
        log_source: likelihood.LogDensity,
        condition: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Each part of the way has the density at its start as its source."""
        density = log_source
        method: likelihood.Trace = "exact" if generator is None else "hutchinson"

        def velocity(tau: Tensor, x: Tensor) -> Tensor:
            return self.net.velocity((tau / self.axis.n_intervals).expand(len(x)), x, condition)

        for leg in self.axis.legs(first, now):

            def field(t: Tensor, x: Tensor, leg: Leg = leg) -> Tensor:
                """In ``t`` from 0 at the start of the part to 1 at its end."""
                length = leg.end - leg.start
                return length * _within(leg, velocity)(leg.start + t * length, x)

            density = partial(likelihood.log_likelihood, field, log_source=density, method=method, generator=generator)
        return density(z)

    def _at_times(
        self, function: Callable[..., Tensor], x: ArrayLike, time: ArrayLike, condition: Labels | None
    ) -> Floats:
        """``function(s, z, condition)`` at the model times of physical ``time``."""
        at = np.broadcast_to(np.asarray(time, dtype=np.float64), np.shape(x)[:1])
        s = torch.as_tensor(self.axis.tau(at) / self.axis.n_intervals, dtype=torch.float32, device=self.device)
        return self._blocks(lambda z, c, s: function(s, z, c), x, condition, s)

    def _blocks(
        self,
        function: Callable[..., Tensor],
        x: ArrayLike,
        condition: Labels | None,
        *others: Tensor,
        axis: int = 0,
        columns: int | None = None,
    ) -> Floats:
        """``function(z, condition, *others)`` on blocks of rows, which bounds the memory, joined along ``axis``.

        ``columns`` is how many numbers it returns for a row; ``n_dims`` by default.
        """
        z, columns = self._normalise(x), self.n_dims if columns is None else columns
        check_memory(
            "cells carried through the flow", len(z), columns, 8, settings.max_memory, "take fewer cells or times"
        )
        block = self._rows(columns)
        c = None if condition is None else torch.tensor(condition, device=self.device)
        parts = []
        with torch.no_grad():
            for i in range(0, len(z), block):
                rows = slice(i, i + block)
                parts.append(function(z[rows], None if c is None else c[rows], *(v[rows] for v in others)))
        return torch.cat(parts, axis).double().cpu().numpy()

    def _rows(self, columns: int) -> int:
        """Cells whose states, slopes and activations fit the budget together."""
        units = sum(len(p) for p in self.net.parameters() if p.ndim == 2)
        units += sum(m.theta.shape[-1] for m in self.net.modules() if isinstance(m, Affine))
        width = 4 * (2 * columns + STAGES * (self.n_dims + 1) + 2 * units)
        return max(1, min(ROWS, settings.max_memory // width))

    def per_time(
        self, function: Callable[..., Tensor], x: ArrayLike, time: ArrayLike, condition: Labels | None
    ) -> Floats:
        """A field ``function(s, z, condition)`` in units of ``x`` per unit of time, shape ``(n, d)``."""
        v = self._at_times(function, x, time, condition)
        return v * self.scale * self._slope(v, time)[:, None]

    def _slope(self, like: Floats, time: ArrayLike) -> Floats:
        return self.axis.slope(np.broadcast_to(np.asarray(time, dtype=np.float64), len(like)))

    def _normalise(self, x: ArrayLike) -> Tensor:
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.n_dims:
            raise InputError(f"x must have shape (n, {self.n_dims}) as in the fit, found {x.shape}.")
        return normalisation.normalise(x, self.center, self.scale, self.device)


def _within(leg: Leg, field: ode.Field) -> ode.Field:
    """A field at the times of one part of the way."""
    return lambda t, state: field(t.clamp(leg.low, leg.high), state)
