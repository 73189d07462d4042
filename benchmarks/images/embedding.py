"""What both networks share: the embedding of time and class, the checks of their input, and how weights are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from thalweg.errors import InputError

M = TypeVar("M", bound=nn.Module)

_TIME_SCALE = 1000.0  # times in [0, 1] are spread as the 1,000 steps the sinusoids were chosen for
_LONGEST = 10_000.0


class Embedding(nn.Module):
    """Sum of an embedded time and an embedded class, of which the last is the null class of guidance.

    Parameters
    ----------
    width
        Coordinates of the embedding, even.
    n_classes
        Number of classes; 0 without labels.
    """

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.width, self.n_classes = width, n_classes
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(n_classes + 1, width) if n_classes else None

    def forward(self, t: Tensor, condition: Tensor | None) -> Tensor:
        """Embed times ``(n,)`` and labels ``(n,)``; ``n_classes`` or None is the null class.

        Raises
        ------
        InputError
            If a condition is given to an unconditional field, or labels are not ``(n,)`` in ``0 .. n_classes``.
        """
        half = self.width // 2
        rate = torch.exp(torch.arange(half, device=t.device, dtype=t.dtype) * (-math.log(_LONGEST) / half))
        angle = _TIME_SCALE * t[:, None] * rate
        e: Tensor = self.time(torch.cat([torch.cos(angle), torch.sin(angle)], 1))
        if self.label is None:
            if condition is not None:
                raise InputError("condition given to an unconditional network; build it with n_classes.")
            return e
        if condition is None:
            condition = torch.full_like(t, self.n_classes, dtype=torch.int64)
        if condition.shape != t.shape or bool(((condition < 0) | (condition > self.n_classes)).any()):
            raise InputError(
                f"condition must be labels of shape {tuple(t.shape)} in 0 .. {self.n_classes} (the null class), found "
                f"shape {tuple(condition.shape)}, largest {int(condition.max())}."
            )
        return e + self.label(condition)  # type: ignore[no-any-return]


def check_input(t: Tensor, x: Tensor, shape: tuple[int, int, int]) -> None:
    """Refuse images or times of another shape.

    Raises
    ------
    InputError
        If ``x`` is not ``(n, *shape)`` or ``t`` not ``(n,)``.
    """
    if tuple(x.shape[1:]) != shape or t.shape != x.shape[:1]:
        raise InputError(
            f"x must be (n, {', '.join(map(str, shape))}) and t (n,), found {tuple(x.shape)}, {tuple(t.shape)}."
        )


def build(make: Callable[[], M], generator: torch.Generator) -> M:
    """Make a module with weights drawn from a generator; torch's global one is neither read nor changed.

    Convolutions and linear layers are uniform in ``+-1/sqrt(fan_in)``, or zero where marked ``starts_at_zero``; norms
    start as the identity, class embeddings from N(0, 1), positions from N(0, 0.5^2).

    Raises
    ------
    InputError
        If a parameter belongs to a layer for which no rule is given.
    """
    with torch.device("meta"):
        module = make()
    module.to_empty(device="cpu")
    with torch.no_grad():
        for name, layer in module.named_modules():
            own = dict(layer.named_parameters(recurse=False))
            if isinstance(layer, nn.Linear | nn.Conv2d):
                bound = 0.0 if hasattr(layer, "starts_at_zero") else 1 / math.sqrt(layer.weight[0].numel())
                for p in own.values():
                    p.uniform_(-bound, bound, generator=generator)
            elif isinstance(layer, nn.GroupNorm | nn.LayerNorm):
                for key, p in own.items():
                    p.fill_(1.0 if key == "weight" else 0.0)
            elif isinstance(layer, nn.Embedding):
                layer.weight.normal_(generator=generator)
            elif set(own) <= {"position"}:
                for p in own.values():
                    p.normal_(0.0, 0.5, generator=generator)
            else:
                raise InputError(f"{name} has parameters {', '.join(own)} without a rule to draw them; add one here.")
    return module
