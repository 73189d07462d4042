"""Growth of the cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from thalweg.data.embedding import read_embedding
from thalweg.data.times import TimeMap, parse_times
from thalweg.errors import InputError
from thalweg.get import growth_df
from thalweg.get._colors import palette
from thalweg.pl._canvas import BLUE, DARK, canvas, legend, one_or_all
from thalweg.pl._cells import Floats, Mask, frame, limits, shade, split

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def growth(
    adata: AnnData,
    basis: str | None = None,
    *,
    kind: Literal["embedding", "time"] = "embedding",
    key: str = "growth",
    components: tuple[int, int] = (0, 1),
    time_key: str | None = None,
    time_map: TimeMap | None = None,
    condition_key: str | None = None,
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
        Column of ``obs``: a panel for each condition, or for ``"time"`` a colour.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels). On an embedding the colours are symmetric about zero, which is pale yellow,
    and reach the 98th percentile of the sizes; cells without a rate are grey. By time: the median as a dot, half of the
    cells in the thick line and nine tenths in the thin one. Numbers: `thalweg.get.growth_df`.

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
    panels = split(adata, condition_key)
    if kind == "time":
        name = time_key or str(adata.uns[key]["time_key"])
        if not name:
            raise InputError("tw.pp.growth was called without time_key; give time_key= here for kind='time'.")
        table = _quantiles(rate, parse_times(adata, name, time_map), panels)
        with canvas(ax, show, height=2.0) as (panel,):
            _by_time(panel, table, name, len(panels) > 1)
        return panel
    import matplotlib as mpl

    embedding = read_embedding(adata, basis, components)
    reach = float(np.quantile(np.abs(rate[np.isfinite(rate)]), 0.98)) or 1.0
    with canvas(ax, show, n=len(panels)) as axes:
        label = f"growth rate (1/{adata.uns[key]['time_key'] or 'day'})"
        shade(axes, embedding.xy, list(panels.values()), rate, mpl.colormaps["RdYlBu_r"], label, (-reach, reach))
        limits(axes, embedding.xy)
        frame(axes, embedding, list(panels))
    return one_or_all(axes)


def _quantiles(rate: Floats, time: Floats, panels: dict[str, Mask]) -> pd.DataFrame:
    """A row for each condition and time, a column for each of `QUANTILES`."""
    parts = {name: pd.Series(rate[mask]).groupby(time[mask]).quantile(list(QUANTILES)) for name, mask in panels.items()}
    return pd.concat(parts, names=["condition", "time", "quantile"]).dropna().unstack()


def _by_time(axes: Axes, table: pd.DataFrame, time_key: str, many: bool) -> None:
    times = np.unique(table.index.get_level_values("time"))
    names = list(dict.fromkeys(table.index.get_level_values("condition")))
    step = np.diff(times).min() if len(times) > 1 else 1.0
    lanes = (np.arange(len(names)) - (len(names) - 1) / 2) * min(0.6 / len(names), 0.2) * step
    tints = palette(len(names)) if many else [BLUE]
    axes.axhline(0, color=DARK, lw=0.6, ls=":", zorder=0)
    for name, lane, tint in zip(names, lanes, tints, strict=True):
        part = table.loc[name]
        x = part.index.to_numpy() + lane
        low, first, middle, third, high = part.to_numpy().T
        axes.vlines(x, low, high, color=tint, lw=0.7)
        axes.vlines(x, first, third, color=tint, lw=3, alpha=0.6)
        axes.plot(x, middle, color=tint, marker="o", ms=3.5, mew=0, lw=0.7, label=name)
    if len(times) <= 10:
        axes.set_xticks(times, [f"{t:g}" for t in times])
    axes.set(xlabel=time_key, ylabel="growth rate")
    axes.margins(x=0.08)
    if many:
        legend(axes)
