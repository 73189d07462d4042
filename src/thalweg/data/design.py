"""The design of an experiment: the arms that each cell belongs to, and the strata that plans stay within.

An *arm* is a condition, a label or a combination of labels of several columns; a flow is conditioned on it. A *stratum*
is a part of an arm within which cells are coupled, such as a donor who was followed over time; by default the whole
arm. Cells of a shared *baseline*, such as an untreated day 0, belong to each arm that has no cells of its own yet. They
stand in a course once for each of these arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.data.recipe import Baseline, Recipe
from thalweg.data.times import obs_column
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
JOINT = " & "
"""Between the labels of several columns in the name of an arm or a stratum."""


@dataclass(frozen=True)
class Design:
    """Arms and strata of the cells of a course; what is not needed is empty.

    Attributes
    ----------
    origin
        Row of the AnnData of each cell of the course, shape ``(m,)``: first all rows in their order, then those that
        stand in further arms.
    condition
        Number of the arm of each cell, shape ``(m,)``.
    conditions
        Names of the arms.
    stratum
        Number of the stratum of each cell, shape ``(m,)``; None where the arms are the strata.
    strata
        Names of the strata.
    starts
        With a baseline, the time from which each arm (or stratum) has cells of its own.
    """

    origin: Rows
    condition: Rows
    conditions: tuple[str, ...] = ()
    stratum: Rows | None = None
    strata: tuple[str, ...] = ()
    starts: tuple[float, ...] = ()


def read_design(adata: AnnData, recipe: Recipe, time: Floats, *, remark: bool = False) -> Design:
    """Read the arms and strata of the cells.

    Parameters
    ----------
    adata
        Cells.
    recipe
        Columns and baseline; where it names conditions and strata, others are refused.
    time
        Time of each cell, shape ``(n,)``.
    remark
        Log which arms a baseline belongs to.

    Raises
    ------
    MissingKeyError
        If a column does not exist.
    InputError
        If a label is missing or unknown, or cells of the baseline belong to no arm.
    """
    keys, within = recipe.condition_keys, recipe.within_keys
    if recipe.baseline is not None and not keys:
        raise InputError(f"baseline={recipe.baseline!r} needs condition_key, the column of the arms that share it.")
    n = adata.n_obs
    if not keys and not within:
        return Design(np.arange(n), np.zeros(n, dtype=np.int64))
    labels = _labels(adata, keys, within, recipe.baseline)
    shared = _shared(labels, keys, recipe.baseline)
    if recipe.baseline is not None and not shared.any() and not recipe.conditions:
        found = ", ".join(f"obs[{key!r}] has {sorted(set(labels[key]))[:8]}" for key in keys)
        raise InputError(f"baseline={recipe.baseline!r} is no label of the conditions: {found}. Name one of these.")
    origin = np.arange(n)
    first: dict[str, float] = {}
    if recipe.baseline is not None:
        labels, origin, first = _Baseline(labels, shared, keys, time, recipe, remark).spread()
    condition, conditions = _numbered(_names(labels[list(keys)], origin), recipe.conditions, keys)
    if not within:
        return Design(origin, condition, conditions, starts=tuple(first[name] for name in conditions if first))
    stratum, strata = _numbered(_names(labels, origin), recipe.strata, (*keys, *within))
    return Design(origin, condition, conditions, stratum, strata, tuple(first[name] for name in strata if first))


def _labels(adata: AnnData, keys: tuple[str, ...], within: tuple[str, ...], baseline: Baseline) -> pd.DataFrame:
    """The columns as text; a missing label, where it is the baseline, as an empty one."""
    out = {}
    for key, argument in [*((k, "condition_key") for k in keys), *((k, "couple_within") for k in within)]:
        column = obs_column(adata, key, argument)
        missing = column.isna().to_numpy()
        if missing.any() and not (argument == "condition_key" and baseline is not None and pd.isna(baseline)):
            needs = (
                "a condition; if they are an untreated baseline that all conditions share, give baseline=float('nan')"
            )
            raise InputError(
                f"obs[{key!r}] has {int(missing.sum())} missing values; every cell needs "
                f"{needs if argument == 'condition_key' else 'a label to be coupled within'}."
            )
        text = column.astype(str).to_numpy(dtype=object)
        text[missing] = ""
        jointed = sorted({label for label in text if JOINT in label}) if len(keys) + len(within) > 1 else []
        if jointed:
            raise InputError(
                f"obs[{key!r}] has the label {jointed[0]!r}: {JOINT!r} joins labels of columns; rename it."
            )
        out[key] = text
    return pd.DataFrame(out)


def _shared(labels: pd.DataFrame, keys: tuple[str, ...], baseline: Baseline) -> NDArray[np.bool_]:
    """Which labels are the baseline's, shape ``(n, n_columns)``; never those of ``couple_within``."""
    out = np.zeros(labels.shape, dtype=bool)
    if baseline is not None:
        label = "" if pd.isna(baseline) else str(baseline)
        out[:, : len(keys)] = labels[list(keys)].to_numpy() == label
    return out


