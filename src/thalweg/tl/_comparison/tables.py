"""The tables of a comparison of two arms: shares, when and where they part, and genes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from thalweg.core.comparison.means import moderated_means
from thalweg.core.comparison.pvalues import adjusted, combined
from thalweg.core.comparison.shares import quasi_binomial
from thalweg.core.distances import energy
from thalweg.data.cells import Floats, Rows
from thalweg.flows.flow import Flow
from thalweg.flows.replicates import distance
from thalweg.flows.running import Integrator
from thalweg.flows.store import Stored
from thalweg.tl._comparison.units import Arms

LEVEL = 0.05
"""Of the tests that find the onset."""
_LARGEST, _BETWEEN = 300, 4  # cells that are compared; times of an interval at which paths are
_NAMES = ("share_reference", "share", "difference", "low", "high", "log_odds_ratio", "log_odds_ratio_se", "p")


class Shares(NamedTuple):
    """How many cells of each unit, a real number each, are of each group: shape ``(n_units, n_groups)``."""

    counts: Floats
    totals: Floats
    arm: NDArray[np.int64]


def shares_table(found: Shares, groups: Sequence[str]) -> pd.DataFrame:
    """A row for each group: its share in both arms, the shift with its interval, and p."""
    shift = quasi_binomial(found.counts, found.totals, found.arm)
    columns = [*shift.share.reshape(2, -1), shift.difference, shift.low, shift.high]
    columns += [shift.log_odds_ratio, shift.log_odds_ratio_se, shift.p]
    return pd.DataFrame({"group": list(groups)} | dict(zip(_NAMES, columns, strict=True)))


def composition(arms: Arms, codes: Rows, groups: Sequence[str]) -> pd.DataFrame:
    """`shares_table` of the cells themselves at each time at which both arms have cells; ``q`` over all of them."""
    parts = []
    for time in arms.times.tolist():
        there = arms.present(time)
        counts, totals = np.zeros((len(there), len(groups))), np.zeros(len(there))
        for i, place in enumerate(there):
            rows = arms.at(arms.units[place], time)
            rows = rows[codes[rows] >= 0]
            weights = arms.cells.weights[rows]
            totals[i] = len(rows)
            counts[i] = np.bincount(codes[rows], weights, len(groups)) * (len(rows) / max(weights.sum(), 1e-300))
        known = totals > 0
        if not known.any():
            continue
        seen = counts[known].any(0)
        found = Shares(counts[known][:, seen], totals[known], arms.arm[there][known])
        part = shares_table(found, np.array(groups)[seen].tolist())
        part.insert(0, "time", time)
        parts.append(part)
    return with_q(pd.concat(parts, ignore_index=True))


def with_q(table: pd.DataFrame) -> pd.DataFrame:
    """With p values adjusted over the table (Benjamini and Hochberg 1995)."""
    return table.assign(q=adjusted(table["p"].to_numpy()))


def divergence(arms: Arms, shares: pd.DataFrame, stored: Stored) -> pd.DataFrame:
    """When the arms part: a row for each observed time, and for times between, at which only paths are known.

    ``separation`` and ``energy`` are of the same start cells, carried by both flows. ``replicates`` is the energy
    distance of two replicates of an arm. ``p`` combines the tests of the shares and of the mean coordinates at that
    time, ``p_adjusted`` is for all times together (Holm 1979).
    """
    table = _paths(arms, stored)
    p, within = {}, {}
    for time in arms.times.tolist():
        y, arm = arms.moved(lambda rows: arms.cells.x[rows], np.array([time]))
        of_shares = shares.loc[shares["time"] == time, "p"].to_numpy()
        of_means = moderated_means(y, arm).p
        p[time] = float(combined(np.array([float(combined(of_shares)), float(combined(of_means))])))
        within[time] = _within(arms, time)
    times = table["time"].to_list()
    table["replicates"] = [within.get(t, np.nan) for t in times]
    table["p"] = [p.get(t, np.nan) for t in times]
    table["p_adjusted"] = holm(table["p"].to_numpy())
    return table


def onset(table: pd.DataFrame) -> float:
    """The first time at which the arms differ, of all times together at the level .05; NaN where there is none."""
    found = table.loc[table["p_adjusted"] <= LEVEL, "time"]
    return float(found.iloc[0]) if len(found) else float("nan")


def gene_shifts(arms: Arms, names: Iterable[str], values: Callable[[Rows], Any], since: float) -> pd.DataFrame:
    """Genes that differ from a time on: the difference of their means, its interval, ``p`` and ``q``."""
    times = arms.times[arms.times >= since] if np.isfinite(since) else arms.times
    y, arm = arms.moved(values, times)
    found = moderated_means(y, arm, trend=True)
    half = stats.t.ppf(1 - LEVEL / 2, found.df) * found.se
    table = pd.DataFrame({"gene": list(names), "difference": found.estimate, "low": found.estimate - half})
    table = with_q(table.assign(high=found.estimate + half, p=found.p))
    return table.sort_values(["p", "gene"], ignore_index=True)


def _paths(arms: Arms, stored: Stored) -> pd.DataFrame:
    """The same start cells carried by the flows of both arms, at the observed times and some between."""
    cells, flow = arms.cells, stored.process
    spans = [flow.span(condition) for condition in (arms.reference, arms.other)]
    first, last = max(a for a, _ in spans), min(b for _, b in spans)
    observed = cells.times[(cells.times >= first) & (cells.times <= last)]
    grid = np.unique(np.concatenate([np.linspace(a, b, _BETWEEN + 1) for a, b in pairwise(observed.tolist())]))
    rows = np.flatnonzero((cells.condition == arms.reference) & (cells.time == first))
    starts = cells.x[np.random.default_rng(0).permutation(rows)[:_LARGEST]]
    one, other = (_carried(flow, starts, grid, condition) for condition in (arms.reference, arms.other))
    table = pd.DataFrame({"time": grid})
    table["separation"] = np.linalg.norm(one - other, axis=-1).mean(1)
    table["energy"] = [energy(a, b) for a, b in zip(one, other, strict=True)]
    return table


def _carried(flow: Flow, x: Floats, times: Floats, condition: int) -> Floats:
    labels = np.full(len(x), condition, dtype=np.int64)
    return flow.push(x, times.tolist(), condition=labels, noise=None, integrator=Integrator()).x


def _within(arms: Arms, time: float) -> float:
    """Mean energy distance of two replicates of one arm at a time; NaN where there are no two."""
    rng, found = np.random.default_rng(0), []
    for side in (0, 1):
        rows = [arms.at(unit, time) for unit, of in zip(arms.units, arms.arm.tolist(), strict=True) if of == side]
        rows = [one for one in rows if len(one) > 1]
        found += [distance(arms.cells, a, b, rng) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    return float(np.mean(found)) if found else float("nan")


def holm(p: Floats) -> Floats:
    """P values adjusted for all of them (Holm 1979); NaN are left out."""
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return out
