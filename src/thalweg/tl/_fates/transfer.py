"""Fates of new cells: the mean over the cells around them whose fates are known."""

from __future__ import annotations

import numpy as np

from thalweg.core.neighbours import Neighbours
from thalweg.data.cells import Cells
from thalweg.flows.query import beside
from thalweg.tl._fates.futures import Found, weighted_mean


def transfer(new: Cells, known: Cells, fates: Found, n_neighbors: int) -> Found:
    """Fates of new cells by the kernel of `thalweg.core.neighbours` on the cells of their time and condition.

    Between two times of the fit it is the mean over both, by how near each is. The variance of a mean is that of the
    cells that it is over, and of how far these differ. The errors of neighbours are taken to be the same error.

    Parameters
    ----------
    new, known
        New cells and those of the fit, read by one recipe.
    fates
        Of the cells of the fit.
    n_neighbors
        Of the kernel.
    """
    k = fates.p.shape[1]
    p, error = np.empty((len(new.x), k)), np.empty((len(new.x), k))
    draws = None if fates.draws is None else np.empty((len(new.x), *fates.draws.shape[1:]))
    widths = []
    for group in beside(new, known):
        index, weight = [], []
        for rows, share in zip(group.populations, group.shares, strict=True):
            near = Neighbours(known.x[rows], n_neighbors, None, known.weights[rows])
            found, closeness = near(new.x[group.rows])
            index.append(rows[found])
            weight.append(share * closeness)
            widths.append(near.bandwidth)
        around, omega = np.concatenate(index, 1), np.concatenate(weight, 1)
        p[group.rows], scatter = weighted_mean(fates.p[around], omega)
        common = np.einsum("ns,nsk->nk", omega, fates.error[around] ** 2)
        error[group.rows] = np.sqrt(common + scatter**2)
        if draws is not None and fates.draws is not None:
            for d in range(draws.shape[1]):  # one by one, for they are many numbers
                draws[group.rows, d] = np.einsum("ns,nsk->nk", omega, fates.draws[around, d])
    return Found(p, error, float(np.mean(widths)), draws)
