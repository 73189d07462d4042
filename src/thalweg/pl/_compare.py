"""What differs between two arms: fates, shares over time, when they part, and genes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg.errors import InputError
from thalweg.get import colors, compare_df
from thalweg.pl._canvas import BLUE, CONTEXT, DARK, ORANGE, canvas, legend, one_or_all

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

PANELS = ("fates", "composition", "divergence", "genes")
_LONGEST, _COLORED = 24, 8  # characters of a line; groups that have a colour


def compare(
    adata: AnnData,
    *,
    arm: str | None = None,
    panels: str | Sequence[str] | None = None,
    key: str = "compare",
    max_q: float = 0.05,
    n_genes: int = 8,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> Axes | list[Axes]:
    """What differs between an arm and the reference.

    Parameters
    ----------
    adata
        AnnData with what `thalweg.tl.compare` wrote.
    arm
        The arm; it need not be named where there is one beside the reference.
    panels
        ``"fates"``: the shift of the share of each fate with its 95 % interval. ``"composition"``: that of each group
        over time. ``"divergence"``: how far apart both flows carry the same start cells, against the distance of two
        replicates of one arm; a line marks the onset. ``"genes"``: the genes that differ most from the onset on. All
        that were found by default.
    key
        Its key in ``uns``.
    max_q
        False discovery rate: what lies above it is grey.
    n_genes
        Genes to draw.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels): more than in the reference orange, less blue. The numbers are those of
    `thalweg.get.compare_df`.

    Raises
    ------
    MissingKeyError
        If there is no comparison.
    InputError
        If the arm or a panel is unknown, or nothing was found for a panel.
    """
    tables = {name: compare_df(adata, name, key=key) for name in PANELS}  # type: ignore[arg-type]
    arm = _arm(tables["fates"], arm)
    found = {name: table[table["arm"] == arm] for name, table in tables.items()}
    chosen = [name for name in PANELS if len(found[name])] if panels is None else _chosen(panels, found)
    params = adata.uns[key]["params"]
    onsets = pd.DataFrame(adata.uns[key]["onset"]).set_index("arm")["time"]
    with canvas(ax, show, n=len(chosen), height=2.6, columns=1 if len(chosen) == 1 else 2) as axes:
        for panel, name in zip(axes, chosen, strict=True):
            table = found[name]
            if name == "fates":
                _shifts(panel, table, max_q)
                panel.set_xlabel(f"shift of the share, {arm} less {params['reference']}")
            elif name == "composition":
                _over_time(panel, table, colors(adata, str(params["groupby"])), max_q)
                panel.set(xlabel=params["time_key"], ylabel="shift of the share")
            elif name == "divergence":
                _apart(panel, table, float(onsets[arm]))
                panel.set(xlabel=params["time_key"], ylabel="energy distance")
            else:
                top = table.nsmallest(n_genes, "p").sort_values("difference", ascending=False)
                _shifts(panel, top.rename(columns={"gene": "group"}), max_q)
                panel.set_xlabel("difference of log expression")
                panel.set_yticks(
                    panel.get_yticks(), [label.get_text() for label in panel.get_yticklabels()], style="italic"
                )
    return one_or_all(axes)


def _arm(table: pd.DataFrame, arm: str | None) -> str:
    known = list(dict.fromkeys(table["arm"].astype(str)))
    if arm is None and len(known) == 1:
        return known[0]
    if arm not in known:
        raise InputError(f"arm must be one of {known}, found {arm!r}.")
    return str(arm)


def _chosen(panels: str | Sequence[str], found: dict[str, pd.DataFrame]) -> list[str]:
    names = [panels] if isinstance(panels, str) else list(panels)
    for name in names:
        if name not in PANELS:
            raise InputError(f"panels must be of {list(PANELS)}, found {name!r}.")
        if not len(found[name]):
            raise InputError(f"the comparison holds no {name}; run tw.tl.compare with what they need, or leave it out.")
    return names


def _lines(name: str) -> str:
    """A name in lines that leave room for the figure; of a very long one, the start and the end."""
    if len(name) > 2 * _LONGEST:
        name = f"{name[:_LONGEST]} … {name[-_LONGEST // 2 :]}"
    return textwrap.fill(name, _LONGEST)


def _shifts(axes: Axes, table: pd.DataFrame, max_q: float) -> None:
    """A row for each group: its shift and interval."""
    rows, sure = np.arange(len(table)), (table["q"] <= max_q).to_numpy()
    tints = np.where(sure, np.where(table["difference"] > 0, ORANGE, BLUE), CONTEXT)
    axes.axvline(0, color=DARK, lw=0.6, zorder=0)
    axes.hlines(rows, table["low"], table["high"], color=list(tints), lw=1.2, zorder=1)
    axes.scatter(table["difference"], rows, c=list(tints), s=14, linewidths=0, zorder=2)
    axes.set_yticks(rows, [_lines(name) for name in table["group"]])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=5)


def _over_time(axes: Axes, table: pd.DataFrame, tints: dict[str, str], max_q: float) -> None:
    """A line for each group; those that shift at some time have their colour and a dot where they do."""
    axes.axhline(0, color=DARK, lw=0.6, zorder=0)
    least = table.groupby("group")["q"].min().sort_values(kind="stable")
    named = list(least.index[least <= max_q])[:_COLORED]
    for name, part in table.groupby("group", sort=False):
        tint = tints.get(str(name), DARK) if name in named else CONTEXT
        label = _lines(str(name)) if name in named else None
        axes.plot(part["time"], part["difference"], color=tint, lw=1.0, label=label, zorder=2 if name in named else 1)
        sure = part[part["q"] <= max_q]
        axes.scatter(sure["time"], sure["difference"], color=tint, s=12, linewidths=0, zorder=3)
    if named:
        legend(axes)


def _apart(axes: Axes, table: pd.DataFrame, onset: float) -> None:
    """The distance of both flows over time, that of replicates, and the onset."""
    axes.plot(table["time"], table["energy"], color=BLUE, label="both flows, same start cells")
    seen = table.dropna(subset=["replicates"])
    axes.plot(seen["time"], seen["replicates"], color=DARK, lw=0.8, ls=":", marker="o", ms=2.5, label="two replicates")
    top = axes.get_ylim()[1]
    if np.isfinite(onset):
        axes.vlines(onset, 0, top, color=ORANGE, lw=0.8, label=f"onset, {onset:g}")
    axes.set_ylim(0, 1.4 * top)  # room for the legend
    legend(axes, inside=True)
