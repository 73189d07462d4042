r"""Threshold sampling: a few entries of each row of a matrix that stand for all of them.

Of a row of masses ``m_j`` the entries above a threshold ``c`` stay as they are, and each other one becomes ``c`` with
probability ``m_j / c`` and else zero, so that every entry keeps its expectation (Duffield, Lund & Thorup, Journal of
the ACM 2007). The threshold is the one at which ``k`` entries stay, ``sum_j min(1, m_j / c) = k``; among draws with
these probabilities a systematic one keeps just as many, so the sum of the row is kept exactly, too.

Not guaranteed: sums of columns, which are right in expectation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.errors import InputError


def thin(mass: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Keep about ``k`` entries of each row, the largest for certain.

    Parameters
    ----------
    mass
        Non-negative masses, floating, shape ``(n, m)``.
    k
        Entries to keep; a row with no more than that is returned as it is.
    generator
        Source of the draw, on the device of ``mass``.

    Returns
    -------
    Masses of the shape of ``mass``, the others zero.

    Raises
    ------
    InputError
        If ``k`` is below 1.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, found {k}.")
    if k >= mass.shape[1]:
        return mass
    m = mass.double()
    largest = m.topk(k + 1, dim=1).values
    # With the r largest kept for certain, the rest share k - r places: c_r = (sum of the rest) / (k - r). The first r
    # whose next entry does not exceed c_r is the one.
    before = torch.cat([torch.zeros_like(largest[:, :1]), largest[:, : k - 1].cumsum(1)], 1)
    places = torch.arange(k, 0, -1, dtype=m.dtype, device=m.device)
    thresholds = (m.sum(1, keepdim=True) - before).clamp_min(0) / places
    first = (largest[:, :k] <= thresholds).to(torch.uint8).argmax(1, keepdim=True)
    c = thresholds.gather(1, first)
    certain = m >= c  # all of a row of fewer than k positive entries, where c is zero
    share = torch.where(certain, 0.0, m / c)
    start = torch.rand(len(m), 1, generator=generator, dtype=m.dtype, device=m.device)
    ticks = (share.cumsum(1) + start).floor()
    drawn = torch.diff(ticks, dim=1, prepend=torch.zeros_like(start)) > 0
    return torch.where(certain, m, torch.where(drawn, c, 0.0)).to(mass.dtype)
