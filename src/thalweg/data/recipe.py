"""The recipe of a time course: which columns of an AnnData its cells are read from.

A fit stores its recipe, and every later function reads by it. So all of them see the same cells, whatever else lies in
the AnnData.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.data.times import TimeMap, parse_times

if TYPE_CHECKING:
    from anndata import AnnData

NAMES = ("use_rep", "condition_key", "weight_key", "growth_key", "death_key")
"""Those that may be left out."""


@dataclass(frozen=True)
class Recipe:
    """Columns to read; the names are those of the arguments of `thalweg.tl.fit`.

    Attributes
    ----------
    time_key
        Column of ``obs`` with times.
    use_rep, n_dims
        Key of ``obsm`` and number of its leading columns; None is the PCA that exists, and all of them.
    time_map
        Number for each label of the times; None where they read as numbers.
    condition_key, weight_key, growth_key, death_key
        Columns of ``obs``; None where there is none.
    conditions
        Names of the conditions in the order of their numbers; empty takes those that are found.
    replicate_key
        Column of ``obs`` with the replicate of each cell. A fit does not store it: only samples of the cells need it.
    """

    time_key: str
    use_rep: str | None = None
    n_dims: int | None = None
    time_map: TimeMap | None = None
    condition_key: str | None = None
    weight_key: str | None = None
    growth_key: str | None = None
    conditions: tuple[str, ...] = ()
    death_key: str | None = None
    replicate_key: str | None = None

    @property
    def places(self) -> Recipe:
        """The same without weights and growth: coordinates, times and conditions alone."""
        return replace(self, weight_key=None, growth_key=None, death_key=None, replicate_key=None)

    def entry(self) -> dict[str, Any]:
        """The recipe as ``uns`` can hold it; `read_recipe` reads it."""
        labels = self.time_map or {}
        return {
            "time_key": self.time_key,
            **{name: getattr(self, name) or "" for name in NAMES},
            "n_dims": self.n_dims or 0,
            "conditions": np.array(self.conditions, dtype=str),
            "map_labels": np.array([str(label) for label in labels], dtype=str),
            "map_values": np.array([float(value) for value in labels.values()], dtype=np.float64),
        }


def read_recipe(entry: Mapping[str, Any]) -> Recipe:
    """The recipe of an entry of ``uns``; what an entry of an earlier release lacks is not read."""
    labels = dict(zip(map(str, entry["map_labels"]), map(float, entry["map_values"]), strict=True))
    names = {name: str(entry.get(name, "")) or None for name in NAMES}
    return Recipe(
        str(entry["time_key"]),
        n_dims=int(entry.get("n_dims", 0)) or None,
        time_map=labels or None,
        conditions=tuple(map(str, entry.get("conditions", ()))),
        **names,
    )


def read_times(adata: AnnData, entry: Mapping[str, Any]) -> NDArray[np.float64]:
    """Times of the cells, read as the call that wrote an entry of ``uns`` read them.

    Raises
    ------
    MissingKeyError
        If ``obs`` has no such column.
    InputError
        If a time cannot be read.
    """
    recipe = read_recipe(entry)
    return parse_times(adata, recipe.time_key, recipe.time_map, remark=False)
