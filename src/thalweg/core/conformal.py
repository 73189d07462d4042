r"""Whether points lie where known cells lie: conformal p values (Vovk et al. 2005; Shafer & Vovk 2008).

Some of the cells are held back. How strange a point is, is measured against the others, the proper cells: its distance
to the ``k``-th nearest of them, relative to the same distance of these neighbours,

.. math:: a(x) = \frac{r_k(x)}{\frac1k \sum_{j \in N_k(x)} r_k(y_j)},

so that sparse and dense regions count alike. The p value of a point is its rank among the ``m`` cells held back,

.. math:: p(x) = \frac{1 + \#\{i : a(c_i) \ge a(x)\}}{m + 1} .

If the point and the cells held back are exchangeable, ``P(p <= alpha) <= alpha`` for every ``alpha``, whatever the
distribution and the number of dimensions; without ties it is the largest multiple of ``1 / (m + 1)`` up to ``alpha``.
This holds on average over the points, and not for the cells of each type.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thalweg.core.neighbours import Neighbours

Floats = NDArray[np.float64]
_HELD = 1000  # cells held back at most: enough for a p value of 0.001


def smallest_p(n_cells: int) -> float:
    """The smallest p value that `conformal_p` can give by ``n_cells`` cells."""
    return 1 / (len(_held(n_cells)) + 1)


def conformal_p(points: Floats, cells: Floats, n_neighbors: int = 15) -> Floats:
    """P value of each point that it is one more cell of a population.

    Half of the cells are held back, but a thousand at most. Which ones is the same draw in every call.

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
    Shape ``(n,)``, from `smallest_p` to 1; 1 for all points of a population of fewer than four cells.
    """
    held = _held(len(cells))
    proper = np.delete(cells, held, axis=0)
    k = min(n_neighbors, len(proper) - 1)
    if k < 1:
        return np.ones(len(points))
    near = Neighbours(proper, k, 1.0)
    among = near.nearest(proper, k + 1)[0][:, -1]  # the nearest is the cell itself

    def strange(x: Floats) -> Floats:
        distance, index = near.nearest(x, k)
        return np.asarray(distance[:, -1] / np.maximum(among[index].mean(1), np.finfo(np.float64).tiny))

    known = np.sort(strange(cells[held]))
    at_least = len(known) - np.searchsorted(known, strange(points), side="left")
    return np.asarray((1 + at_least) / (len(known) + 1))


def _held(n_cells: int) -> NDArray[np.int64]:
    """Rows of the cells that are held back; drawn, as rows may alternate between samples."""
    return np.random.default_rng(0).permutation(n_cells)[: min(n_cells // 2, _HELD)]
