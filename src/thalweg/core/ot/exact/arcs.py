"""Candidate arcs for exact transport, and potentials to choose among them. Nothing here needs to be accurate.

Entropic transport with regularisation ε has potentials (f, g) whose plan a_i b_j exp((f_i + g_j − c_ij) / ε) has the
marginals a and b. As ε → 0 they tend to optimal potentials, and the support of an optimal plan lies among the arcs of
low reduced cost c − f − g. So three steps:

1. The warm start of entropic transport (``thalweg.core.ot.entropic.start``) at ε = 0.12 S, then soft minima over all
   pairs. S is the standard deviation of the cost matrix after its row and column means are taken off, which neither an
   offset nor a translation of one cloud changes; it comes from a sample.
2. The pool: about 60 arcs of low reduced cost for each point.
3. Sinkhorn scaling with smaller ε on the arcs of the pool alone.

Not guaranteed: that the pool holds an optimal plan. The solver tests all pairs, and adds what is missing.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from thalweg._memory import DEFAULT
from thalweg.core.ot.entropic import problem as entropic
from thalweg.core.ot.entropic.passes import soft_min
from thalweg.core.ot.entropic.start import warm_start
from thalweg.core.ot.exact.pairs import Arcs, Array, below

SPREAD_POINTS, THRESHOLD_ROWS = 300, 200  # points and rows of the samples
SWEEPS = 2
EPS_FIRST, EPS_LAST = 0.48, 0.12  # of the spread of the cost
SPARSE_FACTORS = (0.5, 0.25, 0.12, 0.06)
SPARSE_STEPS = 40
DENSE_STEPS = 50  # pairs of products at each temperature of the warm start, and the marginal error that ends them
DENSE_ERROR = 0.1
ARCS_PER_POINT, POOL_PER_POINT = 14, 60
FLOOR = 1e-30


def start_potentials(x: Array, y: Array, a: Array, b: Array, squared: bool) -> tuple[Array, Array, float]:
    """Entropic potentials of all points, float64, and their ε. The weights must be positive and sum to one."""
    xs, ys, al, be = (torch.from_numpy(z) for z in (x, y, a, b))
    order_x, order_y = entropic.shuffled(al), entropic.shuffled(be)
    xs, ys, al, be = xs[order_x], ys[order_y], al[order_x].log(), be[order_y].log()
    eps = max(EPS_LAST * _spread(xs[:SPREAD_POINTS], ys[:SPREAD_POINTS], squared), FLOOR)
    unit = eps**0.5 if squared else eps
    p = entropic.Problem(xs.div_(unit), ys.div_(unit), al, be, math.inf, math.inf, torch.float32, DEFAULT, squared)
    f = warm_start(p, EPS_FIRST / EPS_LAST, tol=DENSE_ERROR, max_iterations=DENSE_STEPS, rounds=1, solved_next=False)
    g = soft_min(p.flipped(), f, 1.0)
    for _ in range(SWEEPS - 1):
        f = soft_min(p, g, 1.0)
        g = soft_min(p.flipped(), f, 1.0)
    full_f, full_g = np.empty(len(x)), np.empty(len(y))
    full_f[order_x], full_g[order_y] = f.numpy() * eps, g.numpy() * eps
    return full_f, full_g, eps


def _costs(x: Tensor, y: Tensor, squared: bool) -> Tensor:
    distance = torch.cdist(x, y)
    return distance.square_() if squared else distance


def _spread(x: Tensor, y: Tensor, squared: bool) -> float:
    """Standard deviation of the costs without their row and column means."""
    cost = _costs(x, y, squared)
    cost -= cost.mean(1, keepdim=True)
    cost -= cost.mean(0)
    return float(cost.std(correction=0))


def _threshold(x: Array, y: Array, f: Array, g: Array, squared: bool, share: float) -> float:
    """Reduced cost below which about `share` of all pairs lie, from a sample of rows."""
    pick = np.linspace(0, len(x) - 1, min(len(x), THRESHOLD_ROWS)).astype(np.int64)
    reduced = _costs(torch.from_numpy(x[pick]), torch.from_numpy(y), squared).numpy()
    reduced -= f[pick, None]
    reduced -= g
    flat = reduced.ravel()
    rank = min(int(share * len(flat)), len(flat) - 1)
    flat.partition(rank)
    return float(flat[rank])


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
