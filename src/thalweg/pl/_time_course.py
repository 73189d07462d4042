"""The populations of a time course."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg.data.recipe import Columns
from thalweg.data.times import TimeMap
from thalweg.get import colors, populations
from thalweg.pl._canvas import DARK, canvas, dot, legend, one_or_all, small

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_BARS = 12  # times, above which bars would be slivers


def time_course(
    adata: AnnData,
    time_key: str,
    groupby: str,
    *,
    time_map: TimeMap | None = None,
    weight_key: str | None = None,
    condition_key: Columns = None,
    replicate_key: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> Axes | list[Axes]:
    """Share of each group of cells at each time.

    Parameters
    ----------
    adata
        Cells.
    time_key, time_map
        Column of ``obs`` with the times, and a number for each of its labels where they are not numbers.
    groupby
        Column of ``obs`` with the groups, drawn in scanpy's colours.
    weight_key
        Column of ``obs`` with a weight for each cell.
    condition_key
        Column of ``obs``, or several: a panel for each condition.
    replicate_key
        Column of ``obs`` with the replicate of each cell: lines with their 95 % intervals over replicates in place of
        bars.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels): a bar for each time at its place, with the number of cells above, joined by
    straight bands (bands alone for more than twelve times). With replicates a line for each group, with its interval as
    a whisker at each time (none where there is one replicate). The numbers are those of `thalweg.get.populations`.

    Raises
    ------
    MissingKeyError
        If a column does not exist.
    InputError
        If the times or weights cannot be read.
    """
    table = populations(
        adata, time_key, groupby, time_map=time_map, weight_key=weight_key, condition_key=condition_key,
        replicate_key=replicate_key,
    )  # fmt: skip
    shown = colors(adata, groupby)
    parts = {"": table} if condition_key is None else dict(list(table.groupby("condition", sort=False)))
    with canvas(ax, show, n=len(parts), height=2.0, share=True) as axes:
        for panel, (name, part) in zip(axes, parts.items(), strict=True):
            (_stack if replicate_key is None else _lines)(panel, part, shown)
            panel.set(xlabel=time_key, ylabel="share of cells" if panel is axes[0] else "", ylim=(0, 1))
            panel.set_title(name, pad=12)
        found = set(table.loc[table["n"] > 0, "group"])
        legend(axes, handles=[dot(shown[name], name) for name in reversed(shown) if name in found])
    return one_or_all(axes)


def _stack(axes: Axes, table: pd.DataFrame, shown: dict[str, str]) -> None:
    share = table.pivot(index="time", columns="group", values="share")[list(shown)]
    times, top = share.index.to_numpy(), share.cumsum(axis=1)
    width = 0.45 * (np.diff(times).min() if len(times) > 1 else 1.0)
    edges = np.ravel([times - width / 2, times + width / 2], order="F")
    for name, color in shown.items():
        high = top[name].to_numpy()
        low = high - share[name].to_numpy()
        if len(times) > _BARS:
            axes.fill_between(times, low, high, color=color, lw=0, label=name)
            continue
        axes.bar(times, high - low, width, bottom=low, color=color, lw=0, label=name, zorder=2)
        axes.fill_between(edges, np.repeat(low, 2), np.repeat(high, 2), color=color, alpha=0.45, lw=0, zorder=1)
    ends = edges if len(times) <= _BARS else times
    axes.set_xlim(float(ends[0]), float(ends[-1]))
    _numbers(axes, table)


def _lines(axes: Axes, table: pd.DataFrame, shown: dict[str, str]) -> None:
    """A line for each group that occurs; whiskers stand side by side, so that none hides another."""
    found = [name for name in shown if table.loc[table["group"] == name, "n"].any()]
    times = np.unique(table["time"])
    step = 0.02 * (np.diff(times).min() if len(times) > 1 else 1.0)
    for place, name in enumerate(found):
        own = table[table["group"] == name].sort_values("time")
        x = own["time"] + step * (place - (len(found) - 1) / 2)
        whisker = np.stack([own["share"] - own["lower"], own["upper"] - own["share"]])
        axes.errorbar(x, own["share"], whisker, color=shown[name], marker="o", ms=2.5, lw=1, elinewidth=0.8, label=name)
    _numbers(axes, table)


def _numbers(axes: Axes, table: pd.DataFrame) -> None:
    """The number of cells above each time, as many as there is room for."""
    times = np.unique(table["time"])
    counts = table.groupby("time")["n"].sum()
    room = axes.bbox.width / axes.figure.dpi * 72 / (4.2 * small())
    step = int(np.ceil(len(times) / room))
    for time in times[::step]:
        axes.annotate(
            _short(int(counts[time])), (time, 1.02), xycoords=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=small(), color=DARK,
        )  # fmt: skip
    if len(times) <= 10:
        axes.set_xticks(times, [f"{t:g}" for t in times])


def _short(n: int) -> str:
    return f"{n}" if n < 10_000 else f"{n / 1000:.0f}k"
