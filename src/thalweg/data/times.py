"""Time columns: numbers out of ``obs[time_key]``, whatever its type, without ever sorting text."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

TimeMap = Mapping[Any, float]


def obs_column(adata: AnnData, key: str, argument: str) -> pd.Series:
    """Column ``key`` of ``obs``, or an error that lists the columns there are.

    Raises
    ------
    MissingKeyError
        If there is no such column.
    """
    if key not in adata.obs:
        found = ", ".join(map(repr, adata.obs.columns)) or "none"
        raise MissingKeyError(f"{argument}={key!r} is not a column of adata.obs; columns that exist: {found}.")
    return adata.obs[key]


def parse_times(adata: AnnData, time_key: str, time_map: TimeMap | None = None) -> NDArray[np.float64]:
    """Numeric time of each cell.

    Parameters
    ----------
    adata
        Cells; ``obs`` is not changed.
    time_key
        Column of ``obs``: integers, floats, or categories or strings that read as numbers.
    time_map
        Number for each label, for labels such as ``"day 3"``.

    Returns
    -------
    Times, float64 of shape ``(n_cells,)``.

    Raises
    ------
    MissingKeyError
        If ``obs`` has no such column.
    InputError
        If a time is missing, infinite, boolean, a date, or text that is not a number and ``time_map`` does not cover
        it.
    """
    column = obs_column(adata, time_key, "time_key")
    missing = column.isna().to_numpy()
    if missing.any():
        names = ", ".join(map(repr, adata.obs_names[missing][:3]))
        raise InputError(
            f"obs[{time_key!r}] has {int(missing.sum())} missing values (first cells: {names}); "
            f"give them a time or drop them: adata = adata[adata.obs[{time_key!r}].notna()]."
        )
    codes, labels = pd.factorize(column)
    values = [_number(label, time_key, time_map, list(labels)) for label in labels]
    if any(isinstance(label, str) for label in labels) and time_map is None:
        logger.info("obs[%r] holds text; read as numbers: %s", time_key, ", ".join(f"{v:g}" for v in sorted(values)))
    return np.asarray(values, dtype=np.float64)[codes]


def _number(label: Any, time_key: str, time_map: TimeMap | None, labels: list[Any]) -> float:
    if time_map is not None:
        if label not in time_map:
            raise InputError(f"time_map has no entry for {label!r}, which occurs in obs[{time_key!r}]; add it.")
        label = time_map[label]
    if isinstance(label, str):
        try:
            label = float(label)
        except ValueError:
            example = ", ".join(f"{name!r}: ..." for name in labels[:3])
            raise InputError(
                f"obs[{time_key!r}] holds {label!r}, which is not a number; say what each label means with "
                f"time_map={{{example}}}."
            ) from None
    if isinstance(label, bool | np.bool_) or not isinstance(label, Real):
        raise InputError(
            f"obs[{time_key!r}] holds {label!r} of type {type(label).__name__}; times must be numbers "
            "(hours or days since the start), not booleans or dates."
        )
    value = float(label)
    if not np.isfinite(value):
        raise InputError(f"obs[{time_key!r}] holds the time {value}; times must be finite.")
    return value
