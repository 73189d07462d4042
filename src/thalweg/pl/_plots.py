"""One plot for each result. Colours are Okabe and Ito's, safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data import find_representation, parse_times, read_representation
from thalweg.errors import InputError
from thalweg.get import history as get_history

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_REAL, _CONTEXT = "#4d4d4d", "#c9c9c9"
_REFERENCES = ("copy-previous", "ot-midpoint")


def leave_one_out(
    scores: pd.DataFrame, *, metric: str = "w1", ax: Axes | None = None, show: bool | None = None
) -> Axes:
    """Scores of each method at each held-out time, with the floor drawn.

    Parameters
    ----------
    scores
        What `thalweg.tl.leave_one_out` returned.
    metric
        Column to draw: ``"w1"``, ``"energy_distance"``, ``"variance_ratio"`` or ``"fit_seconds"``.
    ax
        Axes to draw on; new ones by default.
    show
        Show the figure; by default only where nothing was given to draw on and the backend is interactive.

    Returns
    -------
    The axes. A dot is one seed at one held-out time, a bar the mean over all; the dashed line is the mean distance
    between two halves of the real cells, below which no method can be expected to come.

    Raises
    ------
    InputError
        If ``scores`` lacks the columns of a leave-one-out table.
    """
    import seaborn as sns

    absent = {"method", "time", metric} - set(scores.columns)
    if absent:
        raise InputError(f"scores lacks the columns {sorted(absent)}; pass the table of tw.tl.leave_one_out.")
    axes = _axes(ax, (1.2 + 0.75 * scores["method"].nunique(), 3.6))
    floor = scores.loc[scores["method"] == "floor", metric]
    data = scores[scores["method"] != "floor"].copy()
    data["held out"] = data["time"].map("{:g}".format)
    order = sorted(data["method"].unique(), key=lambda m: (m not in _REFERENCES, m))
    hue = [f"{t:g}" for t in sorted(data["time"].unique())]
    for x, name in enumerate(order):
        mean = data.loc[data["method"] == name, metric].mean()
        axes.hlines(mean, x - 0.3, x + 0.3, color=_REAL, lw=2, zorder=2)
        axes.annotate(f"{mean:.3g}", (x + 0.33, mean), va="center", fontsize=8, color=_REAL)
    sns.stripplot(
        data, x="method", y=metric, hue="held out", order=order, hue_order=hue, ax=axes,
        palette=list(_COLORS[: len(hue)]), dodge=True, jitter=False, size=6, zorder=3,
    )  # fmt: skip
    if metric != "fit_seconds" and len(floor):
        axes.axhline(floor.mean(), ls="--", lw=1, color=_REAL, zorder=1, label="floor (real vs real)")
    axes.set(xlabel="", ylabel=_LABELS.get(metric, metric))
    axes.tick_params(axis="x", rotation=25)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(order) - 0.2)
    axes.legend(title="held-out time", frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left", fontsize=8)
    return _finish(axes, ax, show)


_LABELS = {
    "w1": "Wasserstein-1 to the real cells",
    "energy_distance": "energy distance to the real cells",
    "variance_ratio": "variance, predicted / real",
    "fit_seconds": "seconds to fit",
}


def interpolation(
    adata: AnnData,
    predicted: AnnData,
    *,
    components: tuple[int, int] = (0, 1),
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes:
    """Predicted cells over the real ones.

    Parameters
    ----------
    adata
        AnnData with the real cells; if it holds cells of the predicted time they are drawn as contours.
    predicted
        What `thalweg.tl.interpolate` returned.
    components
        Two columns of the representation.
    ax, show
        As in `leave_one_out`.

    Returns
    -------
    The axes: all cells in grey, the real cells of that time in dark grey, the predicted ones in colour, each with an
    area in proportion to its weight.

    Raises
    ------
    InputError
        If ``predicted`` was not made by `thalweg.tl.interpolate`, or a component does not exist.
    """
    if "interpolation" not in predicted.uns:
        raise InputError(
            "predicted.uns['interpolation'] does not exist; pass the AnnData that tw.tl.interpolate returned."
        )
    info = predicted.uns["interpolation"]
    rep = find_representation(adata, str(info["use_rep"]))
    cloud = read_representation(predicted, rep)
    if max(components) >= cloud.shape[1] or min(components) < 0:
        raise InputError(f"components={components} do not fit the {cloud.shape[1]} columns of {rep!r}.")
    pick = list(components)
    x = read_representation(adata, rep)[:, pick]
    real = x[_at_time(adata, info)]
    axes = _axes(ax, (4.2, 3.6))
    size = float(np.clip(4000 / len(x), 1, 12))
    style: dict[str, Any] = {"linewidths": 0, "rasterized": True}
    axes.scatter(x[:, 0], x[:, 1], s=size, color=_CONTEXT, label="all cells", **style)
    if len(real):
        axes.scatter(real[:, 0], real[:, 1], s=1.5 * size, color=_REAL, label=f"real, time {info['time']:g}", **style)
    cloud, weight = cloud[:, pick], predicted.obs["weight"].to_numpy(dtype=np.float64)
    axes.scatter(
        cloud[:, 0],
        cloud[:, 1],
        s=1.5 * size * weight / weight.mean(),
        color=_COLORS[1],
        alpha=0.7,
        label=f"predicted, time {info['time']:g}",
        **style,
    )
    name = rep.removeprefix("X_").upper()
    axes.set(xlabel=f"{name} {pick[0] + 1}", ylabel=f"{name} {pick[1] + 1}", xticks=[], yticks=[])
    axes.legend(
        frameon=False, markerscale=3 / max(size**0.5, 1), bbox_to_anchor=(1.01, 1), loc="upper left", fontsize=8
    )
    return _finish(axes, ax, show)


def _at_time(adata: AnnData, info: Mapping[str, Any]) -> NDArray[np.bool_]:
    key = str(info["time_key"])
    labels = dict(zip(map(str, info.get("map_labels", [])), info.get("map_values", []), strict=True))
    column = adata.obs[key]
    time_map = {label: labels[str(label)] for label in column.unique() if str(label) in labels} if labels else None
    return np.isclose(parse_times(adata, key, time_map), info["time"])


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
    The axes; the vertical line marks the step whose weights were kept.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``.
    """
    frame = get_history(adata, key=key)
    axes = _axes(ax, (4.6, 3.2))
    for column, label, color in (("loss", "training", _COLORS[0]), ("validation_loss", "validation", _COLORS[1])):
        if column in frame:
            axes.plot(frame["step"], frame[column], color=color, label=label)
    axes.axvline(float(adata.uns[key]["best_step"]), color=_REAL, lw=1, ls=":", label="kept")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(frameon=False, fontsize=8)
    return _finish(axes, ax, show)


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def _finish(axes: Axes, given: Axes | None, show: bool | None) -> Axes:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    axes.spines[["top", "right"]].set_visible(False)
    interactive = mpl.get_backend().lower() not in ("agg", "pdf", "svg", "ps", "cairo", "template")
    if show or (show is None and given is None and interactive):
        plt.show()
    return axes
