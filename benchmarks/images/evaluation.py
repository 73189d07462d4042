"""The scores of a trained model: every sampler against the reference images at equal number, beside the floor."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from benchmarks.images.data import ImageSet, Split, grey_levels, to_levels
from benchmarks.images.flows import Flow, Sampler, bits, end_time, sample, straightness
from benchmarks.images.judge import Judge
from benchmarks.images.objectives import Objective, draw, mean_negative, velocity_field
from benchmarks.images.scores import all_scores, mean_scores
from torch import Tensor, nn

from thalweg.core.contrastive import undo
from thalweg.core.losses import Model
from thalweg.core.objectives import feature_report

_NOISE_SEED = 7_000_000


@dataclass(frozen=True)
class Evaluation:
    """How a run is scored.

    Attributes
    ----------
    n
        Samples, and reference images, in a score.
    draws
        Sets of ``n`` samples; scores are their mean.
    samplers
        Each gives a row of scores.
    bits_images
        Reference images of the bits per dimension; 0 leaves it out.
    bits_k, bits_trace
        As in `flows.bits`.
    chunk
        Samples integrated together; with an adaptive solver its error is controlled over a chunk.
    kept
        Samples kept as images.
    """

    n: int = 500
    draws: int = 1
    samplers: tuple[Sampler, ...] = (Sampler(),)
    bits_images: int = 0
    bits_k: int = 1
    bits_trace: str = "hutchinson"
    chunk: int = 500
    kept: int = 40


def evaluate(
    network: nn.Module,
    objective: Objective,
    config: Evaluation,
    split: Split,
    judge: Judge,
    seed: int,
    conditional: bool,
) -> tuple[dict[str, Any], Tensor]:
    """Score a trained network.

    Parameters
    ----------
    network, objective
        The network and what it was trained with.
    config
        What to score.
    split, judge
        Images and classifier, on the device of the network.
    seed
        Of the noise that samples start from, the same for all samplers.
    conditional
        Whether to sample with the labels of the reference images.

    Returns
    -------
    Scores (``samplers``: a row each; ``straightness``; ``bits_per_dim`` with ``bits_k``) and the first samples of the
    first sampler as grey levels, uint8.
    """
    reference = split.reference.head(config.n)
    labels = reference.y if conditional else None
    fields = _fields(network, objective, split, conditional, seed)
    target = _Target(reference, labels, judge, judge.features(reference.x), end_time(objective), seed)
    rows, kept = [], torch.empty(0, dtype=torch.uint8)
    for sampler in config.samplers:
        row, first = _score(fields[sampler.undo], sampler, config, target)
        rows.append({"sampler": sampler.label, **row})
        kept = kept if len(kept) else grey_levels(first[: config.kept], reference.levels)
    noise = _noise(reference.x, seed)[:256]
    flow = Flow(fields[False], None if labels is None else labels[:256], end=end_time(objective))
    scores: dict[str, Any] = {"samplers": rows, "straightness": straightness(flow, noise)}
    if objective.dispersive is not None:
        x, generator = reference.x[:256], torch.Generator(reference.x.device).manual_seed(seed)
        batch = draw(replace(objective, pair_noise=None), x, None if labels is None else labels[:256], generator)
        scores["features"] = feature_report(network, batch, objective.dispersive)
    if config.bits_images:
        start, images = time.perf_counter(), split.reference.head(config.bits_images)
        flow = Flow(fields[False], images.y if conditional else None, end=end_time(objective))
        generator = torch.Generator(images.x.device).manual_seed(seed)
        value = bits(flow, images, config.bits_k, config.bits_trace, generator)
        scores |= {"bits_per_dim": value, "bits_k": config.bits_k, "bits_seconds": time.perf_counter() - start}
    return scores, kept


def floor(split: Split, judge: Judge, n: int) -> dict[str, float]:
    """Scores of ``n`` training images against ``n`` reference images, and the judge's accuracy on the latter."""
    train, reference = split.train.head(n), split.reference.head(n)
    scores = all_scores(judge.features(train.x), judge.features(reference.x))
    return scores | {"accuracy": judge.accuracy(reference.x, reference.y)}


def _fields(network: nn.Module, objective: Objective, split: Split, conditional: bool, seed: int) -> dict[bool, Model]:
    """The velocity as trained (False) and, of ΔFM, turned back into that of flow matching (True)."""
    field = velocity_field(network, objective)
    if objective.contrastive is None or objective.contrastive.weight == 0:
        return {False: field, True: field}
    images = split.train
    generator = torch.Generator(images.x.device).manual_seed(seed)
    mean = mean_negative(objective, images.x, images.y if conditional else None, generator)
    return {False: field, True: undo(field, objective.contrastive.weight, mean)}


def _noise(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator(like.device).manual_seed(_NOISE_SEED + seed)
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class _Target:
    """What samples are drawn for and scored against."""

    images: ImageSet
    labels: Tensor | None
    judge: Judge
    features: Tensor
    end: float
    seed: int


def _score(field: Model, sampler: Sampler, config: Evaluation, target: _Target) -> tuple[dict[str, float], Tensor]:
    """Scores of a sampler, and the samples of its first draw."""
    start, rows, first, passes = time.perf_counter(), [], torch.empty(0), []
    for k in range(config.draws):
        noise, parts = _noise(target.images.x, target.seed + 1000 * k), []
        for at in range(0, config.n, config.chunk):
            part = slice(at, at + config.chunk)
            flow = Flow(field, None if target.labels is None else target.labels[part], sampler.guidance, target.end)
            parts.append(sample(flow, noise[part], sampler))
            passes.append(flow.passes)
        x = to_levels(torch.cat(parts), target.images.levels)
        row = all_scores(target.judge.features(x), target.features)
        if target.labels is not None:
            row["accuracy"] = target.judge.accuracy(x, target.labels)
        rows.append(row)
        first = first if len(first) else x
    seconds = time.perf_counter() - start
    return {**mean_scores(rows), "nfe": sum(passes) / len(passes), "seconds": seconds}, first
