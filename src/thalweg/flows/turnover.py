r"""Turnover: how many descendants each cell has, which cells die in place, and which have no ancestor.

Snapshots cannot tell growth from movement: cells that move along can explain any change of a population. So a stated
preference decides, in this order.

1. **Sizes that were counted** say how much a whole population grows.
2. **Rates that were given** (``growth_key``) are taken as the reference, from which the rest departs at a price.
3. **Movement explains what it can.** A change of shares between two states is growth only if cells would have to cross
   a gap of more than ``gap`` spreads (`thalweg.flows.states`). Within a continuum nothing is taken for growth.

In numbers: let ``m_kl`` be the gap between a state before and one after. A movement that no other explanation avoids is
free: the excess of a pair is ``e_kl = m_kl^2 - min(min_l m_kl^2, min_k m_kl^2)``, zero for states that are nearest to
each other, however far they moved. What remains costs ``J_kl = max(0, sqrt(e_kl) - gap)^2``. A state from which every
way costs more than ``PRICE`` dies in place; one to which every way does has arrived. Between the others an unbalanced
plan of the states is solved (Chizat et al. 2018),

.. math:: \min_P \sum_{kl} P_{kl} J_{kl} + c \left[ s\, KL(P 1 | w) + KL(P^T 1 | w') \right],

with ``c`` the price and ``s`` the strength of the reference. Each state after is shared among its ancestors, so that a
state ``k`` has ``n_k`` descendants for each of its cells, and a cell the geometric mean over the states it belongs to.

Totals are relative, one at each time, unless sizes or rates are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg._settings import logger
from thalweg.data.cells import Cells, Rows
from thalweg.data.rates import offspring
from thalweg.flows.config import FitConfig
from thalweg.flows.states import CourseStates, States, separation

Floats = NDArray[np.float64]
PRICE = 10.0
"""``c``, in squared spreads: what a death or an arrival costs. Fixed on simulated courses with and without division."""
_ENTROPY = 0.5  # of the plan between states, in squared spreads
_ALIKE = 0.005  # difference between the factors of growth that is not worth a word
_VALUES = ("rate", "current", "lost", "arrived")  # of each state
_OF_CELLS = ("rates", "lost", "arrived")


@dataclass(frozen=True)
class Turnover:
    """The turnover of a course, in terms of the states of each time.

    Attributes
    ----------
    columns
        Normalised coordinates in which states are described.
    states
        For each condition and time.
    rate, current
        For each condition and time and each of its states: growth rate beyond the given one, as the mean until the next
        time, and at the time itself.
    lost, arrived
        Likewise whether it dies in place before the next time (0 or 1), and whether it has no ancestors.
    """

    columns: Rows
    states: Mapping[tuple[int, float], States]
    rate: Mapping[tuple[int, float], Floats]
    current: Mapping[tuple[int, float], Floats]
    lost: Mapping[tuple[int, float], Floats]
    arrived: Mapping[tuple[int, float], Floats]

    def of(self, cells: Cells, z: Tensor) -> Cells:
        """The cells with their rates until the next time, and the shares of them that die in place or have arrived.

        Parameters
        ----------
        cells, z
            Cells of the course, and their normalised coordinates, shape ``(n, d)``.
        """
        given = np.zeros(len(cells.x)) if cells.rates is None else cells.rates
        rates, lost, arrived = (self._mean(of, cells, z) for of in (self.rate, self.lost, self.arrived))
        return replace(cells, rates=given + rates, lost=lost, arrived=arrived)

    def now(self, cells: Cells, z: Tensor) -> Floats:
        """Growth rate of each cell at its own time, shape ``(n,)``; arguments as in `of`."""
        return self._mean(self.current, cells, z) + (0.0 if cells.rates is None else cells.rates)

    def _mean(self, of: Mapping[tuple[int, float], Floats], cells: Cells, z: Tensor) -> Floats:
        """Mean of a value over the states that each cell belongs to; 0 at times that the fit has not seen."""
        x = z[:, self.columns].double().cpu().numpy()
        out = np.zeros(len(x))
        for (condition, t), states in self.states.items():
            rows = cells.rows(t, condition if cells.stratum_names else None)
            if len(rows):
                out[rows] = states.membership(x[rows]) @ of[condition, t]
        return out


def find_turnover(
    cells: Cells, z: Tensor, described: CourseStates, config: FitConfig, sizes: Floats | None
) -> Turnover:
    """The turnover of a course.

    Parameters
    ----------
    cells, z
        The course, with the rates that were given, and its normalised coordinates ``(n, d)``.
    described
        The states of its populations.
    config
        ``gap`` and ``growth_strength``.
    sizes
        Of each population, shape ``(n_conditions or 1, n_times)``; None where they were not counted.
    """
    columns, states = described.columns, described.states
    x = z.double().cpu().numpy()[:, columns]
    rate, current, lost, arrived = ({key: np.zeros(len(s.weights)) for key, s in states.items()} for _ in range(4))
    for condition in cells.strata:
        times, plans = cells.times_of(condition).tolist(), []
        place = np.searchsorted(cells.times, times)
        for i, (t0, t1) in enumerate(pairwise(times)):
            here, there = (condition, t0), (condition, t1)
            rows = cells.rows(t0, condition)
            member, weights = states[here].membership(x[rows]), cells.weights[rows] / cells.weights[rows].sum()
            reference = weights * (1.0 if cells.rates is None else offspring(cells.rates[rows], t1 - t0))
            found = _exchange(states[here], states[there], reference @ member / reference.sum(), config,
                              given=cells.rates is not None)  # fmt: skip
            grown = reference.sum() if sizes is None else sizes[condition, place[i + 1]] / sizes[condition, place[i]]
            descendants = reference * np.exp(member @ found.log_growth) * (1 - member @ found.lost)
            descended = grown * (1 - float(states[there].weights @ found.arrived))
            lost[here], arrived[there] = found.lost, found.arrived
            rate[here] = (found.log_growth + np.log(descended / descendants.sum())) / (t1 - t0)
            plans.append(found.plan)
            _remark(f"time {t0:g} to {t1:g}{cells.of(condition)}", states[here], states[there], found, float(grown))
        if not plans:  # observed once: nothing is known to grow
            continue
        at = _at_times([rate[condition, t] for t in times[:-1]], plans, np.diff(times))
        current |= {(condition, t): values for t, values in zip(times, at, strict=True)}
        rate[condition, times[-1]] = current[condition, times[-1]]
    return Turnover(columns, states, rate, current, lost, arrived)


def _at_times(rates: list[Floats], plans: list[Floats], lengths: Floats) -> list[Floats]:
    """Rates at the observed times from means over the intervals between them.

    Inside it is the mean of both sides, along the plans between states; the first and the last are extrapolated.
    """
    back = [_along(plan.T, rate) for plan, rate in zip(plans, rates, strict=True)]  # at the end of each interval
    out = [rates[0], *((ahead + behind) / 2 for ahead, behind in zip(rates[1:], back, strict=False)), back[-1]]
    if len(plans) > 1:
        share = lengths[[0, -1]] / (lengths[:2].sum(), lengths[-2:].sum())
        out[0] = rates[0] - share[0] * (_along(plans[0], rates[1]) - rates[0])
        out[-1] = back[-1] + share[1] * _along(plans[-1].T, rates[-1] - back[-2])
    return out


def _along(plan: Floats, values: Floats) -> Floats:
    """Mean of the values of the states that each state is joined to; 0 where it is joined to none."""
    total = plan.sum(1)
    out: Floats = np.divide(plan @ values, total, out=np.zeros(len(plan)), where=total > 0)
    return out


@dataclass(frozen=True)
class _Exchange:
    """Of each state: its relative descendants, whether it dies in place; of each state after, whether it arrived."""

    plan: Floats
    log_growth: Floats
    lost: Floats
    arrived: Floats


def _exchange(before: States, after: States, reference: Floats, config: FitConfig, *, given: bool) -> _Exchange:
    """What becomes of the states of one time, of which ``reference`` is the share expected to be left at the next."""
    from ot.unbalanced import sinkhorn_unbalanced

    square = separation(before, after) ** 2
    nearest = np.minimum(square.min(1)[:, None], square.min(0)[None])
    jump = np.maximum(np.sqrt(square - nearest) - config.gap, 0.0) ** 2
    lost, arrived = jump.min(1) > PRICE, jump.min(0) > PRICE
    left = np.ix_(~lost, ~arrived)
    w0, w1 = (v / v.sum() for v in (np.maximum(reference[~lost], 1e-12), after.weights[~arrived]))
    cost = np.minimum(jump[left] + 1e-3 * square[left], 300 * _ENTROPY)
    strength = min(config.growth_strength, 1e6) if given else 1.0
    found = sinkhorn_unbalanced(
        w0, w1, cost, _ENTROPY, (PRICE * strength, PRICE), reg_type="kl", numItermax=20_000, stopThr=1e-10
    )
    plan, log_growth = np.zeros_like(jump), np.zeros(len(reference))
    plan[left] = found / found.sum(0) * w1
    if np.isfinite(config.growth_strength) or not given:
        log_growth[~lost] = np.log(plan[~lost].sum(1) / w0)
    return _Exchange(plan, log_growth, lost.astype(float), arrived.astype(float))


def _remark(when: str, before: States, after: States, found: _Exchange, grown: float) -> None:
    dying, new = float(before.weights @ found.lost), float(after.weights @ found.arrived)
    factors = np.exp(found.log_growth[found.lost == 0])
    alike = np.ptp(factors) < _ALIKE
    rest = "all states alike" if alike else f"its states by {factors.min():.3g} to {factors.max():.3g} times that"
    logger.info("%s: the population grows by a factor of %.3g, %s", when, grown, rest)
    if dying or new:
        logger.info(
            "%s: %.1f %% of the cells before vanish in place, %.1f %% of those after have no ancestors",
            when, 100 * dying, 100 * new,
        )  # fmt: skip


def mean_turnover(turnovers: Sequence[Turnover], cells: Cells, z: Tensor) -> Cells:
    """The cells with the mean turnover of several models; as they are without a model. See `Turnover.of`."""
    if not turnovers:
        return cells
    found = [one.of(cells, z) for one in turnovers]
    return replace(cells, **{name: np.mean([getattr(one, name) for one in found], 0) for name in _OF_CELLS})


def pack_turnovers(turnovers: Sequence[Turnover]) -> dict[str, Any]:
    """As ``uns`` can hold them: a row for each state of the first model, and the same for ``others``."""
    if not turnovers:
        return {}
    packed = [_pack(one) for one in turnovers]
    others = {str(i): one for i, one in enumerate(packed[1:], 1)}
    return packed[0] | ({"others": others} if others else {})


def _pack(turnover: Turnover) -> dict[str, Any]:
    keys = list(turnover.states)
    states = list(turnover.states.values())
    n = [len(s.weights) for s in states]
    return {
        "columns": turnover.columns,
        "condition": np.repeat([c for c, _ in keys], n),
        "time": np.repeat([t for _, t in keys], n),
        "weight": np.concatenate([s.weights for s in states]),
        "mean": np.concatenate([s.means for s in states]),
        "covariance": np.concatenate([s.covariances for s in states]),
        **{name: np.concatenate([getattr(turnover, name)[key] for key in keys]) for name in _VALUES},
    }


def read_turnovers(entry: Mapping[str, Any]) -> tuple[Turnover, ...]:
    """What `pack_turnovers` wrote, checked by `thalweg.flows.store_checks`."""
    return tuple(map(_read, packed_turnovers(entry)))


def packed_turnovers(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of the single models."""
    return [entry, *entry.get("others", {}).values()] if entry else []


def _read(entry: Mapping[str, Any]) -> Turnover:
    condition, time = np.asarray(entry["condition"]), np.asarray(entry["time"])
    states = {}
    values: dict[str, dict[tuple[int, float], Floats]] = {name: {} for name in _VALUES}
    for key in dict.fromkeys(zip(condition.tolist(), time.tolist(), strict=True)):
        rows = (condition == key[0]) & (time == key[1])
        states[key] = States(*(np.asarray(entry[name])[rows] for name in ("weight", "mean", "covariance")))
        for name, of in values.items():
            of[key] = np.asarray(entry[name])[rows]
    return Turnover(np.asarray(entry["columns"]), states, **values)
