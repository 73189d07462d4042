"""The recipe of a time course: which columns of an AnnData its cells are read from.

A fit stores its recipe, and every later function reads by it. So all of them see the same cells, whatever else lies in
the AnnData.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.times import TimeMap, parse_times

if TYPE_CHECKING:
    from anndata import AnnData

Columns: TypeAlias = str | Sequence[str] | None
"""None, one or several columns of ``obs``."""
Baseline: TypeAlias = str | float | None
"""A label, NaN for cells without one, or None for no baseline."""
NAMES = ("use_rep", "weight_key", "growth_key", "death_key")
"""Those that may be left out."""


def columns_of(given: Columns) -> tuple[str, ...]:
    """The columns that an argument names."""
    return () if given is None else (given,) if isinstance(given, str) else tuple(map(str, given))


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
    condition_key
        Column of ``obs`` with the conditions, or several; None where there is none.
    weight_key, growth_key, death_key
        Columns of ``obs``; None where there is none.
    conditions
        Names of the conditions in the order of their numbers; empty takes those that are found.
    replicate_key
        Column of ``obs`` with the replicate of each cell. A fit does not store it: only samples of the cells need it.
    baseline
        Label of the conditions whose cells belong to each condition that has no cells of its own yet; NaN for cells
        without a label; None where there is no baseline.
    couple_within
        Further columns of ``obs`` that plans stay within; None where the conditions are all.
    strata
        Names of the strata in the order of their numbers; empty takes those that are found.
    starts
        With a baseline, the time from which each stratum (or condition) has cells of its own; part of the cells alone
        would not show it.
    """

    time_key: str
    use_rep: str | None = None
    n_dims: int | None = None
    time_map: TimeMap | None = None
    condition_key: Columns = None
    weight_key: str | None = None
    growth_key: str | None = None
    conditions: tuple[str, ...] = ()
    death_key: str | None = None
    replicate_key: str | None = None
    baseline: Baseline = None
    couple_within: Columns = None
    strata: tuple[str, ...] = ()
    starts: tuple[float, ...] = ()

    @property
    def condition_keys(self) -> tuple[str, ...]:
        """The columns with the conditions; none, one or several."""
        return columns_of(self.condition_key)

    @property
    def within_keys(self) -> tuple[str, ...]:
        """The further columns that plans stay within."""
        return tuple(key for key in columns_of(self.couple_within) if key not in self.condition_keys)

    @property
    def where(self) -> str:
        """The columns of the strata, for messages."""
        return " and ".join(f"obs[{key!r}]" for key in (*self.condition_keys, *self.within_keys))

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
            "condition_key": _texts(self.condition_keys),
            "conditions": np.array(self.conditions, dtype=str),
            "baseline": _texts(() if self.baseline is None else ("",) if pd.isna(self.baseline) else (self.baseline,)),
            "couple_within": _texts(self.within_keys),
            "strata": np.array(self.strata, dtype=str),
            "starts": np.array(self.starts, dtype=np.float64),
            "map_labels": np.array([str(label) for label in labels], dtype=str),
            "map_values": np.array([float(value) for value in labels.values()], dtype=np.float64),
        }


def read_recipe(entry: Mapping[str, Any]) -> Recipe:
    """The recipe of an entry of ``uns``; what an entry of an earlier release lacks is not read."""
    labels = dict(zip(map(str, entry["map_labels"]), map(float, entry["map_values"]), strict=True))
    names = {name: str(entry.get(name, "")) or None for name in NAMES}
    keys, within = _read_texts(entry.get("condition_key", "")), _read_texts(entry.get("couple_within", ""))
    baseline = _read_texts(entry.get("baseline", ()))
    return Recipe(
        str(entry["time_key"]),
        n_dims=int(entry.get("n_dims", 0)) or None,
        time_map=labels or None,
        condition_key=keys if len(keys) > 1 else next(iter(keys), None),
        conditions=tuple(map(str, entry.get("conditions", ()))),
        baseline=None if not baseline else baseline[0] or float("nan"),
        couple_within=within or None,
        strata=tuple(map(str, entry.get("strata", ()))),
        starts=tuple(map(float, entry.get("starts", ()))),
        **names,
    )


def _texts(values: Sequence[Any]) -> NDArray[Any]:
    return np.array([str(value) for value in values], dtype=str)


def _read_texts(value: Any) -> tuple[str, ...]:
    """Several texts, or one as earlier releases wrote it."""
    return (value,) * bool(value) if isinstance(value, str) else tuple(map(str, value))


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
