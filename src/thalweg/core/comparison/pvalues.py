"""What is done with many p values: adjusted for their number, or combined into one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from thalweg.errors import InputError

Floats = NDArray[np.float64]


def adjusted(p: ArrayLike) -> Floats:
    """Adjust p values for their number, so that they bound the false discovery rate (Benjamini and Hochberg 1995).

    NaN stays NaN and does not count as a test.

    Parameters
    ----------
    p
        P values of one family of tests, of any shape.

    Raises
    ------
    InputError
        If a value lies outside [0, 1].
    """
    values = _probabilities(p)
    out, tested = np.full_like(values, np.nan), ~np.isnan(values)
    if tested.any():
        out[tested] = stats.false_discovery_control(values[tested], method="bh")
    return out


def combined(p: ArrayLike, axis: int = -1) -> Floats:
    r"""Combine several tests that may depend on each other into one p value: the Cauchy combination.

    The mean of :math:`\tan((1/2 - p_k) \pi)` is compared with a Cauchy distribution. Under any correlation this is
    right for small p values (Liu and Xie 2020). A p of exactly 1, as tests of few values give, would outweigh all
    others. Where there is one, the smallest p times the number of tests is returned instead (Bonferroni).

    *Reference.* Y. Liu, J. Xie, "Cauchy combination test: a powerful test with analytic p-value calculation under
    arbitrary dependency structures", Journal of the American Statistical Association 2020.

    Parameters
    ----------
    p
        P values.
    axis
        Along which they are combined. NaN does not count; NaN is returned where there is nothing else.

    Raises
    ------
    InputError
        If a value lies outside [0, 1].
    """
    values = np.moveaxis(_probabilities(p), axis, -1)
    tested = ~np.isnan(values)
    count = tested.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # tan(pi / 2 - x) is 1 / tan(x), which keeps its digits for small x
        mean = np.where(tested & (values < 1), 1 / np.tan(np.pi * values), 0.0).sum(-1) / count
        cauchy = np.arctan2(1.0, mean) / np.pi
        least = np.minimum(np.where(tested, values, np.inf).min(-1, initial=np.inf) * count, 1.0)
    return np.where(count == 0, np.nan, np.where((values == 1).any(-1), least, cauchy))


def _probabilities(p: ArrayLike) -> Floats:
    values = np.asarray(p, dtype=np.float64)
    wrong = values[(values < 0) | (values > 1)]
    if len(wrong):
        raise InputError(f"p values lie between 0 and 1, found {wrong[0]:g}.")
    return values
