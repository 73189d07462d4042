"""The classifier in whose features samples are scored, trained on real images that no model is trained or scored on.

Two convolutions with stride, a linear layer to ``d`` features, a linear layer to the classes. Features are standardised
by their mean and standard deviation over the judge's own images, so that the scores have no units: a Fréchet distance
of ``d`` is a shift of every feature by one standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from benchmarks.images.data import ImageSet, check_scaled, dequantise
from benchmarks.images.embedding import build
from torch import Tensor, nn
from torch.nn import functional

from thalweg.training import TrainingConfig, train

_SEED = 0  # one yardstick for all runs
_ROWS = 1000


@dataclass(frozen=True)
class JudgeConfig:
    """Size and training of the classifier."""

    width: int = 32
    features: int = 16
    steps: int = 600
    batch_size: int = 128
    learning_rate: float = 3e-3


class Judge(nn.Module):
    """Classifier with standardised features.

    Parameters
    ----------
    shape
        ``(channels, height, width)`` of an image.
    n_classes
        Number of classes.
    config
        Sizes.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, int, int], n_classes: int, config: JudgeConfig) -> None:
        super().__init__()
        channels, height, width = shape
        w, stride = config.width, 2 if height > 8 else 1
        self.body = nn.Sequential(
            nn.Conv2d(channels, w, 3, stride=stride, padding=1),
            nn.SiLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(2 * w * -(-height // (2 * stride)) * -(-width // (2 * stride)), config.features),
        )
        self.head = nn.Linear(config.features, n_classes)
        self.register_buffer("center", torch.zeros(config.features))
        self.register_buffer("scale", torch.ones(config.features))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, n_classes)`` of images in [-1, 1]."""
        out: Tensor = self.head(functional.silu(self.body(x)))
        return out

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Standardised features ``(n, d)`` of images in [-1, 1].

        Raises
        ------
        InputError
            If images lie outside [-1, 1].
        """
        check_scaled(x)
        return (torch.cat([self.body(part) for part in torch.split(x, _ROWS)]) - self.center) / self.scale

    @torch.no_grad()
    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """Share of the images recognised as their label."""
        right = [self(a).argmax(1) == b for a, b in zip(torch.split(x, _ROWS), torch.split(labels, _ROWS), strict=True)]
        return float(torch.cat(right).double().mean())


def fit_judge(images: ImageSet, config: JudgeConfig, *, progress: bool = True) -> Judge:
    """Train the classifier on images of its own, on their device.

    Parameters
    ----------
    images
        The ``judge`` part of a split.
    config
        Size and training.
    progress
        Progress bar.
    """
    device = images.x.device
    shape = (images.x.shape[1], images.x.shape[2], images.x.shape[3])
    judge = build(lambda: Judge(shape, images.n_classes, config), torch.Generator().manual_seed(_SEED))
    judge.center.zero_()
    judge.scale.fill_(1.0)
    judge.to(device)

    def objective(model: Judge, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(images), (n,), generator=generator, device=device)
        x = dequantise(images.x[rows], images.levels, generator)
        return {"cross_entropy": functional.cross_entropy(model(x), images.y[rows], label_smoothing=0.05)}

    training = TrainingConfig(
        max_steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=min(50, config.steps // 10),
        weight_decay=1e-2,
    )
    generator = torch.Generator(device).manual_seed(_SEED)
    train(judge, objective, training, generator, progress=progress, description="judge")
    features = judge.features(images.x)
    judge.center.copy_(features.mean(0))
    judge.scale.copy_(features.std(0))
    return judge.eval()
