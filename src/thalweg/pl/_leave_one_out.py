"""Scores of held-out times, by method or by time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from thalweg.errors import InputError
from thalweg.get._colors import palette
from thalweg.pl._canvas import DARK, canvas, colorbar, dot, legend, line_height, small, spread, time_colors, time_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCES = ("copy-previous", "ot-midpoint")
FLOORS = ("floor", "floor-corrected", "floor-replicates")
_MANY = 6  # times, from which a colour bar says more than a legend
LABELS = {
    "w1": "Wasserstein-1 to the real cells",
    "w1_both_ends": "Wasserstein-1 to the real cells, from both ends",
    "share": "share of the way from copying (0) to a fresh sample (1)",
    "energy_distance": "energy distance to the real cells",
    "variance_ratio": "variance, predicted / real",
    "fit_seconds": "seconds to fit",
}


def leave_one_out(
    scores: pd.DataFrame,
    *,
    metric: str = "w1",
    kind: Literal["methods", "times"] = "methods",
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes:
    """Scores of each method at each held-out time, with the floor as a band.

    Parameters
    ----------
    scores
        What `thalweg.tl.leave_one_out` returned.
    metric
        Column to draw: ``"w1"``, ``"w1_both_ends"``, ``"share"``, ``"energy_distance"``, ``"variance_ratio"`` or
        ``"fit_seconds"``.
    kind
        ``"methods"``: a row for each method, best first; a dot is one seed at one held-out time, the bar and the number
        are the mean. ``"times"``: the mean over seeds of each method against the held-out time, with whiskers from the
        lowest to the highest seed. A share has its 95 % interval in both.
    ax
        Axes to draw on; a new figure by default.
    show
        Show the figure; by default only where none was given to draw on and the backend has a screen.

    Returns
    -------
    The axes. References (no network) are grey. The band is the floor, below which no method can be expected to come:
    for W1 what a fresh sample of the real population would score, for other columns the distance between two halves of
    the real cells. It goes from the lowest to the highest value over the held-out times for ``"methods"``, and up to
    the mean at each time for ``"times"``.

    Raises
    ------
    InputError
        If ``scores`` is no table or lacks the columns of a leave-one-out table, or ``kind`` is unknown.
    """
    if not isinstance(scores, pd.DataFrame):
        raise InputError(f"scores must be the table of tw.tl.leave_one_out, found {type(scores).__name__}.")
    needed = {"method", "time", metric} | ({"share_low", "share_high"} if metric == "share" else set())
    absent = needed - set(scores.columns)
    if absent:
        raise InputError(
            f"scores lacks the columns {sorted(absent)}, it has {list(scores.columns)}; "
            "pass the table of tw.tl.leave_one_out, and one of its columns as metric."
        )
    if kind not in ("methods", "times"):
        raise InputError(f"kind must be 'methods' or 'times', found {kind!r}.")
    floor = _floor(scores, metric)
    data = scores[~scores["method"].isin(FLOORS)]
    if not data[metric].notna().any():
        raise InputError(
            f"scores[{metric!r}] holds no number to draw"
            + (": at every time a copy was as good as a fresh sample" if metric == "share" else "")
            + "; draw another column, metric='w1'."
        )
    mean = data.groupby("method")[metric].mean().sort_values(ascending=metric != "share")  # best first
    height = 0.75 + 0.22 * len(mean) if kind == "methods" else 2.4
    with canvas(ax, show, height=height) as (axes,):
        if kind == "methods":
            _by_method(axes, data, floor[metric], metric, mean)
        else:
            _by_time(axes, data, floor, metric, mean)
    return axes


def _floor(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of the floor that a column has; none for those without one."""
    if metric in ("fit_seconds", "share"):
        return scores.iloc[:0]
    found = [scores[(scores["method"] == name) & scores[metric].notna()] for name in ("floor-corrected", "floor")]
    return found[0] if len(found[0]) else found[1]


