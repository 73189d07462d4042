"""The cells of each arm of an experiment, for tables and figures; those of a shared baseline are in every arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.design import JOINT, read_design
from thalweg.data.recipe import Columns, Recipe, columns_of, read_recipe
from thalweg.data.times import obs_column, parse_times

if TYPE_CHECKING:
    from anndata import AnnData

Mask = NDArray[np.bool_]


def arms(adata: AnnData, condition_key: Columns) -> dict[str, Mask]:
    """Which cells each arm has, in the order of the categories; one unnamed arm of all without ``condition_key``.

    Where ``uns`` holds a fit with these conditions and a baseline, cells of the baseline are in every arm that they
    belong to by it (`thalweg.data.design`). Cells without a label are in none.

    Raises
    ------
    MissingKeyError
        If ``obs`` has no such column.
    """
    keys = columns_of(condition_key)
    if not keys:
        return {"": np.ones(adata.n_obs, dtype=bool)}
    columns = [obs_column(adata, key, "condition_key") for key in keys]
    fitted = next((one for one in _recipes(adata) if one.condition_keys == keys and one.baseline is not None), None)
    if fitted is not None:
        time = parse_times(adata, fitted.time_key, fitted.time_map, remark=False)
        design = read_design(adata, fitted, time)
        found = {name: np.zeros(adata.n_obs, dtype=bool) for name in design.conditions}
        for number, mask in enumerate(found.values()):
            mask[design.origin[design.condition == number]] = True
        return {name: found[name] for name in sorted(found, key=_place(columns)) if found[name].any()}
    known = ~np.any([column.isna() for column in columns], axis=0)
    names = pd.Series(JOINT.join(labels) for labels in zip(*(column.astype(str) for column in columns), strict=True))
    of = names.to_numpy(dtype=object)
    return {name: known & (of == name) for name in sorted(set(of[known]), key=_place(columns))}


def _place(columns: list[pd.Series]) -> Callable[[str], tuple[int, ...]]:
    """Sorts names of arms by the categories of their columns."""
    known = [[str(c) for c in _categories(column)] for column in columns]

    def place(name: str) -> tuple[int, ...]:
        parts = name.split(JOINT) if len(known) > 1 else [name]
        return tuple(names.index(part) for names, part in zip(known, parts, strict=True))

    return place


def _categories(column: pd.Series) -> list[object]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return list(column.cat.categories)
    return sorted(column.dropna().unique())


def _recipes(adata: AnnData) -> Iterator[Recipe]:
    """The recipes of what is stored in ``uns``."""
    for entry in adata.uns.values():
        if isinstance(entry, Mapping):
            own = entry.get("recipe", entry)
            if isinstance(own, Mapping) and {"time_key", "baseline", "map_labels"} <= set(own):
                yield read_recipe(own)
