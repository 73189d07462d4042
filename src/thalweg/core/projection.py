r"""Velocities on an embedding of the cells (UMAP, t-SNE, a layout), for plots.

``"regression"``. The embedding ``y`` is a function of the representation ``x`` that is known at the cells alone. Around
a cell it is taken to be linear: with the displacements :math:`\Delta X, \Delta Y` to the ``n_neighbors`` nearest cells,

.. math:: \dot y = \Delta Y^T (\Delta X \Delta X^T + \lambda I)^{-1} \Delta X \, v, \qquad
          \lambda = \epsilon \, \mathrm{tr}(\Delta X \Delta X^T) / n_{neighbors},

ridge regression in its dual form. It is exact for a linear embedding whose neighbours span the velocity, up to
:math:`\epsilon`, and has units of the embedding per unit of time. What points away from all cells is left out.

``"transition"``. The mean displacement under transition probabilities to the neighbours (La Manno et al. 2018; Bergen
et al. 2020), :math:`\pi_j \propto \exp(\cos(v, x_j - x)/\sigma)`,

.. math:: \dot y = \sum_j \Big(\pi_j - \frac1n\Big) \frac{y_j - y}{|y_j - y|}.

It is smoother, and its lengths mean little.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thalweg.core.neighbours import Neighbours
from thalweg.errors import InputError

Floats = NDArray[np.float64]
Projection = Literal["regression", "transition"]
_RIDGE = 1e-3
_KERNEL = 0.1  # sigma of the transition probabilities
_ROWS = 2048  # cells at once


def project(x: Floats, v: Floats, y: Floats, *, method: Projection = "regression", n_neighbors: int = 50) -> Floats:
    """Velocities on an embedding.

    Parameters
    ----------
    x, v
        Coordinates and velocities of the cells, shape ``(n, d)``.
    y
        Embedding of the cells, shape ``(n, e)``.
    method
        See the module's docstring.
    n_neighbors
        Neighbours in the representation, over all times.

    Returns
    -------
    Shape ``(n, e)``.

    Raises
    ------
    InputError
        If ``method`` is unknown or ``n_neighbors`` is not positive.
    """
    if method not in ("regression", "transition"):
        raise InputError(f"projection must be 'regression' or 'transition', found {method!r}.")
    near = Neighbours(x, n_neighbors, 1.0)
    step = _regression if method == "regression" else _transition
    out = np.empty((len(x), y.shape[1]))
    k = min(n_neighbors + 1, len(x))
    for first in range(0, len(x), _ROWS):
        rows = slice(first, first + _ROWS)
        _, index = near.nearest(x[rows], k)
        out[rows] = step(x[index] - x[rows, None], y[index] - y[rows, None], v[rows])
    return out


def _regression(dx: Floats, dy: Floats, v: Floats) -> Floats:
    gram = dx @ dx.swapaxes(1, 2)
    k = gram.shape[1]
    trace = np.trace(gram, axis1=1, axis2=2)
    ridge = _RIDGE * np.where(trace > 0, trace / k, 1.0)
    gram[:, np.arange(k), np.arange(k)] += ridge[:, None]
    alpha = np.linalg.solve(gram, dx @ v[:, :, None])
    return (dy.swapaxes(1, 2) @ alpha)[..., 0]


def _transition(dx: Floats, dy: Floats, v: Floats) -> Floats:
    lengths = np.linalg.norm(dx, axis=2)
    norm = lengths * np.linalg.norm(v, axis=1)[:, None]
    cosine = np.divide((dx @ v[:, :, None])[..., 0], norm, out=np.zeros_like(norm), where=norm > 0)
    p = np.exp(cosine / _KERNEL) * (lengths > 0)  # not to itself
    uniform = (lengths > 0) / np.maximum((lengths > 0).sum(1, keepdims=True), 1)
    p = p / np.maximum(p.sum(1, keepdims=True), 1e-300)
    size = np.linalg.norm(dy, axis=2, keepdims=True)
    unit = np.divide(dy, size, out=np.zeros_like(dy), where=size > 0)
    return ((p - uniform)[:, :, None] * unit).sum(1)
