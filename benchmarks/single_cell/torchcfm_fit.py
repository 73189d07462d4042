r"""torchcfm as a peer in the held-out-time benchmark, run the way its authors run it.

Symbols: snapshots :math:`X_0, \dots, X_K` at model times :math:`a_0 < \dots < a_K`; interval :math:`k` has the length
:math:`L_k = a_{k+1} - a_k`. A step draws, for every interval, ``batch_size`` cells from each end, lets the torchcfm
matcher couple them and return :math:`(s, x_s, u_s)` on the unit interval, and maps them to model time:

.. math:: t = a_k + L_k s, \qquad u = u_s / L_k, \qquad \text{loss} = \operatorname{mean} \lVert v(x_s, t) - u \rVert^2.

[SF]2M adds a second network trained with :math:`\operatorname{mean} \lVert \lambda_s\, s(x_s, t) + \epsilon \rVert^2`,
where :math:`s` stands for :math:`(\sigma^2/2) \nabla \log p`. Its drift is :math:`v + s` and its diffusion
:math:`\sigma` in model time, which keeps the marginals whatever :math:`L_k` is.

What follows the authors' public code: one batch holding ``batch_size`` pairs of *every* interval (their single-cell
tutorial); index time of the full course, so that a removed time leaves one interval of length 2 with its target halved
(their leave-one-out module); AdamW with rate 1e-3 and decay 1e-5, three hidden SELU layers, sigma 0.1, and Euler with
100 steps per unit of model time (their experiment configuration); the exact minibatch plan for SB-CFM and [SF]2M (the
default of the library, which its documentation calls the better choice in practice).

Not guaranteed: torchcfm builds its cost matrices in float32 without centring, so the caller centres the data first.

References: Tong et al. 2024 (OT-CFM, SB-CFM, TMLR); Tong et al. 2024 ([SF]2M, AISTATS).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from benchmarks.common.peers import seeded
from torchcfm.conditional_flow_matching import (
    ConditionalFlowMatcher,
    ExactOptimalTransportConditionalFlowMatcher,
    SchrodingerBridgeConditionalFlowMatcher,
)
from torchcfm.models import MLP
from tqdm.auto import trange

from thalweg.errors import InputError

METHODS = ("icfm", "otcfm", "sbcfm", "sf2m")
WEIGHT_DECAY = 1e-5
STEPS_PER_UNIT_TIME = 100


@dataclass(frozen=True)
class PeerSettings:
    """What torchcfm is run with; the defaults are its authors' for 5 principal components.

    Parameters
    ----------
    width
        Units in each of the three hidden layers; 512 with 50 or 100 components.
    steps
        Optimiser steps; 3,000 with 50 or 100 components.
    batch_size
        Pairs drawn per interval and step; also the size of each minibatch transport problem.
    sigma
        Standard deviation of the path (``icfm``, ``otcfm``) or of the bridge (``sbcfm``, ``sf2m``), in data units.
    lr
        Learning rate of AdamW.
    """

    width: int = 64
    steps: int = 4000
    batch_size: int = 256
    sigma: float = 0.1
    lr: float = 1e-3

    def record(self) -> dict[str, float]:
        """All that torchcfm is run with, for the results."""
        return {**asdict(self), "weight_decay": WEIGHT_DECAY, "steps_per_unit_time": STEPS_PER_UNIT_TIME}


@dataclass(frozen=True)
class PeerModel:
    """A trained torchcfm model.

    Parameters
    ----------
    flow
        Velocity network on ``[x, t]``.
    score
        Network of sigma^2/2 times the score, for ``sf2m`` only.
    sigma
        Diffusion coefficient, used by ``push(..., stochastic=True)``.
    seed
        Seeds the noise of ``push``, apart from the global generators.
    fit_seconds
        Wall-clock seconds of the training.
    """

    flow: torch.nn.Module
    score: torch.nn.Module | None
    sigma: float
    seed: int
    fit_seconds: float
    _noise: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_noise", torch.Generator().manual_seed(self.seed))

    @torch.no_grad()
    def push(self, x: np.ndarray, time_from: float, time_to: float, *, stochastic: bool = False) -> np.ndarray:
        """Move cells from one model time to another with Euler, or Euler-Maruyama when ``stochastic``.

        Parameters
        ----------
        x
            Cells at ``time_from``, shape ``(n, d)``.
        time_from, time_to
            Model times, in the units given to :func:`fit_torchcfm`; 100 steps per unit, at least 100.
        stochastic
            Follow the SDE of [SF]2M; ``False`` follows the ODE.

        Returns
        -------
        numpy.ndarray
            Cells at ``time_to``, shape ``(n, d)``, float32.

        Raises
        ------
        InputError
            If ``stochastic`` is asked of a model without a score, or backwards in time.
        """
        if stochastic and (self.score is None or time_to < time_from):
            raise InputError(
                f"stochastic=True needs method 'sf2m' and time_from <= time_to; got times {time_from} -> {time_to} and "
                f"a model {'without' if self.score is None else 'with'} score. Use stochastic=False."
            )
        n_steps = max(STEPS_PER_UNIT_TIME, math.ceil(STEPS_PER_UNIT_TIME * abs(time_to - time_from)))
        dt = (time_to - time_from) / n_steps
        x_t = torch.as_tensor(np.asarray(x, dtype=np.float32))
        for i in range(n_steps):
            at = _with_time(x_t, torch.full((len(x_t),), time_from + i * dt))
            drift = self.flow(at)
            if stochastic and self.score is not None:
                noise = torch.randn(x_t.shape, generator=self._noise)
                x_t = x_t + (drift + self.score(at)) * dt + self.sigma * math.sqrt(dt) * noise
            else:
                x_t = x_t + drift * dt
        return x_t.numpy()


def fit_torchcfm(
    method: str,
    snapshots: Sequence[np.ndarray],
    model_times: Sequence[float],
    seed: int,
    settings: PeerSettings,
    *,
    progress: bool = False,
) -> PeerModel:
    """Train one torchcfm model on the snapshots given; a held-out one is removed by the caller.

    Parameters
    ----------
    method
        ``"icfm"``, ``"otcfm"``, ``"sbcfm"`` or ``"sf2m"``.
    snapshots
        Cells per time, each of shape ``(n_k, d)``, centred.
    model_times
        Increasing, one per snapshot. To reproduce the papers: the index in the full course, so that days 2, 4, 7 with
        day 3 held out are 0, 2, 3.
    seed
        Seeds the global generators, which are given back, the initial weights and the noise of ``push``.
    settings
        Network and training settings.
    progress
        Show a progress bar.

    Returns
    -------
    PeerModel
        The trained model.

    Raises
    ------
    InputError
        If the method is unknown, or times and snapshots do not match.
    """
    times = [float(t) for t in model_times]
    _check(method, snapshots, times)
    cells = [torch.as_tensor(np.asarray(x, dtype=np.float32)) for x in snapshots]
    dim = cells[0].shape[1]
    matcher = _matcher(method, settings.sigma)
    with seeded(seed):  # torchcfm draws its pairs, times and noise from the global generators
        flow = MLP(dim=dim, w=settings.width, time_varying=True)
        score = MLP(dim=dim, w=settings.width, time_varying=True) if method == "sf2m" else None
        networks = torch.nn.ModuleList([flow] if score is None else [flow, score])
        optimiser = torch.optim.AdamW(networks.parameters(), lr=settings.lr, weight_decay=WEIGHT_DECAY)
        start = time.perf_counter()
        for _ in trange(settings.steps, desc=f"torchcfm {method}", disable=not progress):
            optimiser.zero_grad()
            loss = _loss(matcher, flow, score, _batch(matcher, cells, times, settings.batch_size))
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return PeerModel(flow, score, settings.sigma, seed, time.perf_counter() - start)


@dataclass(frozen=True)
class _Batch:
    """All intervals of one step: unit time ``s``, model time ``t``, location, target and noise."""

    s: torch.Tensor
    t: torch.Tensor
    x: torch.Tensor
    u: torch.Tensor
    eps: torch.Tensor


def _matcher(method: str, sigma: float) -> Any:
    if method == "icfm":
        return ConditionalFlowMatcher(sigma=sigma)
    if method == "otcfm":
        return ExactOptimalTransportConditionalFlowMatcher(sigma=sigma)
    return SchrodingerBridgeConditionalFlowMatcher(sigma=sigma, ot_method="exact")


def _batch(matcher: Any, cells: Sequence[torch.Tensor], times: Sequence[float], size: int) -> _Batch:
    columns: list[tuple[torch.Tensor, ...]] = []
    for (x_from, a), (x_to, b) in pairwise(zip(cells, times, strict=True)):
        x0 = x_from[torch.randint(len(x_from), (size,))]
        x1 = x_to[torch.randint(len(x_to), (size,))]
        s, x, u, eps = matcher.sample_location_and_conditional_flow(x0, x1, return_noise=True)
        columns.append((s, a + (b - a) * s, x, u / (b - a), eps))
    return _Batch(*(torch.cat(column) for column in zip(*columns, strict=True)))


def _loss(matcher: Any, flow: torch.nn.Module, score: torch.nn.Module | None, batch: _Batch) -> torch.Tensor:
    at = _with_time(batch.x, batch.t)
    loss = torch.mean((flow(at) - batch.u) ** 2)
    if score is not None:
        # lambda belongs to the bridge, so it takes the time within the interval.
        lambda_s = matcher.compute_lambda(batch.s)[:, None]
        loss = loss + torch.mean((lambda_s * score(at) + batch.eps) ** 2)
    return loss


def _with_time(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, t[:, None]], dim=1)


def _check(method: str, snapshots: Sequence[np.ndarray], times: Sequence[float]) -> None:
    if method not in METHODS:
        raise InputError(f"method={method!r} is not a torchcfm method of this benchmark; choose one of {METHODS}.")
    if len(times) != len(snapshots) or len(times) < 2:
        raise InputError(
            f"model_times has {len(times)} entries for {len(snapshots)} snapshots; give at least two snapshots and one "
            "time for each."
        )
    if any(b <= a for a, b in pairwise(times)):
        raise InputError(f"model_times={list(times)} does not increase; sort the snapshots by time.")
