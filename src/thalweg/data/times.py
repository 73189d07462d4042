"""Time columns: numbers out of ``obs[time_key]``, whatever its type, without ever sorting text."""

from __future__ import annotations

import re
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
    InputError
        If there are several of that name.
    """
    if key not in adata.obs:
        found = ", ".join(map(repr, adata.obs.columns)) or "none"
        raise MissingKeyError(f"{argument}={key!r} is not a column of adata.obs; columns that exist: {found}.")
    column = adata.obs[key]
    if column.ndim != 1:
        raise InputError(f"adata.obs has {column.shape[1]} columns named {key!r}; rename all but one of them.")
    return column


def parse_times(
    adata: AnnData, time_key: str, time_map: TimeMap | None = None, *, remark: bool = True
) -> NDArray[np.float64]:
    """Numeric time of each cell.

    Parameters
    ----------
    adata
        Cells; ``obs`` is not changed.
    time_key
        Column of ``obs``: integers, floats, or categories or strings that read as numbers.
    time_map
        Number for each label, for labels such as ``"day 3"``.
    remark
        Log how text was read.

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
            f"give them a time, or drop these cells with tw.pp.drop_missing(adata, {time_key!r})."
        )
    codes, found = pd.factorize(column)
    # Narrow floats mean the number that is printed: 0.1, not 0.10000000149.
    narrow = column.dtype in (np.float16, np.float32)
    labels = [float(str(v)) for v in found.to_numpy().astype(column.dtype)] if narrow else list(found)
    values = [_number(label, time_key, time_map, labels) for label in labels]
    if remark and time_map is None and any(isinstance(label, str) for label in labels):
        numbers = ", ".join(f"{v:g}" for v in sorted(set(values)))
        logger.info("obs[%r] holds text; read as numbers: %s", time_key, numbers)
    return np.asarray(values, dtype=np.float64)[codes]


def _number(label: Any, time_key: str, time_map: TimeMap | None, labels: list[Any]) -> float:
    if time_map is not None:
        found = label if label in time_map else str(label)  # a stored map is kept by the text of its labels
        if found not in time_map:
            raise InputError(f"time_map has no entry for {label!r}, which occurs in obs[{time_key!r}]; add it.")
        label = time_map[found]
    if isinstance(label, str):
        try:
            if "_" in label:  # Python reads 1_0 as 10; a biologist means replicate 0 of day 1
                raise ValueError
            label = float(label)
        except ValueError:
            raise InputError(
                f"obs[{time_key!r}] holds {label!r}, which is not a number; text is never sorted to make an order. Say "
                f"what each label means with time_map={_suggested_map(labels)}."
            ) from None
    if isinstance(label, bool | np.bool_) or not isinstance(label, Real):
        raise InputError(
            f"obs[{time_key!r}] holds {label!r} of type {type(label).__name__}; times must be numbers "
            "(hours or days since the start), not booleans or dates."
        )
    try:
        value = float(label)
    except OverflowError:
        value = np.inf
    if not np.isfinite(value):
        raise InputError(
            f"obs[{time_key!r}] holds the time {value}; times must be finite. Correct it, or drop these cells with "
            f"tw.pp.drop_missing(adata, {time_key!r})."
        )
    return value


def _suggested_map(labels: list[Any]) -> str:
    """A ``time_map`` to copy: filled in where the labels differ by one number only, as "d0", "d2", "d10" do."""
    parts = [re.fullmatch(r"(\D*)(\d+(?:\.\d+)?)(\D*)", str(label)) for label in labels]
    if all(parts) and len({(p[1], p[3]) for p in parts if p}) == 1:
        entries = sorted((float(p[2]), label) for p, label in zip(parts, labels, strict=True) if p)
        shown = [f"{label!r}: {value:g}" for value, label in entries]
    else:
        shown = [f"{label!r}: ..." for label in labels]
    return "{" + ", ".join(shown[:6]) + (", ..." if len(shown) > 6 else "") + "}"
