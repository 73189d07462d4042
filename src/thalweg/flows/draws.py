"""What a step of training sees: samples for the prediction, and for the dynamics where they are learned beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.flows.dynamics import Bridged, BridgeSampler
from thalweg.flows.samplers import IntervalBatch, IntervalSampler, Sampler


class Drawn(NamedTuple):
    """A batch.

    Attributes
    ----------
    prediction
        Samples of the method's own paths.
    dynamics
        Of bridges, points with the noise of their bridge and with noise of any size; of a flow, samples of its paths;
        None without dynamics.
    """

    prediction: IntervalBatch
    dynamics: tuple[Bridged, Bridged] | IntervalBatch | None


@dataclass(frozen=True)
class Draws:
    """Draws batches.

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

    def batch(self, n: int, generator: torch.Generator) -> Drawn:
        """``n`` samples of each."""
        drawn = self.prediction.batch(n, generator)
        return Drawn(drawn, None if self.dynamics is None else self.dynamics.batch(n, generator))

    def restrict(self, keep: Tensor) -> Draws:
        """The draws given that the source cell lies in ``keep`` (bool of shape ``(n,)``)."""
        prediction = self.prediction.restrict(keep)
        if self.dynamics is None or self.origin is None:
            return replace(self, prediction=prediction)
        return replace(self, prediction=prediction, dynamics=self.dynamics.restrict(keep[self.origin]))
