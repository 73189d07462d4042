"""Groups of cells through time as an alluvial diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from thalweg.data.recipe import Columns
from thalweg.get import colors, flow_df
from thalweg.pl._canvas import canvas, line_height, one_or_all, small, spread

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_BAR = 0.14  # width of a bar; columns are one apart
_GAP = 0.025  # between the groups of a time; they sum to one


def fate_flow(
    adata: AnnData,
    groupby: str,
    *,
    key: str = "transition",
    min_share: float = 0.0,
    condition_key: Columns = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> Axes | list[Axes]:
    """Groups of cells at each time, and ribbons for what becomes of them.

    Parameters
    ----------
    adata
        Cells with what `thalweg.tl.transition` wrote between neighbouring times.
    groupby
        Column of ``obs`` with the groups, such as cell types or ``"fate_<groupby>"``, drawn in scanpy's colours.
    key
        Key of ``obsp`` and ``uns`` with the couplings.
    min_share
        Ribbons below this share of an interval are left out.
    condition_key
        Column of ``obs``, or several: a panel for each condition.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels). The height of a ribbon is the share of the cells that pass from one group to
    another, as `thalweg.get.flow_df` has it; ribbons of an interval sum to one. A bar is as high as what arrives on its
    left side and what leaves on its right, which differ where cells grow. Times are equally spaced.

    Raises
    ------
    MissingKeyError
        If there are no couplings or no such column.
    InputError
        If neighbouring times are not coupled, or no cell has a group.
    """
    table, tints = flow_df(adata, groupby, key=key, condition_key=condition_key), colors(adata, groupby)
    parts = {"": table} if condition_key is None else dict(list(table.groupby("condition", sort=False)))
    time_key = str(adata.uns[key]["time_key"])
    with canvas(ax, show, n=len(parts), height=2.4) as axes:
        for panel, (name, part) in zip(axes, parts.items(), strict=True):
            bars = _diagram(panel, part, tints, min_share)
            _name_bars(panel, bars, first=panel is axes[0])
            panel.set(yticks=[], xlabel=time_key, title=name)
            panel.spines["left"].set_visible(False)
    return one_or_all(axes)


def _diagram(axes: Axes, table: pd.DataFrame, tints: Mapping[str, str], min_share: float) -> Bars:
    times = sorted({*table["t0"], *table["t1"]})
    bars = _bars(table, times, list(tints))
    for ribbon in _ribbons(table, times, list(tints), bars):
        if ribbon.height >= min_share:
            _draw_ribbon(axes, ribbon, tints[ribbon.source])
    for (x, name), bar in bars.items():
        _draw_bar(axes, x, bar, tints[name], f"{name}, {times[x]:g}")
    top = max(max(b.left + b.arriving, b.right + b.leaving) for b in bars.values())
    axes.set(xlim=(-_BAR, len(times) - 1 + _BAR), ylim=(-0.02, top + 0.02))
    axes.set_xticks(range(len(times)), [f"{t:g}" for t in times])
    return bars


@dataclass(frozen=True)
class _Bar:
    """A group at a time: lower edges and heights of its two sides."""

    left: float
    arriving: float
    right: float
    leaving: float

    @property
    def middle(self) -> float:
        return (self.left + self.right + (self.arriving + self.leaving) / 2) / 2


Bars = dict[tuple[int, str], _Bar]  # by number of the time and group


@dataclass(frozen=True)
class _Ribbon:
    source: str
    target: str
    x: int
    left: float
    right: float
    height: float


def _bars(shares: pd.DataFrame, times: Sequence[float], names: Sequence[str]) -> Bars:
    bars = {}
    for x, time in enumerate(times):
        leaving = shares[shares["t0"] == time].groupby("source")["share"].sum()
        arriving = shares[shares["t1"] == time].groupby("target")["share"].sum()
        left, right = 0.0, 0.0
        for name in names:
            out, into = float(leaving.get(name, 0)), float(arriving.get(name, 0))
            if not len(leaving):
                out = into
            if not len(arriving):
                into = out
            if not out and not into:
                continue
            bars[x, name] = _Bar(left, into, right, out)
            left, right = left + into + _GAP, right + out + _GAP
    return bars


def _ribbons(shares: pd.DataFrame, times: Sequence[float], names: Sequence[str], bars: Bars) -> list[_Ribbon]:
    place = {name: i for i, name in enumerate(names)}
    used_out, used_in = dict.fromkeys(bars, 0.0), dict.fromkeys(bars, 0.0)
    order = shares.assign(a=shares["source"].map(place), b=shares["target"].map(place)).sort_values(["t0", "a", "b"])
    out = []
    for row in order[order["share"] > 0].itertuples():
        x, source, target, height = times.index(row.t0), str(row.source), str(row.target), float(row.share)
        start, end = (x, source), (x + 1, target)
        out.append(
            _Ribbon(source, target, x, bars[start].right + used_out[start], bars[end].left + used_in[end], height)
        )
        used_out[start] += height
        used_in[end] += height
    return out


def _draw_ribbon(axes: Axes, ribbon: _Ribbon, color: str) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    a, b = ribbon.x + _BAR / 2, ribbon.x + 1 - _BAR / 2
    low, high, h = ribbon.left, ribbon.right, ribbon.height
    m = (a + b) / 2
    points = [
        (a, low), (m, low), (m, high), (b, high), (b, high + h), (m, high + h), (m, low + h), (a, low + h), (a, low),
    ]  # fmt: skip
    kinds = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    label = f"{ribbon.source} → {ribbon.target}"
    axes.add_patch(PathPatch(Path(points, kinds), fc=color, alpha=0.4, lw=0, label=label, gid="ribbon"))


def _draw_bar(axes: Axes, x: int, bar: _Bar, color: str, label: str) -> None:
    from matplotlib.patches import Polygon

    a, b = x - _BAR / 2, x + _BAR / 2
    corners = [(a, bar.left), (b, bar.right), (b, bar.right + bar.leaving), (a, bar.left + bar.arriving)]
    axes.add_patch(Polygon(corners, fc=color, lw=0, label=label, gid="bar"))


def _name_bars(axes: Axes, bars: Bars, *, first: bool) -> None:
    """Names beside the first column (of the first panel) and the last; of groups in neither, at their tallest bar."""
    last = max(x for x, _ in bars)
    gap = line_height(axes)
    style: dict[str, Any] = {"va": "center", "fontsize": small(), "annotation_clip": False}
    for x, side, align in ((0, -1, "right"), (last, 1, "left"))[not first :]:
        column = [(name, bar.middle) for (at, name), bar in bars.items() if at == x]
        edge = x + side * _BAR / 2
        for (name, y), to in zip(column, spread([y for _, y in column], gap), strict=True):
            line = {"arrowstyle": "-", "lw": 0.4, "shrinkA": 0, "shrinkB": 1} if abs(to - y) > gap / 4 else None
            axes.annotate(name, (edge, y), xytext=(edge + side * 0.08, to), ha=align, arrowprops=line, **style)
    named = {name for (x, name) in bars if x in (0, last)}
    tallest: dict[str, tuple[int, _Bar]] = {}
    for (x, name), bar in bars.items():
        if name not in named and (name not in tallest or bar.leaving > tallest[name][1].leaving):
            tallest[name] = (x, bar)
    for name, (x, bar) in tallest.items():
        axes.annotate(name, (x + _BAR / 2, bar.middle), xytext=(x + _BAR, bar.middle), ha="left", **style)
