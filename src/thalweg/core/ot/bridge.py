r"""The Schrödinger bridge between two populations of cells, in closed form from the potentials of an entropic plan.

Let cells diffuse as a Brownian motion of unit diffusion over a time ``D``. Among all processes that start as the one
population and end as the other, the bridge is nearest to that motion. Its ends are coupled by the entropic plan with
``eps = 2 D`` (Léonard 2014). With the plan's potentials ``f, g``, weights ``a, b`` and the heat kernel
``N(x; y, s)``, a Gaussian of variance ``s`` in each coordinate,

.. math::
    \varphi_t(x) = \sum_j b_j e^{g_j / \epsilon} N(x; y_j, (1 - t) D), \qquad
    \hat\varphi_t(x) = \sum_i a_i e^{f_i / \epsilon} N(x; x_i, t D),

the density at the share ``t`` of the way is their product, and what a cell at ``x`` becomes has the probabilities

.. math::
    p_t(x) = (2 \pi D)^{d/2} \varphi_t(x) \, \hat\varphi_t(x), \qquad
    p(j \mid x, t) \propto b_j e^{g_j / \epsilon} N(x; y_j, (1 - t) D).

The forward drift is ``(E[y | x, t] - x) / ((1 - t) D)``. A diffusion that differs by coordinate is this one in
coordinates divided by it.

Nothing here needs a network or a matrix of all pairs: sums run over blocks of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.core.ot.entropic.passes import blocks, factors
from thalweg.core.ot.entropic.solver import EntropicPlan


class Mean(NamedTuple):
    """A weighted mean and its scatter.

    Attributes
    ----------
    value
        Mean of the values under ``p(j | x)``, shape ``(n, k)``.
    square
        ``sum_j p_j^2 (v_j - value)^2``, the variance of the mean if each ``j`` were drawn on its own, shape ``(n, k)``.
    effective
        Effective number of ``j``, ``1 / sum_j p_j^2``, shape ``(n,)``.
    """

    value: Tensor
    square: Tensor
    effective: Tensor


def log_density(x: Tensor, x0: Tensor, x1: Tensor, plan: EntropicPlan, t: float) -> Tensor:
    """Log density of the bridge at points.

    Parameters
    ----------
    x
        Points, shape ``(n, d)``.
    x0, x1
        The populations of the plan, shape ``(n0, d)`` and ``(n1, d)``.
    plan
        Their balanced plan with ``epsilon = 2 D``.
    t
        Share of the way, in (0, 1).

    Returns
    -------
    Nats, float64 of shape ``(n,)``.
    """
    length, d = plan.epsilon / 2, x.shape[1]
    behind = _log_sum(x, x0, plan.a.log() + plan.f / plan.epsilon, 2 * t * length)
    ahead = _log_sum(x, x1, plan.b.log() + plan.g / plan.epsilon, 2 * (1 - t) * length)
    normal = d / 2 * (math.log(2 * math.pi * length) - math.log(4 * math.pi**2 * t * (1 - t) * length**2))
    return behind + ahead + normal


def conditional_mean(x: Tensor, x1: Tensor, plan: EntropicPlan, values: Tensor, t: float = 0.0) -> Mean:
    """Mean over what cells become, ``E[v_j | x, t]``.

    Parameters
    ----------
    x
        Points, shape ``(n, d)``; they need not be cells of the plan.
    x1
        The later population, shape ``(n1, d)``.
    plan
        A plan that ends there, balanced or not.
    values
        A row for each later cell, float64 of shape ``(n1, k)``.
    t
        Share of the way at which the points lie, in [0, 1).
    """
    log_w, width = plan.b.log() + plan.g / plan.epsilon, (1 - t) * plan.epsilon
    columns = torch.cat([values, values.square(), torch.ones_like(values[:, :1])], 1)
    k, out = values.shape[1], []
    for block in _exponents(x, x1, log_w, width):
        p = torch.softmax(block.double(), 1)
        mean, second = p @ values, p.square_() @ columns
        weight = second[:, -1:]
        scatter = second[:, k : 2 * k] - 2 * mean * second[:, :k] + mean.square() * weight
        out.append((mean, scatter.clamp_min(0), 1 / weight[:, 0]))
    return Mean(*(torch.cat(part) for part in zip(*out, strict=True)))


def _log_sum(x: Tensor, y: Tensor, log_w: Tensor, width: float) -> Tensor:
    """``log sum_j exp(log_w_j - |x - y_j|^2 / width)``."""
    return torch.cat([torch.logsumexp(block.double(), 1) for block in _exponents(x, y, log_w, width)])


def _exponents(x: Tensor, y: Tensor, log_w: Tensor, width: float) -> Iterator[Tensor]:
    """``log_w_j - |x_i - y_j|^2 / width`` in blocks of rows, each written over the one before."""
    centre, scale = y.double().mean(0), width**0.5
    left, right = ((z.double() - centre) / scale for z in (x, y))
    for _, block in blocks(*factors(left, right, torch.zeros_like(left[:, 0]), log_w)):
        yield block
