r"""How strongly cells diffuse: the ``sigma`` of a bridge, from the days between two others.

The bridge between the neighbours of an observed day predicts how the cells of that day spread. With too little
diffusion they lie where the prediction has no density, with too much the prediction is thin everywhere. So ``sigma`` is
the value under which the cells of the inner days are most likely,

.. math:: s^* = \arg\max_s \sum_k \operatorname{mean}_{x \in k} \log p_k(x; s)

with ``p_k`` the density of the bridge between the neighbours of day ``k`` (`thalweg.core.ot.bridge`), which has not
seen it. One number serves all days and components, but for a limit: within a mean interval no component can diffuse
further than twice the spread of the cells of a day in it. Components that hold noise alone keep a small ``sigma``:

.. math:: \sigma_j = \min(s, 2 w_j), \qquad w_j^2 = \operatorname{mean}_k \operatorname{Var}_k(x_j).

Where a day has several states (`thalweg.flows.states`), the result is then limited in the same way by the spread within
a state: noise does not carry cells from one cluster to another.

Few inner days say little, so the logarithm of ``s`` is drawn towards that of a default by the weight of half a day. A
course without inner days takes the default.

Not guaranteed: a population at rest tells nothing of ``sigma``. Cells that return to their state within an interval
look alike whether they do so slowly under little noise or fast under much; ``sigma`` is then too small. And what bends
or branches between two days is taken for diffusion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg._settings import logger
from thalweg.core.ot import bridge
from thalweg.core.ot.entropic import solve_entropic
from thalweg.data.cells import Cells
from thalweg.errors import NotConvergedError
from thalweg.flows.config import FitConfig
from thalweg.flows.methods import Method
from thalweg.flows.states import CourseStates
from thalweg.flows.time_axis import TimeAxis

Floats = NDArray[np.float64]
DEFAULT = 0.8  # of s, where nothing is known; the courses tried give .4 to 1.2
LIMIT = 2.0  # of sigma_j, in spreads of the cells of a day per square root of a mean interval
FLOOR = 0.01  # of sigma_j, in the same unit: a component that is constant has no spread
BOUNDS = (0.1, 3.0)  # of s
_PRIOR = 0.5  # inner days that the default counts for
_CELLS, _FEWEST = 500, 20  # of each day at most, and at least
_WIDEST = 10  # components of the likelihood: in more, few hundred cells are all equally far apart
_PRECISION = 0.03  # of log s


class Diffusion(NamedTuple):
    """The diffusion of a course.

    Attributes
    ----------
    sigma
        Of each component, per square root of a mean interval, in units of the average standard deviation; ``(d,)``.
    scale
        ``s``, before the limit.
    n_days
        Inner days it was estimated from; 0 for a number that was given, or the default.
    """

    sigma: Floats
    scale: float
    n_days: int


class _Day(NamedTuple):
    """An inner day: its cells and those of its neighbours, their weights, where it lies and how far they are apart."""

    before: Tensor
    after: Tensor
    own: Tensor
    weights: tuple[Tensor, Tensor, Tensor]
    share: float
    length: float


def find_diffusion(
    cells: Cells, z: Tensor, axis: TimeAxis, method: Method, config: FitConfig, states: CourseStates | None = None
) -> Diffusion:
    """The diffusion of a fit: as given by ``config.sigma``, by the method, or learned from the cells.

    A number that is given holds for every component. With the states of the populations, cells diffuse no further than
    twice the spread of a state, so that clusters which lie apart do not mix by noise.
    """
    wanted = config.sigma if config.sigma is not None else ("auto" if method.bridged else method.sigma)
    if wanted == "auto":
        found = estimate(cells, z, axis, DEFAULT, limited=method.bridged)
        if states is None or not method.bridged:
            return found
        return found._replace(sigma=np.minimum(found.sigma, np.maximum(LIMIT * states.spreads(cells, z), FLOOR)))
    return Diffusion(np.full(cells.n_dims, float(wanted)), float(wanted), 0)


def estimate(cells: Cells, z: Tensor, axis: TimeAxis, default: float, *, limited: bool) -> Diffusion:
    """The diffusion under which the cells of the inner days are most likely.

    Parameters
    ----------
    cells, z, axis
        The course, its normalised coordinates ``(n, d)`` and its time axis.
    default
        ``s`` where nothing is known.
    limited
        Whether components are limited by their spread; otherwise all have the same ``sigma``.
    """
    from scipy.optimize import minimize_scalar

    widths = spreads(cells, z)
    widest = np.sort(np.argsort(-widths, kind="stable")[:_WIDEST])
    widest = widest[widths[widest] > 0]
    days = list(_inner_days(cells, z[:, torch.from_numpy(widest)], axis)) if len(widest) else []
    if not days:
        logger.info("sigma: no inner day with %d cells to learn it from; the default %g is taken", _FEWEST, default)
        return Diffusion(limit(default, widths, limited), default, 0)

    def loss(log_s: float) -> float:
        sigma = torch.from_numpy(limit(float(np.exp(log_s)), widths, limited)[widest])
        return -sum(_log_likelihood(day, sigma) for day in days)

    best = minimize_scalar(loss, bounds=tuple(np.log(BOUNDS)), method="bounded", options={"xatol": _PRECISION})
    n = len(days)
    s = float(np.exp((n * best.x + _PRIOR * np.log(default)) / (n + _PRIOR)))
    logger.info("sigma: %.3g from %d inner days (%.3g), drawn to the default %g", s, n, np.exp(best.x), default)
    return Diffusion(limit(s, widths, limited), s, n)


def limit(s: float, widths: Floats, limited: bool = True) -> Floats:
    """``sigma_j`` of each component from one number."""
    return np.minimum(s, np.maximum(LIMIT * widths, FLOOR)) if limited else np.full(len(widths), s)


def spreads(cells: Cells, z: Tensor) -> Floats:
    """``w_j``: root mean variance of a component within a time and condition, shape ``(d,)``."""
    x, total = z.double().cpu().numpy(), 0.0
    variance = np.zeros(x.shape[1])
    for condition in cells.strata:
        for t in cells.times_of(condition).tolist():
            rows = cells.rows(t, condition)
            w = cells.weights[rows] / cells.weights[rows].sum()
            mean = w @ x[rows]
            variance, total = variance + w @ (x[rows] - mean) ** 2, total + 1
    out: Floats = np.sqrt(variance / total)
    return out


def _inner_days(cells: Cells, z: Tensor, axis: TimeAxis) -> Iterator[_Day]:
    """Each inner day of each condition, of a part of the cells."""
    rng = np.random.default_rng(0)  # the same cells whatever the seed of the fit
    for condition in cells.strata:
        observed = cells.times_of(condition).tolist()
        for t0, t, t1 in zip(observed[:-2], observed[1:-1], observed[2:], strict=True):
            rows = [cells.rows(at, condition) for at in (t0, t1, t)]
            if min(map(len, rows)) < _FEWEST:
                continue
            some = [np.sort(rng.choice(r, min(len(r), _CELLS), replace=False)) for r in rows]
            weights = [torch.from_numpy(cells.weights[r] / cells.weights[r].sum()) for r in some]
            before, after, own = (z[torch.from_numpy(r)].double() for r in some)
            length = float(np.diff(axis.tau([t0, t1]))[0])
            yield _Day(before, after, own, (weights[0], weights[1], weights[2]), axis.share(t0, t, t1), length)


def _log_likelihood(day: _Day, sigma: Tensor) -> float:
    """Mean log density of the cells of a day under the bridge between its neighbours."""
    before, after, own = (x / sigma for x in (day.before, day.after, day.own))
    a, b, weight = day.weights
    try:
        plan = solve_entropic(before, after, a=a, b=b, epsilon=2 * day.length)
    except NotConvergedError:  # far below the distance of neighbouring cells
        return -1e6
    density = bridge.log_density(own, before, after, plan, day.share)
    return float(weight @ density) - float(sigma.log().sum())
