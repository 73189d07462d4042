"""The drift of cells, and the velocity of their population with both sides of an observed time.

A flow jumps at an observed time, where the pairs of one interval end and those of the next begin. A cell does not: its
velocity there is the mean of both sides. The drift adds the score (`thalweg.flows.dynamics`),

    b = v + (sigma^2 / 2) grad log p,

for the velocity of a population lacks what its cells do against their own diffusion (Tong et al. 2024).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from thalweg.errors import InputError
from thalweg.flows.flow import Flow

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
_STEP = 1e-6  # of the course: a few roundings of a single-precision time


def drift(flow: Flow, x: ArrayLike, time: ArrayLike, condition: Labels | None = None) -> Floats:
    """Mean of what cells do next, units of ``x`` per unit of time, shape ``(n, d)``.

    Parameters
    ----------
    flow
        A flow with a score.
    x, time, condition
        As in `Flow.velocity`.

    Raises
    ------
    InputError
        If the flow has no score.
    """
    return current(flow, x, time, condition) + score(flow, x, time, condition)


def score(flow: Flow, x: ArrayLike, time: ArrayLike, condition: Labels | None = None) -> Floats:
    """``(sigma^2 / 2) grad log p``, what the drift has beyond the velocity; arguments and errors as in `drift`."""
    function = getattr(flow.net, "score", None)
    if function is None:
        raise InputError(
            "kind='drift' needs a score, which this fit does not have; use kind='flow', or fit with method='usb' or "
            "config=tw.tl.FitConfig(score='learned')."
        )
    return flow.per_time(function, x, time, condition)


def current(flow: Flow, x: ArrayLike, time: ArrayLike, condition: Labels | None = None) -> Floats:
    """Velocity of the population, with both sides of an observed time; arguments as in `drift`.

    At the first and the last time of a condition there is one side only. Half of the score completes it: without noise
    that side would be the whole truth, and for a population at rest with much of it, this is nearly so.
    """
    x, at = np.asarray(x), np.broadcast_to(np.asarray(time, dtype=np.float64), np.shape(x)[:1])
    out = flow.velocity(x, at, condition)
    first, last = _ends(flow, condition, len(at))
    inner = np.isin(at, flow.axis.times) & (at > first) & (at < last)

    def before(s: Tensor, z: Tensor, c: Tensor | None) -> Tensor:
        return flow.net.velocity(s - _STEP, z, c)

    if inner.any():
        labels = None if condition is None else condition[inner]
        left = flow.per_time(before, x[inner], np.nextafter(at[inner], -np.inf), labels)
        out[inner] = (out[inner] + left) / 2
    if flow.has_score:
        sign = (at == first).astype(float) - (at == last)
        out += sign[:, None] / 2 * score(flow, x, at, condition)
    return out


def _ends(flow: Flow, condition: Labels | None, n: int) -> tuple[Floats, Floats]:
    """First and last time of the condition of each cell."""
    if condition is None:
        condition = np.zeros(n, dtype=np.int64)
    spans = {c: flow.span(c) for c in np.unique(condition).tolist()}
    first, last = (np.array([spans[c][i] for c in condition.tolist()]) for i in (0, 1))
    return first, last
