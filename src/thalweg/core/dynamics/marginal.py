"""The marginal path of a finite set of pairs: exact velocity, score and density.

For pairs ``(x0_k, x1_k)`` of weight ``p_k``, ``k = 1 .. K``, and a Gaussian path with moments ``mu_k, sigma_k`` at
``t``, the marginal is a mixture, and its fields are means over the pairs that may have led to ``x``
(Lipman et al. 2023, eq. 6-8; Tong et al. 2024, theorem 3.1):

    p_t(x)    = sum_k p_k N(x; mu_k, sigma_k^2 I)
    r_k(x)    = p_k N(x; mu_k, sigma_k^2 I) / p_t(x)                               (softmax over k)
    u_t(x)    = sum_k r_k [ d mu_k/dt + (d sigma_k/dt / sigma_k) (x - mu_k) ]
    grad log p_t(x) = - sum_k r_k (x - mu_k) / sigma_k^2

``u_t(x)`` is what a velocity field learns from these pairs, so losses and networks can be measured against it.

Shapes: pairs ``(K, ...)``, queries ``x`` of shape ``(n, ...)`` at times ``t`` of shape ``(n,)``, weights ``(K,)``. All
``n K`` combinations are held at once: memory ``n K d``. A path's own ``sigma`` must be a number, not one per pair.
float64 input is computed, and returned, in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.core.paths import GaussianPath, Moments
from thalweg.errors import InputError


class _Posterior(NamedTuple):
    """Every query with every pair: ``log p_k N_k`` (n, K), ``x - mu_k`` and ``d mu_k`` (n, K, d), others (n, K, 1)."""

    log_joint: Tensor
    offset: Tensor
    dmu: Tensor
    sigma: Tensor
    dsigma: Tensor

    def mean(self, values: Tensor, like: Tensor) -> Tensor:
        """Mean of ``values`` (n, K, d) under ``r_k``, in the shape of ``like``."""
        r = torch.softmax(self.log_joint, 1)
        return torch.einsum("nk,nkd->nd", r, values).reshape(like.shape)


def check_points(t: Tensor, x: Tensor) -> None:
    """Refuse points without a time each, and times outside [0, 1].

    Raises
    ------
    InputError
        If ``x`` is not ``(n, ...)`` with at least two axes, ``t`` not ``(n,)``, or a time lies outside [0, 1].
    """
    if x.ndim < 2 or t.shape != x.shape[:1]:
        raise InputError(
            f"x must be (n, ...) and t (n,), one time for each point, found {tuple(x.shape)}, {tuple(t.shape)}."
        )
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise InputError(f"t must lie in [0, 1], found [{t.min().item():g}, {t.max().item():g}].")


def _check_query(x0: Tensor, x1: Tensor, t: Tensor, x: Tensor, weights: Tensor | None) -> None:
    check_points(t, x)
    if x0.shape != x1.shape or x0.shape[1:] != x.shape[1:] or len(x0) == 0:
        raise InputError(
            f"x0 and x1 must be (K, ...) with K >= 1 and rows shaped like those of x {tuple(x.shape)}, found "
            f"{tuple(x0.shape)} and {tuple(x1.shape)}."
        )
    if weights is None:
        return
    if weights.shape != x0.shape[:1]:
        raise InputError(f"weights must have shape ({len(x0)},), one for each pair, found {tuple(weights.shape)}.")
    if not bool((weights >= 0).all() & weights.isfinite().all() & (weights.sum() > 0)):
        raise InputError("weights must be finite, not negative and not all zero.")


def _all_moments(path: GaussianPath, x0: Tensor, x1: Tensor, t: Tensor) -> Moments:
    """Moments of every pair at every time, flattened: (n, K, d) and (n, K)."""
    n, k = len(t), len(x0)
    every = [z.expand(n, *z.shape).reshape(n * k, *z.shape[1:]) for z in (x0, x1)]
    m = path.moments(every[0], every[1], t.repeat_interleave(k))
    return Moments(m.mu.reshape(n, k, -1), m.dmu.reshape(n, k, -1), m.sigma.reshape(n, k), m.dsigma.reshape(n, k))


def _posterior(path: GaussianPath, x0: Tensor, x1: Tensor, t: Tensor, x: Tensor, weights: Tensor | None) -> _Posterior:
    _check_query(x0, x1, t, x, weights)
    m = _all_moments(path, x0, x1, t)
    if not bool((m.sigma > 0).all()):
        raise InputError(
            "sigma_t is 0 at a time in t: the marginal of a finite set has no density there; use other times."
        )
    p = x.new_ones(len(x0)) if weights is None else weights.to(x)
    log_p = torch.log(p / p.sum())
    offset = x.flatten(1)[:, None] - m.mu
    d = offset.shape[2]
    log_normal = -0.5 * (offset.square().sum(2) / m.sigma**2) - d * (torch.log(m.sigma) + 0.5 * math.log(2 * math.pi))
    return _Posterior(log_p + log_normal, offset, m.dmu, m.sigma[..., None], m.dsigma[..., None])


def marginal_velocity(
    path: GaussianPath, x0: Tensor, x1: Tensor, t: Tensor, x: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Velocity of the marginal path at ``x`` (Lipman et al. 2023, eq. 8): the field of least flow-matching loss.

    Parameters
    ----------
    path
        Gaussian path.
    x0, x1
        The pairs, shape ``(K, ...)``.
    t
        Time of each query, shape ``(n,)``.
    x
        Queries, shape ``(n, ...)``.
    weights
        Weight of each pair, shape ``(K,)``; only ratios matter. Equal by default.

    Returns
    -------
    Velocities, shape ``(n, ...)``.

    Raises
    ------
    InputError
        If shapes do not match, weights are negative, not finite or all zero, or ``sigma_t = 0`` at a time.
    """
    q = _posterior(path, x0, x1, t, x, weights)
    return q.mean(q.dmu + q.dsigma / q.sigma * q.offset, x)


def marginal_score(
    path: GaussianPath, x0: Tensor, x1: Tensor, t: Tensor, x: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Score ``grad log p_t`` of the marginal path at ``x``, shape ``(n, ...)``; arguments as `marginal_velocity`."""
    q = _posterior(path, x0, x1, t, x, weights)
    return q.mean(-q.offset / q.sigma**2, x)


def marginal_log_density(
    path: GaussianPath, x0: Tensor, x1: Tensor, t: Tensor, x: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Log density ``log p_t(x)`` of the marginal path in nats, shape ``(n,)``; arguments as `marginal_velocity`."""
    return torch.logsumexp(_posterior(path, x0, x1, t, x, weights).log_joint, 1)


def marginal_density(
    path: GaussianPath, x0: Tensor, x1: Tensor, t: Tensor, x: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Density ``p_t(x)`` of the marginal path, shape ``(n,)``; arguments as `marginal_velocity`."""
    return marginal_log_density(path, x0, x1, t, x, weights).exp()
