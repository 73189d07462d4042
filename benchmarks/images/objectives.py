"""The objectives of the benchmark, each a choice among what `thalweg.core` offers.

| name  | pairs (x0, x1)                       | path            | loss                                             |
|-------|--------------------------------------|-----------------|--------------------------------------------------|
| fm-ot | noise is the path's own              | `GaussianOT`    | velocity                                         |
| fm-vp | noise is the path's own              | `VPDiffusion`   | velocity                                         |
| sm-vp | noise is the path's own              | `VPDiffusion`   | score, of s = -network / sigma_t, weight sigma_t^2 |
| icfm  | independent                          | `Linear`        | velocity                                         |
| otcfm | exact optimal transport in the batch | `Linear`        | velocity                                         |
| sbcfm | entropic plan in the batch           | `BrownianBridge`| velocity                                         |

To those trained on velocities are added: ΔFM (`Contrastive`), a dispersive loss (`Dispersive`), or with `pair_noise`
its contrastive counterpart, where each image is noised twice, both views in one pass, and the base loss sees the first.

Pairs of a conditional model are drawn within the classes of the batch: transport across classes would make the source
of a class other than the noise it is sampled from. A source other than noise (translation) is given as images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from thalweg.core import couplings, losses
from thalweg.core.contrastive import MeanNegative, paired_views
from thalweg.core.dispersive import contrastive_pair
from thalweg.core.dynamics.sde import velocity_from_score
from thalweg.core.fields.features import tap
from thalweg.core.losses import Model
from thalweg.core.objectives import Contrastive, Dispersive, velocity_terms
from thalweg.core.paths import Batch, BrownianBridge, GaussianOT, GaussianPath, Linear, VPDiffusion, expand
from thalweg.errors import InputError

OBJECTIVES = ("fm-ot", "fm-vp", "sm-vp", "icfm", "otcfm", "sbcfm")
PairNoise = Literal["independent", "restricted"]
_OWN_NOISE = ("fm-ot", "fm-vp", "sm-vp")


@dataclass(frozen=True)
class Objective:
    """What a network is trained with.

    Attributes
    ----------
    name
        One of ``OBJECTIVES``.
    contrastive, dispersive
        Options of `thalweg.core.objectives.velocity_terms`.
    pair_noise
        Replace the dispersive loss by its contrastive counterpart with views of ``"independent"`` or ``"restricted"``
        noise; needs ``dispersive``, which states kind, weight, temperature and block, and a path with its own noise.
    sigma
        Diffusion of the bridge of ``sbcfm``.

    Raises
    ------
    InputError
        For an unknown name or options that do not go together.
    """

    name: str = "fm-ot"
    contrastive: Contrastive | None = None
    dispersive: Dispersive | None = None
    pair_noise: PairNoise | None = None
    sigma: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}; found {self.name!r}.")
        if self.name == "sm-vp" and (self.contrastive or self.dispersive):
            raise InputError("sm-vp learns a score; contrastive and dispersive options go with a velocity, e.g. fm-vp.")
        if self.pair_noise is None:
            return
        if self.pair_noise not in get_args(PairNoise):
            raise InputError(f"pair_noise must be one of {', '.join(get_args(PairNoise))}; found {self.pair_noise!r}.")
        if self.dispersive is None or self.contrastive is not None or self.name not in _OWN_NOISE:
            raise InputError("pair_noise needs a dispersive option, no contrastive one, and objective fm-ot or fm-vp.")

    @property
    def path(self) -> GaussianPath:
        """The probability path."""
        if self.name == "fm-ot":
            return GaussianOT()
        if self.name in ("fm-vp", "sm-vp"):
            return VPDiffusion()
        return BrownianBridge(sigma=self.sigma) if self.name == "sbcfm" else Linear()


def pairs(
    objective: Objective, x1: Tensor, labels: Tensor | None, generator: torch.Generator, source: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Ends of the paths and the labels, paired row by row.

    Parameters
    ----------
    objective
        Chooses the coupling.
    x1
        Images, shape ``(n, ...)``.
    labels
        Classes ``(n,)`` within which to pair, or None.
    generator
        Source of noise and pairs.
    source
        Images to start from, shape of ``x1``; Gaussian noise by default.

    Returns
    -------
    ``x0``, ``x1`` and ``labels`` with rows reordered.
    """
    if objective.name in _OWN_NOISE:
        return x1, x1, labels
    x0 = source
    if x0 is None:
        x0 = torch.randn(x1.shape, generator=generator, device=x1.device, dtype=x1.dtype)
    if objective.name == "icfm":
        return x0, x1, labels
    groups = [torch.arange(len(x1), device=x1.device)]
    if labels is not None:
        groups = [(labels == c).nonzero().flatten() for c in sorted(set(labels.tolist()))]
    rows, cols = [], []
    for group in groups:
        i, j = _couple(objective, x0[group].flatten(1), x1[group].flatten(1), generator)
        rows.append(group[i])
        cols.append(group[j])
    i, j = torch.cat(rows), torch.cat(cols)
    return x0[i], x1[j], None if labels is None else labels[j]


