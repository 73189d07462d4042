r"""Couplings between observed times as one sparse matrix over all cells, and masses carried along them.

With weights :math:`a_i` of the cells (summing to one at each time), the block of a pair of times holds

.. math:: T_{ij} = g_i P_{ij}, \qquad \sum_j P_{ij} = 1, \qquad \sum_i a_i g_i = 1,

with :math:`P_{ij}` the probability that cell ``i`` of the earlier time becomes one like cell ``j`` of the later, and
:math:`g_i` its growth relative to the population's; without growth :math:`g_i = 1` and the rows of a block sum to one.
A mass ``m`` of cells is carried forward as ``m T`` and, by Bayes, back as ``a T (m / (a T))``; between times that are
not coupled, along those in between.

Subsetting the cells leaves the matrix of those that remain; rows are then short of the mass that went to cells left
out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from thalweg.data.rates import read_weights
from thalweg.data.recipe import read_recipe, read_times
from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Pair = tuple[float, float]


@dataclass(frozen=True)
class Transitions:
    """Couplings of a course.

    Attributes
    ----------
    matrix
        All blocks, csr of shape ``(n, n)``.
    time
        Time of each cell, shape ``(n,)``.
    weights
        Weight of each cell, shape ``(n,)``.
    pairs
        Coupled pairs of times, ascending.
    """

    matrix: sparse.csr_matrix
    time: Floats
    weights: Floats
    pairs: tuple[Pair, ...]

    @cached_property
    def times(self) -> Floats:
        """Times that are coupled to another, ascending."""
        return np.unique([t for pair in self.pairs for t in pair])

    def rows(self, time: float) -> NDArray[np.int64]:
        """Rows of the cells of a time."""
        return np.flatnonzero(self.time == time)

    def share(self, time: float) -> Floats:
        """Weights of the cells of a time, summing to one."""
        weights = self.weights[self.time == time]
        total: Floats = weights / weights.sum()
        return total

    def block(self, t0: float, t1: float) -> sparse.csr_matrix:
        """``T`` between two coupled times, float64 of shape ``(n0, n1)``."""
        return self.matrix[self.rows(t0)][:, self.rows(t1)].astype(np.float64)

    def joined(self, t0: float, t1: float) -> bool:
        """Whether couplings lead from ``t0`` to ``t1``."""
        return self._route(t0, t1) is not None

    def route(self, t0: float, t1: float) -> list[float]:
        """The fewest coupled times that lead from ``t0`` to ``t1``, both included.

        Raises
        ------
        InputError
            If no couplings join them, as where ``t0`` is not before ``t1``.
        """
        found = self._route(t0, t1)
        if found is None:
            raise InputError(
                f"no couplings lead from time {t0:g} to {t1:g}; coupled pairs: {list(self.pairs)}. Add them with "
                "tw.tl.transition(adata, t0, t1)."
            )
        return found

    def _route(self, t0: float, t1: float) -> list[float] | None:
        paths, seen = [[t0]], {t0}
        while paths and t0 < t1:
            path = paths.pop(0)
            if path[-1] == t1:
                return path
            following = [b for a, b in self.pairs if a == path[-1] and b not in seen and b <= t1]
            seen.update(following)
            paths += [[*path, b] for b in following]
        return None

    def push(self, mass: Floats, t0: float, t1: float) -> Floats:
        """Carry masses on the cells of ``t0``, shape ``(..., n0)``, to those of ``t1``, shape ``(..., n1)``."""
        for a, b in pairwise(self.route(t0, t1)):
            mass = mass @ self.block(a, b)
        return mass

    def pull(self, mass: Floats, t1: float, t0: float) -> Floats:
        """Where masses on the cells of ``t1``, shape ``(..., n1)``, came from at ``t0``, shape ``(..., n0)``.

        Mass on cells that nothing arrives at has no origin and is left out.
        """
        start = self.share(t0)
        arriving = self.push(start, t0, t1)
        back = np.divide(mass, arriving, out=np.zeros_like(mass), where=arriving > 0)
        route = self.route(t0, t1)
        for a, b in reversed(list(pairwise(route))):
            back = back @ self.block(a, b).T
        return back * start


def read_transitions(adata: AnnData, key: str) -> Transitions:
    """Read what `thalweg.tl.transition` wrote.

    Raises
    ------
    MissingKeyError
        If ``obsp[key]`` or ``uns[key]`` does not exist.
    InputError
        If no pair of coupled times is left among the cells.
    """
    if key not in adata.obsp or key not in adata.uns:
        found = ", ".join(map(repr, adata.obsp.keys())) or "none"
        raise MissingKeyError(
            f"adata.obsp[{key!r}] with its entry in uns does not exist; obsp keys that exist: {found}. "
            "Run tw.tl.transition first."
        )
    info: Mapping[str, Any] = adata.uns[key]
    time, weight_key = read_times(adata, info), read_recipe(info).weight_key
    observed = set(time.tolist())
    table = info["pairs"]
    pairs = zip(map(float, table["t0"]), map(float, table["t1"]), strict=True)
    kept = tuple(sorted(p for p in pairs if observed.issuperset(p)))
    if not kept:
        raise InputError(f"adata holds no two coupled times of uns[{key!r}]; its cells are of {sorted(observed)}.")
    weights = np.ones(adata.n_obs) if weight_key is None else read_weights(adata, weight_key)
    return Transitions(sparse.csr_matrix(adata.obsp[key]), time, weights, kept)
