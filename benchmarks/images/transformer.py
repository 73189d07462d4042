"""Small diffusion transformer: patches as tokens, adaptive layer norm, blocks named ``blocks.0``, ``blocks.1``, ...

An image is cut into ``patch x patch`` patches, each mapped to a token of ``width`` coordinates with a learned position.
In a block, time and class set shift, scale and gate of both residual branches, self-attention and a perceptron; gates
start at zero, so that a block starts as the identity (adaLN-Zero; Peebles & Xie 2023). The published SiT-B/2 has width
768, depth 12 and 12 heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from benchmarks.images.embedding import Embedding, check_input
from torch import Tensor, nn
from torch.nn import functional

from thalweg.errors import InputError


@dataclass(frozen=True)
class TransformerConfig:
    """Options of `Transformer`.

    Attributes
    ----------
    width, depth, heads
        Coordinates of a token, number of blocks, attention heads.
    patch
        Side of a patch; must divide the size of the images.
    mlp_ratio
        Hidden units of a block's perceptron over its width.
    """

    width: int = 64
    depth: int = 4
    heads: int = 4
    patch: int = 2
    mlp_ratio: int = 4


class Block(nn.Module):
    """Attention and perceptron, both modulated by the embedding."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        w = config.width
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(w, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(w, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(w, 3 * w), nn.Linear(w, w)
        self.mlp = nn.Sequential(nn.Linear(w, config.mlp_ratio * w), nn.GELU(), nn.Linear(config.mlp_ratio * w, w))
        self.modulation = zero(nn.Linear(w, 6 * w))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(functional.silu(e))[:, None].chunk(6, -1)
        h = h + gate1 * self._attend(self.norm1(h) * (1 + scale1) + shift1)
        out: Tensor = h + gate2 * self.mlp(self.norm2(h) * (1 + scale2) + shift2)
        return out

    def _attend(self, h: Tensor) -> Tensor:
        n, tokens, w = h.shape
        q, k, v = self.qkv(h).reshape(n, tokens, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.out(attended.transpose(1, 2).reshape(n, tokens, w))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Diffusion transformer ``f(t, x, condition)``.

    Parameters
    ----------
    shape
        ``(channels, height, width)`` of an image.
    n_classes
        Number of classes; 0 for an unconditional field.
    config
        Widths and depth.

    Raises
    ------
    InputError
        If the patch does not divide the image or the heads do not divide the width.
    """

    def __init__(self, shape: tuple[int, int, int], n_classes: int, config: TransformerConfig) -> None:
        super().__init__()
        channels, height, width = shape
        if height % config.patch or width % config.patch or config.width % config.heads:
            raise InputError(
                f"patch {config.patch} must divide {height} x {width} images and heads {config.heads} the width "
                f"{config.width}."
            )
        self.shape, self.patch = shape, config.patch
        tokens = height * width // config.patch**2
        pixels = channels * config.patch**2
        self.embedding = Embedding(config.width, n_classes)
        self.inlet = nn.Linear(pixels, config.width)
        self.position = nn.Parameter(torch.empty(tokens, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.modulation = zero(nn.Linear(config.width, 2 * config.width))
        self.outlet = zero(nn.Linear(config.width, pixels))

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Evaluate the field at times ``(n,)`` and images ``(n, *shape)``; None is the null class."""
        check_input(t, x, self.shape)
        e = self.embedding(t, condition)
        h = self.inlet(functional.pixel_unshuffle(x, self.patch).flatten(2).mT) + self.position
        for block in self.blocks:
            h = block(h, e)
        shift, scale = self.modulation(functional.silu(e))[:, None].chunk(2, -1)
        h = self.outlet(self.norm(h) * (1 + scale) + shift)
        grid = h.mT.reshape(len(x), -1, self.shape[1] // self.patch, self.shape[2] // self.patch)
        return functional.pixel_shuffle(grid, self.patch)


def zero(layer: nn.Linear) -> nn.Linear:
    """Mark a layer whose weights start at zero."""
    layer.starts_at_zero = True  # type: ignore[assignment]
    return layer
