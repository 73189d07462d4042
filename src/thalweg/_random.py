"""Random numbers as an argument: no global generator is read or changed anywhere in the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thalweg.errors import InputError

if TYPE_CHECKING:
    import torch

Rng = int | np.random.Generator | None


def resolve_rng(rng: Rng = None, random_state: Rng = None) -> np.random.Generator:
    """Return the generator that ``rng`` (or its alias ``random_state``) stands for.

    Parameters
    ----------
    rng
        A seed, a generator, or None for fresh entropy.
    random_state
        Alias of ``rng``.

    Raises
    ------
    TypeError
        If both are given.
    InputError
        If the value is none of the three.
    """
    if rng is not None and random_state is not None:
        raise TypeError("rng and random_state are two names of one argument; give only rng.")
    value = random_state if rng is None else rng
    if isinstance(value, np.random.Generator):
        return value
    if value is None or (isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0):
        return np.random.default_rng(value)
    raise InputError(f"rng must be a non-negative int, a numpy Generator or None, found {value!r}.")


def torch_generator(rng: np.random.Generator, device: str | torch.device = "cpu") -> torch.Generator:
    """Make a torch generator on ``device``, seeded by one draw from ``rng``."""
    import torch

    return torch.Generator(device=device).manual_seed(int(rng.integers(2**62)))
