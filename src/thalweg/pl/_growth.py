"""Growth of the cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from thalweg.data.arms import arms
from thalweg.data.embedding import read_embedding
from thalweg.data.recipe import Columns
from thalweg.data.times import TimeMap, parse_times
from thalweg.errors import InputError
from thalweg.get import growth_df
from thalweg.get._colors import palette
from thalweg.pl._canvas import BLUE, DARK, canvas, dot, legend, one_or_all
from thalweg.pl._cells import frame, limits, shade

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def growth(
    adata: AnnData,
    basis: str | None = None,
    *,
    kind: Literal["embedding", "time"] = "embedding",
    key: str = "growth",
    components: tuple[int, int] = (0, 1),
    time_key: str | None = None,
    time_map: TimeMap | None = None,
    condition_key: Columns = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> Axes | list[Axes]:
    """Growth rate of the cells, on an embedding or by time.

    Parameters
    ----------
    adata
        Cells with what `thalweg.pp.growth` wrote.
    basis, components
        Embedding, such as ``"umap"``, by default the PCA that exists; and two of its columns.
    kind
        ``"embedding"`` or ``"time"``.
    key
        The ``key_added`` of `thalweg.pp.growth`.
    time_key, time_map
        Column of ``obs`` with the times, by default that of `thalweg.pp.growth`, and a number for each of its labels
        where they are not numbers. Only for ``"time"``.
    condition_key
        Column of ``obs``, or several: a panel for each condition, or for ``"time"`` a colour.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels). On an embedding the colours are symmetric about zero, which is pale yellow,
    and reach the 98th percentile of the sizes; cells without a rate are grey. By time: a violin for each time with the
    quartiles as lines, so that two populations of different growth are seen as two. Numbers: `thalweg.get.growth_df`.

    Raises
    ------
    MissingKeyError
        If there is no growth, or the embedding, the times or the condition do not exist.
    InputError
        If ``kind`` is unknown, the times cannot be read, or none were given.
    """
    if kind not in ("embedding", "time"):
        raise InputError(f"kind must be 'embedding' or 'time', found {kind!r}.")
    rate = growth_df(adata, key=key)["growth"].to_numpy(dtype=np.float64)
    panels = arms(adata, condition_key)
    if kind == "time":
        name = time_key or str(adata.uns[key]["time_key"])
        if not name:
            raise InputError("tw.pp.growth was called without time_key; give time_key= here for kind='time'.")
        time = parse_times(adata, name, time_map)
        parts = [pd.DataFrame({"time": time[m], "rate": rate[m], "condition": c}) for c, m in panels.items()]
        with canvas(ax, show, height=2.0) as (panel,):
            _by_time(panel, pd.concat(parts, ignore_index=True).dropna(), name, list(panels))
            panel.set_ylabel(_name(adata, key))
        return panel
    import matplotlib as mpl

    embedding = read_embedding(adata, basis, components)
    reach = float(np.quantile(np.abs(rate[np.isfinite(rate)]), 0.98)) or 1.0
    with canvas(ax, show, n=len(panels)) as axes:
        label = f"{_name(adata, key)} (1/{adata.uns[key]['time_key'] or 'day'})"
        shade(axes, embedding.xy, list(panels.values()), rate, mpl.colormaps["RdYlBu_r"], label, (-reach, reach))
        limits(axes, embedding.xy)
        frame(axes, embedding, list(panels))
    return one_or_all(axes)


def _name(adata: AnnData, key: str) -> str:
    """What the rates are: those of plans are relative to the mean, as snapshots do not show how all cells grow."""
    return "growth relative to the mean" if adata.uns[key]["method"] == "unbalanced" else "growth rate by genes"


def _by_time(axes: Axes, table: pd.DataFrame, time_key: str, names: list[str]) -> None:
    """A violin for each time (and condition), at its place in time."""
    import seaborn as sns

    times, many = np.unique(table["time"]), len(names) > 1
    axes.axhline(0, color=DARK, lw=0.6, ls=":", zorder=0)
    sns.violinplot(
        table, x="time", y="rate", hue="condition", hue_order=names, palette=palette(len(names)) if many else [BLUE],
        native_scale=True, density_norm="width", cut=0, inner="quart", linewidth=0.6, gap=0.1, legend=False, ax=axes,
    )  # fmt: skip
    if len(times) <= 10:
        axes.set_xticks(times, [f"{t:g}" for t in times])
    axes.set_xlabel(time_key)
    if many:
        legend(axes, handles=[dot(color, name) for name, color in zip(names, palette(len(names)), strict=True)])
