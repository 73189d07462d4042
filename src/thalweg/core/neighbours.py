r"""Assignment of points to the nearest real cells by a Gaussian kernel.

A point ``x`` belongs to cell ``j`` among its ``n_neighbors`` nearest with probability

.. math:: p_j \propto b_j \exp\!\big(-|x - y_j|^2 / (2 h^2)\big),

``b_j`` the weight of the cell. The bandwidth ``h`` is half the distance from a cell to its ``n_neighbors``-th nearest
other cell, the median over the cells, so that the kernel has fallen to ``exp(-2)`` where it is cut off. The nearest
cell always takes part, however far away it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import InputError

Floats = NDArray[np.float64]
_BANDWIDTH_CELLS = 2000  # cells behind the median distance


class Neighbours:
    """Cells to assign points to.

    Parameters
    ----------
    cells
        Coordinates, shape ``(m, d)``.
    n_neighbors
        Cells that a point is shared among; fewer where there are fewer.
    bandwidth
        ``h`` in units of the coordinates; None measures it.
    weights
        ``b``, shape ``(m,)``; equal by default.

    Attributes
    ----------
    bandwidth
        The one that is used.
    """

    def __init__(
        self, cells: Floats, n_neighbors: int, bandwidth: float | None = None, weights: Floats | None = None
    ) -> None:
        from sklearn.neighbors import NearestNeighbors

        check_neighbours(n_neighbors, bandwidth)
        self.cells, self.n_neighbors, self.weights = cells, n_neighbors, weights
        self._center = cells.mean(0)
        self._index: Any = NearestNeighbors().fit(cells - self._center)
        self.bandwidth = self._measured() if bandwidth is None else bandwidth

    def __call__(self, points: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Assign points, shape ``(n, d)``: cells and their probabilities, each of shape ``(n, k)``."""
        distance, index = self.nearest(points, min(self.n_neighbors, len(self.cells)))
        log_p = (distance[:, :1] ** 2 - distance**2) / max(2 * self.bandwidth**2, 1e-300)
        p = np.exp(np.maximum(log_p, -700.0)) * (log_p > -700.0)  # identical cells have a bandwidth of zero
        if self.weights is not None:
            p = p * self.weights[index]
        return index, p / p.sum(1, keepdims=True)

    def nearest(self, points: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """Distances and rows of the ``k`` nearest cells, ascending, each of shape ``(n, k)``."""
        distance, index = self._index.kneighbors(points - self._center, k)
        return distance, index

    def _measured(self) -> float:
        k = min(self.n_neighbors, len(self.cells) - 1)
        if k == 0:
            return 0.0
        some = self.cells[:: -(-len(self.cells) // _BANDWIDTH_CELLS)]
        distance, _ = self.nearest(some, k + 1)  # the nearest is the cell itself
        return float(np.median(distance[:, -1])) / 2


def check_neighbours(n_neighbors: int, bandwidth: float | None) -> None:
    """Refuse options that no kernel can be made of.

    Raises
    ------
    InputError
        If ``n_neighbors`` is below 1 or ``bandwidth`` is not positive.
    """
    if isinstance(n_neighbors, bool) or not isinstance(n_neighbors, int | np.integer) or n_neighbors < 1:
        raise InputError(f"n_neighbors must be a positive integer, found {n_neighbors!r}.")
    if bandwidth is not None and not 0 < bandwidth < np.inf:
        raise InputError(f"bandwidth must be positive and finite, found {bandwidth!r}; None measures it.")
