"""Cells that move through time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.data.recipe import read_times
from thalweg.errors import InputError
from thalweg.pl._canvas import CONTEXT, DARK, ORANGE, canvas, dot, legend
from thalweg.pl._cells import background, dot_area, frame, limits, scatter
from thalweg.pl._paths import Path, read_paths
from thalweg.pl._trajectories import path_colors

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def animation(
    adata: AnnData,
    paths: AnnData,
    *,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    color: str | None = None,
    n_frames: int = 60,
    tail: float = 0.1,
    interval: int = 60,
    ax: Axes | None = None,
    show: bool | None = None,
) -> FuncAnimation:
    """Animate cells along their trajectories, over the real cells.

    Parameters
    ----------
    adata
        AnnData with the real cells.
    paths
        What `thalweg.tl.trajectories` returned.
    basis, components, color
        As in `trajectories`; by default all cells are orange.
    n_frames
        Frames, evenly spaced in time; between the times of a trajectory a cell moves on a straight line.
    tail
        Length of the line a cell draws behind it, as a share of the whole time.
    interval
        Milliseconds between frames.
    ax, show
        As in `leave_one_out`.

    Returns
    -------
    A matplotlib animation; keep it in a variable while it plays, and write it with `write_animation`. In a notebook,
    ``IPython.display.HTML(animation.to_jshtml())`` plays it. The real cells of a time are dark while it is the nearest.

    Raises
    ------
    InputError
        If ``paths`` was not made by `thalweg.tl.trajectories`, or ``n_frames`` is below 2.
    MissingKeyError
        If the embedding or ``color`` does not exist.
    """
    from matplotlib.animation import FuncAnimation

    if n_frames < 2:
        raise InputError(f"n_frames must be 2 or more, found {n_frames!r}.")
    embedding, drawn = read_paths(adata, paths, basis, components)
    info = paths.uns["trajectories"]
    observed = read_times(adata, info)
    tints, known = ([ORANGE] * len(drawn), {}) if color is None else path_colors(adata, paths, drawn, color)
    times = np.linspace(min(p.time.min() for p in drawn), max(p.time.max() for p in drawn), n_frames)
    with canvas(ax, show=False, height=2.6) as (axes,):
        background(axes, embedding.xy)
        frame([axes], embedding, [""])
        limits([axes], np.concatenate([embedding.xy, *(p.xy for p in drawn)]))
        scene = _Scene(axes, embedding.xy, observed, drawn, times, tail * np.ptp(times), tints)
        cells = [dot(c, name) for name, c in known.items()] or [dot(ORANGE, "moving cells")]
        legend(axes, handles=[*cells, dot(DARK, "real, this time"), dot(CONTEXT, "real, all")])
    film = FuncAnimation(cast("Figure", axes.figure), scene.draw, frames=n_frames, interval=interval, blit=False)
    if show:
        import matplotlib.pyplot as plt

        plt.show()
    return film


class _Scene:
    """The artists of a film and what they show in each frame."""

    def __init__(
        self, axes: Axes, real: Floats, observed: Floats, drawn: Sequence[Path], times: Floats, tail: float, tints: Any
    ) -> None:
        from matplotlib.collections import LineCollection

        self.real, self.observed, self.drawn, self.times, self.tail = real, observed, drawn, times, tail
        nowhere = np.full((1, 2), np.nan)
        self.now = scatter(axes, nowhere, n=len(real), color=DARK, zorder=1)
        width = float(np.clip(12 / len(drawn) ** 0.5, 0.3, 1.0))
        self.tails = LineCollection([], colors=tints, linewidths=width, alpha=0.5, zorder=2)
        axes.add_collection(self.tails)
        area, unset = 2.5 * dot_area(axes, len(real)), np.full(len(drawn), np.nan)
        self.cells = axes.scatter(unset, unset, s=area, c=list(tints), linewidths=0.2, edgecolors="white", zorder=3)
        self.title = axes.set_title("")
        self.draw(0)

    def draw(self, index: int) -> list[Any]:
        """Set all artists to a frame."""
        time = self.times[index]
        moments = np.linspace(max(time - self.tail, self.times[0]), time, 8)
        behind = np.stack([path.at(moments) for path in self.drawn])
        self.cells.set_offsets(behind[:, -1])
        self.tails.set_segments([line[np.isfinite(line[:, 0])] for line in behind])
        steps = np.unique(self.observed)
        nearest = steps[np.abs(steps - time).argmin()]
        self.now.set_offsets(self.real[self.observed == nearest])
        self.title.set_text(f"time {time:.2f}")
        return [self.cells, self.tails, self.now, self.title]


def write_animation(
    film: FuncAnimation, path: str | os.PathLike[str], *, fps: float = 15, dpi: float | None = None
) -> FilePath:
    """Write an animation as GIF (needs nothing else) or MP4 (needs ffmpeg).

    Parameters
    ----------
    film
        What `animation` returned.
    path
        File to write, ending in ``.gif`` or ``.mp4``.
    fps
        Frames per second.
    dpi
        Dots per inch; those of the figure by default.

    Returns
    -------
    The path.

    Raises
    ------
    InputError
        If the ending is another one, or ffmpeg is asked for and missing.
    """
    from matplotlib.animation import FFMpegWriter, PillowWriter

    target = FilePath(path)
    writers: dict[str, Any] = {".gif": PillowWriter, ".mp4": FFMpegWriter}
    if target.suffix.lower() not in writers:
        raise InputError(f"path={str(path)!r} must end in .gif or .mp4.")
    writer = writers[target.suffix.lower()]
    if not writer.isAvailable():
        raise InputError(
            f"{target.name!r} needs ffmpeg, which is not on the PATH; install it (conda install ffmpeg, apt install "
            "ffmpeg, brew install ffmpeg) or write a .gif, which needs nothing."
        )
    film.save(target, writer=writer(fps=fps), dpi=dpi)
    logger.info("wrote %s", target)
    return target
