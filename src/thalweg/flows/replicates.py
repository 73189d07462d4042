"""Whether replicates of one time differ by more than neighbouring times do: a batch effect as large as the course.

Both are energy distances without the bias of few cells, so that samples of one population are zero apart on average.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.core.distances import energy
from thalweg.data.cells import Cells, Rows
from thalweg.data.replicates import FEWEST

Floats = NDArray[np.float64]
_LARGEST = 300  # cells of a population that are compared


class Apart(NamedTuple):
    """Mean energy distances.

    Attributes
    ----------
    replicates
        Of two replicates of one time (and condition); NaN where no time has two.
    times
        Of neighbouring times.
    """

    replicates: float
    times: float


def apart(cells: Cells, rng: np.random.Generator) -> Apart:
    """How far apart replicates and neighbouring times are.

    Parameters
    ----------
    cells
        The course, with replicates or without.
    rng
        Draws at most 300 cells of each population.
    """
    within, between = [], []
    for condition in cells.strata:
        populations = [cells.rows(t, condition) for t in cells.times_of(condition).tolist()]
        between += [distance(cells, a, b, rng) for a, b in pairwise(populations)]
        for rows in populations:
            within += [distance(cells, a, b, rng) for a, b in combinations(cells.replicates(rows), 2)]
    return Apart(*(float(np.mean(found)) if found else float("nan") for found in (within, between)))


def warn_if_apart(cells: Cells) -> None:
    """Warn where replicates of one time lie further apart than neighbouring times; nothing without replicates."""
    if cells.replicate is None:
        return
    found = apart(cells, np.random.default_rng(0))
    if np.isnan(found.replicates):
        logger.info("no time has two replicates of %d cells or more, so replicate_key= tells nothing", FEWEST)
    if found.replicates > found.times:
        logger.warning(
            "replicates of one time are further apart than neighbouring times (energy distances %.3g and %.3g): a "
            "batch effect is as large as the course. Integrate the replicates first, or fit each of them alone",
            found.replicates, max(found.times, 0.0),
        )  # fmt: skip


def distance(cells: Cells, one: Rows, other: Rows, rng: np.random.Generator) -> float:
    """Energy distance of two populations, less what sampling adds to it."""
    x, y = (cells.x[rng.permutation(rows)[:_LARGEST]] for rows in (one, other))
    spare = sum(_mean_distance(z) / len(z) for z in (x, y) if len(z) > 1)
    return energy(x, y) - spare


def _mean_distance(x: Floats) -> float:
    """Mean distance of two different cells."""
    from scipy.spatial.distance import pdist

    return float(pdist(x).mean())
