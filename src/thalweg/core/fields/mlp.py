"""Networks: velocity, score and potential fields ``f(t, x, condition)``.

Weights are drawn from a `torch.Generator` handed in: modules are laid out on the meta device, which draws nothing, and
filled afterwards (`build`), so that torch's global generator is neither read nor changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from thalweg.errors import InputError


@runtime_checkable
class StartsWith(Protocol):
    """A module with buffers that start as something else than zeros; `build` calls ``start`` once they have memory."""

    def start(self) -> None:
        """Give the buffers their first values."""


M = TypeVar("M", bound=nn.Module)


def build(make: Callable[[], M], generator: torch.Generator) -> M:
    """Make a module with weights drawn from ``generator``, uniform in ``+-1/sqrt(fan_in)`` as torch's own default.

    Buffers are zero, or what the module's own ``start`` makes of them.

    Parameters
    ----------
    make
        Function without arguments returning the module; parameters of `torch.nn.Linear` and `torch.nn.Embedding` only.
    generator
        CPU generator.

    Raises
    ------
    InputError
        If the module holds parameters of a layer for which no initialisation is defined.
    """
    with torch.device("meta"):
        module = make()
    module.to_empty(device="cpu")
    done = 0
    with torch.no_grad():
        for buffer in module.buffers():
            buffer.zero_()
        for layer in module.modules():
            if isinstance(layer, StartsWith):
                layer.start()
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                for p in layer.parameters():
                    p.uniform_(-bound, bound, generator=generator)
                    done += 1
            elif isinstance(layer, nn.Embedding):
                layer.weight.normal_(generator=generator)
                done += 1
    if done != sum(1 for _ in module.parameters()):
        raise InputError(
            f"{type(module).__name__} has parameters outside Linear and Embedding layers; initialise them itself."
        )
    return module


class MLP(nn.Module):
    """Multilayer perceptron on ``[x, t, Fourier features of t, condition]``.

    Hidden layers are the named modules ``blocks.0``, ``blocks.1``, ...; SiLU activations make it twice differentiable.

    Parameters
    ----------
    dim
        Number of coordinates of ``x``.
    out_dim
        Number of outputs; ``dim`` by default.
    width, depth
        Units in, and number of, hidden layers.
    frequencies
        The time enters as ``t``, ``sin(k pi t)`` and ``cos(k pi t)`` for ``k = 1 .. frequencies``.
    n_conditions
        Number of conditions; 0 for an unconditional field. A condition enters through an embedding.
    """

    def __init__(
        self,
        dim: int,
        *,
        out_dim: int | None = None,
        width: int = 64,
        depth: int = 3,
        frequencies: int = 4,
        n_conditions: int = 0,
    ) -> None:
        super().__init__()
        self.dim, self.frequencies = dim, frequencies
        self.embedding = nn.Embedding(n_conditions, width // 4) if n_conditions else None
        sizes = [dim + 1 + 2 * frequencies + (width // 4 if n_conditions else 0)] + [width] * depth
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(i, o), nn.SiLU()) for i, o in pairwise(sizes))
        self.out = nn.Linear(width, dim if out_dim is None else out_dim)

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Evaluate the field.

        Parameters
        ----------
        t
            Times, shape ``(n,)``.
        x
            Points, shape ``(n, dim)``.
        condition
            Integer labels, shape ``(n,)``; required exactly when the field is conditional.

        Returns
        -------
        Values, shape ``(n, out_dim)``.

        Raises
        ------
        InputError
            If shapes do not match or a condition is missing or unexpected.
        """
        if x.ndim != 2 or x.shape[1] != self.dim or t.shape != x.shape[:1]:
            raise InputError(f"x must be (n, {self.dim}) and t (n,), found x {tuple(x.shape)} and t {tuple(t.shape)}.")
        if (condition is None) != (self.embedding is None):
            raise InputError(
                "condition is missing: this field is conditional."
                if condition is None
                else "condition given to an unconditional field."
            )
        k = torch.arange(1, self.frequencies + 1, device=t.device, dtype=t.dtype)
        angle = math.pi * t[:, None] * k
        parts = [x, t[:, None], torch.sin(angle), torch.cos(angle)]
        if self.embedding is not None and condition is not None:
            parts.append(self.embedding(condition))
        h = torch.cat(parts, 1)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.out(h)
        return out
