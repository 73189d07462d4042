"""Axes to draw on: one style for paper, one figure width for a column and one for a page.

Figures made here are 89 mm wide (one panel or two) or 183 mm, as the columns of most journals, with text of 6 and 7
points.
Axes that the caller gives keep the caller's style, and what a plot adds is in proportion to the caller's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap

COLUMN, PAGE = 3.5, 7.2  # inches
NORMAL, SMALL = 7, 6  # points
BLUE, ORANGE = "#0072B2", "#D55E00"
DARK, CONTEXT = "#4d4d4d", "#d0d0d0"
STYLE: Any = {
    "font.size": NORMAL,
    "axes.labelsize": NORMAL,
    "axes.titlesize": NORMAL,
    "axes.titlepad": 4,
    "axes.labelpad": 2,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "figure.dpi": 150,
}


@contextmanager
def canvas(
    ax: Axes | Sequence[Axes] | None,
    show: bool | None,
    *,
    n: int = 1,
    height: float = 2.4,
    share: bool = False,
    columns: int | None = None,
) -> Iterator[list[Axes]]:
    """``n`` axes to draw on: those given, or of a new figure; shown at the end if asked.

    Parameters
    ----------
    ax
        One axes, or ``n`` of them; None makes a figure.
    show
        Show at the end; None shows where a figure was made and the backend has a screen.
    n
        Number of panels.
    height
        Of a row of panels, inches.
    share
        Panels have the same limits.
    columns
        Panels side by side; by default two in a column, else up to four on a page, in rows of about equal length.

    Raises
    ------
    InputError
        If the number of axes given is not ``n``.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    if ax is not None:
        given = [ax] if isinstance(ax, mpl.axes.Axes) else list(ax)
        if len(given) != n:
            raise InputError(f"ax holds {len(given)} axes and the plot has {n} panels; give {n}, or leave ax out.")
        yield given
        finish(given, show=bool(show))
        return
    width = COLUMN if n <= 2 else PAGE
    rows = -(-n // min(n, columns or (2 if n <= 2 else 4)))
    columns = columns or -(-n // rows)
    with mpl.rc_context(STYLE):
        figure, grid = plt.subplots(
            rows,
            columns,
            figsize=(width, height * rows),
            layout="constrained",
            sharex=share,
            sharey=share,
            squeeze=False,
        )
        axes = list(grid.flat)
        for unused in axes[n:]:
            unused.remove()
        for panel in axes[:n]:
            panel.tick_params(which="both", **_ticks())
        try:
            yield axes[:n]
        except BaseException:
            plt.close(figure)
            raise
        interactive = mpl.get_backend().lower() not in ("agg", "pdf", "svg", "ps", "cairo", "template")
        finish(axes[:n], show=interactive if show is None else show)


def finish(axes: Sequence[Axes], *, show: bool) -> None:
    """Take the frame's upper and right sides off, and show if asked."""
    import matplotlib.pyplot as plt

    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    if show:
        plt.show()


def one_or_all(axes: list[Axes]) -> Axes | list[Axes]:
    """The axes themselves where there is one."""
    return axes[0] if len(axes) == 1 else axes


def legend(
    axes: Axes | Sequence[Axes],
    *,
    handles: Sequence[Any] | None = None,
    title: str | None = None,
    inside: bool = False,
    left: float = 1.02,
) -> None:
    """Legend beside one panel at ``left`` (in columns of at most twelve), inside it, or below several."""
    from matplotlib.axes import Axes

    panels = [axes] if isinstance(axes, Axes) else list(axes)
    last, figure = panels[-1], cast(Any, panels[-1].figure)
    found = list(last.get_legend_handles_labels()[0] if handles is None else handles)
    style: dict[str, Any] = {
        "handles": found, "frameon": False, "fontsize": small(), "title": title, "title_fontsize": small(),
        "handletextpad": 0.5, "handlelength": 1.4, "labelspacing": 0.35, "borderaxespad": 0.2,
    }  # fmt: skip
    if inside:
        last.legend(**style)
    elif len(panels) > 1 and figure.get_constrained_layout():
        columns = min(len(found), 4 if figure.get_figwidth() < PAGE else 8)
        figure.legend(**style, loc="outside lower center", ncols=columns)
    else:
        last.legend(**style, bbox_to_anchor=(left, 1), loc="upper left", ncols=-(-len(found) // 12))


def small() -> float:
    """Points of small text: 6 on figures made here, in the same proportion to the caller's text elsewhere."""
    import matplotlib as mpl

    return float(mpl.rcParams["font.size"]) * SMALL / NORMAL


def line_height(axes: Axes) -> float:
    """Height of a line of small text in units of the vertical axis, a little more than there will be."""
    low, high = axes.get_ylim()
    return 1.3 * small() * (high - low) / (axes.bbox.height / axes.figure.dpi * 72)


def _ticks() -> dict[str, Any]:
    return {"labelsize": small(), "width": 0.1 * small(), "length": 0.4 * small(), "pad": 0.35 * small()}


def dot(color: str, label: str) -> Any:
    """Round legend entry of one size, whatever the size of the cells."""
    from matplotlib.lines import Line2D

    return Line2D([], [], ls="", marker="o", ms=0.6 * small(), mew=0, color=color, label=label)


def colorbar(axes: Sequence[Axes], cmap: Colormap, limits: tuple[float, float], label: str) -> Colorbar:
    """One narrow colour bar for all ``axes``."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(*limits), cmap)
    place = axes[0].get_subplotspec()
    rows = 1 if place is None else place.get_gridspec().nrows
    bar = axes[0].figure.colorbar(scale, ax=list(axes), shrink=0.6 / rows, aspect=14, pad=0.02)
    bar.set_label(label, fontsize=small())
    bar.ax.tick_params(**_ticks())
    bar.outline.set_visible(False)
    return bar


def time_map() -> Colormap:
    """Colours of time: viridis without its palest end, which is lost on white paper."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    return ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.92, 256)), name="thalweg_time")


def time_colors(times: Sequence[float]) -> dict[float, Any]:
    """Colour of each time by its place between the first and the last."""
    from matplotlib.colors import Normalize, to_hex

    scale, cmap = Normalize(min(times), max(times)), time_map()
    return {t: to_hex(cmap(float(scale(t)))) for t in times}


def spread(positions: Sequence[float], gap: float) -> Any:
    """Positions moved as little as possible (least squares) so that neighbours are at least ``gap`` apart.

    With z_i = p_i - i gap in ascending order, the constraint is that z does not decrease: isotonic regression.
    """
    from scipy.optimize import isotonic_regression

    p = np.asarray(positions, dtype=np.float64)
    order, steps = np.argsort(p, kind="stable"), gap * np.arange(len(p))
    out = np.empty_like(p)
    if len(p):
        out[order] = isotonic_regression(p[order] - steps).x + steps
    return out
