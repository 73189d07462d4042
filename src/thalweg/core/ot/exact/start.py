"""Starting potentials and candidate arcs for exact transport. Nothing here needs to be accurate.

Entropic transport with regularisation ε has potentials (f, g) whose plan a_i b_j exp((f_i + g_j − c_ij) / ε) has the
marginals a and b; as ε → 0 they tend to optimal potentials, and the support of an optimal plan lies among the arcs of
low reduced cost c − f − g. Three stages, each cheaper per step than the one before would be: Sinkhorn scaling with
falling ε between two subsamples, sweeps over all pairs that carry its potentials to all points, and Sinkhorn scaling
with smaller ε on the arcs of low reduced cost alone. ε is measured in units of the spread of the cost matrix after its
row and column means are taken off, which neither an offset nor a translation of one cloud changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from thalweg.core.ot.exact.pairs import BLOCK_ENTRIES, Arcs, Array, Index, below

Floats = npt.NDArray[np.float32]

SUBSAMPLE = 1500
SWEEPS = 2
EPS_FIRST, EPS_LAST = 0.5, 0.06  # of the spread of the cost
SPARSE_FACTORS = (0.5, 0.25, 0.12, 0.06)
SPARSE_STEPS = 40
DENSE_STEPS = 10
ARCS_PER_POINT, POOL_PER_POINT = 14, 60
EXPONENT = 40.0  # keeps float32 products of kernel and scalings above 1e-38: denormal numbers are slow
FLOOR = 1e-30


def stratified(x: Array, size: int) -> Index:
    """Every k-th point along the first axis of the cloud, at most `size` of them."""
    order = np.argsort(x[:, 0], kind="stable")
    return order[np.unique(np.linspace(0, len(x) - 1, min(size, len(x))).astype(np.int64))]


def _blocks(x: Floats, y: Floats, squared: bool) -> Iterator[tuple[slice, Floats]]:
    """Slices of rows with their block of ground costs, which the caller may overwrite."""
    ones = np.ones
    left = np.column_stack([x, np.square(x).sum(1), ones(len(x), np.float32)])
    right = np.vstack([-2 * y.T, ones((1, len(y)), np.float32), np.square(y).sum(1)[None]])
    step = max(1, BLOCK_ENTRIES // len(y))
    buffer = np.empty((min(step, len(x)), len(y)), np.float32)
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        block = np.matmul(left[rows], right, out=buffer[: rows.stop - start])
        np.maximum(block, 0, out=block)
        yield rows, block if squared else np.sqrt(block, out=block)


def _matrix(x: Floats, y: Floats, squared: bool) -> Floats:
    return np.concatenate([block.copy() for _, block in _blocks(x, y, squared)])


def _anneal(c: Floats, a: Floats, b: Floats) -> tuple[Floats, float]:
    """Sinkhorn scaling with falling ε on a dense cost matrix; the column potential and the last ε."""
    f, g = c.mean(1) - c.mean() / 2, c.mean(0) - c.mean() / 2
    spread = float((c - f[:, None] - g).std())
    eps = EPS_FIRST * spread
    while True:
        eps = max(eps / 2, EPS_LAST * spread, 1e-30)
        kernel = np.exp(np.clip((f[:, None] + g - c) / eps, -EXPONENT, EXPONENT))
        q = b
        for _ in range(DENSE_STEPS):
            p = a / np.maximum(kernel @ q, FLOOR)
            q = b / np.maximum(p @ kernel, FLOOR)
        f = f + eps * np.log(p / a)
        g = g + eps * np.log(q / b)
        if eps <= EPS_LAST * spread or spread == 0:
            return g, eps


def _sweep(x: Floats, y: Floats, g: Floats, a: Floats, b: Floats, squared: bool) -> tuple[Floats, Floats]:
    """One Sinkhorn step over all pairs, rows then columns, in units where ε = 1: the new f and g."""
    f, mass = np.empty(len(x), np.float32), np.zeros(len(y), np.float32)
    lift = g + np.log(b)
    for rows, block in _blocks(x, y, squared):
        np.subtract(lift, block, out=block)
        top = block.max(1)
        block -= top[:, None]
        np.exp(np.maximum(block, -EXPONENT, out=block), out=block)
        total = block.sum(1)
        f[rows] = -(top + np.log(total))
        mass += (a[rows] / total) @ block
    return f, g - np.log(np.maximum(mass, FLOOR) / b)


def start_potentials(x: Array, y: Array, a: Array, b: Array, squared: bool) -> tuple[Array, Array, float]:
    """Entropic potentials of all points, float64, and their ε. The weights must be positive and sum to one."""
    rows, cols = stratified(x, SUBSAMPLE), stratified(y, SUBSAMPLE)
    xs, ys, al, be = (z.astype(np.float32) for z in (x, y, a, b))
    a_sub, b_sub = al[rows] / al[rows].sum(), be[cols] / be[cols].sum()
    g_sub, eps = _anneal(_matrix(xs[rows], ys[cols], squared), a_sub, b_sub)
    scale = np.float32(eps**0.5 if squared else eps)
    xs, ys = xs / scale, ys / scale
    f, _ = _sweep(xs[rows], ys[cols], g_sub / np.float32(eps), a_sub, b_sub, squared)
    g, _ = _sweep(ys, xs[rows], f, be, a_sub, squared)
    for _ in range(SWEEPS):
        f, g = _sweep(xs, ys, g, al, be, squared)
    return f.astype(np.float64) * eps, g.astype(np.float64) * eps, eps


def _threshold(x: Array, y: Array, f: Array, g: Array, squared: bool, share: float) -> float:
    """Reduced cost below which about `share` of all pairs lie, from a sample of rows."""
    pick = np.linspace(0, len(x) - 1, min(len(x), 200)).astype(np.int64)
    reduced = (_matrix(x[pick].astype(np.float32), y.astype(np.float32), squared) - f[pick, None] - g).ravel()
    rank = min(int(share * len(reduced)), len(reduced) - 1)
    return float(np.partition(reduced, rank)[rank])


def pool_of_arcs(x: Array, y: Array, f: Array, g: Array, squared: bool) -> Arcs:
    """Arcs of low reduced cost, about `POOL_PER_POINT` for each point."""
    share = min(1 - 1e-9, POOL_PER_POINT * (len(x) + len(y)) / (len(x) * len(y)))
    return below(x, y, f + _threshold(x, y, f, g, squared, share), g, squared)


def refine(pool: Arcs, a: Array, b: Array, f: Array, g: Array, eps: float) -> tuple[Array, Array]:
    """Sinkhorn scaling with smaller and smaller ε on the arcs of the pool alone."""
    indptr = np.searchsorted(pool.rows, np.arange(len(a) + 1))
    for factor in SPARSE_FACTORS:
        e = eps * factor
        data = np.exp(np.clip((f[pool.rows] + g[pool.cols] - pool.cost) / e, -200, 200))
        kernel = csr_array((data, pool.cols, indptr), shape=(len(a), len(b)))
        transposed = kernel.T
        q = b.copy()
        for _ in range(SPARSE_STEPS):
            p = a / np.maximum(kernel @ q, FLOOR)
            q = b / np.maximum(transposed @ p, FLOOR)
        f, g = f + e * np.log(p / a), g + e * np.log(q / b)
    return f, g
