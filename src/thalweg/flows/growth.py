r"""Growth rates of cells, from their genes and from unbalanced plans.

From gene scores (Schiebinger et al. 2019, Cell 176:928, Waddington-OT), by `BirthDeath`: a logistic function turns the
proliferation score ``p`` of a cell into a birth rate, and its apoptosis score ``a`` into a death rate,

.. math:: \beta(p) = \beta_{min} + \frac{\beta_{max} - \beta_{min}}{1 + \exp(-4 (p - c_\beta) / w_\beta)}, \qquad
          \delta(a) = \delta_{min} + \frac{\delta_{max} - \delta_{min}}{1 + \exp(-4 (a - c_\delta) / w_\delta)},

and the growth rate is ``beta - delta``. At the centre ``c`` the rate is half-way between its ends; the width ``w`` is
the distance in which the tangent there crosses from one end to the other.

From plans, by `rates_from_plans`: between neighbouring times an unbalanced plan ``pi`` is solved (Chizat et al. 2018),
and what a cell leaves at the next time is its share of what arrives there,

.. math:: n_i = \frac{1}{a_i} \sum_j \pi_{ij} \frac{b_j}{(\pi^T 1)_j}, \qquad g_i = \frac{\log n_i}{\Delta t},

with ``a, b`` the uniform weights of the two times. The mean of ``n`` is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger, settings
from thalweg.data.cells import Cells
from thalweg.data.rates import offspring
from thalweg.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BirthDeath:
    """Parameters of the birth and death rates, per day; the defaults are those of Waddington-OT.

    Centres and widths are in units of the scores, so they belong to log-normalised expression and scanpy's score; look
    at the two score columns before trusting rates from other data.

    Attributes
    ----------
    birth_min, birth_max
        Lowest and highest birth rate; 1.7 is a division in ``log(2) / 1.7`` days, about ten hours.
    birth_center, birth_width
        Proliferation score at the middle, and width of the rise.
    death_min, death_max, death_center, death_width
        The same for death and the apoptosis score.
    """

    birth_min: float = 0.3
    birth_max: float = 1.7
    birth_center: float = 0.25
    birth_width: float = 0.5
    death_min: float = 0.3
    death_max: float = 1.7
    death_center: float = 0.1
    death_width: float = 0.2

    def __post_init__(self) -> None:
        for kind in ("birth", "death"):
            lo, hi, center, width = (getattr(self, f"{kind}_{part}") for part in ("min", "max", "center", "width"))
            if not (0 <= lo <= hi < np.inf and 0 < width < np.inf and np.isfinite(center)):
                raise InputError(
                    f"BirthDeath needs 0 <= {kind}_min <= {kind}_max, a finite {kind}_center and {kind}_width > 0; "
                    f"found {lo!r}, {hi!r}, {center!r}, {width!r}."
                )

    def growth(self, proliferation: Floats, apoptosis: Floats) -> Floats:
        """Growth rate per day, birth less death."""
        birth = _logistic(proliferation, self.birth_min, self.birth_max, self.birth_center, self.birth_width)
        return birth - _logistic(apoptosis, self.death_min, self.death_max, self.death_center, self.death_width)


def _logistic(x: Floats, lo: float, hi: float, center: float, width: float) -> Floats:
    from scipy.special import expit

    out: Floats = lo + (hi - lo) * expit(4 * (x - center) / width)
    return out


def rates_from_plans(cells: Cells, relaxation: float) -> tuple[Floats, Floats]:
    """Rate of each cell, and the time to the next one at which its condition was observed; NaN where there is none.

    Raises
    ------
    InputError
        If ``relaxation`` is not positive and finite, or so small that a cell leaves nothing.
    """
    if not (relaxation > 0 and np.isfinite(relaxation)):
        raise InputError(f"relaxation must be positive and finite, found {relaxation!r}.")
    rate, dt = np.full(len(cells.x), np.nan), np.full(len(cells.x), np.nan)
    for condition in cells.strata:
        for t0, t1 in pairwise(cells.times_of(condition).tolist()):
            rows, cols = cells.rows(t0, condition), cells.rows(t1, condition)
            dt[rows] = t1 - t0
            rate[rows] = np.log(_left_behind(cells.x[rows], cells.x[cols], relaxation)) / (t1 - t0)
            of = cells.of(condition)
            logger.info("time %g to %g%s: unbalanced plan of %d x %d cells", t0, t1, of, len(rows), len(cols))
    return rate, dt


def relative_offspring(rate: Floats, dt: Floats, time: Floats) -> Floats:
    """``exp(rate dt)`` over its mean within the time; 1 where no later time is observed."""
    out = np.ones(len(rate))
    for t in np.unique(time):
        rows = np.flatnonzero((time == t) & np.isfinite(dt))
        if len(rows):
            grown = offspring(rate[rows], dt[rows])
            out[rows] = grown / grown.mean()
    return out


def _left_behind(x0: Floats, x1: Floats, relaxation: float) -> Floats:
    """What each source cell leaves at the target, relative to the average cell."""
    import torch

    from thalweg.core.couplings import unbalanced

    scale = float(x0.std()) or 1.0
    y0, y1 = (torch.as_tensor((x - x0.mean(0)) / scale, dtype=torch.float32) for x in (x0, x1))
    plan = unbalanced(y0, y1, relaxation, max_memory=settings.max_memory)
    arriving = plan.marginals()[1]
    share = plan.mass / (arriving[plan.cols] * len(x1))
    n = torch.zeros(len(x0), dtype=torch.float64).index_add_(0, plan.rows, share).numpy() * len(x0)
    if not (n > 0).all():
        raise InputError(
            f"{int((n == 0).sum())} cells leave nothing in the unbalanced plan, so their rate is not finite; raise "
            f"relaxation (found {relaxation:g})."
        )
    return n
