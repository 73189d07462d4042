r"""Losses on hidden features: dispersive, which spreads the batch apart, and its contrastive counterparts.

Source: Wang & He, "Diffuse and Disperse: Image Generation with Representation Regularization" (2025). The features of
an intermediate block, flattened to z (n, d), are repelled from each other: no second view, no stop-gradient, no
projector. The caller adds the scalar to its loss with a weight (published: tau 0.5 and weight 0.5, or 1 and 0.25).

Symbols. z_i a row of features; D2_ij = ||z_i - z_j||^2 / d; Dc_ij = -cos(z_i, z_j); eps the `margin`; z+ the features
of the second view; Cov(a, b) = (a - mean a)^T (b - mean b) / n, a (d, d) matrix. Means over i and j run over all n^2
pairs, the diagonal included.

| kind           | dispersive(z)                        | contrastive_pair(z, z+)                                      |
|----------------|--------------------------------------|--------------------------------------------------------------|
| infonce_l2     | log mean_ij exp(-D2_ij / tau)        | mean_i [D2(z_i, z+_i) / tau + log sum_j exp(-D2_ij / tau)]   |
| infonce_cosine | log mean_ij exp(-Dc_ij / tau)        | mean_i [Dc(z_i, z+_i) / tau + log sum_j exp(-Dc_ij / tau)]   |
| hinge          | mean_ij max(0, eps - D2_ij)^2        | mean_i D2(z_i, z+_i)^2 + mean_ij max(0, eps - D2_ij)^2       |
| covariance     | sum_{k != l} Cov(z, z)_kl^2          | sum_k (1 - Cov_kk)^2 + w sum_{k != l} Cov_kl^2, Cov(z, z+)   |

Conventions of this implementation. D2 is a mean over coordinates, so tau and eps do not depend on d. Covariances are
of centred features, not divided by standard deviations (which would be 0/0 for a constant feature), and are averaged
with 1/n like the other kinds. With `normalize=True` every row is first scaled to norm sqrt(d), so that D2 lies in
[0, 4] whatever the scale of the features. An all-zero row has no direction: it stays zero and has cosine 0 with all.

What to expect.

- The diagonal keeps infonce_l2 in [-log n, 0]: 0 for identical features, -log n (reached in a few steps) once they are
  far apart; infonce_cosine is at most 1/tau and hinge at least eps^2 / n.
- For identical features the l2 and covariance kinds have zero gradient: an exact collapse is a stationary point, and
  nothing here breaks the tie. Any difference between rows, however small, is amplified.
- infonce_l2 and hinge reward large features: norms inflate. Log `feature_stats`; `normalize=True` is the remedy.
  covariance, on the contrary, falls as the features shrink.

Cost. With W_ij = dL/dD2_ij, which is symmetric, dL/dz_i = (4 / d) (sum_j W_ij z_i - sum_j W_ij z_j), so `dispersive`
computes value and gradient together with two matrix products, 4 n^2 d flops, and one n x n matrix worked on in place;
backward multiplies the stored gradient by a number. It is differentiable once. Pairs grow as n^2 while the network's
cost grows as n: with `group=g` the means run over the pairs within groups of at least g rows, 4 n g d flops. Rows are
dealt in turn to max(n // g, 1) groups of equal size m, and fewer than n / g rows are left over and sit out. The floor
of infonce_l2 is then -log m. covariance costs 4 n d min(n, d) flops and ignores `group`.

Precision. Distances are |z_i|^2 + |z_j|^2 - 2 z_i.z_j by one matrix product of features less the first row, clamped
at 0: an offset common to all rows is harmless, but D2 has an absolute error of about (machine eps) max_i
||z_i - z_0||^2 / d, so pairs much closer than that are seen as equal. Exponents are shifted so that the largest is 0.
Half-precision input is computed, and returned, in float32.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from thalweg.core._dispersive_forms import (
    ClosedForm,
    WithGradient,
    centred,
    covariance,
    hinge,
    infonce_cosine,
    infonce_l2,
    on_rows_of_norm,
    unit_rows,
)
from thalweg.errors import InputError

Kind = Literal["infonce_l2", "infonce_cosine", "hinge", "covariance"]


@dataclass(frozen=True)
class FeatureStats:
    """What to log beside the loss.

    Attributes
    ----------
    mean_norm
        Mean over the batch of the Euclidean norm of the flattened features; growth without bound is inflation.
    effective_rank
        Number of directions, 0 to min(n - 1, d), in which features vary around their mean: exp of the entropy of the
        singular values of the centred features divided by their sum (Roy & Vetterli 2007). 0 for identical features.
    """

    mean_norm: float
    effective_rank: float


def dispersive(
    features: Tensor,
    kind: Kind = "infonce_l2",
    *,
    tau: float = 0.5,
    margin: float = 1.0,
    normalize: bool = False,
    group: int | None = None,
) -> Tensor:
    """Dispersive loss of a batch of hidden features: the smaller, the further apart they are.

    Parameters
    ----------
    features
        Floating tensor (n, ...), n >= 2, flattened to (n, d).
    kind
        "infonce_l2" (default), "infonce_cosine", "hinge" or "covariance"; formulas in the module's docstring.
    tau
        Temperature of the InfoNCE kinds, in units of D.
    margin
        Value of D2 beyond which the hinge no longer repels. The default of 1, half the mean D2 of independent
        features of unit variance, is this package's choice and not a published value.
    normalize
        Scale every row to norm sqrt(d) first; infonce_cosine is unchanged by it.
    group
        Compare rows within groups of at least this many, from 2, which makes the cost linear in n; None (default)
        compares all rows. See the module's docstring.

    Returns
    -------
    Tensor
        Scalar, differentiable once.

    Raises
    ------
    InputError
        For fewer than two samples, features that are not floating or not (n, ...), an unknown kind, tau or margin
        not positive and finite, group below 2; during backward, with ``create_graph=True``.
    """
    _check_options(kind, tau, margin)
    if group is not None and group < 2:
        raise InputError(f"`group` must be None or at least 2 rows; found {group}")
    z = _flatten("features", features)

    closed_form: ClosedForm
    if kind == "infonce_l2":
        closed_form = partial(infonce_l2, tau=tau, group=group)
    elif kind == "infonce_cosine":
        closed_form = on_rows_of_norm(math.sqrt(1 / (tau * math.log(2))), partial(infonce_cosine, group=group))
    else:
        closed_form = partial(hinge, margin=margin, group=group) if kind == "hinge" else covariance
    if normalize and kind != "infonce_cosine":
        closed_form = on_rows_of_norm(math.sqrt(z.shape[1]), closed_form)
    device = z.device.type
    mixed = torch.is_autocast_enabled(device)  # a bfloat16 product would lose the distances
    with torch.autocast(device, enabled=False) if mixed else nullcontext():
        return WithGradient.apply(z, closed_form)


def contrastive_pair(
    features: Tensor,
    features_positive: Tensor,
    kind: Kind = "infonce_l2",
    *,
    tau: float = 0.5,
    margin: float = 1.0,
    weight: float = 0.005,
) -> Tensor:
    """Contrastive loss between two views of a batch: what the dispersive loss of the same kind is compared with.

    The views are two noised versions of each sample, with independent noise or levels that differ by at most 0.005;
    the base loss sees the first view only. Both views get gradients.

    Parameters
    ----------
    features, features_positive
        Floating tensors (n, ...) of one shape and dtype, n >= 2; row i of both comes from sample i.
    kind, tau, margin
        As in `dispersive`.
    weight
        Weight w of the off-diagonal covariances; the default is that of Zbontar et al., "Barlow Twins" (2021).

    Returns
    -------
    Tensor
        Scalar.

    Raises
    ------
    InputError
        As `dispersive`, and for views of different shape or dtype, or a negative weight.
    """
    _check_options(kind, tau, margin)
    if not (weight >= 0 and math.isfinite(weight)):
        raise InputError(f"`weight` must be finite and not negative; found {weight}")
    if features.shape != features_positive.shape or features.dtype != features_positive.dtype:
        raise InputError(
            f"`features_positive` must have the shape and dtype of `features`, {tuple(features.shape)} "
            f"{features.dtype}; found {tuple(features_positive.shape)} {features_positive.dtype}"
        )
    z, positive = _flatten("features", features), _flatten("features_positive", features_positive)
    with torch.autocast(z.device.type, enabled=False):
        if kind == "covariance":
            diagonal, off_diagonal = _covariance_terms(z, positive)
            return (1 - diagonal).square().sum() + weight * off_diagonal
        distances = _distances(z, kind)
        if kind == "infonce_cosine":
            alignment = -(unit_rows(z) * unit_rows(positive)).sum(1)
        else:
            alignment = (z - positive).square().mean(1)
        if kind == "hinge":
            return alignment.square().mean() + (margin - distances).clamp_min(0).square().mean()
        return (alignment / tau + torch.logsumexp(distances / -tau, dim=1)).mean()


def feature_stats(features: Tensor) -> FeatureStats:
    """Mean norm and effective rank of a batch of features (n, ...), n >= 2, without gradients.

    Costs a singular value decomposition in float64: meant for every few hundred steps.

    Raises
    ------
    InputError
        As `dispersive`, and for features that are not finite.
    """
    z = _flatten("features", features.detach()).double()
    if not bool(z.isfinite().all()):
        raise InputError(f"`features` has {int((~z.isfinite()).sum())} values that are not finite")
    sigma = torch.linalg.svdvals(centred(z))
    total = sigma.sum()
    p = sigma / total
    rank = torch.special.entr(p).sum().exp().item() if total > 0 else 0.0
    return FeatureStats(mean_norm=torch.linalg.vector_norm(z, dim=1).mean().item(), effective_rank=rank)


def _check_options(kind: str, tau: float, margin: float) -> None:
    if kind not in get_args(Kind):
        raise InputError(f"`kind` must be one of {', '.join(get_args(Kind))}; found {kind!r}")
    for name, value in (("tau", tau), ("margin", margin)):
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"`{name}` must be positive and finite; found {value}")


def _flatten(name: str, features: Tensor) -> Tensor:
    """Rows (n, d) in float32 or float64."""
    if not features.is_floating_point():
        raise InputError(f"`{name}` must be a floating tensor; found {features.dtype}: convert it with `.float()`")
    if features.ndim < 2 or features.shape[0] < 2 or features.numel() == 0:
        raise InputError(f"`{name}` must be (n, ...) with at least two samples n; found {tuple(features.shape)}")
    z = features.flatten(1)
    return z if z.dtype == torch.float64 else z.float()


def _distances(z: Tensor, kind: Kind) -> Tensor:
    """All n x n values of D."""
    if kind == "infonce_cosine":
        unit = unit_rows(z)
        return -unit @ unit.T
    z = centred(z) / math.sqrt(z.shape[1])
    gram = z @ z.T
    square = gram.diagonal()  # of the product itself, so that D_ii is exactly 0
    return torch.sub(square[:, None] + square, gram, alpha=2).clamp_min(0)


def _covariance_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonal (d,) of Cov(a, b) and the sum of its squared off-diagonal entries."""
    n, d = a.shape
    a, b = centred(a), centred(b)
    if d <= n:
        cov = a.T @ b / n
        diagonal = cov.diagonal()
        return diagonal, (cov - torch.diag(diagonal)).square().sum()
    # ||a^T b||_F^2 = <a a^T, b b^T>: n x n instead of d x d, which image features would not fit.
    diagonal = (a * b).mean(0)
    return diagonal, ((a @ a.T) * (b @ b.T)).sum() / n**2 - diagonal.square().sum()
