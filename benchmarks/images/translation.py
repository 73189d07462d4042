"""Unsupervised translation: images of some classes carried to images of others, without pairs.

The source is a set of images instead of noise. OT-CFM pairs each batch by optimal transport, so that an image is sent
to one that resembles it; I-CFM pairs at random and is shown beside it. Models are trained on the images of the split's
``train`` part; images of its ``reference`` part are translated, and scored against reference images of the target
classes at equal number. ``moved`` is the mean squared distance of a pixel between an image and its translation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from benchmarks.images.data import ImageSet, Split, grey_levels, to_levels
from benchmarks.images.flows import Flow, Sampler, sample
from benchmarks.images.judge import Judge
from benchmarks.images.parallel import World
from benchmarks.images.runs import RunConfig, execute
from benchmarks.images.scores import all_scores
from benchmarks.images.store import slug
from torch import Tensor, nn
from tqdm.auto import tqdm

from thalweg.errors import InputError

SAMPLER = Sampler("midpoint", 20)
PAIRS_KEPT = 20


def of_classes(images: ImageSet, classes: tuple[int, ...]) -> ImageSet:
    """The images of some classes.

    Raises
    ------
    InputError
        If a class has no images.
    """
    missing = sorted(set(classes) - set(images.y.tolist()))
    if missing or not classes:
        raise InputError(f"classes {missing or 'none'} have no images; choose among {sorted(set(images.y.tolist()))}.")
    return images.rows(torch.isin(images.y, torch.tensor(classes, device=images.y.device)))


def run_translation(
    runs: dict[str, RunConfig], split: Split, judge: Judge, folder: Path, world: World, *, progress: bool = True
) -> dict[str, Any]:
    """Make the runs of the translation table; arguments and result as `store.run_table`.

    Raises
    ------
    InputError
        If the two sets of classes overlap or one has no images.
    """
    source_classes, target_classes = next(iter(runs.values())).translation or ((), ())
    if set(source_classes) & set(target_classes):
        raise InputError(f"source and target classes overlap: {source_classes} and {target_classes}.")
    source, target = (of_classes(split.train, c) for c in (source_classes, target_classes))
    start, real = (of_classes(split.reference, c) for c in (source_classes, target_classes))
    n = min(len(start), len(real), len(target))
    start, real = start.head(n), real.head(n)
    real_features = judge.features(real.x)

    @torch.no_grad()
    def score(network: nn.Module) -> tuple[dict[str, Any], Tensor]:
        flow = Flow(network, None)
        x = to_levels(sample(flow, start.x, SAMPLER), real.levels)
        recognised = [judge(x).argmax(1) == c for c in target_classes]
        row = all_scores(judge.features(x), real_features) | {
            "nfe": float(flow.passes),
            "moved": float((x - start.x).square().mean()),
            "in_target_classes": float(torch.stack(recognised).any(0).double().mean()),
        }
        pairs = torch.stack([start.x[:PAIRS_KEPT], x[:PAIRS_KEPT]]).flatten(0, 1)
        return {"samplers": [{"sampler": SAMPLER.label, **row}]}, grey_levels(pairs, real.levels)

    results = {}
    for name, config in tqdm(runs.items(), desc=folder.name, disable=not (progress and world.first)):
        options: dict[str, Any] = {"source": source, "progress": progress}
        results[name] = execute(config, target, score, folder / slug(name), world, **options)
    return {"runs": results, "n": n, "floor": all_scores(judge.features(target.head(n).x), real_features)}
