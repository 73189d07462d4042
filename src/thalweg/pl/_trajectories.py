"""Trajectories as lines over the real cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from thalweg.data.arms import arms
from thalweg.data.recipe import Columns
from thalweg.errors import MissingKeyError
from thalweg.get import colors
from thalweg.pl._canvas import CONTEXT, canvas, colorbar, dot, legend, one_or_all, time_map
from thalweg.pl._cells import background, frame, limits
from thalweg.pl._paths import Path, read_paths

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_VECTOR = 2000  # segments above which lines are rasterised


def trajectories(
    adata: AnnData,
    paths: AnnData,
    *,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    color: str | None = None,
    condition_key: Columns = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> Axes | list[Axes]:
    """Trajectories as lines over the real cells.

    Parameters
    ----------
    adata
        AnnData with the real cells.
    paths
        What `thalweg.tl.trajectories` returned.
    basis
        Embedding to draw on, such as ``"umap"``; by default the representation of the trajectories. On another one a
        point of a trajectory lies at the mean of its ten nearest real cells, weighted by inverse distance.
    components
        Two columns of it.
    color
        Column of ``paths.obs``, or of ``adata.obs`` for the cell a trajectory starts from, with categories; by default
        lines take the colour of the time.
    condition_key
        Column of ``obs``, or several: a panel for each condition.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels). An open circle marks where a trajectory starts, a filled one where it ends.

    Raises
    ------
    InputError
        If ``paths`` was not made by `thalweg.tl.trajectories`.
    MissingKeyError
        If the embedding, ``color`` or the condition does not exist.
    """
    embedding, drawn = read_paths(adata, paths, basis, components)
    panels = arms(paths, condition_key)
    shown = None if color is None else path_colors(adata, paths, drawn, color)
    span = min(p.time.min() for p in drawn), max(p.time.max() for p in drawn)
    with canvas(ax, show, n=len(panels)) as axes:
        for panel, mask in zip(axes, panels.values(), strict=True):
            background(panel, embedding.xy)
            inside = [i for i, p in enumerate(drawn) if mask[p.rows[0]]]
            _lines(panel, [drawn[i] for i in inside], None if shown is None else [shown[0][i] for i in inside], span)
        frame(axes, embedding, list(panels))
        limits(axes, np.concatenate([embedding.xy, *(p.xy for p in drawn)]))
        if shown is None:
            colorbar(axes, time_map(), span, str(paths.uns["trajectories"]["time_key"]))
        else:
            legend(axes, handles=[dot(c, name) for name, c in shown[1].items()])
    return one_or_all(axes)


def _lines(axes: Axes, drawn: Sequence[Path], shown: Sequence[str] | None, span: tuple[float, float]) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize, to_rgba_array

    if not drawn:
        return
    pieces = [np.stack([p.xy[:-1], p.xy[1:]], axis=1) for p in drawn]
    style: dict[str, Any] = {"linewidths": float(np.clip(12 / len(drawn) ** 0.5, 0.4, 1.2)), "zorder": 2}
    ends: dict[str, Any] = {"s": 7, "linewidths": 0.5, "zorder": 3}
    scale, cmap = Normalize(*span), time_map()
    segments = np.concatenate(pieces)
    style |= {"rasterized": len(segments) > _VECTOR, "capstyle": "round", "alpha": 0.85}
    if shown is None:
        middle = np.concatenate([(p.time[:-1] + p.time[1:]) / 2 for p in drawn])
        axes.add_collection(LineCollection(list(segments), array=middle, norm=scale, cmap=cmap, **style))
        first, last = (cmap(scale(np.array([p.time[i] for p in drawn]))) for i in (0, -1))
    else:
        tints = np.repeat(list(shown), [len(p) for p in pieces])
        axes.add_collection(LineCollection(list(segments), colors=list(tints), **style))
        first = last = to_rgba_array(list(shown))
    start, end = (np.array([p.xy[i] for p in drawn]) for i in (0, -1))
    axes.scatter(start[:, 0], start[:, 1], facecolors="white", edgecolors=list(first), label="start", **ends)
    axes.scatter(end[:, 0], end[:, 1], c=last, edgecolors="white", label="end", **ends)


def path_colors(adata: AnnData, paths: AnnData, drawn: Sequence[Path], color: str) -> tuple[list[str], dict[str, str]]:
    """Colour of each trajectory, and of each category that occurs.

    Raises
    ------
    MissingKeyError
        If neither ``paths.obs`` nor ``adata.obs`` has the column.
    """
    rows = [p.rows[0] for p in drawn]
    if color in paths.obs:
        names = paths.obs[color].iloc[rows].astype(str).to_numpy()
        known = colors(adata if color in adata.obs else paths, color)
    elif color in adata.obs:
        sources = paths.obs["source"].iloc[rows].astype(str).to_numpy()
        cells = pd.Series(adata.obs[color].astype(str).to_numpy(), index=adata.obs_names.astype(str))
        names, known = cells.loc[sources].to_numpy(), colors(adata, color)
    else:
        found = ", ".join(map(repr, [*paths.obs.columns, *adata.obs.columns]))
        raise MissingKeyError(f"color={color!r} is a column of neither paths.obs nor adata.obs; they have {found}.")
    present = set(names.tolist())
    return [known.get(name, CONTEXT) for name in names], {name: c for name, c in known.items() if name in present}