def _names(labels: pd.DataFrame, origin: Rows) -> NDArray[np.object_]:
    """Name of the arm or stratum of each cell of the course."""
    if not labels.shape[1]:
        return np.full(len(origin), "", dtype=object)
    out = labels.iloc[:, 0].to_numpy(dtype=object)
    for i in range(1, labels.shape[1]):
        out = out + JOINT + labels.iloc[:, i].to_numpy(dtype=object)
    return out


def _numbered(
    names: NDArray[np.object_], known: tuple[str, ...], keys: tuple[str, ...]
) -> tuple[Rows, tuple[str, ...]]:
    """Number of each name among the known ones, or among those found."""
    if not keys:
        return np.zeros(len(names), dtype=np.int64), ()
    codes, found = pd.factorize(names, sort=True)
    known = known or tuple(map(str, found))
    unknown = sorted(set(found) - set(known))
    if unknown:
        where = " and ".join(f"obs[{key!r}]" for key in keys)
        raise InputError(f"{where} holds {unknown}, unknown to the fit; it knows {list(known)}.")
    number = {name: i for i, name in enumerate(known)}
    return np.array([number[name] for name in found], dtype=np.int64)[codes], known


class _Part(NamedTuple):
    """Cells of the baseline that are alike: of one time and the same labels."""

    rows: Rows
    time: float
    labels: tuple[str, ...]
    open: tuple[bool, ...]  # which labels are the baseline's, and so any


