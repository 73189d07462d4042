"""The runs behind each table: what varies, and what all share.

A table is a dictionary of `RunConfig` by name, for one seed; seeds repeat it. Numbers of steps are small because the
tables are made to be rerun on two cores: they compare objectives at equal training, not with published figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.images.evaluation import Evaluation
from benchmarks.images.flows import Sampler
from benchmarks.images.objectives import OBJECTIVES, Objective
from benchmarks.images.runs import RunConfig
from benchmarks.images.transformer import TransformerConfig
from benchmarks.images.unet import UNetConfig

from thalweg.core.contrastive import Negatives
from thalweg.core.objectives import Contrastive, Dispersive
from thalweg.errors import InputError
from thalweg.training import TrainingConfig

KINDS = ("infonce_l2", "infonce_cosine", "hinge", "covariance")
LAMBDAS = (0.0, 0.01, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Recipe:
    """What is trained on a data set unless told otherwise.

    Attributes
    ----------
    unet, transformer
        The two networks.
    training, transformer_training
        Steps, batch, rates, averaging; of the U-Net and of the transformer.
    n
        Images in a score.
    bits_images
        Images of the bits per dimension.
    flip
        Mirror images at random.
    """

    unet: UNetConfig
    transformer: TransformerConfig
    training: TrainingConfig
    transformer_training: TrainingConfig
    n: int
    bits_images: int
    flip: bool = False


def _training(steps: int, batch: int, rate: float, ema: float, warmup: int = 50) -> TrainingConfig:
    return TrainingConfig(
        max_steps=steps,
        batch_size=batch,
        learning_rate=rate,
        warmup_steps=warmup,
        weight_decay=0.0,
        ema_decay=ema,
        validate_every=max(1, steps // 20),
    )


RECIPES = {
    "digits": Recipe(
        UNetConfig(width=16),
        TransformerConfig(),
        _training(600, 64, 2e-3, 0.995),
        _training(500, 64, 4e-3, 0.995),
        500,
        250,
    ),
    "mnist": Recipe(
        UNetConfig(width=32, mult=(1, 2), patch=2),
        TransformerConfig(width=128, depth=6, patch=4),
        _training(2500, 64, 2e-3, 0.996, 100),
        _training(2500, 64, 2e-3, 0.996, 100),
        1000,
        100,
    ),
    # torchcfm's published recipe but for the schedule of the rate: here a cosine follows the warm-up.
    "cifar10": Recipe(
        UNetConfig(width=128, mult=(1, 2, 2, 2), n_blocks=2, attention=(16,), dropout=0.1),
        TransformerConfig(width=384, depth=12, heads=6, patch=2),
        _training(400_000, 128, 2e-4, 0.9999, 5000),
        _training(400_000, 128, 2e-4, 0.9999, 5000),
        5000,
        100,
        flip=True,
    ),
}
RECIPES["cifar10_4k"] = replace(RECIPES["cifar10"], n=1000)


@dataclass(frozen=True)
class Changes:
    """What the command line changes in a recipe; None keeps it.

    Attributes
    ----------
    steps, batch_size, width, n
        Optimiser steps, images of a step in each process, width of the network, images in a score.
    bits_images, bits_k, bits_trace
        As in `Evaluation`.
    bfloat16, processes
        As in `RunConfig`.
    """

    steps: int | None = None
    batch_size: int | None = None
    width: int | None = None
    n: int | None = None
    bits_images: int | None = None
    bits_k: int = 1
    bits_trace: str = "hutchinson"
    bfloat16: bool = False
    processes: int = 1


def base(dataset: str, changes: Changes, *, network: str) -> RunConfig:
    """The run that a table varies.

    Parameters
    ----------
    dataset
        Name of the image set; a file of images uses the recipe of mnist.
    changes
        From the command line.
    network
        ``"unet"`` or ``"transformer"``.
    """
    recipe = RECIPES.get(dataset, RECIPES["mnist"])
    model: UNetConfig | TransformerConfig = recipe.unet if network == "unet" else recipe.transformer
    training = recipe.training if network == "unet" else recipe.transformer_training
    steps = changes.steps or training.max_steps
    training = replace(
        training,
        max_steps=steps,
        batch_size=changes.batch_size or training.batch_size,
        warmup_steps=min(training.warmup_steps, steps // 10),
        validate_every=max(1, steps // 20),
    )
    bits = recipe.bits_images if changes.bits_images is None else changes.bits_images
    evaluation = Evaluation(
        n=changes.n or recipe.n, bits_images=bits, bits_k=changes.bits_k, bits_trace=changes.bits_trace
    )
    return RunConfig(
        dataset=dataset,
        model=replace(model, width=changes.width or model.width),
        training=training,
        evaluation=evaluation,
        flip=recipe.flip,
        bfloat16=changes.bfloat16,
        processes=changes.processes,
    )


def objectives(dataset: str, changes: Changes, names: Sequence[str] = OBJECTIVES) -> dict[str, RunConfig]:
    """Paths and couplings at equal training: adaptive solver, its cost, few and many steps, bits per dimension."""
    config = base(dataset, changes, network="unet")
    samplers = (Sampler("dopri5", tolerance=1e-4), Sampler("euler", 8), Sampler("euler", 50))
    config = replace(config, evaluation=replace(config.evaluation, samplers=samplers))
    return {name: replace(config, objective=Objective(name)) for name in names}


def contrastive(
    dataset: str, changes: Changes, lambdas: Sequence[float] = LAMBDAS, negatives: Negatives = "any"
) -> dict[str, RunConfig]:
    """ΔFM over lambda: few and many network passes, with and without guidance and undo at equal passes."""
    config = base(dataset, changes, network="transformer")
    config = replace(config, conditional=True, label_drop=0.1)
    plain = (
        Sampler("euler", 8),
        Sampler("euler", 32),
        Sampler("euler", 4, guidance=1.5),
        Sampler("euler", 16, guidance=1.5),
    )
    table = {}
    for weight in lambdas:
        samplers = plain + (tuple(replace(s, undo=True) for s in plain) if weight else ())
        evaluation = replace(config.evaluation, samplers=samplers, bits_images=0)
        objective = Objective("fm-ot", contrastive=Contrastive(weight, negatives))
        table[f"lambda {weight:g}"] = replace(config, objective=objective, evaluation=evaluation)
    return table


def dispersive(
    dataset: str,
    changes: Changes,
    *,
    kinds: Sequence[str] = KINDS,
    weights: Sequence[float] = (0.5,),
    taus: Sequence[float] = (0.5,),
    blocks: Sequence[str] = ("0.25",),
) -> dict[str, RunConfig]:
    """No regulariser, the dispersive losses, and their contrastive counterparts with both noise settings.

    Parameters
    ----------
    dataset, changes
        As in `base`.
    kinds, weights, taus, blocks
        Options of `Dispersive`, all combinations; a block is a name or a fraction of the depth.
    """
    config = base(dataset, changes, network="transformer")
    evaluation = replace(config.evaluation, samplers=(Sampler("euler", 32), Sampler("euler", 8)), bits_images=0)
    config = replace(config, conditional=True, label_drop=0.1, evaluation=evaluation)
    table = {"none": config}
    for kind in kinds:
        for weight, tau, block in ((w, t, b) for w in weights for t in taus for b in blocks):
            option = Dispersive(weight=weight, kind=kind, tau=tau, group=None, block=_block(block))  # type: ignore[arg-type]
            varied = len(weights) * len(taus) * len(blocks) > 1
            suffix = f" w={weight:g} tau={tau:g} block={block}" if varied else ""
            for name, noise in (("", None), (" independent", "independent"), (" restricted", "restricted")):
                objective = Objective("fm-ot", dispersive=option, pair_noise=noise)  # type: ignore[arg-type]
                table[f"{kind}{name or ' dispersive'}{suffix}"] = replace(config, objective=objective)
    return table


def _block(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def translation(
    dataset: str, changes: Changes, classes: tuple[tuple[int, ...], tuple[int, ...]]
) -> dict[str, RunConfig]:
    """Images of some classes turned into images of others, with optimal transport pairs and with independent ones."""
    config = replace(base(dataset, changes, network="unet"), translation=classes)
    return {name: replace(config, objective=Objective(name)) for name in ("otcfm", "icfm")}


def demonstration(dataset: str, changes: Changes, names: Sequence[str]) -> dict[str, RunConfig]:
    """Class-conditional models to look at: samples of every class, with guidance and without."""
    config = base(dataset, changes, network="unet")
    samplers = (Sampler("midpoint", 15), Sampler("midpoint", 15, guidance=1.5), Sampler("euler", 8))
    evaluation = replace(config.evaluation, samplers=samplers, bits_images=changes.bits_images or 0)
    config = replace(config, conditional=True, label_drop=0.1, evaluation=evaluation)
    return {name: replace(config, objective=Objective(name)) for name in names}


def with_seeds(table: dict[str, RunConfig], seeds: int) -> dict[str, RunConfig]:
    """Repeat the runs of a table for seeds 0, 1, ...; names get the suffix ``-s<seed>``."""
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, found {seeds}.")
    return {f"{name}-s{seed}": replace(config, seed=seed) for seed in range(seeds) for name, config in table.items()}
