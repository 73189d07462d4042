"""The training loop and its checkpoints: knows steps and files, not cells. What is used loads when it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg.training.checkpoint import Checkpoint, latest_checkpoint, read_checkpoint
    from thalweg.training.config import TrainingConfig
    from thalweg.training.loop import TrainingResult, train
    from thalweg.training.saving import Checkpoints, load_weights

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "TrainingConfig",
    "TrainingResult",
    "latest_checkpoint",
    "load_weights",
    "read_checkpoint",
    "train",
]
_HOMES = {
    "Checkpoint": "checkpoint",
    "Checkpoints": "saving",
    "TrainingConfig": "config",
    "TrainingResult": "loop",
    "latest_checkpoint": "checkpoint",
    "load_weights": "saving",
    "read_checkpoint": "checkpoint",
    "train": "loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'thalweg.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"thalweg.training.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
