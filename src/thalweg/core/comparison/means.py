r"""Differences of means between two arms: the moderated t test.

Each feature follows a linear model with an effect of the arm and one of each block. The residual variance is moderated
over features (`moderation`), so a few units of each arm are enough where there are many features.

*Reference.* G. K. Smyth, "Linear models and empirical Bayes methods for assessing differential expression in
microarray experiments", Statistical Applications in Genetics and Molecular Biology 2004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from thalweg.core.comparison.design import Design, make_design
from thalweg.core.comparison.moderation import fit_prior
from thalweg.errors import InputError

Floats = NDArray[np.float64]
_ROUNDING = 1e-13  # of the largest value of a feature: a smaller standard deviation is none


@dataclass(frozen=True)
class MeanShifts:
    """Differences of means, each of shape ``(n_features,)``.

    Attributes
    ----------
    estimate
        Mean of arm 1 less mean of arm 0, within blocks, in units of the values.
    se
        Its standard error; NaN without replicates.
    df
        Degrees of freedom of the t distribution, those of the prior included.
    t, p
        Statistic, and two-sided p; NaN without replicates, and where neither the feature nor any other varies.
    """

    estimate: Floats
    se: Floats
    df: Floats
    t: Floats
    p: Floats


def moderated_means(y: ArrayLike, arm: ArrayLike, block: ArrayLike | None = None, trend: bool = False) -> MeanShifts:
    """Compare the means of two arms in each feature.

    One feature alone, or features none of which vary but one, get the ordinary t test: that of two samples with equal
    variances, or the paired one where each block has one unit of each arm. The degrees of freedom never exceed those of
    all features together, since the prior knows no more than they do.

    Parameters
    ----------
    y
        Values, shape ``(n_units, n_features)``.
    arm
        0 or 1 for each unit.
    block
        Label of the batch of each unit; None if there are no batches. Blocks that hold one arm only are allowed and
        tell nothing of the difference.
    trend
        Whether the prior variance follows the mean of the feature.

    Raises
    ------
    InputError
        If a value is not finite, or ``arm`` and ``block`` do not describe two arms that can be compared.
    """
    values = np.asarray(y, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InputError(f"y must be a finite array of shape (n_units, n_features), found shape {values.shape}.")
    design = make_design(arm, block, len(values))
    side = _within_blocks(design.arm.astype(np.float64)[:, None], design)
    inner = _within_blocks(values, design)
    estimate = (side * inner).sum(0) / np.square(side).sum()
    missing = np.full(values.shape[1], np.nan)
    if design.df == 0:
        return MeanShifts(estimate, missing, np.zeros_like(missing), missing, missing)
    variances = np.square(inner - side * estimate).sum(0) / design.df
    variances[np.sqrt(variances) <= _ROUNDING * np.abs(values).max(0, initial=0)] = 0.0
    prior = fit_prior(variances, design.df, trend=values.mean(0) if trend else None)
    se = np.sqrt(prior.moderate(variances, design.df) / np.square(side).sum())
    df = np.full_like(se, min(prior.df + design.df, design.df * max(int((variances > 0).sum()), 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = estimate / se
    return MeanShifts(estimate, se, df, t, 2 * stats.t.sf(np.abs(t), df))


def _within_blocks(values: Floats, design: Design) -> Floats:
    """Values less the mean of their block."""
    member = (design.block[:, None] == np.arange(design.n_blocks)).astype(np.float64)
    return values - member @ (member.T @ values / member.sum(0)[:, None])
