"""The networks of a flow, as functions of model time ``s`` in [0, 1], normalised coordinates ``z`` and condition."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from thalweg.core import fields
from thalweg.core.action import Potential
from thalweg.core.contrastive import undo
from thalweg.core.losses import Model
from thalweg.flows.config import FitConfig
from thalweg.flows.dynamics import Dynamics, velocity_net
from thalweg.flows.methods import METHODS, Method


class TimedField(nn.Module):
    """Velocity of a flow from noise to the population of a time: the state carries the time, ``d(z, s)/dt = (v, 0)``.

    Parameters
    ----------
    network
        Called ``network(t, (z, s), condition)``; returns the shape of ``z``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, state: Tensor, condition: Tensor | None = None) -> Tensor:
        """Velocity of the state, shape ``(n, dim + 1)``."""
        return torch.cat([self.network(t, state, condition), torch.zeros_like(state[:, -1:])], 1)


class FlowNet(nn.Module):
    """What a method learns.

    Attributes
    ----------
    main
        Velocity network, `Potential` or `TimedField`, by ``method.field``.
    score
        ``(sigma^2/2) grad log p`` per unit of ``tau``, or None.
    growth
        Growth rate per unit of ``tau``, or None; a potential is its own growth rate.
    dynamics
        Networks of the process of the cells, or None; the networks above then serve predictions alone.
    mean_negative
        ``u_bar`` of contrastive training, shape ``(1 or n_conditions, d)``; None unless it is undone.
    """

    mean_negative: Tensor | None

    def __init__(self, dim: int, method: Method, config: FitConfig, n_conditions: int, n_intervals: int) -> None:
        super().__init__()

        def mlp(inputs: int, outputs: int) -> fields.MLP:
            return fields.MLP(
                inputs, out_dim=outputs, width=config.width, depth=config.depth, n_conditions=n_conditions
            )

        self.main: nn.Module
        if method.field == "potential":
            self.main = Potential(mlp(dim, 1))
        elif method.field == "noise":
            self.main = TimedField(mlp(dim + 1, dim))
        else:
            self.main = velocity_net(dim, config, n_conditions, n_intervals)
        self.score = mlp(dim, dim) if method.score else None
        self.growth = mlp(dim, 1) if method.growth and method.field != "potential" else None
        self.dynamics: Dynamics | FlowNet | None = None
        if method.dynamics == "bridge":
            self.dynamics = Dynamics(dim, config, n_conditions, n_intervals)
        elif method.dynamics == "flow":  # a velocity alone: what grows is known of the cells
            own, plain = METHODS["otcfm"], replace(config, contrastive=None, dispersive=None)
            self.dynamics = FlowNet(dim, own, plain, n_conditions, n_intervals)
        self.grows = method.growth
        option = config.contrastive
        undone = option is not None and option.undo
        self.undone_weight = option.weight if option is not None and undone else 0.0
        by_condition = option is not None and option.negatives == "other_condition"
        # A constant of the training distribution, not of the state: one row for each condition it depends on.
        n_rows, width = n_conditions if by_condition else 1, dim + (method.field == "noise")
        self.register_buffer("mean_negative", torch.zeros(n_rows, width) if undone else None)

    def velocity(self, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """``dz/dtau`` of the ODE, shape ``(n, d)``; of a `TimedField`, the velocity of its state in noise time."""
        if isinstance(self.main, Potential):
            drift = self.main.velocity(s, z, condition)
            return drift if self.score is None else drift - self.score(s, z, condition)
        field: Model = self.main
        if self.mean_negative is not None:
            field = undo(field, self.undone_weight, self._mean_negative)
        return field(s, z, condition)

    def growth_rate(self, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """``d log(weight)/dtau``, shape ``(n,)``; zero for a method without growth."""
        if self.growth is not None:
            rate: Tensor = self.growth(s, z, condition)[:, 0]
            return rate
        if self.grows and isinstance(self.main, Potential):
            return self.main.growth(s, z, condition)
        return torch.zeros_like(s)

    def _mean_negative(self, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        u = self.mean_negative
        if u is None or len(u) == 1 or condition is None:
            return torch.zeros_like(z) if u is None else u.expand_as(z)
        return u[condition]


def make_net(
    dim: int, method: Method, config: FitConfig, *, n_conditions: int, n_intervals: int, generator: torch.Generator
) -> FlowNet:
    """Build the networks of a fit with weights drawn from a CPU ``generator``."""
    return fields.build(lambda: FlowNet(dim, method, config, n_conditions, n_intervals), generator)