@dataclass(frozen=True)
class _Baseline:
    """Spreads the cells of a baseline over the arms."""

    labels: pd.DataFrame
    shared: NDArray[np.bool_]
    keys: tuple[str, ...]
    time: Floats
    recipe: Recipe
    remark: bool

    def spread(self) -> tuple[pd.DataFrame, Rows, dict[str, float]]:
        """Labels of all cells of the course, their rows, and the time from which each stratum has cells of its own."""
        own = np.logical_not(self.shared.any(1))
        first = self._first_times(own)
        parts = list(self._parts(np.flatnonzero(np.logical_not(own))))
        homes = [self._homes(part, first) for part in parts]
        if self._is_arm([part for part, home in zip(parts, homes, strict=True) if not home], first):
            first |= self._first_times(np.logical_not(own))
            homes = [[p.labels, *(s for s in home if s != p.labels)] for p, home in zip(parts, homes, strict=True)]
        labels, rows, extra = self.labels.to_numpy(dtype=object).copy(), [], []
        for part, home in zip(parts, homes, strict=True):
            for k, stratum in enumerate(home):
                if k == 0:
                    labels[part.rows] = np.array(stratum, dtype=object)
                else:
                    rows.append(part.rows)
                    extra.append(np.tile(np.array(stratum, dtype=object), (len(part.rows), 1)))
        if self.remark:
            self._remark(parts, homes)
        origin = np.concatenate([np.arange(len(labels)), *rows])
        table = pd.DataFrame(np.concatenate([labels, *extra]), columns=self.labels.columns)
        return table, origin, {JOINT.join(stratum): t for stratum, t in first.items()}

    def _first_times(self, which: NDArray[np.bool_]) -> dict[tuple[str, ...], float]:
        """The strata of some cells, and the time from which each has cells; of those that the fit knew, its times."""
        names = self.recipe.strata if self.recipe.within_keys else self.recipe.conditions
        several = self.labels.shape[1] > 1
        known = {tuple(n.split(JOINT)) if several else (n,): t for n, t in zip(names, self.recipe.starts, strict=True)}
        found = self.labels[which].assign(**{"": self.time[which]}).groupby(list(self.labels.columns))[""].min()
        return {key if isinstance(key, tuple) else (key,): float(t) for key, t in found.items()} | known

    def _parts(self, rows: Rows) -> list[_Part]:
        of = self.labels.iloc[rows].assign(**{"": self.time[rows]})
        out = []
        for places in of.groupby(list(of.columns), sort=True).indices.values():
            where = rows[np.sort(places)]
            labels = tuple(map(str, self.labels.iloc[where[0]]))
            out.append(_Part(where, float(self.time[where[0]]), labels, tuple(self.shared[where[0]].tolist())))
        return out

    def _homes(self, part: _Part, first: Mapping[tuple[str, ...], float]) -> list[tuple[str, ...]]:
        """The strata that a part belongs to: those that agree with its labels and have no cells of their own yet.

        Raises
        ------
        InputError
            If none has its labels in the columns of ``couple_within``.
        """
        k = len(self.keys)
        if self.recipe.within_keys and all(stratum[k:] != part.labels[k:] for stratum in first):
            raise InputError(
                f"couple_within={list(self.recipe.within_keys)}: {len(part.rows)} cells of the baseline have the "
                f"labels {list(part.labels[k:])} there, which no condition has; plans cannot stay within them. Leave "
                "couple_within out, or label the baseline as the conditions."
            )
        return [
            stratum for stratum, t in sorted(first.items())
            if t > part.time and all(o or a == b for a, b, o in zip(part.labels, stratum, part.open, strict=True))
        ]  # fmt: skip

    def _is_arm(self, homeless: list[_Part], first: Mapping[tuple[str, ...], float]) -> bool:
        """Whether the baseline is an arm, too, because some of its cells belong to no other.

        Raises
        ------
        InputError
            If it has no label to be an arm by.
        """
        baseline = self.recipe.baseline
        if not homeless:
            return any(str(baseline) in stratum[: len(self.keys)] for stratum in first)  # as it was to the fit
        if pd.isna(baseline):
            n, times = sum(len(part.rows) for part in homeless), sorted({part.time for part in homeless})
            raise InputError(
                f"{n} cells without a label in {' or '.join(f'obs[{key!r}]' for key in self.keys)} belong to no "
                f"condition: at the times {times} every condition that they could belong to has cells of its own. "
                "Give them a label, or leave them out."
            )
        return True

    def _remark(self, parts: list[_Part], homes: list[list[tuple[str, ...]]]) -> None:
        """Say which conditions take which cells, and where the baseline is a condition of its own."""
        taken = [(part.time, s) for part, home in zip(parts, homes, strict=True) for s in home if s != part.labels]
        arms = sorted({JOINT.join(stratum[: len(self.keys)]) for _, stratum in taken})
        logger.info(
            "baseline %r: its cells of the times %s belong to each of the conditions %s that has none of its own yet",
            self.recipe.baseline, sorted({time for time, _ in taken}), arms,
        )  # fmt: skip
        later = sorted({part.time for part, home in zip(parts, homes, strict=True) if home == [part.labels]})
        if later:
            logger.info(
                "baseline %r also has cells of the times %s, at which the others have cells of their own: it is a "
                "condition itself, with all of its cells", self.recipe.baseline, later,
            )  # fmt: skip
