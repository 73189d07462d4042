r"""Birth and death rates from gene scores (Schiebinger et al. 2019, Cell 176:928, Waddington-OT).

A logistic function turns the proliferation score ``p`` of a cell into a birth rate, and its apoptosis score ``a`` into
a death rate,

.. math:: \beta(p) = \beta_{min} + \frac{\beta_{max} - \beta_{min}}{1 + \exp(-4 (p - c_\beta) / w_\beta)}, \qquad
          \delta(a) = \delta_{min} + \frac{\delta_{max} - \delta_{min}}{1 + \exp(-4 (a - c_\delta) / w_\delta)},

and the growth rate is ``beta - delta``. At the centre ``c`` the rate is half-way between its ends; the width ``w`` is
the distance in which the tangent there crosses from one end to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
