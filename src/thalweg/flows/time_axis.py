"""Time axes: from the units of ``obs[time_key]`` to the model's, and back to velocities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.errors import InputError

if TYPE_CHECKING:
    from scipy.interpolate import CubicHermiteSpline

Floats = NDArray[np.float64]
_AT_ENDS = 0.25  # of the mean speed of the clock in the first and the last interval
Spacing = Literal["clock", "real", "index"] | Mapping[float, float]


class Leg(NamedTuple):
    """A part of a way between which and the next lies an observed time.

    Attributes
    ----------
    start, end
        Model times, in the direction of the way.
    low, high
        Bounds within which the field is that of this part; infinite beyond the first and the last observed time.
    """

    start: float
    end: float
    low: float
    high: float


@dataclass(frozen=True)
class TimeAxis:
    """Monotone map from physical time to ``tau``, which runs from 0 to the number of intervals.

    Attributes
    ----------
    times
        Observed times, ascending.
    knots, values
        Physical times and the model times they stand for; at least the observed ones.
    smooth
        Whether the map between the knots is a monotone cubic, whose slope is continuous, instead of linear.
    """

    times: Floats
    knots: Floats
    values: Floats
    smooth: bool = False

    @property
    def n_intervals(self) -> int:
        """Number of intervals between observed times."""
        return len(self.times) - 1

    @property
    def calendar(self) -> TimeAxis:
        """The axis without a clock of its own: the spacing of the times, unless another one was asked for."""
        return TimeAxis(self.times, self.times, self.times) if self.smooth else self

    @cached_property
    def _cubic(self) -> CubicHermiteSpline:
        return monotone_cubic(self.knots, self.values)

    @property
    def _scale(self) -> tuple[float, float]:
        first, last = np.interp(self.times[[0, -1]], self.knots, self.values)
        return float(first), float(last - first) / self.n_intervals

    def tau(self, time: ArrayLike) -> Floats:
        """Model time of physical ``time``; beyond the knots the outer slopes continue."""
        t = np.asarray(time, dtype=np.float64)
        first, unit = self._scale
        if self.smooth:
            inside = t.clip(self.knots[0], self.knots[-1])
            out: Floats = (self._cubic(inside) + self._cubic(inside, 1) * (t - inside) - first) / unit
            return out
        k = self._segment(t)
        slope = np.diff(self.values) / np.diff(self.knots)
        out = (self.values[k] + slope[k] * (t - self.knots[k]) - first) / unit
        return out

    def slope(self, time: ArrayLike) -> Floats:
        """``d tau / d time``; where it jumps, that to the right of a knot, at the last one to the left."""
        if self.smooth:
            smooth: Floats = self._cubic(np.clip(time, self.knots[0], self.knots[-1]), 1) / self._scale[1]
            return smooth
        slope = np.diff(self.values) / np.diff(self.knots)
        out: Floats = slope[self._segment(np.asarray(time, dtype=np.float64))] / self._scale[1]
        return out

    def share(self, before: float, time: float, after: float) -> float:
        """How far ``time`` lies between two others, from 0 at the one before to 1 at the one after."""
        lo, now, hi = self.tau([before, time, after])
        return float((now - lo) / (hi - lo))

    def _segment(self, t: Floats) -> NDArray[np.intp]:
        return np.clip(np.searchsorted(self.knots, t, side="right") - 1, 0, len(self.knots) - 2)

    def legs(self, start: float, end: float) -> Iterator[Leg]:
        """Parts of the way between two model times, cut at the observed times, where a field may jump.

        No order of a solver holds across a jump, and an evaluation at its very time may fall on either side: the bounds
        keep a margin of a few roundings of a single-precision time.
        """
        knots = self.tau(self.times)[1:-1]
        between = knots[(knots > min(start, end)) & (knots < max(start, end))]
        margin = 1e-6 * self.n_intervals
        for a, b in pairwise([start, *(between if end > start else between[::-1]).tolist(), end]):
            i = int(np.searchsorted(knots, (a + b) / 2))
            low = float(knots[i - 1]) + margin if i > 0 else -np.inf
            yield Leg(a, b, low, float(knots[i]) - margin if i < len(knots) else np.inf)

    def check(self, time: float, *, extrapolate: bool) -> None:
        """Refuse a time outside the observed range.

        Raises
        ------
        InputError
            If ``time`` is not finite, or lies outside and ``extrapolate`` is False.
        """
        lo, hi = float(self.times[0]), float(self.times[-1])
        if not np.isfinite(time):
            raise InputError(f"time must be a finite number, found {time!r}.")
        if not extrapolate and not lo <= time <= hi:
            raise InputError(
                f"time={time:g} lies outside the observed range {lo:g} to {hi:g}; "
                "the model has seen nothing there. Pass extrapolate=True to run it beyond."
            )


def monotone_cubic(knots: Floats, values: Floats) -> CubicHermiteSpline:
    """Monotone cubic through increasing values (Fritsch & Butland 1984), whose slope is zero nowhere.

    The one-sided slopes at the ends are no less than a share of those of the first and the last segment.
    """
    from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

    slope = PchipInterpolator(knots, values).derivative()(knots)
    ends, secant = [0, -1], np.diff(values) / np.diff(knots)
    slope[ends] = np.maximum(slope[ends], _AT_ENDS * secant[ends])
    return CubicHermiteSpline(knots, values, slope)


def make_axis(times: Floats, spacing: Spacing, lengths: Callable[[], Floats] | None = None) -> TimeAxis:
    """Make the axis of a fit.

    Parameters
    ----------
    times
        Observed times, ascending.
    spacing
        ``"real"`` keeps the spacing of the times, ``"index"`` puts them at 0, 1, 2, ..., a mapping gives the model time
        of each observed time (and of others between them). ``"clock"`` puts them as far apart as the populations are,
        with a monotone cubic between.
    lengths
        How far apart the populations of neighbouring times are, for ``"clock"``; shape ``(n_times - 1,)``.

    Raises
    ------
    InputError
        If a mapping misses an observed time or is not increasing, or the name is unknown.
    """
    if isinstance(spacing, Mapping):
        knots = np.array(sorted(spacing), dtype=np.float64)
        values = np.array([spacing[k] for k in sorted(spacing)], dtype=np.float64)
        absent = sorted(set(times.tolist()) - set(knots.tolist()))
        if absent:
            raise InputError(f"spacing has no entry for the observed times {absent}; it maps {knots.tolist()}.")
        if not (np.diff(values) > 0).all():
            raise InputError(f"spacing must increase with time, found {dict(spacing)}.")
        return TimeAxis(times, knots, values)
    if spacing == "clock" and lengths is not None:
        values = np.concatenate([[0.0], np.cumsum(lengths())]) if len(times) > 2 else times
        return TimeAxis(times, times, values, smooth=True)
    if spacing == "real":
        return TimeAxis(times, times, times)
    if spacing == "index":
        return TimeAxis(times, times, np.arange(len(times), dtype=np.float64))
    raise InputError(
        f"spacing must be 'clock', 'real', 'index' or a mapping from time to model time; found {spacing!r}."
    )
