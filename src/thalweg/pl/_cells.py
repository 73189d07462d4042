"""Cells on an embedding: grey background, dots, categories and numbers, and predicted cells placed among real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.embedding import Embedding
from thalweg.data.representation import read_representation
from thalweg.data.times import obs_column
from thalweg.errors import MissingKeyError
from thalweg.get import colors
from thalweg.pl._canvas import CONTEXT, colorbar, dot, legend

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
NEIGHBORS = 10


def scatter(axes: Axes, xy: Floats, *, size: Any = 1.0, n: int | None = None, **style: Any) -> Any:
    """Dots without an edge, rasterised, smaller where there are many; ``size`` scales their area."""
    area = dot_area(axes, len(xy) if n is None else n) * size
    return axes.scatter(xy[:, 0], xy[:, 1], s=area, linewidths=0, rasterized=True, **style)


def dot_area(axes: Axes, n: int) -> float:
    """Area of a dot in square points, so that ``n`` of them fill a fixed share of the axes."""
    inches = axes.bbox.width * axes.bbox.height / axes.figure.dpi**2
    return float(np.clip(0.25 * inches * 72**2 / max(n, 1), 0.3, 9))


def background(axes: Axes, xy: Floats) -> None:
    """All cells in light grey, and nothing else drawn below them."""
    scatter(axes, xy, color=CONTEXT, label="all cells", zorder=0.5)


def paint(axes: Sequence[Axes], adata: AnnData, xy: Floats, masks: Sequence[Mask], color: str) -> None:
    """Cells of each panel over all in grey, in the colours of a column of ``obs``, with a legend or a colour bar.

    Raises
    ------
    MissingKeyError
        If ``obs`` has no such column.
    """
    column = obs_column(adata, color, "color")
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        import matplotlib as mpl

        values = column.to_numpy(dtype=np.float64)
        shade(axes, xy, masks, values, mpl.colormaps["viridis"], color)
        return
    shown = colors(adata, color)
    names = column.astype(str).to_numpy()
    dots = np.array([shown.get(name, CONTEXT) for name in names])
    for panel, mask in zip(axes, masks, strict=True):
        background(panel, xy)
        scatter(panel, xy[mask], n=len(xy), c=dots[mask], zorder=0.6)
    legend(axes, handles=[dot(c, name) for name, c in shown.items() if (names == name).any()])


def shade(
    axes: Sequence[Axes],
    xy: Floats,
    masks: Sequence[Mask],
    values: Floats,
    cmap: Colormap,
    label: str | None,
    span: tuple[float, float] | None = None,
) -> None:
    """Cells in the colours of numbers on one scale, the largest on top; those without a number stay grey.

    Without a ``label`` there is no colour bar.
    """
    low, high = (np.nanmin(values), np.nanmax(values)) if span is None else span
    for panel, mask in zip(axes, masks, strict=True):
        background(panel, xy)
        rows = np.flatnonzero(mask & np.isfinite(values))
        rows = rows[np.argsort(values[rows], kind="stable")]
        scatter(panel, xy[rows], n=len(xy), c=values[rows], cmap=cmap, vmin=low, vmax=high, zorder=0.6)
    if label is not None:
        colorbar(axes, cmap, (float(low), float(high)), label)


def frame(axes: Sequence[Axes], embedding: Embedding, titles: Sequence[str]) -> None:
    """Names of the axes, without ticks: an embedding has no units. A name inside a row of panels is written once."""
    x, y = embedding.labels
    for panel, title in zip(axes, titles, strict=True):
        grid = panel.get_subplotspec()
        first = grid is None or grid.is_first_col() or len(axes) == 1
        panel.set(xlabel=x, ylabel=y if first else "", xticks=[], yticks=[], title=title)


def limits(axes: Sequence[Axes], xy: Floats, margin: float = 0.04) -> None:
    """The same limits for all panels."""
    low, high = xy.min(0), xy.max(0)
    pad = margin * np.where(high > low, high - low, 1)
    for panel in axes:
        panel.set_xlim(low[0] - pad[0], high[0] + pad[0])
        panel.set_ylim(low[1] - pad[1], high[1] + pad[1])


def place(cells: AnnData, adata: AnnData, embedding: Embedding, use_rep: str) -> Floats:
    """Where cells that know only ``obsm[use_rep]`` lie on an embedding of ``adata``.

    Read off where it is the representation itself or the cells have the embedding; else the mean of the ten nearest
    real cells, weighted by inverse distance.

    Raises
    ------
    MissingKeyError
        If the cells have neither.
    """
    pick = list(embedding.components)
    if embedding.key in cells.obsm:
        return read_representation(cells, embedding.key)[:, pick]
    if use_rep not in cells.obsm:
        found = ", ".join(map(repr, cells.obsm.keys())) or "none"
        raise MissingKeyError(f"obsm[{use_rep!r}] of the predicted cells does not exist; keys that exist: {found}.")
    from sklearn.neighbors import KNeighborsRegressor

    x = read_representation(cells, use_rep)
    real = read_representation(adata, use_rep, x.shape[1])
    regressor = KNeighborsRegressor(min(NEIGHBORS, len(real)), weights="distance")
    placed: Floats = regressor.fit(real, embedding.xy).predict(x)
    return placed
