r"""The loss a network is trained with: flow matching, and the options added to it.

`velocity_terms` compares a velocity network with a batch and returns scalar terms by name, whose sum is minimised:

    velocity      mean_i w_i ||v - u||^2 / d                     always; comparable between all options
    contrastive   - weight mean_i w_i ||v - u~||^2 / d           with `Contrastive`, see `thalweg.core.contrastive`
    dispersive    weight L(features of a block)                  with `Dispersive`, see `thalweg.core.dispersive`

An option is a frozen dataclass, so that it can be a field of a configuration. Both act in the one forward pass of the
network. The single-cell fits and the image benchmarks train with this function.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from thalweg.core.contrastive import Negatives, contrastive_terms
from thalweg.core.dispersive import Kind, dispersive, feature_stats
from thalweg.core.fields.features import block_at, tap
from thalweg.core.losses import velocity
from thalweg.core.paths import Batch
from thalweg.errors import InputError

_STATS_ROWS = 1024  # of the singular value decomposition behind the effective rank


@dataclass(frozen=True)
class Contrastive:
    """Contrastive flow matching, ΔFM (Stoica et al. 2025).

    Attributes
    ----------
    weight
        Weight of the negative term in [0, 1); 0.05 is the published value.
    negatives
        ``"any"`` other row of the batch, or one of an ``"other_condition"``.
    undo
        Use the trained field as flow matching's, ``(1 - weight) v + weight u_bar``, which carries the source to the
        target again; without it (as published) the flow overshoots away from the mean velocity.

    Raises
    ------
    InputError
        If ``weight`` lies outside [0, 1) or ``negatives`` is unknown.
    """

    weight: float = 0.05
    negatives: Negatives = "any"
    undo: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight < 1:
            raise InputError(
                f"contrastive weight must lie in [0, 1), found {self.weight!r}; the loss is unbounded from 1 on."
            )
        if self.negatives not in get_args(Negatives):
            raise InputError(f"negatives must be one of {', '.join(get_args(Negatives))}; found {self.negatives!r}.")


@dataclass(frozen=True)
class Dispersive:
    """Dispersive loss on the features of a block (Wang & He 2025).

    Attributes
    ----------
    weight
        Weight of the loss; published are 0.5 with ``tau=0.5`` and 0.25 with ``tau=1``.
    kind, tau, margin, normalize
        As in `thalweg.core.dispersive.dispersive`.
    group
        Compare rows within groups of at least this many, which keeps the cost a small part of a step, as distributed
        training does on each device; None for all pairs of the batch.
    block
        Name of the submodule whose output is dispersed, e.g. ``"blocks.0"``; or a fraction of the depth in (0, 1]
        (`thalweg.core.fields.features.block_at`).

    Raises
    ------
    InputError
        If ``weight``, ``tau`` or ``margin`` is not positive and finite, or ``kind`` is unknown.
    """

    weight: float = 0.5
    kind: Kind = "infonce_l2"
    tau: float = 0.5
    margin: float = 1.0
    normalize: bool = False
    group: int | None = 64
    block: str | float = 0.25

    def __post_init__(self) -> None:
        for name in ("weight", "tau", "margin"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"dispersive {name} must be positive and finite, found {value!r}.")
        if self.group is not None and self.group < 2:
            raise InputError(f"dispersive group must be None or at least 2 rows, found {self.group!r}.")
        if self.kind not in get_args(Kind):
            raise InputError(f"dispersive kind must be one of {', '.join(get_args(Kind))}; found {self.kind!r}.")

    def block_of(self, network: nn.Module) -> str:
        """Name of the block in a network."""
        return self.block if isinstance(self.block, str) else block_at(network, self.block)

    def loss(self, features: Tensor) -> Tensor:
        """Weighted loss of features ``(n, ...)``, a scalar."""
        value = dispersive(
            features, self.kind, tau=self.tau, margin=self.margin, normalize=self.normalize, group=self.group
        )
        return self.weight * value


def velocity_terms(
    network: nn.Module,
    batch: Batch,
    *,
    weight: Tensor | None = None,
    contrastive: Contrastive | None = None,
    dispersive: Dispersive | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Scalar terms of the loss by name, from one forward pass.

    Parameters
    ----------
    network
        Velocity network, called ``network(t, x_t, condition)``.
    batch
        Batch of ``n`` samples.
    weight
        Weight of each sample, shape ``(n,)``; ones by default.
    contrastive, dispersive
        Options; None leaves a term out, and without both this is the mean of `losses.velocity`, bit for bit.
    generator
        Source of the negatives; required by ``contrastive`` alone.

    Returns
    -------
    ``velocity`` and, where asked, ``contrastive`` and ``dispersive``.

    Raises
    ------
    InputError
        If the generator is missing, ``weight`` has another shape than ``(n,)``, the block does not exist, or as the
        losses themselves.
    """
    if weight is not None and weight.shape != (len(batch),):
        raise InputError(f"weight must have shape ({len(batch)},), one for each sample, found {tuple(weight.shape)}.")

    def mean(per_sample: Tensor) -> Tensor:
        return per_sample.mean() if weight is None else (weight * per_sample).mean()

    with nullcontext() if dispersive is None else tap(network, dispersive.block_of(network)) as tapped:
        if contrastive is None or contrastive.weight == 0:
            terms = {"velocity": mean(velocity(network, batch))}
        elif generator is None:
            raise InputError("contrastive draws its negatives: give a generator.")
        else:
            positive, negative = contrastive_terms(network, batch, generator=generator, negatives=contrastive.negatives)
            terms = {"velocity": mean(positive), "contrastive": -contrastive.weight * mean(negative)}
    if dispersive is not None and tapped is not None:
        terms["dispersive"] = dispersive.loss(tapped.value)
    return terms


def feature_report(network: nn.Module, batch: Batch, option: Dispersive) -> dict[str, float]:
    """Mean norm and effective rank of the dispersed block's features, to be logged: norms are known to inflate.

    Parameters
    ----------
    network, batch
        As in `velocity_terms`; at most 1,024 rows are used.
    option
        Names the block.

    Returns
    -------
    ``feature_norm`` and ``effective_rank``, see `thalweg.core.dispersive.FeatureStats`.
    """
    n = _STATS_ROWS
    condition = None if batch.condition is None else batch.condition[:n]
    with torch.no_grad(), tap(network, option.block_of(network)) as tapped:
        network(batch.t[:n], batch.x_t[:n], condition)
    stats = feature_stats(tapped.value)
    return {"feature_norm": stats.mean_norm, "effective_rank": stats.effective_rank}
