r"""Whether points lie where known cells lie: conformal p values (Vovk et al. 2005; Shafer & Vovk 2008).

Some of the cells are held back, and any score ``a`` is made from the others, the proper cells. The p value of a point
is the rank of its score among those of the ``m`` cells held back,

.. math:: p(x) = \frac{1 + \#\{i : a(c_i) \ge a(x)\}}{m + 1} .

If the point and the cells held back are exchangeable, ``P(p <= alpha) <= alpha`` for every ``alpha``, whatever the
distribution and the number of dimensions; without ties it is the largest multiple of ``1 / (m + 1)`` up to ``alpha``.
This holds on average over the points, and not for the cells of each type.

The score of `conformal_p` is the distance to the ``k``-th nearest proper cell, relative to that of these neighbours,

.. math:: a(x) = \frac{r_k(x)}{\frac1k \sum_{j \in N_k(x)} r_k(y_j)},

so that sparse and dense regions count alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thalweg.core.neighbours import Neighbours

Floats = NDArray[np.float64]
_HELD = 1000  # cells held back at most: enough for a p value of 0.001


def held_back(n_cells: int) -> NDArray[np.int64]:
    """Rows of the cells of a population that are held back: half of them, but a thousand at most.

    They are drawn, as rows may alternate between samples, and the same in every call.
    """
    return np.random.default_rng(0).permutation(n_cells)[: min(n_cells // 2, _HELD)]


def rank_p(scores: Floats, held: Floats) -> Floats:
    """P value of each score, shape ``(n,)``, by the scores of the cells that were held back, shape ``(m,)``."""
    at_least = len(held) - np.searchsorted(np.sort(held), scores, side="left")
    return np.asarray((1 + at_least) / (len(held) + 1))


def conformal_p(points: Floats, cells: Floats, n_neighbors: int = 15) -> Floats:
    """P value of each point that it is one more cell of a population, by its distance to those that are not held back.

    Parameters
    ----------
    points
        Shape ``(n, d)``.
    cells
        Cells of the population, shape ``(m, d)``.
    n_neighbors
        ``k``; fewer where there are fewer cells.

    Returns
    -------
    Shape ``(n,)``; 1 for all points of a population of fewer than three cells.
    """
    held = held_back(len(cells))
    proper = np.delete(cells, held, axis=0)
    k = min(n_neighbors, len(proper) - 1)
    if k < 1:
        return np.ones(len(points))
    near = Neighbours(proper, k, 1.0)
    among = near.nearest(proper, k + 1)[0][:, -1]  # the nearest is the cell itself

    def strange(x: Floats) -> Floats:
        distance, index = near.nearest(x, k)
        return np.asarray(distance[:, -1] / np.maximum(among[index].mean(1), np.finfo(np.float64).tiny))

    return rank_p(strange(points), strange(cells[held]))
