"""Sizes of populations, as a laboratory counts them: one number for each observed time, and for each condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.data.cells import Cells, Floats
from thalweg.data.times import TimeMap
from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

Sizes = Mapping[Any, Any] | str


def read_sizes(adata: AnnData, given: Sizes | None, cells: Cells, time_map: TimeMap | None) -> Floats | None:
    """Size of each population.

    Parameters
    ----------
    adata
        Where ``uns`` is read if ``given`` is a key of it.
    given
        ``{time: size}``, or ``{condition: {time: size}}`` for cells with conditions; times as numbers or as the labels
        of the time column. A string is a key of ``uns`` that holds such a dict.
    cells
        The course.
    time_map
        Number for each label of the time column.

    Returns
    -------
    Shape ``(n_conditions or 1, n_times)``, NaN where a condition was not observed; None if nothing was given.

    Raises
    ------
    MissingKeyError
        If ``uns`` has no such key.
    InputError
        If the size of an observed population is missing or not positive, or a time or condition was not observed.
    """
    if given is None:
        return None
    if isinstance(given, str):
        if given not in adata.uns:
            found = ", ".join(map(repr, adata.uns.keys())) or "none"
            raise MissingKeyError(f"population_size={given!r} is not a key of adata.uns; keys that exist: {found}.")
        given = adata.uns[given]
    if not isinstance(given, Mapping):
        raise InputError(f"population_size must be a dict of sizes by time, or a key of uns; found {given!r}.")
    if not cells.stratum_names:
        return _row(given, cells, 0, "", time_map)[None]
    wrong = sorted(set(map(str, given)) ^ set(cells.stratum_names))
    if wrong or not all(isinstance(v, Mapping) for v in given.values()):
        raise InputError(
            f"population_size needs one dict of sizes by time for each condition {list(cells.stratum_names)}; found "
            f"the keys {[*map(str, given)]}."
        )
    by_name = {str(name): sizes for name, sizes in given.items()}
    rows = [
        _row(by_name[name], cells, i, f" of condition {name!r}", time_map) for i, name in enumerate(cells.stratum_names)
    ]
    return np.stack(rows)


def _row(given: Mapping[Any, Any], cells: Cells, condition: int, of: str, time_map: TimeMap | None) -> Floats:
    """Sizes of one condition at the times of the course."""
    found = {_time(label, of, time_map): size for label, size in given.items()}
    observed = cells.times_of(condition).tolist()
    missing, unknown = sorted(set(observed) - set(found)), sorted(set(found) - set(observed))
    if missing or unknown:
        what = f"lacks the times {missing}" if missing else f"has the times {unknown}, at which there are no cells"
        raise InputError(f"population_size{of} {what}; observed times{of}: {observed}. Give one size for each of them.")
    out = np.full(len(cells.times), np.nan)
    for time, size in found.items():
        value = _number(size)
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"population_size{of} at time {time:g} must be a positive number, found {size!r}.")
        out[cells.times == time] = value
    return out


def _time(label: Any, of: str, time_map: TimeMap | None) -> float:
    if time_map is not None:
        by_text = {str(name): value for name, value in time_map.items()}
        label = by_text.get(str(label), label)
    value = _number(label)
    if not np.isfinite(value):
        raise InputError(
            f"population_size{of} has the key {label!r}, which is not a time; keys must be times as numbers, or labels "
            "that time_map covers."
        )
    return value


def _number(value: Any) -> float:
    try:
        return np.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return np.nan
