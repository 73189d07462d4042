"""The block of one pair of times in the matrix of `thalweg.data.transitions`: by the flow, or by an optimal plan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from thalweg.core.couplings import Plan
from thalweg.core.neighbours import Neighbours
from thalweg.data.cells import Cells, Rows
from thalweg.errors import InputError
from thalweg.flows import normalisation
from thalweg.flows.carry import Carrier, Futures
from thalweg.flows.coupling import couple
from thalweg.flows.pairs import couple_dynamics
from thalweg.flows.store import Stored


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

    def merged(self, cells: Cells) -> Block:
        """The same over the rows of the AnnData: the mean over the conditions by which a row is coupled."""
        if cells.origin is None:
            return self
        n, rows = len(cells.origin), _coupled(cells, self.t0, self.t1)
        into = sparse.csr_matrix((np.ones(n), (np.arange(n), cells.origin)))
        share = 1 / np.bincount(cells.origin[rows], minlength=into.shape[1])[cells.origin[rows]]
        mean = sparse.csr_matrix((share, (cells.origin[rows], rows)), shape=into.T.shape)
        return replace(self, matrix=sparse.csr_matrix(mean @ self.matrix @ into))


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
        Of the kernel, see `thalweg.core.neighbours`.
    top_k
        Entries kept of a row.
    """

    carrier: Carrier
    n_samples: int
    n_neighbors: int
    bandwidth: float | None
    top_k: int

    def __call__(self, t0: float, t1: float) -> Block:
        """Couple the cells of two times, within each condition."""
        cells, parts, widths, dropped, total = self.carrier.cells, [], [], 0.0, 0.0
        for condition in cells.strata:
            rows, cols = cells.rows(t0, condition), cells.rows(t1, condition)
            if not len(rows) or not len(cols):
                continue
            assign = Neighbours(cells.x[cols], self.n_neighbors, self.bandwidth, cells.weights[cols])
            widths.append(assign.bandwidth)
            times = [t for t in cells.times_of(condition).tolist() if t0 <= t <= t1]
            for ends in self.carrier.futures(rows, times, self.n_samples):
                whole = _spread(ends, assign, len(cols))
                kept = _largest(whole, self.top_k)
                sums, left = (np.asarray(m.sum(1)).ravel() for m in (whole, kept))
                dropped, total = dropped + float((sums - left).sum()), total + float(sums.sum())
                scale = np.divide(
                    sums, left, out=np.zeros_like(sums), where=left > 0
                )  # a cell that dies leaves nothing
                kept.data *= np.repeat(scale, np.diff(kept.indptr))
                parts.append((rows[ends.rows], cols, kept))
        matrix = _relative(_place(parts, len(cells.x)), cells, _coupled(cells, t0, t1))
        return Block(matrix, t0, t1, float(np.mean(widths)) if widths else np.nan, dropped / total if total else 0.0)


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


def _place(parts: list[tuple[Rows, Rows, sparse.csr_matrix]], n: int) -> sparse.csr_matrix:
    """Blocks over some rows and columns as one matrix over all cells."""
    if not parts:
        return sparse.csr_matrix((n, n))
    pieces = [(m.data, rows[m.row], cols[m.col]) for rows, cols, m in ((r, c, m.tocoo()) for r, c, m in parts)]
    data, rows, cols = (np.concatenate(v) for v in zip(*pieces, strict=True))
    return sparse.csr_matrix((data, (rows, cols)), shape=(n, n))


def _coupled(cells: Cells, t0: float, t1: float) -> Rows:
    """The cells of ``t0`` whose condition was observed at ``t1``; those that die leave nothing, and count."""
    rows = [cells.rows(t0, c) for c in cells.strata if len(cells.rows(t1, c))]
    out: Rows = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    return out


def _relative(matrix: sparse.csr_matrix, cells: Cells, coupled: Rows) -> sparse.csr_matrix:
    """Growth relative to its weighted mean over the cells that are coupled."""
    mass, weights = np.asarray(matrix.sum(1)).ravel()[coupled], cells.weights[coupled]
    if not mass.any():
        return matrix
    scaled = matrix * float(weights.sum() / (weights @ mass))
    return scaled


def plan_block(stored: Stored, cells: Cells, t0: float, t1: float) -> Block:
    """The optimal plan between the cells of two times, as the fit's method makes it.

    Raises
    ------
    InputError
        If the method draws no pairs from a plan of whole populations, or the plan would not fit the memory.
    """
    method, flow = stored.method, stored.flow
    if method.coupling in ("none", "independent"):
        raise InputError(f"kind='plan': method={method.name!r} uses no transport plan; use kind='flow'.")
    keep = np.flatnonzero((cells.time == t0) | (cells.time == t1))
    course = cells.take(keep)
    z = normalisation.normalise(course.x, flow.center, flow.scale)
    if method.dynamics != "none":
        sigma = np.asarray(stored.process.sigma) if method.bridged else None
        pairs = couple_dynamics(course, z, flow.process.axis, sigma, {})
        mixture = pairs.plans()
        arrived = [pairs.log_mass[1][targets].double().exp() for targets in mixture.targets]
    else:
        coupled = couple(course, z, flow.axis, method, stored.config, float(flow.sigma), {})
        mixture, arrived = coupled.mixture, [coupled.masses(k)[1] for k in range(len(coupled.mixture.parts))]
    parts = []
    for part, sources, targets, m1 in zip(mixture.parts, mixture.sources, mixture.targets, arrived, strict=True):
        if not isinstance(part, Plan):
            raise InputError(
                f"kind='plan': the plan between times {t0:g} and {t1:g} does not fit the memory and the fit used "
                "minibatches; use kind='flow', or raise thalweg.settings.max_memory."
            )
        rows, cols = keep[sources.numpy()], keep[targets.numpy()]
        a = cells.weights[rows] / cells.weights[rows].sum()
        plan = sparse.csr_matrix((part.mass.numpy(), (part.rows.numpy(), part.cols.numpy())), shape=part.shape)
        plan = plan @ sparse.diags(m1.numpy())  # what arrives, as in the flow: pi_ij m_1 of the a_i that set out
        parts.append((rows, cols, sparse.diags(1 / a) @ plan))  # plans of several relaxations add up
    return Block(_relative(_place(parts, len(cells.x)), cells, _coupled(cells, t0, t1)), t0, t1, np.nan, 0.0)
