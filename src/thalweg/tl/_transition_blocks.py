"""The block of one pair of times in the matrix of `thalweg.data.transitions`: by the flow, or by an optimal plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from thalweg.core.couplings import Plan
from thalweg.data import Snapshots
from thalweg.data.snapshots import descendants
from thalweg.errors import InputError
from thalweg.tl._couple import couple
from thalweg.tl._flow import Floats, Labels
from thalweg.tl._methods import find_method
from thalweg.tl._neighbours import Neighbours
from thalweg.tl._simulate import Futures, Simulator
from thalweg.tl._store import Stored

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Cells:
    """All cells of a course, read as in the fit.

    Attributes
    ----------
    x
        Coordinates, shape ``(n, d)``.
    time, weights
        Shape ``(n,)``.
    condition
        Condition index, shape ``(n,)``; None for an unconditional fit.
    rates
        Growth rates, shape ``(n,)``; None without a ``growth_key``.
    """

    x: Floats
    time: Floats
    weights: Floats
    condition: Labels | None
    rates: Floats | None = None

    def rows(self, time: float, condition: int | None = None) -> NDArray[np.int64]:
        """Rows of the cells of a time (and condition)."""
        keep = self.time == time
        if condition is not None and self.condition is not None:
            keep = keep & (self.condition == condition)
        return np.flatnonzero(keep)

    def strata(self) -> list[int]:
        """The conditions there are; one for an unconditional fit."""
        return [0] if self.condition is None else np.unique(self.condition).tolist()

    def labels(self, rows: NDArray[np.int64]) -> Labels | None:
        """Conditions of some rows, as the flow takes them."""
        return None if self.condition is None else self.condition[rows]


def read_cells(adata: AnnData, stored: Stored) -> Cells:
    """Read all cells of an AnnData as in the fit."""
    x, time, weights = stored.coordinates_of(adata), stored.times_of(adata), stored.weights_of(adata)
    return Cells(x, time, weights, stored.conditions_of(adata), stored.rates_of(adata))


@dataclass(frozen=True)
class Block:
    """Couplings of one pair of times.

    Attributes
    ----------
    matrix
        ``T``, csr over the rows of all cells.
    t0, t1
        The times.
    bandwidth
        Of the kernel, the mean over conditions; NaN for a plan.
    dropped
        Share of the mass left out by ``top_k`` before the rest was scaled up.
    """

    matrix: sparse.csr_matrix
    t0: float
    t1: float
    bandwidth: float
    dropped: float


@dataclass(frozen=True)
class FlowBlocks:
    """Blocks by carrying the cells of the earlier time.

    Attributes
    ----------
    cells
        The course.
    simulate
        Carries cells.
    n_neighbors, bandwidth
        Of the kernel, see `thalweg.tl._neighbours`.
    top_k
        Entries kept of a row.
    """

    cells: Cells
    simulate: Simulator
    n_neighbors: int
    bandwidth: float | None
    top_k: int

    def __call__(self, t0: float, t1: float) -> Block:
        """Couple the cells of two times, within each condition."""
        cells, parts, widths, dropped, total = self.cells, [], [], 0.0, 0.0
        for condition in cells.strata():
            rows, cols = cells.rows(t0, condition), cells.rows(t1, condition)
            if not len(rows) or not len(cols):
                continue
            assign = Neighbours(cells.x[cols], self.n_neighbors, self.bandwidth, cells.weights[cols])
            widths.append(assign.bandwidth or 0.0)
            for ends in self.simulate(cells.x[rows], _between(cells, condition, t0, t1), cells.labels(rows)):
                whole = _spread(ends, assign, len(cols))
                kept = _largest(whole, self.top_k)
                sums, left = (np.asarray(m.sum(1)).ravel() for m in (whole, kept))
                dropped, total = dropped + float((sums - left).sum()), total + float(sums.sum())
                kept.data *= np.repeat(sums / left, np.diff(kept.indptr))
                parts.append((rows[ends.rows], cols, self._grown(kept, rows[ends.rows], t1 - t0)))
        matrix = _relative(_place(parts, len(cells.x)), cells, t0)
        return Block(matrix, t0, t1, float(np.mean(widths)) if widths else np.nan, dropped / total if total else 0.0)

    def _grown(self, matrix: sparse.csr_matrix, rows: Labels, dt: float) -> sparse.csr_matrix:
        """Rows times the descendants of their cells, where the flow itself does not grow."""
        if self.cells.rates is None or self.simulate.flow.net.grows:
            return matrix
        return sparse.csr_matrix(sparse.diags(descendants(self.cells.rates[rows], dt)) @ matrix)


def _between(cells: Cells, condition: int, t0: float, t1: float) -> list[float]:
    """Times to carry the cells of a condition through: every observed one on the way."""
    own = np.unique(cells.time if cells.condition is None else cells.time[cells.condition == condition])
    return [float(t) for t in own if t0 <= t <= t1]


def _spread(ends: Futures, assign: Neighbours, n_targets: int) -> sparse.csr_matrix:
    """Mean over the futures of each cell of growth times assignment, shape ``(n, n_targets)``."""
    n, n_samples, d = ends.x.shape
    index, p = assign(ends.x.reshape(-1, d))
    mass = p * (ends.weight.reshape(-1, 1) / n_samples)
    indptr = np.arange(n + 1) * n_samples * index.shape[1]
    matrix = sparse.csr_matrix((mass.ravel(), index.ravel(), indptr), shape=(n, n_targets))
    matrix.sum_duplicates()
    return matrix


def _largest(matrix: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """The ``k`` largest entries of each row."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((-matrix.data, row))  # within rows, which stay where they are
    rank = np.arange(len(order)) - matrix.indptr[row]
    keep = order[rank < k]
    return sparse.csr_matrix((matrix.data[keep], (row[keep], matrix.indices[keep])), shape=matrix.shape)


