"""Fate probabilities on an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.arms import arms
from thalweg.data.embedding import read_embedding
from thalweg.data.recipe import Columns
from thalweg.errors import InputError
from thalweg.get import colors, fate_df
from thalweg.get._colors import palette
from thalweg.pl._canvas import CONTEXT, DARK, canvas, colorbar, dot, legend, one_or_all, small
from thalweg.pl._cells import background, dot_area, frame, limits, scatter, shade

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

Floats = NDArray[np.float64]
_UNSURE = 0.1  # standard error of a fate from which a cell has a ring


def fate(
    adata: AnnData,
    groupby: str,
    basis: str | None = None,
    *,
    kind: Literal["panels", "mixed"] = "panels",
    fates: Sequence[str] | None = None,
    components: tuple[int, int] = (0, 1),
    condition_key: Columns = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> Axes | list[Axes]:
    """Fate probabilities of the cells.

    Parameters
    ----------
    adata
        Cells with the fates that `thalweg.tl.fate` wrote.
    groupby
        As given to it: ``obsm["fate_<groupby>"]`` is drawn.
    basis, components
        Embedding, such as ``"umap"``, by default the PCA that exists; and two of its columns.
    kind
        ``"panels"``: a panel for each fate. ``"mixed"``: one panel; a cell has the colours of the fates, in scanpy's
        colours of ``groupby``, mixed by their probabilities, and is the paler the less is decided. A ring says that the
        standard error of its fate is above .1: undecided cells have several fates, unsure ones an unknown one.
    fates
        Fates to draw; all by default.
    condition_key
        Column of ``obs``, or several: panels for each condition.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels). Cells without fates are grey.

    Raises
    ------
    MissingKeyError
        If the fates, the embedding or the condition do not exist.
    InputError
        If a fate or ``kind`` is unknown.
    """
    if kind not in ("panels", "mixed"):
        raise InputError(f"kind must be 'panels' or 'mixed', found {kind!r}.")
    long = fate_df(adata, groupby)
    table = _chosen(_wide(long), fates)
    embedding = read_embedding(adata, basis, components)
    panels = arms(adata, condition_key)
    many = len(table.columns) if kind == "panels" else 1
    with canvas(ax, show, n=many * len(panels), columns=many if 1 < many <= 4 else None, height=2.2) as axes:
        if kind == "mixed":
            tints, se = fate_colors(adata, groupby, list(table.columns)), adata.obs[f"fate_{groupby}_se"]
            _mixed(axes, embedding.xy, list(panels.values()), table, tints, se.to_numpy() > _UNSURE)
            titles = list(panels)
        else:
            for i, name in enumerate(table.columns):
                shade(axes[i::many], embedding.xy, list(panels.values()), table[name].to_numpy(), _ramp(), None, (0, 1))
            colorbar(axes, _ramp(), (0, 1), "probability")
            titles = [f"{name} · {part}" if part else name for part in panels for name in table.columns]
        limits(axes, embedding.xy)
        frame(axes, embedding, titles)
    return one_or_all(axes)


def fate_colors(adata: AnnData, groupby: str, names: Sequence[str]) -> dict[str, str]:
    """Colour of each fate: that of its group, or of the palette where ``obs`` has no such groups."""
    known = colors(adata, groupby) if groupby in adata.obs else {}
    return {name: known.get(name, spare) for name, spare in zip(names, palette(len(names)), strict=True)}


def mix(probability: Floats, tints: Sequence[str]) -> Floats:
    r"""Colours of cells, shape ``(n, 3)``: mixed by probability in linear light, and faded to grey by entropy.

    The share of grey is :math:`H(p) / \log k` for ``k`` fates, one minus the confidence that `thalweg.tl.fate` writes:
    none for a cell that is decided, all for one that has every fate equally likely.
    """
    from matplotlib.colors import to_rgb

    p = probability / np.maximum(probability.sum(1, keepdims=True), np.finfo(float).tiny)
    pure = np.array([to_rgb(tint) for tint in tints]) ** 2.2
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1) / np.log(max(p.shape[1], 2))
    grey = np.array(to_rgb(CONTEXT)) ** 2.2
    shown: Floats = np.clip((1 - entropy[:, None]) * (p @ pure) + entropy[:, None] * grey, 0, 1) ** (1 / 2.2)
    return shown


def _mixed(
    axes: Sequence[Axes],
    xy: Floats,
    masks: Sequence[NDArray[np.bool_]],
    table: pd.DataFrame,
    tints: dict[str, str],
    unsure: NDArray[np.bool_],
) -> None:
    from matplotlib.lines import Line2D

    p = table.to_numpy()
    shown, known = mix(np.nan_to_num(p), list(tints.values())), np.isfinite(p).all(1)
    for panel, mask in zip(axes, masks, strict=True):
        background(panel, xy)
        rows = np.flatnonzero(mask & known)
        scatter(panel, xy[rows], n=len(xy), c=shown[rows], zorder=0.6)
        x, y = xy[rows[unsure[rows]]].T
        edge: dict[str, Any] = {"facecolors": "none", "edgecolors": DARK, "linewidths": 0.4}
        panel.scatter(x, y, s=2.5 * dot_area(panel, len(xy)), zorder=0.7, label="unsure", **edge)
    handles = [*(dot(c, name) for name, c in tints.items()), dot(CONTEXT, "undecided")]
    if unsure.any():
        ring: dict[str, Any] = {"ls": "", "marker": "o", "ms": 0.7 * small(), "mfc": "none", "mec": DARK, "mew": 0.5}
        handles.append(Line2D([], [], label="unsure", **ring))
    legend(axes, handles=handles)


def _wide(long: pd.DataFrame) -> pd.DataFrame:
    names = list(long["group"].cat.categories)
    return pd.DataFrame(long["probability"].to_numpy().reshape(-1, len(names)), columns=names)


def _chosen(table: pd.DataFrame, fates: Sequence[str] | None) -> pd.DataFrame:
    unknown = [name for name in fates or () if name not in table.columns]
    if unknown:
        raise InputError(f"fates={unknown} are unknown; there are {list(table.columns)}.")
    return table if fates is None else table[list(fates)]


def _ramp() -> Colormap:
    import matplotlib as mpl
    from matplotlib.colors import LinearSegmentedColormap

    dark = mpl.colormaps["magma_r"]([0.35, 0.6, 0.9])
    return LinearSegmentedColormap.from_list("thalweg_probability", [CONTEXT, *map(tuple, dark)])
