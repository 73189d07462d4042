"""Scores of replicates left out, as means over replicates with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from thalweg.data.replicates import Floats, half_width, over_replicates
from thalweg.errors import InputError

_OTHERS = "other-replicates"


def replicate_scores_df(scores: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Means of scores over the replicates left out, with intervals.

    Each replicate counts once, by the mean over its seeds. The interval is that of Student's t with one degree of
    freedom less than there are replicates. The fits of two folds share replicates, which the interval takes as
    independent, as all of cross-validation does.

    Parameters
    ----------
    scores
        What `thalweg.tl.leave_one_replicate_out` returned.
    level
        Coverage of the intervals.

    Returns
    -------
    A row for each method and reference and time (and condition): ``n`` replicates, the mean ``w1`` with ``lower`` and
    ``upper``, and ``ratio``, the W1 over that of ``"other-replicates"``, a geometric mean over replicates, with
    ``ratio_lower`` and ``ratio_upper``. A ratio of 1 is a prediction as near to the replicate as the others are. Limits
    are NaN with one replicate, and a W1 is not below 0.

    Raises
    ------
    InputError
        If ``scores`` is no such table, or ``level`` is not between 0 and 1.
    """
    needed = {"replicate", "time", "method", "w1"}
    if not isinstance(scores, pd.DataFrame) or not needed <= set(scores.columns):
        raise InputError("scores must be the table of tw.tl.leave_one_replicate_out.")
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, found {level!r}.")
    keys = [*(["condition"] if "condition" in scores.columns else []), "time"]
    w1 = scores.groupby([*keys, "replicate", "method"], sort=False)["w1"].mean().unstack("method")
    w1 = w1[scores["method"].unique()]
    others = w1[_OTHERS] if _OTHERS in w1 else pd.Series(np.nan, w1.index)
    rows = []
    for place, part in w1.groupby(keys, sort=True):
        for method in part.columns:
            own = part[method].dropna()
            with np.errstate(divide="ignore"):
                ratio = np.log(own / others[own.index]).dropna()
            row = dict(zip(keys, place, strict=True)) | {"method": method, "n": len(own)}
            mean, lower, upper = _limits(own.to_numpy(), level)
            row |= {"w1": mean, "lower": np.maximum(lower, 0.0), "upper": upper}
            limits = np.exp(_limits(ratio.to_numpy(), level))
            rows.append(row | dict(zip(("ratio", "ratio_lower", "ratio_upper"), limits.tolist(), strict=True)))
    return pd.DataFrame(rows)


def _limits(values: Floats, level: float) -> tuple[float, float, float]:
    """Mean, and limits of its interval; NaN without values."""
    if not len(values):
        return (np.nan,) * 3
    mean, spread = over_replicates(values, np.ones(len(values)))
    half = float(half_width([spread], level))
    return float(mean), float(mean) - half, float(mean) + half
