"""Couplings as one Markov chain over the cells of an AnnData: what a step leads to, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from thalweg.data.cells import read_cells
from thalweg.data.recipe import read_recipe
from thalweg.data.transitions import read_transitions
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Chain:
    """A Markov chain over the cells.

    Attributes
    ----------
    matrix
        Probabilities of a step, csr of shape ``(n, n)``; the rows sum to one.
    ends
        Cells of the last time of each condition, by the words for them. They stay where they are.
    died
        Cells before the last time that have no descendants. They stay where they are, too.
    x
        Coordinates of the cells, shape ``(n, d)``.
    """

    matrix: sparse.csr_matrix
    ends: Mapping[str, Rows]
    died: Rows
    x: Floats

    def leading_to(self, labelled: NDArray[np.bool_], where: str) -> sparse.csr_matrix:
        """The matrix in which a last cell that is not labelled steps to the nearest one that is, and so none stays.

        Cells of different conditions are never coupled, so the nearest is one of the same condition.

        Parameters
        ----------
        labelled
            Whether a cell has a label, shape ``(n,)``.
        where
            The words for the column, for messages.

        Raises
        ------
        InputError
            If no last cell of a condition is labelled.
        """
        from sklearn.neighbors import NearestNeighbors

        target = np.arange(len(labelled))
        for words, rows in self.ends.items():
            has = labelled[rows]
            if not has.any():
                raise InputError(
                    f"none of the {len(rows)} cells of {words} has a group in {where}, so nothing tells where the "
                    "earlier ones end; label some of them, or leave the condition out."
                )
            if not has.all():
                nearest = NearestNeighbors(n_neighbors=1).fit(self.x[rows[has]])
                found = nearest.kneighbors(self.x[rows[~has]], return_distance=False)[:, 0]
                target[rows[~has]] = rows[has][found]
        moved = np.flatnonzero(target != np.arange(len(target)))
        stay = np.ones(len(target))
        stay[moved] = 0.0
        steps = sparse.csr_matrix((np.ones(len(moved)), (moved, target[moved])), shape=self.matrix.shape)
        return sparse.csr_matrix(sparse.diags(stay) @ self.matrix + steps)


def read_chain(adata: AnnData, key: str) -> Chain:
    """The couplings of `thalweg.tl.transition` as a chain that steps from each time of a condition to its next one.

    Raises
    ------
    MissingKeyError
        If there are no couplings under ``key``, or a column that the cells are read from does not exist.
    InputError
        If neighbouring times of a condition are not coupled, or the cells cannot be read.
    """
    transitions = read_transitions(adata, key)
    cells = read_cells(adata, read_recipe(adata.uns[key]).places)
    n, ends = adata.n_obs, {}
    matrix = sparse.csr_matrix((n, n))
    for condition in cells.strata:
        times = cells.times_of(condition).tolist()
        of = cells.of(condition)
        for t0, t1 in pairwise(times):
            if (t0, t1) not in transitions.pairs:
                raise InputError(
                    f"obsp[{key!r}] has no couplings of the neighbouring times {t0:g} and {t1:g}{of}; add them with "
                    f"tw.tl.transition(adata, {t0:g}, {t1:g}, key_added={key!r}) and the options of the others."
                )
            rows, cols = (cells.sources[cells.rows(t, condition)] for t in (t0, t1))
            block = transitions.matrix[rows][:, cols].tocoo()
            steps = (block.data, (rows[block.row], cols[block.col]))
            matrix = matrix.maximum(sparse.csr_matrix(steps, shape=(n, n), dtype=np.float64))  # shared cells once
        ends[f"the last time {times[-1]:g}{of}"] = cells.sources[cells.rows(times[-1], condition)]
    sums = np.asarray(matrix.sum(1)).ravel()
    stays = np.flatnonzero(sums == 0)
    ends = {words: np.intersect1d(rows, stays) for words, rows in ends.items()}
    died = np.setdiff1d(stays, np.concatenate(list(ends.values())))
    scale = np.divide(1.0, sums, out=np.zeros(n), where=sums > 0)
    return Chain(
        sparse.csr_matrix(sparse.diags(scale) @ matrix + sparse.diags((sums == 0).astype(float))),
        ends,
        died,
        cells.x[:n],
    )