def _place(parts: list[tuple[Labels, Labels, sparse.csr_matrix]], n: int) -> sparse.csr_matrix:
    """Blocks over some rows and columns as one matrix over all cells."""
    if not parts:
        return sparse.csr_matrix((n, n))
    pieces = [(m.data, rows[m.row], cols[m.col]) for rows, cols, m in ((r, c, m.tocoo()) for r, c, m in parts)]
    data, rows, cols = (np.concatenate(v) for v in zip(*pieces, strict=True))
    return sparse.csr_matrix((data, (rows, cols)), shape=(n, n))


def _relative(matrix: sparse.csr_matrix, cells: Cells, t0: float) -> sparse.csr_matrix:
    """Growth relative to its weighted mean over the cells of ``t0`` that are coupled."""
    mass, rows = np.asarray(matrix.sum(1)).ravel(), cells.rows(t0)
    coupled = rows[mass[rows] > 0]
    if not len(coupled):
        return matrix
    weights = cells.weights[coupled]
    scaled = matrix * float(weights.sum() / (weights @ mass[coupled]))
    return scaled


def plan_block(stored: Stored, cells: Cells, t0: float, t1: float) -> Block:
    """The optimal plan between the cells of two times, as the fit's method makes it.

    Raises
    ------
    InputError
        If the method draws no pairs from a plan of whole populations, or the plan would not fit the memory.
    """
    method = find_method(stored.method)
    if method.coupling in ("none", "independent"):
        raise InputError(f"kind='plan': method={stored.method!r} uses no transport plan; use kind='flow'.")
    flow, keep = stored.flow, np.flatnonzero((cells.time == t0) | (cells.time == t1))
    condition = np.zeros(len(keep), dtype=np.int64) if cells.condition is None else cells.condition[keep]
    course = Snapshots(
        cells.x[keep],
        cells.time[keep],
        cells.weights[keep],
        condition,
        stored.conditions,
        stored.use_rep,
        None if cells.rates is None else cells.rates[keep],
    )
    z = torch.as_tensor((course.x - flow.center) / flow.scale, dtype=torch.float32)
    coupled = couple(course, z, flow.axis, method, stored.config, flow.sigma, {})
    mixture, parts = coupled.mixture, []
    for part, sources, targets in zip(mixture.parts, mixture.sources, mixture.targets, strict=True):
        if not isinstance(part, Plan):
            raise InputError(
                f"kind='plan': the plan between times {t0:g} and {t1:g} does not fit the memory and the fit used "
                "minibatches; use kind='flow', or raise thalweg.settings.max_memory."
            )
        rows, cols = keep[sources.numpy()], keep[targets.numpy()]
        a = cells.weights[rows] / cells.weights[rows].sum()
        plan = sparse.csr_matrix((part.mass.numpy(), (part.rows.numpy(), part.cols.numpy())), shape=part.shape)
        parts.append((rows, cols, sparse.diags(1 / a) @ plan))
    return Block(_relative(_place(parts, len(cells.x)), cells, t0), t0, t1, np.nan, 0.0)
