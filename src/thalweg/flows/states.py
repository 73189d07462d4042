r"""The states of a population, and how far states lie apart in spreads of their cells.

The cells of a time are described by a Gaussian mixture, whose number of components has the lowest BIC (Schwarz 1978).
A component is a *state*. The separation of two states is the distance of their means over the standard deviation of
their cells in that direction,

.. math:: m_{kl} = \frac{|u|^2}{\sqrt{u^T \tfrac{1}{2} (\Sigma_k + \Sigma_l) u}}, \qquad u = \mu_l - \mu_k ,

a pure number. The *gap* between two states is the widest step of the best way from one to the other through the states
of both times. A continuum that is cut into many components has only narrow gaps, however long it is; two separate
clusters have a wide one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.data.cells import Cells, Rows

Floats = NDArray[np.float64]
LARGEST = 10
"""States of a population at most, and components of the coordinates that describe them."""
_CELLS, _FEWEST = 1000, 10  # cells that a mixture is fitted to at most, and for each state at least
_FLOOR = 1e-4  # variance added to each component, as a share of the mean variance


@dataclass(frozen=True)
class States:
    """The states of a population.

    Attributes
    ----------
    weights
        Share of each, shape ``(k,)``.
    means, covariances
        Shape ``(k, d)`` and ``(k, d, d)``.
    """

    weights: Floats
    means: Floats
    covariances: Floats

    def membership(self, x: Floats) -> Floats:
        """Probability of each state for cells at ``x`` of shape ``(n, d)``; shape ``(n, k)``."""
        from scipy.linalg import solve_triangular
        from scipy.special import softmax

        log_p = np.empty((len(x), len(self.weights)))
        for k, (w, mean, covariance) in enumerate(zip(self.weights, self.means, self.covariances, strict=True)):
            root = np.linalg.cholesky(covariance)
            scaled = solve_triangular(root, (x - mean).T, lower=True)
            log_p[:, k] = np.log(w) - np.log(np.diag(root)).sum() - 0.5 * np.square(scaled).sum(0)
        out: Floats = softmax(log_p, axis=1)
        return out


@dataclass(frozen=True)
class CourseStates:
    """The states of the populations of a course.

    Attributes
    ----------
    columns
        Normalised coordinates in which states are described: those of the largest variance.
    states
        For each condition and time.
    """

    columns: Rows
    states: Mapping[tuple[int, float], States]

    def spreads(self, cells: Cells, z: Tensor) -> Floats:
        """Root mean variance of each coordinate within a state, shape ``(d,)``; arguments as in `describe`."""
        x, variance, total = z.double().cpu().numpy(), np.zeros(z.shape[1]), 0
        for (condition, time), states in self.states.items():
            rows = cells.rows(time, condition if cells.stratum_names else None)
            p = cells.weights[rows, None] / cells.weights[rows].sum() * states.membership(x[rows][:, self.columns])
            share = np.maximum(p.sum(0), 1e-300)[:, None]
            means = p.T @ x[rows] / share
            variance += np.maximum((p.T @ x[rows] ** 2 - share * means**2).sum(0), 0.0)
            total += 1
        out: Floats = np.sqrt(variance / total)
        return out


def describe(cells: Cells, z: Tensor) -> CourseStates:
    """The states of the populations of a course.

    Parameters
    ----------
    cells, z
        The course, and its normalised coordinates, shape ``(n, d)``.
    """
    x = z.double().cpu().numpy()
    columns = np.sort(np.argsort(-x.var(0), kind="stable")[:LARGEST])
    found = {}
    for condition in cells.strata:
        for t in cells.times_of(condition).tolist():
            rows = cells.rows(t, condition)
            found[condition, t] = find_states(x[rows][:, columns], cells.weights[rows])
    return CourseStates(columns, found)


def find_states(x: Floats, weights: Floats) -> States:
    """The states of a population.

    Parameters
    ----------
    x
        Coordinates, shape ``(n, d)``.
    weights
        Weight of each cell, shape ``(n,)``.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(0)  # the same states whatever the seed of the fit
    p = weights / weights.sum()
    even = np.ptp(weights) == 0
    some = rng.permutation(len(x))[:_CELLS] if even else rng.choice(len(x), min(len(x), _CELLS), p=p)
    sample = x[np.sort(some)]
    floor = max(_FLOOR * float(sample.var(0).mean()), 1e-9)
    if len(sample) < 2 * _FEWEST or sample.var(0).max() <= 1e-12:
        covariance = np.cov(sample.T, bias=True).reshape(x.shape[1], -1) + floor * np.eye(x.shape[1])
        return States(np.ones(1), sample.mean(0)[None], covariance[None])
    best: Any = None
    lowest, worse = np.inf, 0
    for k in range(1, min(LARGEST, len(sample) // _FEWEST) + 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture that is not the best one is not taken
            mixture = GaussianMixture(k, reg_covar=floor, random_state=0).fit(sample)
        bic = mixture.bic(sample)
        best, lowest, worse = (mixture, bic, 0) if bic < lowest else (best, lowest, worse + 1)
        if worse == 2:  # it rises from here on
            break
    states = States(best.weights_, best.means_, best.covariances_)
    share = np.maximum(p @ states.membership(x), 1e-12)  # of all cells, not of the sample
    return States(share / share.sum(), states.means, states.covariances)


def separation(before: States, after: States) -> Floats:
    """Gap between the states of two times in spreads, shape ``(k0, k1)``."""
    means = np.concatenate([before.means, after.means])
    covariances = np.concatenate([before.covariances, after.covariances])
    u = means[None] - means[:, None]
    square = (u**2).sum(-1)
    spread = np.einsum("abi,abij,abj->ab", u, (covariances[:, None] + covariances[None]) / 2, u)
    apart = np.divide(square, np.sqrt(spread), out=np.zeros_like(square), where=spread > 0)
    for k in range(len(apart)):  # the widest step of the best way (Floyd 1962, with max for the sum)
        apart = np.minimum(apart, np.maximum(apart[:, k : k + 1], apart[k : k + 1]))
    k0 = len(before.weights)
    out: Floats = apart[:k0, k0:]
    return out
