"""The loss of each method on a batch of the whole course."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from thalweg.core import losses, objectives
from thalweg.core.action import Potential, action
from thalweg.errors import InputError
from thalweg.flows.config import FitConfig
from thalweg.flows.dynamics import Bridged, Dynamics
from thalweg.flows.dynamics import terms as bridge_terms
from thalweg.flows.methods import Method
from thalweg.flows.networks import FlowNet
from thalweg.flows.samplers import IntervalBatch


def check_options(method: Method, config: FitConfig) -> None:
    """Refuse options of a configuration that do not apply to the method.

    Raises
    ------
    InputError
        If there is one; names it.
    """
    for name in ("contrastive", "dispersive"):
        if method.field == "potential" and getattr(config, name) is not None:
            raise InputError(f"{name} needs a method that learns a velocity; {method.title} learns none.")
    if (method.bridge or method.bridged) and config.sigma == 0:
        raise InputError(f"sigma=0 leaves no bridge for method={method.name!r}; give sigma > 0 or use 'otcfm'.")
    if config.sigma == "auto" and not (method.bridge or method.bridged):
        raise InputError(
            f"sigma='auto' learns the diffusion of a bridge; method={method.name!r} has none. Give a number, or use "
            "'usb' or 'sf2m'."
        )


@dataclass(frozen=True)
class Terms:
    """Scalar terms by name, whose sum is minimised.

    Attributes
    ----------
    method, sigma, config
        As in the fit; ``sigma`` resolved.
    n_intervals
        ``K``.
    """

    method: Method
    sigma: float
    config: FitConfig
    n_intervals: int

    def __call__(
        self, net: FlowNet, drawn: IntervalBatch, generator: torch.Generator, *, regularise: bool = True
    ) -> dict[str, Tensor]:
        """Evaluate.

        Parameters
        ----------
        net
            The networks.
        drawn
            The batch.
        generator
            Source of the negatives and of the Laplacian's probe.
        regularise
            Whether the dispersive loss counts; it is no measure of fit.
        """
        batch, weight = drawn.batch, drawn.weight
        if isinstance(net.main, Potential):
            terms = {"action": self._action(net.main, drawn, generator).mean()}
        else:
            terms = objectives.velocity_terms(
                net.main,
                batch,
                weight=weight,
                contrastive=self.config.contrastive,
                dispersive=self.config.dispersive if regularise else None,
                generator=generator,
            )
        if net.score is not None:
            terms["score"] = losses.score(net.score, batch, scale=2 / self.sigma**2).mean()
        if net.growth is not None and drawn.log_mass is not None:
            m0, m1 = drawn.log_mass
            rate = net.growth_rate(batch.t, batch.x_t, batch.condition)
            terms["growth"] = (weight * (rate - (m1 - m0) / drawn.length).square()).mean()
        return terms

    def _action(self, potential: Potential, drawn: IntervalBatch, generator: torch.Generator) -> Tensor:
        """Action of the course's potential ``s`` on each interval, which is a unit interval for ``D s``.

        ``grad (D s)`` is the velocity, and ``D s`` the growth rate, in the interval's own time; the action is then
        ``D`` times that of ``s``, the weight the other methods have (`thalweg.flows.samplers`). The Laplacian of the
        entropic form is estimated, which costs the same in every dimension.
        """
        mass = drawn.log_mass
        return action(
            Potential(_OnInterval(potential, drawn, self.n_intervals)),
            drawn.unit_batch,
            sigma=self.sigma * drawn.length.sqrt() if self.method.bridge else 0.0,
            unbalanced=self.method.growth,
            weights=None if mass is None else (mass[0].exp(), mass[1].exp(), torch.as_tensor(drawn.mass)),
            generator=generator if self.method.bridge else None,
        )


def dynamics_terms(net: Dynamics | FlowNet, drawn: tuple[Bridged, Bridged] | IntervalBatch) -> dict[str, Tensor]:
    """Scalar losses of the dynamics by name, whose sum is minimised: of bridges, or of a flow."""
    if isinstance(net, Dynamics) and isinstance(drawn, tuple):
        return bridge_terms(net, drawn)
    flow, batch = cast(FlowNet, net), cast(IntervalBatch, drawn)
    return objectives.velocity_terms(flow.main, batch.batch, weight=batch.weight)


class _OnInterval(nn.Module):
    """``D s`` as a function of the interval's own time."""

    def __init__(self, potential: Potential, drawn: IntervalBatch, n_intervals: int) -> None:
        super().__init__()
        self.potential, self.start, self.length, self.n_intervals = potential, drawn.start, drawn.length, n_intervals

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        value: Tensor = self.length * self.potential((self.start + t * self.length) / self.n_intervals, x, condition)
        return value
