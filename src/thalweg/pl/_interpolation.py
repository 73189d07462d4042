"""Predicted cells over real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.data.arms import arms
from thalweg.data.embedding import read_embedding
from thalweg.data.recipe import Columns, read_times
from thalweg.errors import InputError
from thalweg.pl._canvas import BLUE, CONTEXT, ORANGE, canvas, dot, legend, one_or_all
from thalweg.pl._cells import background, frame, limits, place, scatter

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def interpolation(
    adata: AnnData,
    predicted: AnnData,
    *,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    condition_key: Columns = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> Axes | list[Axes]:
    """Predicted cells over the real ones.

    Parameters
    ----------
    adata
        AnnData with the real cells; those of the predicted time, if there are any, are drawn in their own colour.
    predicted
        What `thalweg.tl.interpolate` returned.
    basis
        Embedding to draw on, such as ``"umap"``; by default the representation that was predicted. On another one a
        predicted cell lies at the mean of its ten nearest real cells, weighted by inverse distance.
    components
        Two columns of it.
    condition_key
        Column of ``obs``, or several: a panel for each condition.
    ax, show
        As in `leave_one_out`; one axes for each panel.

    Returns
    -------
    The axes (a list with several panels): all cells in grey, the real cells of that time in blue, the predicted ones in
    orange, each with an area in proportion to its weight.

    Raises
    ------
    InputError
        If ``predicted`` was not made by `thalweg.tl.interpolate`, or a component does not exist.
    MissingKeyError
        If the embedding or the condition does not exist.
    """
    if "interpolation" not in predicted.uns:
        raise InputError(
            "predicted.uns['interpolation'] does not exist; pass the AnnData that tw.tl.interpolate returned."
        )
    info = predicted.uns["interpolation"]
    rep, when = str(info["use_rep"]), f"time {info['time']:g}"
    embedding = read_embedding(adata, rep if basis is None else basis, components)
    cloud = place(predicted, adata, embedding, rep)
    weight = predicted.obs["weight"].to_numpy(dtype=np.float64)
    now = np.isclose(read_times(adata, info), info["time"])
    panels, carried = arms(adata, condition_key), arms(predicted, condition_key)
    with canvas(ax, show, n=len(panels)) as axes:
        for panel, (name, mask) in zip(axes, panels.items(), strict=True):
            background(panel, embedding.xy)
            style: dict[str, Any] = {"n": len(now), "zorder": 2}
            if (mask & now).any():
                scatter(panel, embedding.xy[mask & now], size=1.6, color=BLUE, label=f"real, {when}", **style)
            if name in carried and (rows := carried[name]).any():
                share = weight[rows] / weight[rows].mean()
                style |= {"alpha": 0.7, "label": f"predicted, {when}"}
                scatter(panel, cloud[rows], size=1.6 * share, color=ORANGE, **style)
        frame(axes, embedding, list(panels))
        limits(axes, np.concatenate([embedding.xy, cloud]))
        real = [dot(BLUE, f"real, {when}")] if now.any() else []
        legend(axes, handles=[dot(CONTEXT, "all cells"), *real, dot(ORANGE, f"predicted, {when}")])
    return one_or_all(axes)
