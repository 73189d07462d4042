"""Genes that go along with a fate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.errors import InputError
from thalweg.get import drivers_df
from thalweg.pl._canvas import BLUE, CONTEXT, DARK, ORANGE, canvas, line_height, one_or_all, small, spread

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def drivers(
    adata: AnnData,
    groupby: str,
    *,
    groups: str | Sequence[str] | None = None,
    kind: Literal["lollipop", "volcano"] = "lollipop",
    n_genes: int = 8,
    max_q: float = 0.05,
    key: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> Axes | list[Axes]:
    """Genes that go along with each fate.

    Parameters
    ----------
    adata
        AnnData with what `thalweg.tl.drivers` wrote.
    groupby
        As given to it.
    groups
        Fates to draw; all by default, a panel for each.
    kind
        ``"lollipop"``: the genes of largest correlation, up and down, with their confidence intervals. ``"volcano"``:
        every gene, its correlation against its q value.
    n_genes
        Genes of each sign to draw, or to name in a volcano.
    max_q
        False discovery rate: genes above it are grey, and a volcano has a line there.
    key
        Key of ``uns``; ``"drivers_<groupby>"`` by default.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels): positive correlations orange, negative ones blue. Genes without a test
    (constant ones) are left out. The numbers are those of `thalweg.get.drivers_df`.

    Raises
    ------
    MissingKeyError
        If there are no drivers.
    InputError
        If a fate or ``kind`` is unknown, or no gene has a test.
    """
    if kind not in ("lollipop", "volcano"):
        raise InputError(f"kind must be 'lollipop' or 'volcano', found {kind!r}.")
    if n_genes < 1:
        raise InputError(f"n_genes must be 1 or more, found {n_genes!r}.")
    table = drivers_df(adata, groupby, groups=groups, key=key).dropna(subset=["correlation", "q_value"])
    if not len(table):
        raise InputError("no gene of the chosen fates has a test: all are constant.")
    fates = dict(list(table.groupby("group", sort=False)))
    height = 2.4 if kind == "volcano" else 0.6 + 0.115 * 2 * n_genes
    with canvas(ax, show, n=len(fates), height=height) as axes:
        for panel, (name, part) in zip(axes, fates.items(), strict=True):
            (_volcano if kind == "volcano" else _lollipop)(panel, part, n_genes, max_q)
            panel.locator_params(axis="x", nbins=5)
            panel.set(xlabel="correlation with the fate", title=name if len(fates) > 1 else "")
        if kind == "volcano":
            axes[0].set_ylabel("$-\\log_{10}$ q")
    return one_or_all(axes)


def _ends(part: pd.DataFrame, n: int) -> pd.DataFrame:
    """The ``n`` genes of largest positive and of largest negative correlation, falling."""
    ordered = part.sort_values("correlation", ascending=False, kind="stable")
    up, down = ordered[ordered["correlation"] > 0].head(n), ordered[ordered["correlation"] < 0].tail(n)
    return pd.concat([up, down])


def _tints(part: pd.DataFrame, max_q: float) -> list[str]:
    signs = np.where(part["correlation"] > 0, ORANGE, BLUE)
    return list(np.where(part["q_value"] <= max_q, signs, CONTEXT))


def _lollipop(axes: Axes, part: pd.DataFrame, n: int, max_q: float) -> None:
    top = _ends(part, n)
    rows, tints = np.arange(len(top)), _tints(top, max_q)
    axes.axvline(0, color=DARK, lw=0.6, zorder=0)
    axes.hlines(rows, 0, top["correlation"], color=tints, lw=0.8, zorder=1)
    axes.hlines(rows, top["lower"], top["upper"], color=tints, lw=2.6, alpha=0.45, zorder=2)
    axes.scatter(top["correlation"], rows, c=tints, s=12, linewidths=0, zorder=3)
    axes.set_yticks(rows, list(top["gene"]), style="italic")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(top) - 0.4, -0.6)


def _volcano(axes: Axes, part: pd.DataFrame, n: int, max_q: float) -> None:
    x, y = part["correlation"].to_numpy(), -np.log10(np.maximum(part["q_value"].to_numpy(), np.finfo(float).tiny))
    axes.scatter(x, y, c=_tints(part, max_q), s=4, linewidths=0, rasterized=True)
    axes.axhline(-np.log10(max_q), color=DARK, lw=0.6, ls=":")
    named = part.assign(y=y).loc[_ends(part, n).index]
    reach = 1.15 * float(np.abs(x).max())
    room = 1.35 * small() * named["gene"].str.len().max() / (axes.bbox.width / axes.figure.dpi * 72)
    wide = reach / max(1 - room, 0.3)  # so that the longest name fits beside the genes
    axes.set(xlim=(-wide, wide), ylim=(-0.02 * y.max(), 1.08 * y.max() + 0.1))
    for sign, align in ((1, "left"), (-1, "right")):
        # The strongest first, so that of genes at one height it takes the lowest line, and no two lines cross.
        side = named[np.sign(named["correlation"]) == sign].sort_values("correlation", ascending=sign < 0)
        for (_, row), to in zip(side.iterrows(), _below(spread(side["y"], line_height(axes)), y.max()), strict=True):
            axes.annotate(
                row["gene"], (row["correlation"], row["y"]), xytext=(sign * reach, to), ha=align, va="center",
                fontsize=small(), style="italic", annotation_clip=False,
                arrowprops={"arrowstyle": "-", "lw": 0.3, "color": DARK, "shrinkA": 1, "shrinkB": 1},
            )  # fmt: skip


def _below(positions: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """All moved down together where the highest is above ``top``."""
    return positions - max(float(positions.max(initial=top)) - top, 0)
