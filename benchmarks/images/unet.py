"""U-Net for images, the recipe of torchcfm's CIFAR-10 model scaled by its width.

Levels of resolution ``size, size/2, ...`` with ``width * mult`` channels each; at every level residual blocks (group
norm, SiLU, 3 x 3 convolution, twice; the embedding of time and class added between), self-attention at the chosen
resolutions and always in the middle, strided convolution down, nearest neighbour and convolution up, and a skip
connection from each block on the way down to its mirror image. The published model: width 128, mult (1, 2, 2, 2), two
blocks a level, attention at 16, dropout 0.1. ``patch > 1`` folds patches of pixels into channels first (not part of the
recipe: it makes 28 x 28 images affordable on a CPU).

Submodules are named ``down.i``, ``middle`` and ``up.i``, for losses on hidden features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from benchmarks.images.embedding import Embedding, check_input
from torch import Tensor, nn
from torch.nn import functional

from thalweg.errors import InputError


@dataclass(frozen=True)
class UNetConfig:
    """Options of `UNet`.

    Attributes
    ----------
    width, mult, n_blocks
        Channels of the first level, factors of the levels, residual blocks in a level.
    attention
        Resolutions with self-attention.
    head_channels
        Channels of an attention head.
    dropout
        Drops from torch's global generator; 0 draws nothing.
    patch
        Side of the patches folded into channels; must divide the size of the images.
    """

    width: int = 32
    mult: tuple[int, ...] = (1, 2, 2)
    n_blocks: int = 1
    attention: tuple[int, ...] = ()
    head_channels: int = 64
    dropout: float = 0.0
    patch: int = 1


class Residual(nn.Module):
    """Two convolutions around the embedding, and a skip connection."""

    def __init__(self, channels: int, out: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.embed = nn.Linear(embedding, out)
        self.norm2, self.conv2 = _norm(out), zero(nn.Conv2d(out, out, 3, padding=1))
        self.drop = nn.Dropout(dropout)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x))) + self.embed(functional.silu(e))[:, :, None, None]
        out: Tensor = self.skip(x) + self.conv2(self.drop(functional.silu(self.norm2(h))))
        return out


class Attention(nn.Module):
    """Self-attention over positions, added to its input."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.norm, self.qkv = _norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, height * width).mT.unbind(1)
        h = functional.scaled_dot_product_attention(q, k, v).mT.reshape(n, c, height, width)
        return x + self.out(h)  # type: ignore[no-any-return]


class Stage(nn.Module):
    """A residual block, attention where asked, and a change of resolution at the end of a level."""

    def __init__(self, residual: Residual, attention: Attention | None, resample: nn.Module | None) -> None:
        super().__init__()
        self.residual, self.attention, self.resample = residual, attention, resample

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        x = self.residual(x, e)
        x = x if self.attention is None else self.attention(x)
        return x if self.resample is None else self.resample(x)


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, embedding: int, config: UNetConfig) -> None:
        super().__init__()
        self.first = Residual(channels, channels, embedding, config.dropout)
        self.attention = Attention(channels, config.head_channels)
        self.second = Residual(channels, channels, embedding, config.dropout)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        out: Tensor = self.second(self.attention(self.first(x, e)), e)
        return out


class UNet(nn.Module):
    """U-Net ``f(t, x, condition)``.

    Parameters
    ----------
    shape, n_classes, config
        As in `Transformer`.

    Raises
    ------
    InputError
        If the size of the images is not divisible as the levels need it.
    """

    def __init__(self, shape: tuple[int, int, int], n_classes: int, config: UNetConfig) -> None:
        super().__init__()
        channels, height, width = shape
        factor = config.patch * 2 ** (len(config.mult) - 1)
        if height % factor or width % factor:
            raise InputError(
                f"patch {config.patch} and {len(config.mult)} levels need images divisible by {factor}, found "
                f"{height} x {width}; use another patch or fewer levels."
            )
        self.shape, self.patch, e = shape, config.patch, 4 * config.width
        self.embedding = Embedding(e, n_classes)
        self.inlet = nn.Conv2d(channels * config.patch**2, config.width, 3, padding=1)
        skips = [config.width]
        self.down, last = self._down(config, height // config.patch, e, skips)
        self.middle = Middle(last, e, config)
        self.up = self._up(config, height // config.patch, e, skips, last)
        self.outlet = nn.Sequential(
            _norm(config.width * config.mult[0]),
            nn.SiLU(),
            zero(nn.Conv2d(config.width * config.mult[0], channels * config.patch**2, 3, padding=1)),
        )

    @staticmethod
    def _down(config: UNetConfig, size: int, e: int, skips: list[int]) -> tuple[nn.ModuleList, int]:
        """Stages of the way down; the channels of each are appended to ``skips``."""
        stages, c = nn.ModuleList(), config.width
        for level, m in enumerate(config.mult):
            out, here = config.width * m, size >> level
            for k in range(config.n_blocks):
                attention = Attention(out, config.head_channels) if here in config.attention else None
                stages.append(Stage(Residual(c, out, e, config.dropout), attention, None))
                c = out
                skips.append(c)
                if k == config.n_blocks - 1 and level < len(config.mult) - 1:
                    stages.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                    skips.append(c)
        return stages, c

    @staticmethod
    def _up(config: UNetConfig, size: int, e: int, skips: list[int], last: int) -> nn.ModuleList:
        stages, c = nn.ModuleList(), last
        for level, m in reversed(list(enumerate(config.mult))):
            out, here = config.width * m, size >> level
            for k in range(config.n_blocks + 1):
                attention = Attention(out, config.head_channels) if here in config.attention else None
                grow = level and k == config.n_blocks
                resample = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(out, out, 3, padding=1))
                residual = Residual(c + skips.pop(), out, e, config.dropout)
                stages.append(Stage(residual, attention, resample if grow else None))
                c = out
        return stages

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Evaluate the field at times ``(n,)`` and images ``(n, *shape)``; None is the null class."""
        check_input(t, x, self.shape)
        e = self.embedding(t, condition)
        h = self.inlet(functional.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        kept = [h]
        for stage in self.down:
            h = stage(h) if isinstance(stage, nn.Conv2d) else stage(h, e)
            kept.append(h)
        h = self.middle(h, e)
        for stage in self.up:
            h = stage(torch.cat([h, kept.pop()], 1), e)
        out: Tensor = self.outlet(h)
        return functional.pixel_shuffle(out, self.patch) if self.patch > 1 else out


def _norm(channels: int) -> nn.GroupNorm:
    # Four channels a group, as 128 channels in 32 groups; narrow models would else normalise single channels.
    return nn.GroupNorm(max(1, min(32, channels // 4)), channels)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """Mark a layer whose weights start at zero, so that its block starts as the identity."""
    layer.starts_at_zero = True  # type: ignore[assignment]
    return layer
