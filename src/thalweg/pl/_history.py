"""Training of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thalweg.get import history as get_history
from thalweg.pl._canvas import BLUE, DARK, ORANGE, canvas, legend

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def history(adata: AnnData, *, key: str = "thalweg", ax: Axes | None = None, show: bool | None = None) -> Axes:
    """Training and validation loss of a fit.

    Parameters
    ----------
    adata
        AnnData with a fit.
    key
        Key of ``uns`` with the fit.
    ax, show
        As in `leave_one_out`.

    Returns
    -------
    The axes; the vertical line marks the step whose weights were kept. The vertical axis is logarithmic where the loss
    is positive and falls more than tenfold.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``.
    """
    frame = get_history(adata, key=key)
    with canvas(ax, show, height=2.0) as (axes,):
        lines = [("loss", "training", BLUE, 0.8), ("validation_loss", "validation", ORANGE, 1.4)]
        drawn = [line for line in lines if line[0] in frame]
        for column, label, color, width in drawn:
            known = frame[["step", column]].dropna()
            axes.plot(known["step"], known[column], color=color, lw=width, label=label)
        values = frame[[line[0] for line in drawn]].stack()
        if values.min() > 0 and values.max() > 10 * values.min():
            axes.set_yscale("log")
        axes.axvline(float(adata.uns[key]["best_step"]), color=DARK, lw=0.8, ls=":", label="kept")
        axes.set(xlabel="step", ylabel="loss")
        legend(axes, inside=True)
    return axes
