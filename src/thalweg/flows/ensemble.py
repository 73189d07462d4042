"""Several models of one course as one: every verb runs the mean of their fields, and how far they differ is known.

The members share the cells, the plans and the configuration, and differ in their first weights, the cells held back for
validation, and the draws of training. Their spread is the error that training leaves; it says nothing of an error that
they have in common, such as that of the plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from thalweg.flows.flow import Flow
from thalweg.flows.running import Network

Floats = NDArray[np.float64]


class Ensemble(nn.Module):
    """The mean of several networks; the same functions as a `FlowNet` or `Dynamics`.

    Parameters
    ----------
    members
        Two or more networks of one kind.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def grows(self) -> bool:
        """Whether cells carry a weight."""
        return bool(self.members[0].grows)

    @property
    def score(self) -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
        """The mean score, or None."""
        return None if self.members[0].score is None else lambda s, z, c: self._mean("score", s, z, c)

    def velocity(self, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """The mean velocity, shape ``(n, d)``."""
        return self._mean("velocity", s, z, condition)

    def growth_rate(self, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """The mean growth rate, shape ``(n,)``."""
        return self._mean("growth_rate", s, z, condition)

    def _mean(self, name: str, s: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        return torch.stack([getattr(member, name)(s, z, condition) for member in self.members]).mean(0)


def join(flows: Sequence[Flow]) -> Flow:
    """One flow of several that differ in their networks alone."""
    first = flows[0]
    if len(flows) == 1:
        return first
    process = None if first.dynamics is None else join([flow.process for flow in flows])
    nets = [cast(nn.Module, flow.net) for flow in flows]
    return replace(first, net=Ensemble(nets), dynamics=process)


def members(flow: Flow) -> list[Flow]:
    """The flows that one is the mean of; itself alone where it is none."""
    if not isinstance(flow.net, Ensemble):
        return [flow]
    parts = [None] * len(flow.net.members) if flow.dynamics is None else members(flow.dynamics)
    nets = [cast(Network, net) for net in flow.net.members]
    return [replace(flow, net=net, dynamics=part) for net, part in zip(nets, parts, strict=True)]


def spread(flow: Flow, field: Callable[[Flow], ArrayLike]) -> Floats | None:
    """Standard deviation over the members of what ``field`` gives for each, or None for a single model."""
    parts = members(flow)
    if len(parts) == 1:
        return None
    out: Floats = np.std([np.asarray(field(part)) for part in parts], axis=0, ddof=1)
    return out
