"""Expression through time, with bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from thalweg.errors import InputError
from thalweg.get._colors import palette
from thalweg.pl._canvas import canvas, colorbar, dot, legend, one_or_all, small

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = ("gene", "group", "time", "mean", "lower", "upper")
_DOTS = 12  # times up to which each is marked
_REACH = 2.0  # standard deviations, of the colours of the heat map


def gene_trends(
    trends: pd.DataFrame,
    *,
    genes: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    kind: Literal["lines", "heatmap"] = "lines",
    colors: Mapping[str, str] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> Axes | list[Axes]:
    """Expression of genes through time.

    Parameters
    ----------
    trends
        What `thalweg.tl.gene_trends` returned.
    genes, groups
        Genes and groups (or fates) to draw, in this order; all by default.
    kind
        ``"lines"``: a panel for each gene, a line with its band for each group. ``"heatmap"``: a panel for each group,
        a row for each gene, ordered by the time of its peak in the first group; for many genes.
    colors
        Colour of each group, as of `thalweg.get.colors`.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels). A heat map shows means as z-scores of each gene over all drawn times and
    groups.

    Raises
    ------
    InputError
        If a column is absent, a gene, a group or ``kind`` is unknown, or ``colors`` lacks a group.
    """
    if kind not in ("lines", "heatmap"):
        raise InputError(f"kind must be 'lines' or 'heatmap', found {kind!r}.")
    absent = [name for name in _COLUMNS if name not in trends]
    if absent:
        raise InputError(f"trends lacks the columns {absent}; pass the table of tw.tl.gene_trends.")
    shown, lines = _chosen(trends, "gene", genes), _chosen(trends, "group", groups)
    if kind == "heatmap":
        return _heatmaps(trends, shown, lines, ax, show)
    missing = [] if colors is None else [name for name in lines if name not in colors]
    if missing:
        raise InputError(f"colors has no entry for {missing}; it has {list(colors or ())}.")
    tints = dict(zip(lines, palette(len(lines)), strict=True)) if colors is None else {g: colors[g] for g in lines}
    with canvas(ax, show, n=len(shown), height=1.7) as axes:
        for panel, gene in zip(axes, shown, strict=True):
            for group in lines:
                part = trends[(trends["gene"] == gene) & (trends["group"] == group)].sort_values("time")
                marker = "o" if len(part) <= _DOTS else None
                panel.plot(part["time"], part["mean"], color=tints[group], marker=marker, ms=2.5, lw=1, label=group)
                panel.fill_between(
                    part["time"], part["lower"], part["upper"], color=tints[group], alpha=0.22, lw=0, label=group
                )
            panel.set_title(gene, style="italic")
            panel.set_xlabel("time")
        axes[0].set_ylabel("expression")
        if len(lines) > 1:
            legend(axes, handles=[dot(color, name) for name, color in tints.items()])
    return one_or_all(axes)


def _heatmaps(
    trends: pd.DataFrame, genes: list[str], groups: list[str], ax: Axes | Sequence[Axes] | None, show: bool | None
) -> Axes | list[Axes]:
    import matplotlib as mpl

    kept = trends[trends["gene"].isin(genes) & trends["group"].isin(groups)]
    table = kept.pivot(index="gene", columns=["group", "time"], values="mean")
    spread = table.std(axis=1, ddof=0)
    z = table.sub(table.mean(axis=1), axis=0).div(spread.where(spread > 0, 1), axis=0)
    order = z[groups[0]].idxmax(axis=1).sort_values(kind="stable").index
    cmap = mpl.colormaps["RdBu_r"]
    height = float(np.clip(0.5 + 0.1 * len(order), 1.2, 6))
    with canvas(ax, show, n=len(groups), height=height) as axes:
        for panel, group in zip(axes, groups, strict=True):
            part = z.loc[order, group].sort_index(axis=1)
            edges = _edges(part.columns.to_numpy(dtype=np.float64))
            rows = np.arange(len(order) + 1) - 0.5
            panel.pcolormesh(edges, rows, part.to_numpy(), cmap=cmap, vmin=-_REACH, vmax=_REACH, rasterized=True)
            panel.set(xlabel="time", title=group if len(groups) > 1 else "", ylim=(len(order) - 0.5, -0.5))
            fits = panel is axes[0] and len(order) <= 72 * height / 0.9 / small()
            panel.set_yticks(range(len(order)) if fits else [], list(order) if fits else [], style="italic")
            panel.tick_params(axis="y", length=0, labelsize=small() - 1)
        colorbar(axes, cmap, (-_REACH, _REACH), "z-score of the mean")
    return one_or_all(axes)


def _edges(times: np.ndarray) -> np.ndarray:
    """Borders half way between times."""
    if len(times) == 1:
        return times[0] + np.array([-0.5, 0.5])
    middle = (times[1:] + times[:-1]) / 2
    return np.concatenate([[2 * times[0] - middle[0]], middle, [2 * times[-1] - middle[-1]]])


def _chosen(trends: pd.DataFrame, column: str, names: Sequence[str] | None) -> list[str]:
    found = list(dict.fromkeys(trends[column].astype(str)))
    unknown = [name for name in names or () if name not in found]
    if unknown:
        raise InputError(f"{column}s={unknown} are not in trends; it has {found}.")
    return found if names is None else list(names)
