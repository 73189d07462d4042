"""Scores between two clouds of cells; thin, typed doors to `thalweg.core.distances`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg._settings import settings


def wasserstein(
    x: ArrayLike, y: ArrayLike, *, p: int = 1, weights_x: ArrayLike | None = None, weights_y: ArrayLike | None = None
) -> float:
    """Exact Wasserstein distance with Euclidean ground distance.

    Parameters
    ----------
    x, y
        Points, shape ``(n, d)`` and ``(m, d)``.
    p
        Order, 1 or 2. ``p=2`` is the root of the optimal mean *squared* distance.
    weights_x, weights_y
        Non-negative weights, shape ``(n,)`` and ``(m,)``; normalised to one; uniform by default.

    Returns
    -------
    The distance in units of the coordinates, exact: optimality is certified by the dual problem.

    Raises
    ------
    InputError
        If shapes, weights or ``p`` cannot be used.
    NotConvergedError
        If optimality could not be proven; an approximate value is never returned.
    MemoryBudgetError
        If the problem would take more than ``thalweg.settings.max_memory``.

    Examples
    --------
    >>> import numpy as np, thalweg as tw
    >>> tw.metrics.wasserstein(np.zeros((3, 2)), np.ones((4, 2)))
    1.4142135623730951
    """
    from thalweg.core import distances

    a, b = _weights(weights_x), _weights(weights_y)
    return distances.wasserstein(_points(x), _points(y), p=p, a=a, b=b, max_memory=settings.max_memory)


def energy_distance(
    x: ArrayLike, y: ArrayLike, *, weights_x: ArrayLike | None = None, weights_y: ArrayLike | None = None
) -> float:
    """Energy distance ``2 E|X-Y| - E|X-X'| - E|Y-Y'|`` (Székely & Rizzo 2013), no root, V-statistic.

    Parameters
    ----------
    x, y
        Points, shape ``(n, d)`` and ``(m, d)``.
    weights_x, weights_y
        Non-negative weights; uniform by default.

    Returns
    -------
    A number >= 0 in units of the coordinates; 0 exactly when the two clouds are equal.

    Raises
    ------
    InputError
        If shapes or weights cannot be used.
    MemoryBudgetError
        If the points alone exceed ``thalweg.settings.max_memory``; pairs are looked at in blocks that fit.
    """
    from thalweg.core import distances

    a, b = _weights(weights_x), _weights(weights_y)
    return distances.energy(_points(x), _points(y), a=a, b=b, max_memory=settings.max_memory)


def mmd(
    x: ArrayLike,
    y: ArrayLike,
    *,
    bandwidth: float | None = None,
    weights_x: ArrayLike | None = None,
    weights_y: ArrayLike | None = None,
) -> float:
    """Squared maximum mean discrepancy with the kernel ``exp(-|x-y|^2 / (2 bandwidth^2))`` (Gretton et al. 2012).

    Parameters
    ----------
    x, y
        Points, shape ``(n, d)`` and ``(m, d)``.
    bandwidth
        Kernel width in units of the coordinates; by default the root mean squared distance between ``x`` and ``y``
        over the square root of two.
    weights_x, weights_y
        Non-negative weights; uniform by default.

    Returns
    -------
    The V-statistic, between 0 and 2.

    Raises
    ------
    InputError
        If shapes, weights or ``bandwidth`` cannot be used.
    MemoryBudgetError
        If the points alone exceed ``thalweg.settings.max_memory``; pairs are looked at in blocks that fit.
    """
    from thalweg.core import distances

    a, b = _weights(weights_x), _weights(weights_y)
    return distances.mmd(_points(x), _points(y), bandwidth=bandwidth, a=a, b=b, max_memory=settings.max_memory)


def variance_ratio(
    x: ArrayLike, y: ArrayLike, *, weights_x: ArrayLike | None = None, weights_y: ArrayLike | None = None
) -> float:
    """Total variance (summed over coordinates) of ``x`` over that of ``y``.

    Parameters
    ----------
    x, y
        Predicted and real points, shape ``(n, d)`` and ``(m, d)``.
    weights_x, weights_y
        Non-negative weights; uniform by default.

    Returns
    -------
    1 when both are equally dispersed, below 1 when ``x`` is too narrow: in many dimensions a shrunken cloud can have a
    smaller Wasserstein distance than a right one, and this number shows it.

    Raises
    ------
    InputError
        If shapes or weights cannot be used, or ``y`` has no variance.
    """
    from thalweg.core import distances

    return distances.variance_ratio(_points(x), _points(y), a=_weights(weights_x), b=_weights(weights_y))


def _points(x: ArrayLike) -> NDArray[Any]:
    return np.asarray(x)


def _weights(w: ArrayLike | None) -> NDArray[np.float64] | None:
    return None if w is None else np.asarray(w, dtype=np.float64)
