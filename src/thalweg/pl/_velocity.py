"""Velocities on an embedding: arrows of cells, averages on a grid, or streamlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.arms import arms
from thalweg.data.embedding import read_embedding, read_velocity
from thalweg.data.recipe import Columns
from thalweg.errors import InputError
from thalweg.get import velocity_grid
from thalweg.pl._canvas import DARK, canvas, one_or_all, small
from thalweg.pl._cells import background, frame, limits, paint

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Kind = Literal["stream", "grid", "arrows"]
_NODES = {"stream": 40, "grid": 22, "arrows": 22}
_INK = "#1a1a1a"


def velocity(
    adata: AnnData,
    basis: str | None = None,
    *,
    kind: Kind = "stream",
    color: str | None = None,
    components: tuple[int, int] = (0, 1),
    velocity_key: str | None = None,
    n_grid: int | None = None,
    bandwidth: float = 0.03,
    min_cells: float = 2.0,
    density: float = 1.2,
    duration: float | None = None,
    min_agreement: float = 0.5,
    condition_key: Columns = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> Axes | list[Axes]:
    """Velocities on an embedding.

    Parameters
    ----------
    adata
        Cells with the velocities that `thalweg.tl.velocity` wrote.
    basis
        Embedding, such as ``"umap"``; by default the first two columns of the PCA that exists.
    kind
        ``"stream"``: streamlines of the averaged field, thicker where it is faster; ``"grid"``: its arrows;
        ``"arrows"``: those of single cells, the one nearest to the middle of each square of the grid.
    color
        Column of ``obs`` to colour the cells by; categories in scanpy's colours. Grey by default.
    components
        Two columns of the embedding.
    velocity_key
        Key of ``obsm`` with the velocities; by default ``velocity_<key of the embedding>``.
    n_grid
        Nodes along each axis; 40 for streamlines, 22 for arrows.
    bandwidth, min_cells
        Of the average, see `thalweg.get.velocity_grid`: kernel width as a share of each axis' range, and the number of
        cells below which nothing is drawn.
    density
        Of the streamlines.
    duration
        An arrow is the way of a cell in this time, in units of the time of the fit. It is written below the arrows and
        the same in all panels, so that figures with one duration can be compared. By default a round number by which
        all but the longest twentieth are shorter than two squares of the grid.
    min_agreement
        Of fits with several models: nothing is drawn where their mean agreement, ``obs["velocity_agreement"]`` of
        `thalweg.tl.velocity`, is lower. At one half they differ by as much as the velocity.
    condition_key
        Column of ``obs``, or several: a panel for each condition.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels). Arrows point along the velocity in the units of the axes. Lengths of arrows
    are absolute; streamlines show directions, and speed relative to the fastest alone.

    Raises
    ------
    MissingKeyError
        If the embedding, its velocities, ``color`` or the condition do not exist.
    InputError
        If ``kind`` is unknown or an option is out of range.
    """
    if kind not in _NODES:
        raise InputError(f"kind must be one of {list(_NODES)}, found {kind!r}.")
    if duration is not None and not (isinstance(duration, int | float | np.number) and 0 < duration < np.inf):
        raise InputError(f"duration must be a positive time, found {duration!r}.")
    embedding = read_embedding(adata, basis, components)
    v = read_velocity(adata, embedding, velocity_key)
    panels, nodes = arms(adata, condition_key), n_grid or _NODES[kind]
    table = None
    if kind != "arrows":
        table = velocity_grid(
            adata, embedding.key, components=components, velocity_key=velocity_key, n_grid=nodes, bandwidth=bandwidth,
            min_cells=min_cells, condition_key=condition_key,
        )  # fmt: skip
    arrows = {}
    for name, mask in panels.items():
        if table is None:
            found = _of_cells(adata, embedding.xy, v, _even(embedding.xy, np.flatnonzero(mask), nodes))
        else:
            found = (table if condition_key is None else table[table["condition"] == name]).copy()
        if "agreement" in found:
            found.loc[found["agreement"] < min_agreement, ["u", "v"]] = np.nan
        arrows[name] = found
    if kind != "stream" and duration is None:
        duration = _duration(pd.concat(arrows.values()), np.ptp(embedding.xy, axis=0) / (nodes - 1))
    with canvas(ax, show, n=len(panels)) as axes:
        if color is None:
            for panel in axes:
                background(panel, embedding.xy)
        else:
            paint(axes, adata, embedding.xy, list(panels.values()), color)
        limits(axes, embedding.xy)
        for panel, found in zip(axes, arrows.values(), strict=True):
            if duration is None or kind == "stream":
                _stream(panel, found, nodes, density)
            else:
                _arrows(panel, found.dropna(), duration)
        frame(axes, embedding, list(panels))
        if duration is not None and kind != "stream":
            _say(axes[-1], duration)
    return one_or_all(axes)


def _stream(axes: Axes, table: pd.DataFrame, nodes: int, density: float) -> None:
    grid = {name: table[name].to_numpy().reshape(nodes, nodes) for name in ("x", "y", "u", "v")}
    u, v = (np.ma.masked_invalid(grid[name]) for name in ("u", "v"))
    speed = np.ma.hypot(u, v)
    fastest = float(speed.max()) if speed.count() else 0.0
    if not fastest or min(np.ptp(grid["x"]), np.ptp(grid["y"])) == 0:
        return
    width: Any = 0.35 + 0.9 * np.sqrt(speed.filled(0) / fastest)
    axes.streamplot(
        grid["x"][0], grid["y"][:, 0], u, v, density=density, linewidth=width, color=_INK, arrowsize=0.6, zorder=2
    )


def _of_cells(adata: AnnData, xy: Floats, v: Floats, cells: NDArray[np.intp]) -> pd.DataFrame:
    """Arrows of single cells, with how far models agree on them where there are several."""
    out = pd.DataFrame(np.hstack([xy[cells], v[cells]]), columns=["x", "y", "u", "v"])
    if "velocity_agreement" in adata.obs:
        out["agreement"] = adata.obs["velocity_agreement"].to_numpy()[cells]
    return out


def _duration(arrows: pd.DataFrame, square: Floats) -> float:
    """The time in which the longest twentieth go one and a half squares, rounded down to one figure."""
    lengths = (arrows[["u", "v"]].dropna().abs() / np.where(square > 0, square, np.inf)).max(axis=1)
    longest = float(np.quantile(lengths, 0.95)) if len(lengths) else 0.0
    if not longest:
        return 1.0
    time = 1.6 / longest
    unit = 10.0 ** np.floor(np.log10(time))
    return float(np.floor(time / unit) * unit)


def _arrows(axes: Axes, table: pd.DataFrame, duration: float) -> None:
    axes.quiver(
        table["x"], table["y"], table["u"], table["v"], angles="xy", scale_units="xy", scale=1 / duration,
        width=0.0035, headwidth=3.5, headlength=4, headaxislength=3.5, color=_INK, zorder=2,
    )  # fmt: skip


def _say(axes: Axes, duration: float) -> None:
    """Write below the axes what the length of an arrow is."""
    axes.annotate(
        f"arrows: the way in {duration:g} of time", (1, 0), xytext=(0, -2 * small()), xycoords="axes fraction",
        textcoords="offset points", ha="right", va="top", fontsize=small(), color=DARK,
    )  # fmt: skip


def _even(xy: Floats, rows: NDArray[np.intp], nodes: int) -> NDArray[np.intp]:
    """Of the cells ``rows``, the one nearest to the middle of each square of a grid over all cells."""
    low, high = xy.min(0), xy.max(0)
    place = (xy[rows] - low) / np.where(high > low, high - low, 1) * nodes
    square = np.minimum(place.astype(int), nodes - 1)
    order = np.argsort(np.square(place - square - 0.5).sum(1), kind="stable")
    _, first = np.unique(square[order] @ [nodes, 1], return_index=True)
    return rows[np.sort(order[first])]
