"""Where predictions disagree, and so which time to measure next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg.errors import InputError
from thalweg.pl._canvas import BLUE, CONTEXT, ORANGE, canvas, small

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def next_time(table: pd.DataFrame, *, ax: Axes | None = None, show: bool | None = None) -> Axes:
    """Disagreement of predictions between the observed times.

    Parameters
    ----------
    table
        What `thalweg.tl.next_time` returned.
    ax, show
        As in `leave_one_out`.

    Returns
    -------
    The axes. Grey lines are observed times. The dashed line is the time that is proposed, the middle of the interval in
    which the predictions of different methods and models are furthest apart.

    Raises
    ------
    InputError
        If it is no such table.
    """
    absent = {"time", "disagreement", "start", "end"} - set(getattr(table, "columns", ()))
    if absent:
        raise InputError(f"table must be that of tw.tl.next_time; it lacks the columns {sorted(absent)}.")
    if not table["disagreement"].notna().any():
        raise InputError("table has no row with a disagreement; run tw.tl.next_time again.")
    with canvas(ax, show) as (axes,):
        observed = np.unique(table[["start", "end"]].to_numpy())
        for t in observed:
            axes.axvline(t, color=CONTEXT, lw=0.8, zorder=0)
        for _, rows in table.groupby("start"):
            axes.plot(rows["time"], rows["disagreement"], color=BLUE, marker="o", ms=2.5, lw=1)
        most = table.loc[table["disagreement"].idxmax()]
        time, top = (most["start"] + most["end"]) / 2, 1.2 * table["disagreement"].max()
        axes.axvline(time, color=ORANGE, ls="--", lw=1, zorder=1)
        axes.annotate(
            f"measure at {time:g}", (time, top), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom",
            fontsize=small(), color=ORANGE,
        )  # fmt: skip
        axes.set(xlabel=str(table.attrs.get("time_key", "time")), ylabel="energy distance of predictions")
        axes.set_ylim(0, top)
    return axes
