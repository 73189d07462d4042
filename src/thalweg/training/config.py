"""Configuration of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from thalweg.errors import InputError


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; the defaults serve every data set.

    Attributes
    ----------
    max_steps
        Optimiser steps at most.
    batch_size
        Samples in a step.
    learning_rate
        Peak rate of AdamW; rises linearly over ``warmup_steps``, then falls to zero along a cosine.
    warmup_steps
        Steps of the linear rise.
    weight_decay
        AdamW's decoupled decay.
    ema_decay
        Decay of the running average of the weights; the average is what is validated and kept. 0 turns it off.
    grad_clip
        Largest norm of the gradient.
    validation_fraction
        Share of the source samples held back; 0 trains on all for ``max_steps``.
    validate_every
        Steps between two validations, and between two rows of the history.
    patience
        Validations without a better loss after which training stops; the best weights are restored.
    n_threads
        Threads of the CPU during training; None leaves torch's own number. Small networks run fastest on one, by a
        large factor where the cores are shared, and their result then does not depend on the number of cores.
    """

    EARLIER: ClassVar[Mapping[str, Any]] = {}
    """What runs did before an option could be chosen, where that is not its default."""

    max_steps: int = 1000
    batch_size: int = 256
    learning_rate: float = 5e-3
    warmup_steps: int = 50
    weight_decay: float = 1e-5
    ema_decay: float = 0.99
    grad_clip: float = 1.0
    validation_fraction: float = 0.1
    validate_every: int = 50
    patience: int = 10
    n_threads: int | None = None

    def __post_init__(self) -> None:
        positive = ("max_steps", "batch_size", "learning_rate", "grad_clip", "validate_every", "patience")
        for name in positive:
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, found {getattr(self, name)!r}.")
        if self.n_threads is not None and self.n_threads < 1:
            raise InputError(f"n_threads must be None or at least 1, found {self.n_threads!r}.")
        for name in ("warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, found {getattr(self, name)!r}.")
        for name in ("ema_decay", "validation_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must lie in [0, 1), found {getattr(self, name)!r}.")
