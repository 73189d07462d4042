r"""Velocities averaged on a regular grid.

At a node :math:`g` with the Gaussian kernel :math:`k_i(g) = \exp(-\tfrac12 \sum_d (g_d - x_{id})^2 / h_d^2)`,

.. math:: \bar v(g) = \sum_i k_i(g) v_i / m(g), \qquad m(g) = \sum_i k_i(g),

where the mass :math:`m` is a number of cells: one cell at the node itself counts as one. The kernel is a product over
the two axes, so all nodes are two matrix products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.arms import arms
from thalweg.data.embedding import read_embedding, read_velocity
from thalweg.data.recipe import Columns
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]


def velocity_grid(
    adata: AnnData,
    basis: str | None = None,
    *,
    components: tuple[int, int] = (0, 1),
    velocity_key: str | None = None,
    n_grid: int = 40,
    bandwidth: float = 0.03,
    min_cells: float = 2.0,
    condition_key: Columns = None,
) -> pd.DataFrame:
    """Velocities on an embedding, averaged on a grid.

    Parameters
    ----------
    adata
        Cells with the velocities that `thalweg.tl.velocity` wrote.
    basis, components
        Embedding, by default the PCA that exists, and two of its columns.
    velocity_key
        Key of ``obsm`` with the velocities; by default ``velocity_<key of the embedding>``.
    n_grid
        Nodes along each axis, 2 at least.
    bandwidth
        Standard deviation of the kernel, as a share of each axis' range.
    min_cells
        Mass below which a node has no average.
    condition_key
        Column of ``obs``, or several: an average for each condition, on the same grid.

    Returns
    -------
    A row for each node (and ``condition``), ``y`` by ``x``: ``x``, ``y``, ``u``, ``v`` (NaN where there are too few
    cells), ``mass`` and, where ``obs["velocity_agreement"]`` exists, its mean ``agreement``.

    Raises
    ------
    MissingKeyError
        If the embedding, its velocities or the condition do not exist.
    InputError
        If they cannot be used, or an option is out of range.
    """
    if n_grid < 2 or not 0 < bandwidth < np.inf:
        raise InputError(f"n_grid must be 2 or more and bandwidth positive, found {n_grid!r} and {bandwidth!r}.")
    embedding = read_embedding(adata, basis, components)
    v = read_velocity(adata, embedding, velocity_key)
    agree = adata.obs["velocity_agreement"].to_numpy()[:, None] if "velocity_agreement" in adata.obs else v[:, :0]
    v = np.hstack([v, agree])
    low, high = embedding.xy.min(0), embedding.xy.max(0)
    nodes = [np.linspace(a, b, n_grid) for a, b in zip(low, high, strict=True)]
    widths = bandwidth * np.where(high > low, high - low, 1)
    parts = []
    for name, own in arms(adata, condition_key).items():
        parts.append(_average(embedding.xy[own], v[own], nodes, widths, min_cells))
        if condition_key is not None:
            parts[-1].insert(0, "condition", name)
    return pd.concat(parts, ignore_index=True)


def _average(xy: Floats, v: Floats, nodes: list[Floats], widths: Floats, min_cells: float) -> pd.DataFrame:
    kx, ky = (np.exp(-0.5 * ((g[:, None] - x) / h) ** 2) for g, x, h in zip(nodes, xy.T, widths, strict=True))
    mass = ky @ kx.T
    known = mass >= max(min_cells, np.finfo(float).tiny)
    means = [np.divide((ky * part) @ kx.T, mass, out=np.full_like(mass, np.nan), where=known) for part in v.T]
    x, y = np.meshgrid(*nodes)
    columns = dict(zip(("u", "v", "agreement"), means, strict=False))
    return pd.DataFrame({name: a.ravel() for name, a in ({"x": x, "y": y} | columns | {"mass": mass}).items()})
