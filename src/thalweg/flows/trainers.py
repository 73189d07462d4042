"""Training the networks of a fit: those of the prediction, and those of the dynamics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from thalweg._random import torch_generator
from thalweg._settings import settings
from thalweg.core.contrastive import MeanNegative
from thalweg.core.fields.affine import AffineMLP
from thalweg.core.objectives import Contrastive, feature_report
from thalweg.flows.config import FitConfig
from thalweg.flows.draws import Draws
from thalweg.flows.dynamics import BridgeSampler, Dynamics
from thalweg.flows.networks import FlowNet
from thalweg.flows.objective import Terms, dynamics_terms
from thalweg.flows.samplers import IntervalSampler, Sampler
from thalweg.flows.time_axis import TimeAxis
from thalweg.training.loop import Monitor, TrainingResult, Validation, train
from thalweg.training.saving import Checkpoints

_MEAN_BATCHES = 16
_VALIDATION_BATCH = 4096
_AFFINE_BATCH, _AFFINE_TIMES = 4096, 16  # samples of the affine part, and their times; W1 on CITE as with any
_PER_ROW = 256  # samples for each row of coefficients of the affine part; 64 cost .1 % of W1 in 50 dimensions


def train_prediction(
    net: FlowNet,
    terms: Terms,
    training: Draws,
    held_back: Draws | None,
    axis: TimeAxis,
    config: FitConfig,
    rng: np.random.Generator,
    checkpoints: Checkpoints | None,
    description: str,
) -> TrainingResult:
    """Train the networks of the prediction in place."""
    sampler = training.prediction
    device = sampler.z.device
    validation = None if held_back is None else _validation(terms, held_back.prediction, rng)
    _fit_affine(net.main, sampler, axis, rng)
    result = train(
        net,
        lambda model, n, generator: terms(model, sampler.batch(n, generator), generator),
        config,
        torch_generator(rng, device),
        validation=validation,
        monitor=_monitor(config, sampler, rng),
        checkpoints=checkpoints,
        progress=settings.progress,
        description=description,
    )
    if net.mean_negative is not None and config.contrastive is not None:
        net.mean_negative.copy_(_mean_negative(net, config.contrastive, sampler, torch_generator(rng, device)))
    return result


def train_dynamics(
    net: Dynamics | FlowNet,
    training: Draws,
    held_back: Draws | None,
    axis: TimeAxis,
    config: FitConfig,
    rng: np.random.Generator,
    checkpoints: Checkpoints | None,
    description: str,
) -> TrainingResult:
    """Train the networks of the process in place."""
    sampler = cast(BridgeSampler | IntervalSampler, training.dynamics)
    if isinstance(net, Dynamics) and isinstance(sampler, BridgeSampler):
        net.begin(sampler, _edges(axis), torch_generator(rng, sampler.z.device))
    elif isinstance(net, FlowNet) and isinstance(sampler, IntervalSampler):
        _fit_affine(net.main, sampler, axis, rng)
    validation = None
    if held_back is not None and held_back.dynamics is not None:
        drawn = held_back.dynamics.batch(_VALIDATION_BATCH, torch_generator(rng, sampler.z.device))

        def validation(model: Dynamics | FlowNet) -> float:
            with torch.no_grad():
                return float(torch.stack(list(dynamics_terms(model, drawn).values())).sum())

    return train(
        net,
        lambda model, n, generator: dynamics_terms(model, sampler.batch(n, generator)),
        replace(config, dispersive=None, contrastive=None),
        torch_generator(rng, sampler.z.device),
        validation=validation,
        checkpoints=checkpoints,
        progress=settings.progress,
        description=description,
    )


def _fit_affine(network: nn.Module, sampler: Sampler, axis: TimeAxis, rng: np.random.Generator) -> None:
    """Fit the affine part, if there is one, to as many samples as its coefficients need.

    They are drawn a few at a time, which bounds the memory.
    """
    if not (isinstance(network, AffineMLP) and isinstance(sampler, IntervalSampler)):
        return
    affine, generator = network.affine, torch_generator(rng, sampler.z.device)
    n_rows = (affine.degree + 1) * (affine.dim + 1) * axis.n_intervals
    at_once = min(max(_AFFINE_BATCH, 2048 * axis.n_intervals), 16 * _AFFINE_BATCH)  # some for each interval

    def samples() -> Iterator[tuple[float, Tensor, Tensor, Tensor]]:
        for _ in range(ceil(_PER_ROW * n_rows / at_once)):
            drawn = sampler.batch(at_once, generator, n_times=_AFFINE_TIMES)
            times, which = torch.unique(drawn.batch.t, return_inverse=True)
            together = torch.split(which.argsort(stable=True), torch.bincount(which).tolist())
            for s, rows in zip(times.tolist(), together, strict=True):
                yield s, drawn.batch.x_t[rows], drawn.batch.u_t[rows], drawn.weight[rows]

    affine.fit(_edges(axis).to(affine.edges.device), samples())


def _edges(axis: TimeAxis) -> Tensor:
    """The observed times on the scale of ``s``."""
    return torch.as_tensor(axis.tau(axis.times) / axis.n_intervals, dtype=torch.float32)


def _validation(terms: Terms, held_back: Sampler, rng: np.random.Generator) -> Validation[FlowNet]:
    """The loss on one fixed batch of the pairs held back."""
    drawn = held_back.batch(_VALIDATION_BATCH, torch_generator(rng, held_back.z.device))

    def validation(model: FlowNet) -> float:
        negatives = torch.Generator(drawn.unit_t.device).manual_seed(0)  # the same at every call
        with torch.no_grad():
            return float(torch.stack(list(terms(model, drawn, negatives, regularise=False).values())).sum())

    return validation


def _monitor(config: FitConfig, sampler: Sampler, rng: np.random.Generator) -> Monitor[FlowNet] | None:
    option = config.dispersive
    if option is None:
        return None
    batch = sampler.batch(_VALIDATION_BATCH, torch_generator(rng, sampler.z.device)).batch
    return lambda model: feature_report(model.main, batch, option)


def _mean_negative(net: FlowNet, option: Contrastive, sampler: Sampler, generator: torch.Generator) -> Tensor:
    """``u_bar`` over many batches, a row for each condition it depends on."""
    mean = MeanNegative(option.negatives)
    for _ in range(_MEAN_BATCHES):
        mean.update(sampler.batch(_VALIDATION_BATCH, generator).batch)
    if net.mean_negative is None or option.negatives == "any":
        return mean(torch.zeros(1), sampler.z.new_zeros(1, mean.total.shape[1]))
    labels = torch.arange(len(net.mean_negative))
    return mean(torch.zeros(len(labels)), torch.zeros_like(net.mean_negative), labels)
