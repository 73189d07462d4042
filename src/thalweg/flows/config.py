"""Configuration of a fit: training, network, noise and coupling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from thalweg.core.objectives import Contrastive, Dispersive
from thalweg.errors import InputError
from thalweg.training.config import TrainingConfig

CouplingSize = Literal["auto", "whole", "minibatch"]
PathName = Literal["cubic", "straight"]


@dataclass(frozen=True)
class FitConfig(TrainingConfig):
    """Everything about a fit beyond the data; the defaults serve every data set.

    The fields of `thalweg.training.TrainingConfig` come first; ``n_threads`` is 1 here.

    Attributes
    ----------
    width, depth
        Units in, and number of, hidden layers of each network.
    sigma
        Noise in units of the average standard deviation of a coordinate; None takes the method's own. For the bridge
        methods it is the diffusion per square root of an average interval, and the entropic plan is regularised by
        ``2 sigma^2``. ``"auto"`` learns the diffusion from the days between two others, which is the default of
        ``"usb"``, there for each component; a number holds for all of them.
    coupling
        ``"whole"``: plans between whole populations, computed once. ``"minibatch"``: a fresh plan between blocks at
        every step. ``"auto"``: whole where the cost matrix fits ``thalweg.settings.max_memory``.
    block
        Cells in a minibatch block.
    relaxation
        For the *predictions* of the unbalanced methods, the weight of the populations' sizes as a multiple of the mean
        squared displacement of balanced transport: mass whose transport costs far more appears and vanishes instead.
        With several numbers, pairs are drawn from the plans of all of them in equal shares, and the prediction is the
        mixture of theirs.
    path
        Conditional paths between the cells of a pair, of every method that predicts along pairs. ``"cubic"``: bent so
        that the mean velocities of neighbouring intervals agree (`thalweg.flows.bending`). ``"straight"``: as in the
        papers.
    gap
        For the *dynamics* of the unbalanced methods: cells cross a gap of this many spreads of a state freely, and what
        would have to cross a wider one grows or vanishes instead.
    growth_strength
        For the dynamics of the unbalanced methods with ``growth_key``: the price of a departure from the given rates,
        in units of the one without rates. ``inf`` takes the rates as they are.
    affine
        For the methods that learn a velocity, fit the closest affine field in closed form first and let the network
        learn the rest (`thalweg.core.fields.affine`); beyond 256 coordinates it is left out.
    score
        ``"learned"`` gives a method without a score the dynamics of ``"usb"`` beside its own prediction: drift,
        diffusion, and fates along plans. None for none.
    contrastive
        Contrastive flow matching (ΔFM); None for none.
    dispersive
        Dispersive loss on a block of the velocity network; None for none.
    """

    EARLIER: ClassVar[Mapping[str, Any]] = {"path": "straight"}

    n_threads: int | None = 1
    width: int = 64
    depth: int = 3
    sigma: float | Literal["auto"] | None = None
    coupling: CouplingSize = "auto"
    block: int = 256
    relaxation: float | Sequence[float] = (0.25, 1.0)
    path: PathName = "cubic"
    gap: float = 5.0
    growth_strength: float = 1.0
    affine: bool = True
    score: Literal["learned"] | None = None
    contrastive: Contrastive | None = None
    dispersive: Dispersive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "depth", "block"):
            if not getattr(self, name) >= 1:
                raise InputError(f"{name} must be at least 1, found {getattr(self, name)!r}.")
        if self.sigma not in (None, "auto") and (isinstance(self.sigma, str) or not self.sigma >= 0):
            raise InputError(f"sigma must be 'auto', None or a number that is not negative, found {self.sigma!r}.")
        if not self.relaxations or not all(r > 0 and math.isfinite(r) for r in self.relaxations):
            raise InputError(
                f"relaxation must be positive and finite, one number or several; found {self.relaxation!r}."
            )
        if self.path not in get_args(PathName):
            raise InputError(f"path must be 'cubic' or 'straight', found {self.path!r}.")
        if not (self.gap > 0 and math.isfinite(self.gap)):
            raise InputError(f"gap must be positive and finite, in spreads of a state; found {self.gap!r}.")
        if not self.growth_strength > 0:
            raise InputError(f"growth_strength must be positive, or inf; found {self.growth_strength!r}.")
        for name, kind in (("contrastive", Contrastive), ("dispersive", Dispersive)):
            if not isinstance(getattr(self, name), kind | None):
                raise InputError(f"{name} must be tw.tl.{kind.__name__}(...) or None, found {getattr(self, name)!r}.")
        if self.score not in (None, "learned"):
            raise InputError(f"score must be 'learned' or None, found {self.score!r}.")
        if self.coupling not in ("auto", "whole", "minibatch"):
            raise InputError(f"coupling must be 'auto', 'whole' or 'minibatch', found {self.coupling!r}.")

    @property
    def relaxations(self) -> tuple[float, ...]:
        """``relaxation`` as a tuple."""
        return tuple(np.atleast_1d(self.relaxation).tolist())
