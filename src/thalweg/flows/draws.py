"""What a step of training sees: samples for the prediction, and for the dynamics where they are learned beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.flows.dynamics import Bridged, BridgeSampler
from thalweg.flows.samplers import IntervalBatch, Sampler


class Drawn(NamedTuple):
    """A batch.

    Attributes
    ----------
    prediction
        Samples of the method's own paths.
    bridges
        Points with the noise of their bridge, and with noise of any size; None without dynamics.
    """

    prediction: IntervalBatch
    bridges: tuple[Bridged, Bridged] | None


@dataclass(frozen=True)
class Draws:
    """Draws batches.

    Attributes
    ----------
    prediction
        Sampler of the method's own paths.
    bridges
        Sampler of the bridges, or None.
    """

    prediction: Sampler
    bridges: BridgeSampler | None = None

    def batch(self, n: int, generator: torch.Generator) -> Drawn:
        """``n`` samples of each."""
        drawn = self.prediction.batch(n, generator)
        return Drawn(drawn, None if self.bridges is None else self.bridges.batch(n, generator))

    def restrict(self, keep: Tensor) -> Draws:
        """The draws given that the source cell lies in ``keep`` (bool of shape ``(n,)``)."""
        bridges = None if self.bridges is None else self.bridges.restrict(keep)
        return Draws(self.prediction.restrict(keep), bridges)
