"""True FID, in the features of Inception v3, through torchmetrics with weights the user brings.

Nothing is downloaded. FID needs tens of thousands of images to compare with published figures; with fewer it states
their number and is comparable at that number only.
"""

from __future__ import annotations

from pathlib import Path

import torch
from benchmarks.images.data import Split, to_levels
from benchmarks.images.flows import Flow, end_time, sample
from benchmarks.images.objectives import velocity_field
from benchmarks.images.parallel import World
from benchmarks.images.runs import RunConfig, load_network
from torch import Tensor

from thalweg.errors import InputError


def inception_fid(folder: Path, config: RunConfig, split: Split, weights: Path, world: World) -> float:
    """FID of a finished run against the reference images, at equal number.

    Parameters
    ----------
    folder, config
        The run and its configuration.
    split
        Images; as many samples are drawn as there are reference images.
    weights
        File of Inception v3's weights as torch-fidelity publishes them (``weights-inception-2015-12-05-6726825d.pth``).
    world
        This process.

    Raises
    ------
    InputError
        If the file, torchmetrics or torch-fidelity is missing.
    """
    if not weights.is_file():
        raise InputError(
            f"{weights} does not exist: true FID needs Inception v3's weights, which are not downloaded here; get "
            "torch-fidelity's weights-inception-2015-12-05-6726825d.pth, or leave --inception-weights out: FD is "
            "computed without it."
        )
    try:
        import torch_fidelity  # type: ignore[import-not-found]  # noqa: F401
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise InputError(
            f"true FID needs torchmetrics and torch-fidelity ({error}); `pip install torch-fidelity`."
        ) from error
    metric = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(weights)).to(world.device)
    network = load_network(folder, config, split.train).to(world.device)
    sampler, end = config.evaluation.samplers[0], end_time(config.objective)
    field = velocity_field(network, config.objective)
    generator = torch.Generator(world.device).manual_seed(config.seed)
    chunk = config.evaluation.chunk
    for x, y in zip(torch.split(split.reference.x, chunk), torch.split(split.reference.y, chunk), strict=True):
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        flow = Flow(field, y if config.conditional else None, sampler.guidance, end)
        metric.update(_bytes(x), real=True)
        metric.update(_bytes(to_levels(sample(flow, noise, sampler), split.reference.levels)), real=False)
    return float(metric.compute())


def _bytes(x: Tensor) -> Tensor:
    """Images in [-1, 1] as 8-bit colour."""
    return ((x + 1) * 128).floor().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
