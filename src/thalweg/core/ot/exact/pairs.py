"""Passes over all pairs of two point clouds, a block of rows at a time.

With s_ij = |x_i − y_j|² the ground cost is c_ij = s_ij (squared) or √s_ij. A pass never holds more than one block of
the n × m matrix. `below` finds every pair with c_ij < u_i + v_j from one float64 matrix product,

    squared:      s_ij − u_i − v_j       = [x_i, |x_i|² − u_i, 1] · [−2 y_j, 1, |y_j|² − v_j]
    not squared:  s_ij − (u_i + v_j)²    = [x_i, u_i, |x_i|² − u_i², 1] · [−2 y_j, −2 v_j, 1, |y_j|² − v_j²],

whose rounding error is at most (d + 8) 2⁻⁵² (R_x + R_y)² with R_x = max √(|x|² + |u|) or max √(|x|² + u²): pairs
within that margin are computed again from the differences x_i − y_j, so none is missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

BLOCK_ENTRIES = 500_000  # entries of one block of rows: 4 MB of float64, which stays in cache
HITS_PER_ROW = 400  # above this average, a block returns its lowest pairs only


@dataclass(frozen=True)
class Arcs:
    """Pairs (row, col) with their ground costs; `complete` says that no pair that was asked for is left out."""

    rows: Index
    cols: Index
    cost: Array
    complete: bool = True


def ground_cost(x: Array, y: Array, rows: Index, cols: Index, squared: bool) -> Array:
    """Ground cost of chosen pairs from the differences of their points, so that equal points cost exactly zero."""
    out = np.empty(len(rows))
    step = max(1, BLOCK_ENTRIES // x.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        diff = x[rows[part]] - y[cols[part]]
        out[part] = np.einsum("kd,kd->k", diff, diff)
    return out if squared else np.sqrt(out)


def _factors(x: Array, y: Array, u: Array, v: Array, squared: bool) -> tuple[Array, Array, float]:
    """Return the two factors of the product in the module docstring, and a bound of its rounding error."""
    sx, sy = np.einsum("nd,nd->n", x, x), np.einsum("nd,nd->n", y, y)
    ones = np.ones
    if squared:
        left = np.column_stack([x, sx - u, ones(len(x))])
        right = np.column_stack([-2 * y, ones(len(y)), sy - v])
        size = np.sqrt((sx + np.abs(u)).max()) + np.sqrt((sy + np.abs(v)).max())
    else:
        left = np.column_stack([x, u, sx - u * u, ones(len(x))])
        right = np.column_stack([-2 * y, -2 * v, ones(len(y)), sy - v * v])
        size = np.sqrt((sx + u * u).max()) + np.sqrt((sy + v * v).max())
    error = (x.shape[1] + 8) * 2.0**-52 * float(size) ** 2
    return left, np.ascontiguousarray(right.T), error


def below(x: Array, y: Array, u: Array, v: Array, squared: bool) -> Arcs:
    """Every pair whose cost is below u_i + v_j; crowded blocks of rows give their lowest ones (`complete` is False).

    Parameters
    ----------
    x, y
        Points, shapes (n, d) and (m, d), centred.
    u, v
        Potentials, shapes (n,) and (m,). They are shifted against each other here to share one mean, which changes
        no sum u_i + v_j and keeps the rounding small.
    squared
        Whether the ground cost is the squared distance.

    Returns
    -------
    Arcs
        Sorted by row, then column.
    """
    shift = (u.mean() - v.mean()) / 2
    u, v = u - shift, v + shift
    left, right, error = _factors(x, y, u, v, squared)
    n, m = len(x), len(y)
    step = max(1, BLOCK_ENTRIES // m)
    block = np.empty((min(step, n), m))
    found: list[Arcs] = []
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        product = np.matmul(left[rows], right, out=block[: rows.stop - start])
        hits = np.flatnonzero(product.ravel() < error)
        limit = max(HITS_PER_ROW * len(product), m)
        if len(hits) > limit and not squared:  # u_i + v_j <= 0 is below every distance, yet its square may not be
            product[u[rows, None] + v <= 0] = np.inf
            hits = np.flatnonzero(product.ravel() < error)
        crowded = len(hits) > limit
        few = _lowest(product, error) if crowded else hits
        arcs = _settle(x[rows], y, u[rows], v, squared, few, product, error)
        if crowded and not len(arcs.rows):  # ties within rounding hid the rest: look at every pair
            arcs = _settle(x[rows], y, u[rows], v, squared, hits, product, error)
            crowded = False
        found.append(Arcs(arcs.rows + start, arcs.cols, arcs.cost, not crowded))
    return Arcs(
        np.concatenate([arcs.rows for arcs in found]),
        np.concatenate([arcs.cols for arcs in found]),
        np.concatenate([arcs.cost for arcs in found]),
        all(arcs.complete for arcs in found),
    )


def _lowest(product: Array, error: float) -> Index:
    """Flat positions of the `HITS_PER_ROW` lowest entries below `error` of every row."""
    m = product.shape[1]
    count = min(HITS_PER_ROW, m - 1)
    lowest = np.argpartition(product, count, axis=1)[:, : count + 1]
    hits: Index = np.sort((lowest + np.arange(len(product))[:, None] * m).ravel())
    return hits[product.ravel()[hits] < error]


def _settle(x: Array, y: Array, u: Array, v: Array, squared: bool, hits: Index, product: Array, error: float) -> Arcs:
    """Costs of the hits of one block, those the product cannot decide from the points; the ones below u_i + v_j."""
    value = product.ravel()[hits]
    rows, cols = np.divmod(hits, product.shape[1])
    bound = u[rows] + v[cols]
    square = value + (bound if squared else bound * bound)
    # 2⁻¹⁰ keeps the root of a small square, which magnifies rounding, out of the distances.
    unsure = np.flatnonzero((np.abs(value) < 4 * error) | (square < 2.0**-10))
    cost = square if squared else np.sqrt(np.maximum(square, 0))
    cost[unsure] = ground_cost(x, y, rows[unsure], cols[unsure], squared)
    keep = cost < bound
    return Arcs(rows[keep], cols[keep], cost[keep])


def merge(pool: Arcs, new: Arcs, m: int) -> Arcs:
    """Both sets of arcs, each pair once, sorted by row and column."""
    keys = np.concatenate([pool.rows * m + pool.cols, new.rows * m + new.cols])
    keys, first = np.unique(keys, return_index=True)
    return Arcs(keys // m, keys % m, np.concatenate([pool.cost, new.cost])[first])


def cheapest(pool: Arcs, reduced: Array, count: int, size: float) -> Arcs:
    """Return the `count` arcs of lowest reduced cost and all tight or violated ones, which carry a feasible plan."""
    limit = np.inf if count >= len(reduced) else max(float(np.partition(reduced, count)[count]), 1e-9 * size)
    keep = reduced <= limit
    return Arcs(pool.rows[keep], pool.cols[keep], pool.cost[keep])
