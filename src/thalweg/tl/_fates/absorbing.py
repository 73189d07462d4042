"""Groups that hold cells: a cell that has become one of them ends there, whatever day it is.

A group counts the descendants that enter it. What becomes of them in the group, and how they multiply there, does not
count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from thalweg.data.cells import Cells, Floats, Rows
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier
from thalweg.flows.flow import ROWS

Numbers = tuple[int, ...]
Shares = Callable[[Floats], Floats]
"""Share of each group for points of shape ``(n, d)``; shape ``(n, n_groups)``."""


def last_labelled(cells: Cells, codes: Rows, final: Rows) -> Rows:
    """The cells of a terminal group among those of the last time of a condition, ``final``.

    Raises
    ------
    InputError
        If there is none.
    """
    labelled = final[codes[final] >= 0]
    if not len(labelled):
        first = final[0]
        of = cells.of(int(cells.stratum[first]))
        raise InputError(
            f"no cell of a terminal group is left at time {cells.time[first]:g}{of}, so its last cells end nowhere; "
            "name a group that they belong to, terminal=[...], or label some of them."
        )
    return labelled


def through(
    carrier: Carrier, rows: Rows, times: Sequence[float], n_samples: int, shares: Sequence[Shares]
) -> Iterator[tuple[Floats, Floats]]:
    """Where some cells end if groups hold them on the way, in blocks that bound the memory.

    Parameters
    ----------
    carrier, rows, times, n_samples
        As in `thalweg.flows.carry.Carrier.futures`.
    shares
        For each time after the first the part of a future that each group holds there; at the last one they sum to one.

    Yields
    ------
    Share of each group for each future, shape ``(n, n_samples, n_groups)``, and the future's growth until it is held,
    shape ``(n, n_samples)``.
    """
    block = max(1, ROWS // n_samples)
    for first in range(0, len(rows), block):
        some = rows[first : first + block]
        carried = carrier.along(np.repeat(some, n_samples), times)
        free = np.ones((carried.x.shape[1], 1))
        ends = grown = np.zeros(1)
        for x, weight, share in zip(carried.x[1:], carried.weight[1:], shares, strict=True):
            held = share(x)
            ends, grown = ends + free * held, grown + free * held * weight[:, None]
            free = free * (1 - held.sum(1, keepdims=True))
        total = grown.sum(1, keepdims=True)
        q = np.where(total > 0, grown / np.where(total > 0, total, 1.0), ends)  # of one that dies, as if it lived
        yield q.reshape(len(some), n_samples, -1), total.reshape(len(some), n_samples)


def holding(
    absorbing: bool | Sequence[str], terminal: Sequence[str] | None, known: list[str], groupby: str
) -> list[str]:
    """Names of the groups that hold cells at any time.

    Parameters
    ----------
    absorbing, terminal
        As given to `thalweg.tl.fate`.
    known
        The groups of ``obs[groupby]`` that have cells.

    Raises
    ------
    InputError
        If ``absorbing`` is neither a bool nor names, or a group has no cell.
    """
    if isinstance(absorbing, str):
        raise InputError(
            f"absorbing must be True, False or a list of groups, found {absorbing!r}; use [{absorbing!r}]."
        )
    if isinstance(absorbing, bool):
        absorbing = (known if terminal is None else terminal) if absorbing else ()
    names = set(map(str, absorbing))
    absent = sorted(names - set(known))
    if absent:
        raise InputError(f"absorbing={absent} have no cells; groups of obs[{groupby!r}]: {known}.")
    return [g for g in known if g in names]


def check_free(column: pd.Series, held: list[str], groupby: str) -> None:
    """Refuse groups that hold every cell.

    Raises
    ------
    InputError
        If no cell is left that could end somewhere.
    """
    if column.notna().all() and column.astype(str).isin(held).all():
        raise InputError(
            f"every cell of obs[{groupby!r}] belongs to an absorbing group, so that none is left to end in one; name "
            "the groups that hold cells: absorbing=[...]."
        )
