"""Whether fates are calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thalweg.get import calibration_df
from thalweg.pl._canvas import BLUE, CONTEXT, canvas

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def fate_calibration(
    adata: AnnData, groupby: str, truth: str, *, n_bins: int = 10, ax: Axes | None = None, show: bool | None = None
) -> Axes:
    """Predicted probabilities of fates against what was seen.

    Parameters
    ----------
    adata, groupby, truth, n_bins
        As in `thalweg.get.calibration_df`.
    ax, show
        As in `leave_one_out`.

    Returns
    -------
    The axes. Points on the diagonal are calibrated; below it fates are too sure, above it too unsure. The area of a
    point grows with the number of probabilities in its bin, and the title is the expected calibration error.

    Raises
    ------
    MissingKeyError
        If there are no fates, or no ``truth``.
    InputError
        As `thalweg.get.calibration_df`.
    """
    frame = calibration_df(adata, groupby, truth, n_bins=n_bins)
    with canvas(ax, show, height=2.8) as (axes,):
        axes.plot([0, 1], [0, 1], color=CONTEXT, lw=1, zorder=1)
        axes.plot(frame["predicted"], frame["observed"], color=BLUE, lw=1, zorder=2)
        area = 10 + 90 * frame["n"] / frame["n"].max()
        axes.scatter(frame["predicted"], frame["observed"], s=area, color=BLUE, lw=0, zorder=3)
        axes.set(xlabel="predicted probability", ylabel="share that came true", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axes.set_title(f"calibration error {frame.attrs['ece']:.3f}")
        axes.set_aspect("equal")
    return axes
