"""Times of the cells as an earlier call read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.data.times import obs_column, parse_times

if TYPE_CHECKING:
    from anndata import AnnData


def recorded_times(adata: AnnData, time_key: str, labels: Mapping[str, float]) -> NDArray[np.float64]:
    """Times of the cells with the ``time_map`` of an earlier call, kept by the text of its labels.

    Parameters
    ----------
    adata
        Cells.
    time_key
        Column of ``obs``.
    labels
        Number for the text of each label; empty where the column was read without a ``time_map``.

    Raises
    ------
    MissingKeyError
        If ``obs`` has no such column.
    InputError
        If a time cannot be read.
    """
    found = obs_column(adata, time_key, "time_key").dropna().unique()
    known = {label: labels[str(label)] for label in found if str(label) in labels}
    return parse_times(adata, time_key, known if labels else None, remark=False)  # the earlier call has said it


def time_labels(info: Mapping[str, Any]) -> dict[str, float]:
    """The ``labels`` of `recorded_times` out of ``map_labels`` and ``map_values`` of an entry of ``uns``."""
    return dict(zip(map(str, info["map_labels"]), map(float, info["map_values"]), strict=True))
