r"""How far a fresh sample of a population lies from the sample at hand.

Two samples of one population are some Wasserstein distance apart, which shrinks as they grow. No prediction of a
population can be expected to score lower than a fresh sample of it does. One sample of ``n`` points is all there is, so
it is cut: ``D(k)`` is the mean distance between disjoint parts of ``k`` points each. Over a few octaves ``D`` falls by
a power of ``k`` (Fournier and Guillin 2015), so that

.. math:: D(n) \approx D(n/2) \sqrt{D(n/2) / D(n/8)}.

Two halves, which are often reported, are further apart: by a quarter in few dimensions
(``benchmarks/single_cell/trust.py``).

*Reference.* N. Fournier, A. Guillin, "On the rate of convergence in Wasserstein distance of the empirical measure",
Probability Theory and Related Fields 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thalweg.core.distances import wasserstein

Floats = NDArray[np.float64]

SMALLEST = 16
"""Points below which there are no eighths."""
_CUTS, _FEWER, _MANY = 6, 2, 4000  # cuts of a sample; fewer of many points, whose distances scatter less
_ERROR = 0.3  # of the standard deviation of eighths: that of the estimate


class Fresh(NamedTuple):
    """A distance, and its standard error from sample to sample; NaN for fewer than `SMALLEST` points."""

    value: float
    error: float


def fresh_distance(
    y: Floats,
    b: Floats | None = None,
    *,
    rng: np.random.Generator,
    strata: NDArray[np.int64] | None = None,
    max_memory: int | None = None,
) -> Fresh:
    """Estimate the Wasserstein-1 distance between a sample and a fresh one of its size.

    Parameters
    ----------
    y
        Points, shape ``(n, d)``.
    b
        Weights, shape ``(n,)``; uniform by default.
    rng
        Cuts the sample, six times (twice where it is large).
    strata
        Number of the stratum of each point, shape ``(n,)``: parts, and a fresh sample, then have the strata in the same
        proportions as this sample.
    max_memory
        Bytes allowed; 4 GiB by default.

    Returns
    -------
    The distance and its standard error from sample to sample. One sample does not show it. It is taken as .3 of the
    standard deviation of the distances of eighths, which is what simulated courses have
    (``benchmarks/single_cell/trust.py``).

    Raises
    ------
    InputError
        If points or weights cannot be used.
    NotConvergedError
        If a plan could not be certified.
    MemoryBudgetError
        If a plan does not fit ``max_memory``.
    """
    n = len(y)
    if n < SMALLEST:
        return Fresh(float("nan"), float("nan"))
    of = np.zeros(n, dtype=np.int64) if strata is None else strata
    cuts = [shuffled(of, rng) for _ in range(_CUTS if n < _MANY else _FEWER)]
    weights = _Weights(b, of)
    found = [np.concatenate([_apart(y, weights, cut, n // k, max_memory) for cut in cuts]) for k in (2, 8)]
    halves, eighths = (float(one.mean()) for one in found)
    if eighths == 0:
        return Fresh(0.0, 0.0)
    value = halves * float(np.sqrt(halves / eighths))
    return Fresh(value, value / halves * _ERROR * float(found[1].std()))


def shuffled(strata: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order in which every stretch holds the strata in about the same proportions."""
    order = rng.permutation(len(strata))
    place = np.empty(len(strata))
    for one in np.unique(strata):
        rows = order[strata[order] == one]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place, kind="stable")


@dataclass(frozen=True)
class _Weights:
    """Weights of parts of a sample, in which each stratum has its share of the whole."""

    b: Floats | None
    strata: NDArray[np.int64]

    def __call__(self, part: NDArray[np.int64]) -> Floats | None:
        """Weights of some points; None where all are equal."""
        names = np.unique(self.strata)
        if len(names) == 1:
            return None if self.b is None else self.b[part]
        b = np.ones(len(self.strata)) if self.b is None else self.b
        out: Floats = b[part].copy()
        for one in names:
            own = self.strata[part] == one
            if own.any():
                out[own] *= b[self.strata == one].sum() / out[own].sum()
        return out


def _apart(y: Floats, weights: _Weights, cut: NDArray[np.int64], size: int, max_memory: int | None) -> Floats:
    """Distances between disjoint parts of so many points."""
    parts = [cut[i : i + size] for i in range(0, len(cut) - size + 1, size)]
    pairs = zip(parts[::2], parts[1::2], strict=False)
    return np.array([wasserstein(y[i], y[j], a=weights(i), b=weights(j), max_memory=max_memory) for i, j in pairs])
