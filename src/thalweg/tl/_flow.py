"""A fitted flow: networks, scaling and time axis, as functions on arrays in the data's own units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from thalweg.core import fields, solve
from thalweg.errors import InputError
from thalweg.tl._axis import TimeAxis
from thalweg.tl._config import FitConfig

Floats = NDArray[np.float64]
_ROWS = 2**14  # cells integrated at once: bounds the memory at a few hundred MB in 100 dimensions


class FlowNet(nn.Module):
    """The networks of a flow: a velocity field and, for bridges that are also run as SDEs, a score field."""

    def __init__(self, dim: int, *, width: int, depth: int, score: bool, n_conditions: int) -> None:
        super().__init__()
        self.velocity = fields.MLP(dim, width=width, depth=depth, n_conditions=n_conditions)
        self.score = fields.MLP(dim, width=width, depth=depth, n_conditions=n_conditions) if score else None


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
        Diffusion of the bridge per square root of an average interval, in units of ``scale``.
    """

    net: FlowNet
    axis: TimeAxis
    center: Floats
    scale: float
    sigma: float

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return next(self.net.parameters()).device

    @property
    def n_dims(self) -> int:
        """Number of coordinates."""
        return len(self.center)

    def velocity(self, x: ArrayLike, time: ArrayLike, condition: NDArray[np.int64] | None = None) -> Floats:
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
        z = self._normalise(x)
        time = np.broadcast_to(np.asarray(time, dtype=np.float64), len(z))
        t = torch.as_tensor(self.axis.tau(time) / self.axis.n_intervals, dtype=z.dtype, device=z.device)
        c = self._condition(condition)
        parts = range(0, len(z), _ROWS)
        with torch.no_grad():
            v = torch.cat(
                [
                    self.net.velocity(t[i : i + _ROWS], z[i : i + _ROWS], None if c is None else c[i : i + _ROWS])
                    for i in parts
                ]
            )
        return v.double().cpu().numpy() * self.scale * self.axis.slope(time)[:, None]

    def push(
        self,
        x: ArrayLike,
        times: ArrayLike,
        *,
        condition: NDArray[np.int64] | None = None,
        generator: torch.Generator | None = None,
        method: str = "dopri5",
        n_steps: int = 100,
    ) -> Floats:
        """Carry cells through time.

        Parameters
        ----------
        x
            Coordinates at ``times[0]``, shape ``(n, d)``.
        times
            Two or more strictly monotone physical times.
        condition
            Condition index of each cell, shape ``(n,)``.
        generator
            If given, the SDE of the bridge is run with it; otherwise the ODE.
        method, n_steps
            ODE integrator, and steps between two times of a fixed-step method or of the SDE.

        Returns
        -------
        Coordinates at ``times``, shape ``(len(times), n, d)``.

        Raises
        ------
        InputError
            If a generator is given but the flow has no score.
        """
        z, c = self._normalise(x), self._condition(condition)
        tau = self.axis.tau(times).tolist()
        out = []
        with torch.no_grad():
            for i in range(0, len(z), _ROWS):
                block = None if c is None else c[i : i + _ROWS]
                drift = self._drift(block, stochastic=generator is not None, forward=tau[-1] > tau[0])
                start = z[i : i + _ROWS]
                if generator is None:
                    out.append(solve.odeint(drift, start, tau, method=method, n_steps=n_steps))
                else:
                    out.append(solve.sdeint(drift, self.sigma, start, tau, generator, n_steps=n_steps))
        return torch.cat(out, 1).double().cpu().numpy() * self.scale + self.center

    def _drift(self, condition: Tensor | None, *, stochastic: bool, forward: bool) -> solve.Field:
        """``dz/dtau``; as an SDE the drift is ``v + s`` forwards and ``v - s`` backwards (Tong et al. 2024)."""
        velocity, score, k = self.net.velocity, self.net.score, self.axis.n_intervals
        if stochastic and score is None:
            raise InputError(
                "stochastic=True needs a method that learns a score (sf2m); this flow has only a velocity."
            )

        def drift(tau: Tensor, z: Tensor) -> Tensor:
            t = (tau / k).expand(len(z))
            v: Tensor = velocity(t, z, condition)
            if stochastic and score is not None:
                v = v + score(t, z, condition) if forward else v - score(t, z, condition)
            return v

        return drift

    def _normalise(self, x: ArrayLike) -> Tensor:
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.n_dims:
            raise InputError(f"x must have shape (n, {self.n_dims}) as in the fit, found {x.shape}.")
        return torch.as_tensor((x - self.center) / self.scale, dtype=torch.float32, device=self.device)

    def _condition(self, condition: NDArray[np.int64] | None) -> Tensor | None:
        return None if condition is None else torch.as_tensor(condition, device=self.device)


def make_net(dim: int, config: FitConfig, *, score: bool, n_conditions: int, generator: torch.Generator) -> FlowNet:
    """Build the networks of a fit with weights drawn from a CPU ``generator``."""
    return fields.build(
        lambda: FlowNet(dim, width=config.width, depth=config.depth, score=score, n_conditions=n_conditions), generator
    )
