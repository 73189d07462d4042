"""From snapshots to a fitted flow: normalise, couple, train. Shared by `fit` and `leave_one_out`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from thalweg._random import torch_generator
from thalweg._settings import logger, settings
from thalweg.core import losses
from thalweg.core.paths import Batch, Path
from thalweg.data import IntervalSampler, Snapshots
from thalweg.errors import InputError
from thalweg.tl._axis import TimeAxis
from thalweg.tl._config import FitConfig
from thalweg.tl._couple import PlanCache, couple
from thalweg.tl._flow import Flow, FlowNet, make_net
from thalweg.tl._methods import Method, find_method
from thalweg.training import train
from thalweg.training.loop import Validation

_VALIDATION_BATCH = 4096


@dataclass(frozen=True)
class Fitted:
    """A flow and how it came about.

    Attributes
    ----------
    flow
        The fitted flow.
    history
        Training history, see `thalweg.training.TrainingResult`.
    intervals
        The couplings, see `thalweg.tl._couple.Coupled`.
    best_step
        Step whose weights were kept.
    seconds
        Wall time, plans included.
    """

    flow: Flow
    history: pd.DataFrame
    intervals: pd.DataFrame
    best_step: int
    seconds: float


def resolve_device(device: str) -> torch.device:
    """``"auto"`` is CUDA when there is one.

    Raises
    ------
    InputError
        If the device is not a torch device or not present.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={device!r} cannot be used ({error}); choose 'auto', 'cpu' or 'cuda'.") from None
    return found


def train_flow(
    snapshots: Snapshots,
    method_name: str,
    axis: TimeAxis,
    config: FitConfig,
    rng: np.random.Generator,
    *,
    device: torch.device,
    cache: PlanCache | None = None,
    description: str = "fit",
) -> Fitted:
    """Fit a flow to checked snapshots; the arguments are those of `thalweg.tl.fit`, resolved."""
    start = time.perf_counter()
    method = find_method(method_name)
    sigma = method.sigma if config.sigma is None else config.sigma
    if method.bridge and sigma == 0:
        raise InputError(f"sigma=0 leaves no bridge for method={method_name!r}; give sigma > 0 or use 'otcfm'.")
    center = snapshots.x.mean(0)
    scale = float(np.sqrt(snapshots.x.var(0).mean())) or 1.0  # identical cells: any unit serves
    z = torch.as_tensor((snapshots.x - center) / scale, dtype=torch.float32)
    before = time.perf_counter()
    coupled = couple(snapshots, z, axis, method, config, sigma, {} if cache is None else cache)
    # A fit is charged for every plan it uses, also for those an earlier fit on the same cells left in the cache.
    borrowed = max(0.0, coupled.seconds - (time.perf_counter() - before))
    sampler = IntervalSampler(
        z=z.to(device),
        tau=torch.as_tensor(axis.tau(snapshots.time), dtype=torch.float32, device=device),
        condition=torch.as_tensor(snapshots.condition, device=device) if snapshots.conditions else None,
        mixture=coupled.mixture.to(device),
        path_of=_path_of(method, sigma),
        n_intervals=axis.n_intervals,
    )
    net = make_net(
        snapshots.n_dims,
        config,
        score=method.score,
        n_conditions=len(snapshots.conditions),
        generator=torch_generator(rng),
    ).to(device)
    training, validation = _split(sampler, _Terms(method, sigma), config, rng)
    result = train(
        net,
        lambda model, n, generator: _Terms(method, sigma)(model, *training.batch(n, generator)),
        config,
        torch_generator(rng, device),
        validation=validation,
        progress=settings.progress,
        description=description,
    )
    seconds = time.perf_counter() - start + borrowed
    steps = int(result.history["step"][-1])
    logger.info(
        "%s: %d steps in %.1f s, the weights of step %d are kept", method_name, steps, seconds, result.best_step
    )
    flow = Flow(net.eval().requires_grad_(False), axis, center, scale, sigma)
    return Fitted(flow, pd.DataFrame(result.history), coupled.intervals, result.best_step, seconds)


@dataclass(frozen=True)
class _Terms:
    """The loss terms of a method on a weighted batch."""

    method: Method
    sigma: float

    def __call__(self, net: FlowNet, batch: Batch, weight: Tensor) -> Mapping[str, Tensor]:
        terms = {"velocity": (weight * losses.velocity(net.velocity, batch)).mean()}
        if net.score is not None:
            terms["score"] = losses.score(net.score, batch, scale=2 / self.sigma**2).mean()
        return terms


def _path_of(method: Method, sigma: float) -> Callable[[Tensor], Path]:
    """Path for interval lengths D: a bridge of one diffusion everywhere spreads by sigma sqrt(D)."""
    if method.bridge:
        return lambda length: method.path(sigma * length.sqrt())
    path = method.path(sigma)
    return lambda length: path


def _split(
    sampler: IntervalSampler, terms: _Terms, config: FitConfig, rng: np.random.Generator
) -> tuple[IntervalSampler, Validation[FlowNet] | None]:
    """Hold back a share of the source cells of each coupling; validate on one fixed batch of their pairs."""
    held = torch.zeros(len(sampler.z), dtype=torch.bool)
    for rows in sampler.mixture.sources:
        n = int(config.validation_fraction * len(rows))
        held[rows.cpu()[torch.from_numpy(rng.permutation(len(rows))[:n])]] = True
    held = held.to(sampler.z.device)
    if not all(bool(held[rows].any()) for rows in sampler.mixture.sources):
        return sampler, None  # off, or a time point with too few cells to spare one
    batch, weight = sampler.restrict(held).batch(_VALIDATION_BATCH, torch_generator(rng, sampler.z.device))

    def validation(model: FlowNet) -> float:
        with torch.no_grad():
            return float(torch.stack(list(terms(model, batch, weight).values())).sum())

    return sampler.restrict(~held), validation
