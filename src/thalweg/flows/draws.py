"""What training draws from: samples of the prediction, and of the dynamics where they are learned beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.core.paths import Path
from thalweg.data.cells import Cells
from thalweg.flows.bending import Bend
from thalweg.flows.coupling import Coupled
from thalweg.flows.diffusion import Diffusion
from thalweg.flows.dynamics import BridgeSampler
from thalweg.flows.methods import Method
from thalweg.flows.pairs import Pairs
from thalweg.flows.samplers import IntervalSampler, NoiseSampler, Sampler
from thalweg.flows.time_axis import TimeAxis


@dataclass(frozen=True)
class Draws:
    """What batches are drawn from.

    Attributes
    ----------
    prediction
        Sampler of the method's own paths.
    dynamics
        Sampler of the dynamics, or None.
    origin
        The cell that each row of the dynamics' sampler stands for, int64; None without dynamics.
    """

    prediction: Sampler
    dynamics: BridgeSampler | IntervalSampler | None = None
    origin: Tensor | None = None

    def restrict(self, keep: Tensor) -> Draws:
        """The draws given that the source cell lies in ``keep`` (bool of shape ``(n,)``)."""
        prediction = self.prediction.restrict(keep)
        if self.dynamics is None or self.origin is None:
            return replace(self, prediction=prediction)
        return replace(self, prediction=prediction, dynamics=self.dynamics.restrict(keep[self.origin]))


def make_draws(
    cells: Cells,
    z: Tensor,
    axis: TimeAxis,
    method: Method,
    sigma: float,
    coupled: Coupled,
    bend: Bend | None,
    pairs: Pairs | None,
    diffusion: Diffusion,
) -> Draws:
    """What a fit draws from.

    Parameters
    ----------
    cells, z, axis, method
        The course, its normalised coordinates on the device of the networks, its time axis and the method.
    sigma, coupled, bend
        Noise, couplings and bend of the prediction.
    pairs, diffusion
        Plans and noise of the dynamics; None without dynamics.
    """
    prediction = prediction_sampler(cells, z, axis, method, sigma, coupled, bend)
    if pairs is None:
        return Draws(prediction)
    dynamics = _dynamics_sampler(prediction, axis.calendar, method, pairs, diffusion)
    return Draws(prediction, dynamics, pairs.origin.to(z.device))


def prediction_sampler(
    cells: Cells, z: Tensor, axis: TimeAxis, method: Method, sigma: float, coupled: Coupled, bend: Bend | None = None
) -> Sampler:
    """The sampler of a method's own paths; arguments as in `make_draws`."""
    tau = torch.as_tensor(axis.tau(cells.time), dtype=torch.float32, device=z.device)
    condition = torch.as_tensor(cells.condition, device=z.device) if cells.conditions else None
    mixture = coupled.drawn().to(z.device)
    if method.coupling == "none":
        return NoiseSampler(z, tau, condition, mixture, method.path(sigma), axis.n_intervals)

    def path_of(length: Tensor) -> Path:
        # A bridge of one diffusion everywhere spreads by sigma sqrt(D).
        return method.path(sigma * length.sqrt() if method.bridge else sigma)

    mass = None if coupled.log_mass is None else (coupled.log_mass[0].to(z.device), coupled.log_mass[1].to(z.device))
    bend = None if bend is None else bend.to(z.device)
    return IntervalSampler(z, tau, condition, mixture, path_of, axis.n_intervals, mass, bend)


def _dynamics_sampler(
    sampler: Sampler, axis: TimeAxis, method: Method, pairs: Pairs, diffusion: Diffusion
) -> BridgeSampler | IntervalSampler:
    """The sampler of the dynamics, of the same cells as that of the prediction."""
    device = sampler.z.device
    origin, mixture = pairs.origin.to(device), pairs.mixture.to(device)
    z, condition = sampler.z[origin], None if sampler.condition is None else sampler.condition[origin]
    tau = torch.as_tensor(axis.tau(pairs.time), dtype=torch.float32, device=device)
    mass = (pairs.log_mass[0].to(device), pairs.log_mass[1].to(device))
    if not method.bridged and isinstance(sampler, IntervalSampler):
        return replace(sampler, z=z, tau=tau, condition=condition, mixture=mixture, log_mass=mass, bend=None)
    sigma = torch.as_tensor(diffusion.sigma, dtype=torch.float32, device=device)
    return BridgeSampler(z, tau, condition, mixture, sigma, sampler.n_intervals, mass)
