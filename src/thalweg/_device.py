"""Where torch computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thalweg.errors import InputError

if TYPE_CHECKING:
    import torch


def resolve_device(device: str) -> torch.device:
    """``"auto"`` is CUDA when there is one.

    Raises
    ------
    InputError
        If the device is not a torch device or not present.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={device!r} cannot be used ({error}); choose 'auto', 'cpu' or 'cuda'.") from None
    return found
