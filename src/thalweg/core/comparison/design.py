"""Which unit belongs to which arm and which block, checked once for every test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.errors import InputError


@dataclass(frozen=True)
class Design:
    """Units of two arms, perhaps in blocks.

    Attributes
    ----------
    arm
        True for the units of arm 1, shape ``(n_units,)``.
    block
        Number of the block of each unit, from 0, shape ``(n_units,)``.
    """

    arm: NDArray[np.bool_]
    block: NDArray[np.int64]

    @property
    def df(self) -> int:
        """Residual degrees of freedom, which are the units less the blocks less one for the arm."""
        return len(self.arm) - self.n_blocks - 1

    @property
    def n_blocks(self) -> int:
        """Number of blocks, one where there are none."""
        return int(self.block.max()) + 1


def make_design(arm: ArrayLike, block: ArrayLike | None, n_units: int) -> Design:
    """Read the arm and the block of each unit.

    Raises
    ------
    InputError
        If an entry is missing, ``arm`` holds anything but 0 and 1, an arm is empty, or no block has both arms.
    """
    arms = np.asarray(arm)
    if arms.shape != (n_units,) or not np.isin(arms, (0, 1)).all():
        raise InputError(f"arm must hold 0 or 1 for each of {n_units} units, found {arms.tolist()}.")
    second = arms.astype(np.float64) == 1
    if second.all() or not second.any():
        raise InputError(f"both arms need a unit at least; every entry of arm is {int(second[0])}.")
    names = [0] * n_units if block is None else np.asarray(block).tolist()
    if len(names) != n_units or any(name is None or name != name for name in names):
        raise InputError(f"block must hold a label for each of {n_units} units and none may be missing, found {names}.")
    codes = {name: i for i, name in enumerate(dict.fromkeys(names))}
    design = Design(second, np.array([codes[name] for name in names], dtype=np.int64))
    if not set(design.block[second]) & set(design.block[~second]):
        raise InputError(f"no block has units of both arms, so arms cannot be told from blocks; found {names}.")
    return design
