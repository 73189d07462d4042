"""Whether a fit returns the populations it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg.get import reconstruction_df
from thalweg.pl._canvas import BLUE, CONTEXT, DARK, ORANGE, canvas, legend

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def reconstruction(
    adata: AnnData, *, key: str = "thalweg", ax: Sequence[Axes] | None = None, show: bool | None = None
) -> list[Axes]:
    """The populations rolled out from the first time, beside those that were observed.

    Parameters
    ----------
    adata
        AnnData with a fit.
    key
        Key of ``uns`` with the fit.
    ax, show
        As in `leave_one_out`; ``ax`` holds two axes.

    Returns
    -------
    The two axes. On the left, the W1 between each population rolled out and the observed one (blue), the floor that two
    halves of the observed cells have (grey), and what the first population scores as it is (dotted). A good fit is near
    the floor, a useless one near the dotted line. With conditions, the worst of them at each time is drawn. On the
    right, the size of the population (blue) and the sizes that were given (orange), relative to the first time.
    Numbers: `thalweg.get.reconstruction_df`.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``, or it was made with ``check=False``.
    """
    frame = reconstruction_df(adata, key=key)
    worst = frame.loc[frame.groupby("time")["w1"].idxmax()].set_index("time")
    with canvas(ax, show, n=2, height=2.0) as axes:
        _distances(axes[0], worst)
        _masses(axes[1], frame)
        for panel in axes:
            panel.set_xlabel(str(adata.uns[key]["recipe"]["time_key"]))
    return axes


def _distances(axes: Axes, worst: pd.DataFrame) -> None:
    axes.plot(worst.index, worst["still"], color=DARK, lw=1, ls=":", label="first population as it is")
    axes.plot(worst.index, worst["w1"], color=BLUE, marker="o", ms=4, label="rolled out")
    axes.plot(worst.index, worst["floor"], color=CONTEXT, marker="o", ms=4, label="half against half")
    axes.set(ylabel="W1 to the observed cells", xticks=worst.index)
    axes.set_ylim(0, 1.4 * np.nanmax(worst[["w1", "floor", "still"]]))  # room for the legend
    legend(axes, inside=True)


def _masses(axes: Axes, frame: pd.DataFrame) -> None:
    several = "condition" in frame and frame["condition"].nunique() > 1
    for name, rows in frame.groupby("condition") if several else [("", frame)]:
        time, label = np.r_[np.nan, rows["time"]], f"rolled out, {name}" if several else "rolled out"
        axes.plot(time, np.r_[1.0, rows["mass"]], color=BLUE, marker="o", ms=4, label=label)
        if rows["counted"].notna().any():
            axes.plot(rows["time"], rows["counted"], color=ORANGE, marker="x", ls="", ms=6, label="given")
    axes.set(ylabel="size, relative to the first", xticks=np.unique(frame["time"]))
    axes.set_ylim(0, 1.3 * max(1.0, np.nanmax(frame[["mass", "counted"]])))
    legend(axes, inside=True)
