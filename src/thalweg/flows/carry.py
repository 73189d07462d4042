"""Carrying cells through a flow: where they arrive, what they weigh there, and which cell each was.

This is the one place that runs a flow on the cells of a course. A cell that starts with the weight ``w`` weighs ``w g``
when it arrives, with ``g`` its growth on the way, below one on the way back: learned by the flow, or by the rates that
cells were given (`thalweg.flows.given_growth`).

A prediction takes the cells of each condition from the last time before at which that condition was observed, and with
``both_ends`` also from the next one, backwards. So a condition that was not sampled at some time still takes part. Both
sides predict the same population. Each counts by how near it is and by how many cells it has: a few cells stand for a
population badly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thalweg._random import torch_generator
from thalweg._settings import logger
from thalweg.data.cells import Cells, Rows
from thalweg.errors import InputError
from thalweg.flows.flow import ROWS, Flow
from thalweg.flows.given_growth import growth, stops
from thalweg.flows.population import Entrants, entrants, in_place
from thalweg.flows.running import Carried, Integrator, Noise

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Futures:
    """A block of cells and where they end.

    Attributes
    ----------
    rows
        Places of the cells among the rows that were given, shape ``(n,)``.
    x
        Their ends, shape ``(n, n_samples, d)``.
    weight
        Their growth on the way, shape ``(n, n_samples)``.
    """

    rows: Rows
    x: Floats
    weight: Floats


@dataclass(frozen=True)
class Cloud:
    """A predicted population.

    Attributes
    ----------
    x
        Coordinates, shape ``(n, d)``.
    weight
        Weight of each cell, shape ``(n,)``, summing to one.
    rows
        Row of the cell that each started as, shape ``(n,)``.
    starts
        The observed times they started at, those before first.
    """

    x: Floats
    weight: Floats
    rows: Rows
    starts: tuple[float, ...]


@dataclass(frozen=True)
class Carrier:
    """Carries cells of a course.

    Attributes
    ----------
    flow
        The fitted flow.
    cells
        The course.
    noise
        Of the SDE; None for the ODE.
    integrator
        Options of the solver.
    quiet
        Whether predictions are made without a word in the log.
    """

    flow: Flow
    cells: Cells
    noise: Noise | None = None
    integrator: Integrator = field(default_factory=Integrator)
    quiet: bool = False

    def along(self, rows: Rows, times: Sequence[float]) -> Carried:
        """Carry some cells from ``times[0]`` through all ``times``; weights are growth relative to the start."""
        x = self.cells.x[rows]
        if len(times) == 1:
            return Carried(x[None], np.ones((1, len(rows))))
        given = self.cells.rates is not None and not self.flow.grows  # a flow that grows has learned the rates
        conditions = np.unique(self.cells.stratum[rows]).tolist() if given else []
        if len(conditions) > 1:  # each has times of its own at which its rates change
            out = Carried(np.empty((len(times), *x.shape)), np.empty((len(times), len(rows))))
            for condition in conditions:
                of = np.flatnonzero(self.cells.stratum[rows] == condition)
                one = self.along(rows[of], times)
                out.x[:, of], out.weight[:, of] = one.x, one.weight
            return out
        at = stops(self.cells, rows, times) if given else list(times)
        condition = self.cells.labels(rows)
        carried = self.flow.push(x, at, condition=condition, noise=self.noise, integrator=self.integrator)
        carried.x[0] = x  # as they are, not as float32 arithmetic leaves them
        if not given:
            return carried
        asked = [at.index(t) for t in times]
        grown = growth(self.cells, rows, at, carried.x)
        return Carried(carried.x[asked], carried.weight[asked] * grown[asked])

    def futures(self, rows: Rows, times: Sequence[float], n_samples: int = 1) -> Iterator[Futures]:
        """Where some cells end, ``n_samples`` times each, in blocks that bound the memory.

        Times between the first and the last only set the steps of the SDE, which are per interval of ``times``.
        """
        if self.noise is None:
            times, n_samples = [times[0], times[-1]], 1
        block = max(1, ROWS // n_samples)
        for first in range(0, len(rows), block):
            some = np.arange(first, min(first + block, len(rows)))
            carried = self.along(np.repeat(rows[some], n_samples), times)
            ends = carried.x[-1].reshape(len(some), n_samples, -1)
            yield Futures(some, ends, carried.weight[-1].reshape(len(some), n_samples))

    def predict(
        self, time: float, *, source_time: float | None = None, both_ends: bool = False, extrapolate: bool = False
    ) -> Cloud:
        """The population at a time.

        Parameters
        ----------
        time
            Any time.
        source_time
            Observed time to start from; by default the last one before ``time`` of each condition (its first one at
            the start of the course).
        both_ends
            Carry the cells of the next observed time backwards, too; each side weighs by how near it is and by how many
            cells it has.
        extrapolate
            Whether conditions may be carried beyond the times between which they were trained.

        Raises
        ------
        InputError
            If no condition can be carried there.
        """
        trained = self.carried_to(time, extrapolate=extrapolate)
        if source_time is not None:
            return _joined([self._side(time, dict.fromkeys(trained, (source_time, 1.0)))])
        ends = [self._ends(time, condition) for condition in trained]
        share = {e.condition: self._share(time, e) if both_ends else 0.0 for e in ends}
        ahead = self._side(time, {e.condition: (e.before, 1 - share[e.condition]) for e in ends})
        back = {e.condition: (e.after, share[e.condition]) for e in ends if e.after is not None}
        if not both_ends or not back:
            return _joined([ahead])
        mass = 1.0 if len(back) == len(ends) else ahead.mass_of(self.cells.stratum, list(back))
        return _joined([ahead, self._side(time, back, mass)])

    def carried_to(self, time: float, *, extrapolate: bool) -> list[int]:
        """The conditions that can be carried to a time; others are named in a warning.

        Raises
        ------
        InputError
            If there is none.
        """
        out = []
        for condition in self.cells.strata:
            first, last = self.flow.span(self.cells.condition_of(condition))
            if first <= time <= last or (extrapolate and first <= last):
                out.append(condition)
                continue
            between = f"between {first:g} and {last:g}" if first <= last else "at no time"
            name = self.cells.stratum_names[condition]
            if not self.quiet:
                logger.warning("condition %r was trained %s; it is not predicted at time %g", name, between, time)
        if not out:
            raise InputError(f"no condition was trained around time {time:g}, so no cells can be carried there.")
        return out

    def _ends(self, time: float, condition: int) -> _Ends:
        """The observed times of a condition on both sides of another."""
        observed = self.cells.times_of(condition)
        before, after = observed[observed < time], observed[observed > time]
        start = float(before[-1] if len(before) else observed[0])
        return _Ends(condition, start, float(after[0]) if len(before) and len(after) else None)

    def _share(self, time: float, ends: _Ends) -> float:
        """Of the later side."""
        if ends.after is None:
            return 0.0
        near, numbers = self.flow.axis.share(ends.before, time, ends.after), []
        for at in (ends.before, ends.after):
            w = self.cells.weights[self.cells.rows(at, ends.condition if self.cells.stratum_names else None)]
            numbers.append(w.sum() ** 2 / (w @ w))  # of as many cells of equal weight
        return float(near * numbers[1] / ((1 - near) * numbers[0] + near * numbers[1]))

    def _side(self, time: float, ends: Mapping[int, tuple[float, float]], mass: float = 1.0) -> _Side:
        """The cells of some conditions, each from a time of its own and with a share of its own, carried together."""
        parts = []
        for start in sorted({start for start, _ in ends.values()}):
            rows = self.cells.rows(start)
            share: Floats | float = next(iter(ends.values()))[1]
            if self.cells.stratum_names:
                share_of = np.full(len(self.cells.stratum_names), np.nan)  # of those that start here
                for condition, (own, part) in ends.items():
                    share_of[condition] = part if own == start else np.nan
                share = share_of[self.cells.stratum[rows]]
                rows, share = rows[~np.isnan(share)], share[~np.isnan(share)]
            if not len(rows):
                raise InputError(f"no cell of a trained condition was observed at time {start:g}; choose another one.")
            parts += self._parts(time, start, rows, share)
        return _Side(parts, mass)

    def _parts(self, time: float, start: float, rows: Rows, share: Floats | float) -> list[_Part]:
        """Cells carried from one time, and those that enter on the way."""
        cells, carried = self.cells, self.along(rows, [start] if start == time else [start, time])
        if not self.quiet:
            logger.info("carried %d cells from time %g to %g", len(rows), start, time)
        x, grown = carried.x[-1], cells.weights[rows] * carried.weight[-1]
        if cells.lost is None or time == start:
            return [_Part(start, rows, x, grown, share)]
        others = []
        for condition in np.unique(cells.stratum[rows]).tolist():
            of = np.flatnonzero(cells.stratum[rows] == condition)
            if self.flow.grows:  # its own growth counts among the cells that neither die nor enter
                x[of], grown[of] = in_place(cells, condition, rows[of], start, time, x[of], grown[of])
            for group in entrants(cells, condition, start, time):
                own = share if isinstance(share, float) else np.full(len(group.rows), share[of[0]])
                others.append(self._entered(group, time, own))
        return [_Part(start, rows, x, grown, share), *others]

    def _entered(self, group: Entrants, time: float, share: Floats | float) -> _Part:
        """Cells that entered, carried on from the observed time at which they did."""
        if group.time is None:
            return _Part(None, group.rows, self.cells.x[group.rows], group.mass, share)
        carried = self.along(group.rows, [group.time] if group.time == time else [group.time, time])
        return _Part(None, group.rows, carried.x[-1], group.mass * carried.weight[-1], share)

    def rolled_out(
        self, condition: int, until: Sequence[float] | None = None
    ) -> Iterator[tuple[float, Floats, Floats]]:
        """The populations of a condition, carried from its first observed time through all later ones.

        With ``until`` through those times, ascending, and the observed ones between.

        Yields
        ------
        A time, the coordinates of its population, shape ``(n, d)``, and the weight of each cell, shape ``(n,)``, in
        units of the weights at the first time.
        """
        cells, times = self.cells, self.cells.times_of(condition).tolist()
        if until is not None:
            times = sorted({*until, *(t for t in times if t <= until[-1])})
        rows = cells.rows(times[0], condition)
        groups = [(0, self.along(rows, times), cells.weights[rows])]
        for group in entrants(cells, condition, times[0], times[-1]):
            k = len(times) - 1 if group.time is None else times.index(group.time)
            groups.append((k, self.along(group.rows, times[k:]), group.mass))
        for i, t in enumerate(times[1:], start=1):
            here = [(one.x[i - k], mass * one.weight[i - k]) for k, one, mass in groups if k <= i]
            x, weight = (np.concatenate(parts) for parts in zip(*here, strict=True))
            yield t, x[weight > 0], weight[weight > 0]


class _Ends(NamedTuple):
    """A condition, and the observed times before and after the predicted one."""

    condition: int
    before: float
    after: float | None


class _Part(NamedTuple):
    """Cells that start at one time: where they arrive, what they weigh there, and the share of their side.

    Cells that enter on the way have no start.
    """

    start: float | None
    rows: Rows
    x: Floats
    grown: Floats
    share: Floats | float


class _Side(NamedTuple):
    """Cells carried in one direction, and the mass that their conditions have in the whole population."""

    parts: list[_Part]
    mass: float = 1.0

    @property
    def total(self) -> float:
        return float(sum(part.grown.sum() for part in self.parts))

    def mass_of(self, labels: Rows, conditions: list[int]) -> float:
        """Share of this side that some conditions have."""
        own = sum(part.grown[np.isin(labels[part.rows], conditions)].sum() for part in self.parts)
        return float(own) / self.total


def _joined(sides: list[_Side]) -> Cloud:
    parts = [part for side in sides for part in side.parts]
    weight = np.concatenate([side.mass * p.share * p.grown / side.total for side in sides for p in side.parts])
    started = [p.start for p in parts if p.start is not None]
    if len(started) > len(sides):  # conditions that start at different times: their shares need not sum to one
        weight = weight / weight.sum()
    x, rows = np.concatenate([p.x for p in parts]), np.concatenate([p.rows for p in parts])
    if len(started) < len(parts):  # a cell that fades on one side is one that enters on the other
        rows, first, same = np.unique(rows, return_index=True, return_inverse=True)
        x, weight = x[first], np.bincount(same, weight)
    return Cloud(x, weight, rows, tuple(started))


def make_noise(flow: Flow, stochastic: bool | float | None, rng: np.random.Generator) -> Noise | None:
    """The noise of ``stochastic=``; None for the ODE.

    Parameters
    ----------
    flow
        The flow.
    stochastic
        True is the noise of the bridge, a number scales it, and None is the SDE where the flow has a score.
    rng
        Seeds the noise.

    Raises
    ------
    InputError
        If it is negative or not finite.
    """
    strength = float(flow.has_score if stochastic is None else stochastic)
    if not 0 <= strength < np.inf:
        raise InputError(f"stochastic must be True, False, None or a non-negative number, found {stochastic!r}.")
    return Noise(torch_generator(rng, flow.device), strength) if strength else None
