"""Whether anything moves: populations of neighbouring times against the same cells with their times exchanged.

The statistic is the energy distance between neighbouring populations, summed over the course. If the times say
nothing of the cells, exchanging them at random leaves its law as it is. So the share of exchanges that reach it is an
exact p value (a permutation test; Székely and Rizzo 2004). Times are exchanged within a condition.

*Reference.* G. J. Székely, M. L. Rizzo, "Testing for equal distributions in high dimension", InterStat 2004.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.data.cells import Cells

Floats = NDArray[np.float64]
PERMUTATIONS, SIGNIFICANT = 199, 0.01
_LARGEST = 300  # cells of a population that are compared
_SMALLEST, _LIKELY = 10, 0.05


class Moves(NamedTuple):
    """What the test found.

    Attributes
    ----------
    p
        Share of exchanges, the course itself included, in which neighbouring populations are as far apart; NaN where
        no two populations have ten cells.
    z
        How many standard deviations of the exchanged statistics the true one lies above their mean.
    """

    p: float
    z: float


def moves(cells: Cells, rng: np.random.Generator) -> Moves:
    """Test whether the populations of a course differ from time to time.

    Parameters
    ----------
    cells
        The course; of each population at most 300 cells, drawn at random, are compared, and none of fewer than ten.
    rng
        Draws the cells and the exchanges.
    """
    found = np.zeros(PERMUTATIONS + 1)
    for condition in cells.strata:
        times = cells.times_of(condition).tolist()
        groups = [rng.permutation(cells.rows(t, condition))[:_LARGEST] for t in times]
        groups = [g for g in groups if len(g) >= _SMALLEST]
        if len(groups) > 1:
            found += _by_exchange(cells.x[np.concatenate(groups)], np.array([len(g) for g in groups]), rng)
    if not found.any():
        return Moves(float("nan"), float("nan"))
    return Moves(
        float(np.mean(found >= found[0] - 1e-12 * abs(found[0]))),
        float((found[0] - found[1:].mean()) / max(found[1:].std(), 1e-300)),
    )


def warn_if_still(cells: Cells) -> None:
    """Warn if the populations of a course do not differ from time to time; half a second for 1,500 cells.

    Of fewer than ten cells a time nothing is said: so few cannot show it.
    """
    found = moves(cells, np.random.default_rng(0))
    if found.p > _LIKELY:
        logger.warning(
            "with the times of cells exchanged at random, neighbouring populations are as far apart as these "
            "(p = %.2f): nothing moves that could be learned, whatever arrows will show. Check the time labels; "
            "tw.tl.assess says more",
            found.p,
        )


def _by_exchange(x: Floats, sizes: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """The statistic of the groups as they are, then with cells exchanged, shape ``(1 + PERMUTATIONS,)``."""
    points = torch.from_numpy(x - x.mean(0))
    apart = torch.cdist(points, points)
    label = torch.repeat_interleave(torch.arange(len(sizes)), torch.from_numpy(sizes))
    member = torch.nn.functional.one_hot(label).double()
    size = torch.from_numpy(sizes).double()
    out = []
    for k in range(PERMUTATIONS + 1):
        m = member if k == 0 else member[torch.from_numpy(rng.permutation(len(x)))]
        total = m.T @ (apart @ m)
        within = total.diagonal() / (size * (size - 1))  # a cell is no pair with itself
        between = total.diagonal(1) / (size[:-1] * size[1:])
        out.append(float((2 * between - within[:-1] - within[1:]).sum()))
    return np.array(out)
