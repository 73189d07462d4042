"""The training loop and its checkpoints: knows steps and files, not cells."""

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
