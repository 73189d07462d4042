r"""The share: how much of the way from copying to the truth a prediction covers.

A Wasserstein distance has no natural size. Two distances say what it can be at best and at worst: a fresh sample of
the same population lies ``F`` from the real cells (`thalweg.core.fresh`), and the cells of the time before, copied as
they are, lie ``C`` from them. The share of a prediction that lies ``W`` away is

.. math:: s = \frac{C - W}{C - F} .

It is 0 for the copy and 1 for a fresh sample. It is negative where copying is better. In many dimensions it may exceed
1, as a cloud narrower than the population lies closer to the real cells than a fresh sample of it does.

The interval is that of the sampling of the real cells, to first order, by the shares of the cells in both distances
(`thalweg.core.distances.wasserstein_shares`) and the error of ``F``. With replicates it is that of drawing other
replicates: the same shares, as means over each replicate, scatter between them (`thalweg.data.replicates`). It is NaN
where a population has one replicate only. The prediction is taken as it is. Where ``C`` does
not exceed ``F`` by twice the error of their difference, nothing has moved that could be predicted, and there is no
share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thalweg.data.replicates import Spread, half_width, over_replicates

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
_LEVEL = 0.95  # of the interval


class Share(NamedTuple):
    """A share and its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


NONE = Share(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Scale:
    """What scores at a time are measured by.

    Attributes
    ----------
    copy
        W1 of the cells of the time before.
    by_cell
        Share of each real cell in it, shape ``(m,)``.
    fresh, fresh_error
        W1 of a fresh sample, and its standard error.
    weights
        Of the real cells, shape ``(m,)``, summing to one.
    replicates
        The real cells of each replicate, as rows, for each population apart; None where replicates were not named.
    """

    copy: float
    by_cell: Floats
    fresh: float
    fresh_error: float
    weights: Floats
    replicates: Sequence[Sequence[Rows]] | None = None

    @property
    def moves(self) -> bool:
        """Whether there is a way to cover: the copy lies further away than a fresh sample, beyond its error."""
        return bool(self.copy - self.fresh > 2 * np.hypot(self._error(self.by_cell), self.fresh_error))

    def share(self, w1: float, by_cell: Floats) -> Share:
        """Of a prediction, given its W1 and the share of each real cell in that."""
        if not self.moves:
            return NONE
        way = self.copy - self.fresh
        value = (self.copy - w1) / way
        parts = [*self._spreads((1 - value) * self.by_cell - by_cell), _known(value * self.fresh_error)]
        half = float(half_width(parts, _LEVEL)) / way
        return Share(value, value - half, value + half)

    def _spreads(self, by_cell: Floats) -> Iterator[Spread]:
        """Of a weighted mean over real cells, or over replicates of each population."""
        if self.replicates is None:
            yield _known(self._error(by_cell))
            return
        for parts in self.replicates:
            weights = np.array([self.weights[rows].sum() for rows in parts])
            means = np.array([self.weights[rows] @ by_cell[rows] for rows in parts]) / weights
            spread, share = over_replicates(means, weights)[1], weights.sum()
            yield Spread(spread.variance * share**2, spread.freedom)

    def _error(self, by_cell: Floats) -> float:
        """Standard error of a weighted mean over real cells."""
        return float(np.sqrt(self.weights**2 @ (by_cell - self.weights @ by_cell) ** 2))


def _known(error: float) -> Spread:
    """The spread of a known standard error."""
    return Spread(np.asarray(error**2), np.asarray(np.inf))
