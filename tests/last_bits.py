"""What another machine may change, and how far a stored number can be trusted.

Another processor sums in another order: the last bits of float32 products differ, and with them everything after. So a
stored prediction cannot be asked for to the bit. What it can be asked for:

- `NETWORK`: one pass through a network. Each layer adds a few roundings of 6e-8, relative to the largest term of its
  sums; 1e-5 leaves room for a hundred of them.
- `SOLVED`: what an adaptive solver found. It takes the steps that keep its error below its own tolerance (1e-4 by
  default), and a last bit may decide whether a step is accepted. Both answers are right to that tolerance, and each
  part of the way between observed times adds one.

What no machine may change: which cells, times and weights there are, their order, and what is promised for one machine
only, such as the same bits for the same seed.

`move` imitates another machine on this one: every coordinate and every weight that a verb uses is moved by one unit in
the last place of float32, upwards or downwards by a rule that depends on the number itself and a seed. So equal numbers
stay equal, and the same call gives the same bits.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from thalweg.flows import normalisation, store_checks

SEEDS = (1, 2, 3)
NETWORK = {"rtol": 1e-5, "atol": 1e-5}
SOLVED = {"rtol": 3e-4, "atol": 3e-4}


def moved(x: Tensor, seed: int) -> Tensor:
    """Each float32 number one unit in the last place away from where it was; zero stays."""
    bits = x.contiguous().view(torch.int32).long()
    up = ((bits * 2654435761 + seed * 40503) >> 13) & 1
    away = torch.where(up == 1, math.inf, -math.inf)
    return torch.where(x == 0, x, torch.nextafter(x, away.to(x.dtype)))


def move(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Move the coordinates that flows are fitted to and run on, and the weights of fits that are read."""
    normalise, load_net = normalisation.normalise, store_checks.load_net

    def moved_coordinates(*args, **options):  # type: ignore[no-untyped-def]
        return moved(normalise(*args, **options), seed)

    def moved_weights(*args, **options):  # type: ignore[no-untyped-def]
        net = load_net(*args, **options)
        with torch.no_grad():
            for tensor in net.state_dict().values():
                if tensor.dtype == torch.float32:
                    tensor.copy_(moved(tensor, seed))
        return net

    monkeypatch.setattr(normalisation, "normalise", moved_coordinates)
    monkeypatch.setattr(store_checks, "load_net", moved_weights)
