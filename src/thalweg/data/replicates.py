r"""Replicates: how they are read, what is odd about them, and intervals over them.

A *replicate* is what another experiment would make anew: an animal, a donor, a dish. Cells of one replicate are alike,
so that an interval over cells says nothing of the next experiment. A mean over replicates with the weights ``w_r``
(their shares of the cells) has

.. math:: v = \frac{\sum w_r^2}{1 - \sum w_r^2} \sum_r w_r (m_r - m)^2, \qquad
          f = \frac{(1 - \sum w_r^2)^2}{\sum w_r^2 - 2 \sum w_r^3 + (\sum w_r^2)^2},

its variance and the degrees of freedom of that (Satterthwaite 1946): the variance over ``n`` and ``n - 1`` where all
weigh the same. Replicates are taken to scatter alike, whatever their number of cells. Student's t with ``f`` degrees of
freedom gives the interval: 4.3 standard errors to each side with three replicates.

Of shares the interval is taken on the scale of the logit, as for shares of samples in clusters (Korn and Graubard
1998), and is never narrower than that of independent cells. Three replicates drawn from a beta distribution have the
true share inside in 95 to 98 % of simulations.

*References.* F. E. Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
Bulletin 1946. E. L. Korn, B. I. Graubard, "Confidence intervals for proportions with small expected number of positive
counts estimated from survey data", Survey Methodology 1998.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.data.times import obs_column
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
FEWEST = 10
"""Cells of a replicate from which it counts as one."""


def read_replicates(adata: AnnData, key: str) -> tuple[Rows, tuple[str, ...]]:
    """Number of the replicate of each cell, shape ``(n,)``, and the names of the replicates.

    Raises
    ------
    MissingKeyError
        If ``obs`` has no such column.
    InputError
        If a cell has no replicate.
    """
    column = obs_column(adata, key, "replicate_key")
    if column.isna().any():
        raise InputError(
            f"obs[{key!r}] has {int(column.isna().sum())} missing values; every cell needs a replicate. Leave those "
            "cells out, or give them a name of their own."
        )
    codes, names = pd.factorize(column.astype(str), sort=True)
    return codes.astype(np.int64), tuple(map(str, names))


def remark_on_replicates(populations: Mapping[str, Rows], names: tuple[str, ...]) -> None:
    """Say which replicates are too small, alone in their population, or observed once.

    Parameters
    ----------
    populations
        The replicates of the cells of each population, by the words for it.
    names
        Names of the replicates.
    """
    counts = {where: np.bincount(of, minlength=len(names)) for where, of in populations.items()}
    for where, n in counts.items():
        small = [f"{names[r]!r} ({n[r]} cells)" for r in np.flatnonzero((n > 0) & (n < FEWEST))]
        if small and (n > 0).sum() > 1:
            logger.warning(
                "replicates of %s with fewer than %d cells: %s; they are compared with no other, and no draw of "
                "replicates takes them", where, FEWEST, ", ".join(small),
            )  # fmt: skip
    alone = [where for where, n in counts.items() if (n >= FEWEST).sum() < 2]
    if alone and len(alone) < len(counts):
        logger.warning(
            "%s has one replicate only: nothing tells how far replicates differ there, and resample=True draws single "
            "cells", "; ".join(alone),
        )  # fmt: skip
    seen = np.sum([n > 0 for n in counts.values()], axis=0)
    once = [names[r] for r in np.flatnonzero(seen == 1)]
    if once and len(once) < len(names):
        logger.warning("replicates %s were observed once, others at several times; check their names", once)
    elif once and len(names) > 1:
        logger.info(
            "each replicate was observed once, such as %r: they count within their time, and none can be followed from "
            "time to time", once[0],
        )  # fmt: skip


class Spread(NamedTuple):
    """The variance of an estimate and its degrees of freedom, of one shape."""

    variance: Floats
    freedom: Floats


def over_replicates(values: Floats, weights: Floats) -> tuple[Floats, Spread]:
    """Weighted mean over replicates, and its spread, see the module.

    Parameters
    ----------
    values
        Of each replicate, shape ``(n_replicates, ...)``; what a replicate of weight 0 has does not count.
    weights
        Of each replicate, of the same shape.

    Returns
    -------
    The mean and its spread, of the shape of one replicate; a spread is NaN with fewer than two replicates.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        w = weights / weights.sum(0)
        mean = np.where(w > 0, w * values, 0.0).sum(0)
        square = (w**2).sum(0)
        off = np.where(w > 0, w * (values - mean) ** 2, 0.0).sum(0)
        known = (w > 0).sum(0) > 1
        variance = np.where(known, square / (1 - square) * off, np.nan)
        freedom = np.where(known, (1 - square) ** 2 / (square - 2 * (w**3).sum(0) + square**2), np.nan)
    return mean, Spread(variance, freedom)


def over_draws(values: Floats, n_replicates: int | None = None) -> Spread:
    """The spread of an estimate over draws of the cells or models, shape ``(n_draws, ...)``.

    Draws of few replicates know their variance no better than these do, however many draws there are.
    """
    unknown = 1 / (len(values) - 1) + (0 if n_replicates is None else 1 / (n_replicates - 1))
    return Spread(values.var(0, ddof=1), np.full(values.shape[1:], 1 / unknown))


def fewest_replicates(replicate: Rows, time: Floats) -> int:
    """Of all times that have two or more; two where none has."""
    found = [len(np.unique(replicate[time == t])) for t in np.unique(time)]
    return min((n for n in found if n > 1), default=2)


def half_width(spreads: Iterable[Spread], level: float) -> Floats:
    """Half of the interval of an estimate whose error has several parts (Welch 1947)."""
    from scipy.stats import t as student

    parts = list(spreads)
    variance = np.sum([part.variance for part in parts], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = variance**2 / np.sum([part.variance**2 / part.freedom for part in parts], axis=0)
    freedom = np.where(variance > 0, freedom, np.inf)
    return np.asarray(np.where(np.isnan(variance), np.nan, student.ppf((1 + level) / 2, freedom) * np.sqrt(variance)))


def share_limits(share: Floats, half: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Limits of shares on the scale of the logit.

    Parameters
    ----------
    share, half
        Shares, and half the width of their intervals.
    n
        Cells that they are shares of: none is nearer to 0 or 1 than half a cell.
    """
    from scipy.special import expit, logit

    inside = np.clip(share, 0.5 / np.maximum(n, 1), 1 - 0.5 / np.maximum(n, 1))
    width = half / (inside * (1 - inside))
    low, high = expit(logit(inside) - width), expit(logit(inside) + width)
    return np.minimum(low, share), np.maximum(high, share)


def sampling_half_width(share: Floats, n: Floats, level: float) -> Floats:
    """Half of the interval of a share among ``n`` independent cells, which has half a cell at least."""
    from scipy.stats import norm

    inside = np.clip(share, 0.5 / np.maximum(n, 1), 1 - 0.5 / np.maximum(n, 1))
    return np.asarray(norm.ppf((1 + level) / 2) * np.sqrt(inside * (1 - inside) / np.maximum(n, 1)))