def _couple(objective: Objective, x0: Tensor, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if objective.name == "sbcfm":
        plan = couplings.entropic(x0, x1, reg=2 * objective.sigma**2)
        return plan.sample(len(x0), generator)
    plan = couplings.exact(x0, x1)
    # Between equal numbers of rows the plan is a permutation: used whole, it has no sampling noise.
    return (plan.rows, plan.cols) if len(plan.rows) == len(x0) else plan.sample(len(x0), generator)


def draw(
    objective: Objective, x1: Tensor, labels: Tensor | None, generator: torch.Generator, source: Tensor | None = None
) -> Batch:
    """A batch on the path; arguments as in `pairs`."""
    x0, x1, labels = pairs(objective, x1, labels, generator, source)
    path = objective.path
    batch = path(x0, x1, path.draw_t(len(x1), generator, x1.dtype), generator)
    return replace(batch, condition=labels)


def terms(
    network: nn.Module,
    objective: Objective,
    x1: Tensor,
    labels: Tensor | None,
    generator: torch.Generator,
    *,
    source: Tensor | None = None,
    drop: float = 0.0,
    null: int = 0,
) -> dict[str, Tensor]:
    """Scalar terms of the loss by name; their sum is minimised.

    Parameters
    ----------
    network
        ``network(t, x_t, condition)``.
    objective
        What to train with.
    x1, labels, generator, source
        As in `pairs`.
    drop, null
        Share of the labels replaced by the null class, and its number, for classifier-free guidance.
    """
    if objective.pair_noise is not None and objective.dispersive is not None:
        t = objective.path.draw_t(len(x1), generator, x1.dtype)
        views = paired_views(objective.path, x1, x1, t, generator, noise=objective.pair_noise)
        return _pair_terms(network, objective.dispersive, views, drop_labels(labels, drop, null, generator))
    batch = draw(objective, x1, labels, generator, source)
    batch = replace(batch, condition=drop_labels(batch.condition, drop, null, generator))
    if objective.name == "sm-vp":
        return {"score": losses.score(score_field(network, objective.path), batch).mean()}
    options = {"contrastive": objective.contrastive, "dispersive": objective.dispersive}
    return velocity_terms(network, batch, generator=generator, **options)  # type: ignore[arg-type]


def _pair_terms(
    network: nn.Module, option: Dispersive, views: tuple[Batch, Batch], labels: Tensor | None
) -> dict[str, Tensor]:
    """Velocity loss of the first view and contrastive loss of both, from one pass over both."""
    times, points = (torch.cat([getattr(v, name) for v in views]) for name in ("t", "x_t"))
    with tap(network, option.block_of(network)) as tapped:
        out = network(times, points, None if labels is None else torch.cat([labels, labels]))
    first, second = tapped.value.chunk(2)
    contrast = contrastive_pair(first, second, option.kind, tau=option.tau, margin=option.margin)
    return {
        "velocity": losses.mean_square(out.chunk(2)[0] - views[0].u_t).mean(),
        "pair": option.weight * contrast,
    }


def drop_labels(labels: Tensor | None, share: float, null: int, generator: torch.Generator) -> Tensor | None:
    """Replace a share of the labels by the null class."""
    if labels is None or share == 0:
        return labels
    dropped = torch.rand(len(labels), generator=generator, device=labels.device) < share
    return labels.masked_fill(dropped, null)


def score_field(network: Model, path: GaussianPath) -> Model:
    """Score ``-network / sigma_t``: the network predicts the noise, whose scale is the same at all times."""

    def score(t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        sigma = path.moments(x, x, t).sigma
        return -network(t, x, condition) / expand(sigma, x)

    return score


def velocity_field(network: Model, objective: Objective) -> Model:
    """The velocity of a trained network, from its score where that is what it learned."""
    if objective.name != "sm-vp":
        return network
    path = objective.path
    score = score_field(network, path)

    def velocity(t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return velocity_from_score(path, t, x, score(t, x, condition))

    return velocity


def mean_negative(
    objective: Objective, x1: Tensor, labels: Tensor | None, generator: torch.Generator, draws: int = 20
) -> MeanNegative:
    """Mean negative of ΔFM, from ``draws`` passes over the images; see `thalweg.core.contrastive.undo`.

    Raises
    ------
    InputError
        If the objective has no contrastive option.
    """
    if objective.contrastive is None:
        raise InputError("the mean negative belongs to the contrastive option; this objective has none.")
    mean = MeanNegative(objective.contrastive.negatives)
    for _ in range(draws):
        mean.update(draw(objective, x1, labels, generator))
    return mean
