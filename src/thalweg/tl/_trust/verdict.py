"""Evidence, and the verdict that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from thalweg.flows.moves import SIGNIFICANT

Level = Literal["good", "doubt", "bad", "missing"]
Verdict = Literal["none", "weak", "good"]
HALF, LEAST, AGREEMENT = 0.5, 0.3, 0.5
RULE = (
    f"none: neighbouring populations cannot be told apart (p > {SIGNIFICANT:g}), or at the times left out the "
    "prediction is no better than a copy of the time before. "
    f"good: the prediction covers at least {HALF:.0%} of the way from a copy to a fresh sample (at least {LEAST:.0%} "
    f"at the lower end of its interval), the velocities of two methods agree (mean cosine of {AGREEMENT:g} or more), "
    "and no check is bad. "
    "weak: all else; a course of two times, in which nothing can be left out, is never more than weak."
)


class Evidence(NamedTuple):
    """One thing that was looked at.

    Attributes
    ----------
    check
        Name of it.
    level
        What it says of the result; "missing" where it could not be looked at.
    value
        The figure behind it; NaN without one.
    says
        What was found, in a sentence.
    advice
        What to do next; empty where there is nothing to do.
    """

    check: str
    level: Level
    value: float
    says: str
    advice: str = ""


class Way(NamedTuple):
    """Share of the way over all times left out, and its 95% interval; NaN where nothing moves."""

    share: float
    low: float
    high: float


def way_of(scores: pd.DataFrame, method: str) -> Way:
    """Share of a method over all times left out: the sum of what it gains over the sum of what there is to gain."""
    w1 = scores.groupby(["method", "time"])["w1_both_ends"].mean()
    own = scores[(scores["method"] == method) & scores["share"].notna()]
    times = own["time"].unique()
    if not len(times):
        return Way(np.nan, np.nan, np.nan)
    ways = np.array([w1["copy-previous", t] - w1["floor-corrected", t] for t in times])
    rows = own.groupby("time")[["share", "share_low", "share_high"]].mean().loc[times].to_numpy()
    share, half = ways @ rows[:, 0] / ways.sum(), (rows[:, 2] - rows[:, 1]) / 2
    error = float(np.sqrt(((ways * half) ** 2).sum()) / ways.sum())
    return Way(float(share), float(share - error), float(share + error))


def conclude(evidence: Sequence[Evidence], way: Way | None) -> Verdict:
    """The verdict by `RULE`; ``way`` of the first method, None for a course of two times."""
    by_name = {e.check: e for e in evidence}
    if by_name["movement"].value > SIGNIFICANT or (way is not None and not way.low > 0):
        return "none"
    agree = by_name.get("methods")
    solid = agree is not None and agree.value >= AGREEMENT and not any(e.level == "bad" for e in evidence)
    return "good" if solid and way is not None and way.share >= HALF and way.low >= LEAST else "weak"
