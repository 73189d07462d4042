"""The training loop: knows steps and files, not cells."""

from thalweg.training.config import TrainingConfig
from thalweg.training.loop import TrainingResult, train

__all__ = ["TrainingConfig", "TrainingResult", "train"]