def _by_method(axes: Axes, data: pd.DataFrame, floor: pd.Series, metric: str, mean: pd.Series) -> None:
    colors = time_colors(sorted(data["time"].unique()))
    if len(floor):
        axes.axvspan(floor.min(), floor.max(), color=DARK, alpha=0.18, lw=0, label="floor", zorder=0)
        axes.annotate(
            "floor", ((floor.min() + floor.max()) / 2, 0.03), xycoords=axes.get_xaxis_transform(), rotation=90,
            ha="center", va="bottom", fontsize=small(), color=DARK,
        )  # fmt: skip
    lanes = np.linspace(-0.2, 0.2, len(colors)) if len(colors) > 1 else [0.0]
    for row, name in enumerate(mean.index):
        axes.vlines(mean[name], row - 0.34, row + 0.34, color=DARK, lw=1.2, zorder=2)
        axes.annotate(
            f"{mean[name]:#.3g}", (1.02, row), xycoords=axes.get_yaxis_transform(), va="center", fontsize=small()
        )
        for lane, (time, color) in zip(lanes, colors.items(), strict=True):
            x = data.loc[(data["method"] == name) & (data["time"] == time), metric]
            axes.scatter(x, np.full(len(x), row + lane), s=0.3 * small() ** 2, color=color, linewidths=0, zorder=3)
            if metric == "share" and len(x):
                low, high = _limits(data[(data["method"] == name) & (data["time"] == time)]).iloc[0]
                axes.hlines(row + lane, low, high, color=color, lw=0.7, zorder=2)
    axes.set_yticks(range(len(mean)), list(mean.index))
    for label in axes.get_yticklabels():
        label.set_color(DARK if label.get_text() in REFERENCES else "black")
        label.set_fontstyle("italic" if label.get_text() in REFERENCES else "normal")
    axes.set_ylim(len(mean) - 0.4, -0.6)
    axes.set_xlabel(LABELS.get(metric, metric))
    axes.tick_params(axis="y", length=0)
    axes.annotate("mean", (1.02, 1), xycoords="axes fraction", va="bottom", fontsize=small(), color=DARK)
    if len(colors) > _MANY:
        colorbar([axes], time_map(), (min(colors), max(colors)), "held-out time")
    else:
        entries = [dot(color, f"{time:g}") for time, color in colors.items()]
        legend(axes, handles=entries, title="held-out\ntime", left=1.2)


def _by_time(axes: Axes, data: pd.DataFrame, floor: pd.DataFrame, metric: str, mean: pd.Series) -> None:
    times = sorted(data["time"].unique())
    if len(floor):
        low = floor.groupby("time")[metric].mean().reindex(times)
        axes.fill_between(times, 0, low, color=DARK, alpha=0.18, lw=0, zorder=0, label="floor")
    networks = [name for name in mean.index if name not in REFERENCES]
    colors = dict(zip(networks, palette(len(networks)), strict=True))
    ends = []
    for name in mean.index:
        seeds = data[data["method"] == name].groupby("time")[metric].agg(["mean", "min", "max"]).reindex(times)
        color, dash = colors.get(name, DARK), {"copy-previous": ":", "ot-midpoint": "--"}.get(name, "-")
        if metric == "share":
            seeds[["min", "max"]] = _limits(data[data["method"] == name]).reindex(times).to_numpy()
        whisker = np.stack([seeds["mean"] - seeds["min"], seeds["max"] - seeds["mean"]])
        axes.errorbar(
            times, seeds["mean"], whisker, color=color, ls=dash, marker="o", ms=2.5, lw=1, elinewidth=0.8, label=name
        )
        last = seeds["mean"].dropna()
        if len(last):
            ends.append((float(last.iloc[-1]), float(last.index[-1]), name, color))
    if metric != "share":  # which may be negative
        axes.set_ylim(bottom=0)
    _name_ends(axes, ends, len(floor) > 0, times[-1])
    if len(times) <= 10:
        axes.set_xticks(times, [f"{t:g}" for t in times])
    axes.set(xlabel="held-out time", ylabel=LABELS.get(metric, metric))


def _limits(rows: pd.DataFrame) -> pd.DataFrame:
    """Limits of the share at each time, means over seeds."""
    return rows.groupby("time")[["share_low", "share_high"]].mean()


def _name_ends(axes: Axes, ends: list[tuple[float, float, str, str]], floor: bool, last: float) -> None:
    """Write each method beside the end of its line, apart from its neighbours."""
    for (value, time, name, color), y in zip(ends, spread([e[0] for e in ends], line_height(axes)), strict=True):
        axes.annotate(
            name, (time, value), xytext=(1.04, y), textcoords=axes.get_yaxis_transform(), va="center", fontsize=small(),
            color=color, annotation_clip=False, arrowprops={"arrowstyle": "-", "lw": 0.4, "color": color, "shrinkB": 3},
        )  # fmt: skip
    if floor:
        axes.annotate(
            "floor", (last, 0), xytext=(-2, 2), textcoords="offset points", ha="right", fontsize=small(), color=DARK
        )
