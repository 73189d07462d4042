r"""Differences of shares between two arms: a quasi-binomial test for few replicates.

Of the ``n_i`` cells of unit ``i``, ``y_ig`` are of group ``g``. They are counts, or sums of probabilities of fate. The
odds of a group differ between arms, and between blocks. Replicates scatter more than cells drawn from one pot would:

.. math:: \mathrm{var}(y_{ig}) = \phi_g \, n_i p_{ig} (1 - p_{ig}) \, (1 + (n_i - 1) \rho).

- :math:`\rho` is the correlation of two cells of a unit, one for all groups, such that Pearson's statistics of all
  groups sum to their degrees of freedom (Williams 1982). Only where totals differ does it matter: it says how much
  more a unit of 3,000 cells tells than one of 200. With :math:`\rho = 0` such units count too much, and .08 of true
  nulls had a p below .05.
- :math:`\phi_g` is the dispersion of the group: Pearson's statistic over its degrees of freedom, moderated over groups
  (`moderation`; Lund et al. 2012). It is bounded below so that no standard error is less than that of a sample of
  cells. Without this bound, rare groups are called different too often.
- The test is an F test of the quasi-likelihood (Wedderburn 1974; McCullagh and Nelder 1989).

*Why this test.* ``benchmarks/single_cell/comparison_calibration.py`` compares it with others, at three and five
replicates. It alone kept to .07 at .05 in every design, and found a fall from .30 to .15 among 20 groups. A t test on
transformed shares finds that fall about half as often. The moderated t test on them (Phipson et al. 2022) finds it as
often, but rejects true nulls of rare groups where one arm has far fewer cells. The likelihood ratio of a beta-binomial
distribution rejects about one true null in ten.

*Intervals.* The difference of shares is the mean over blocks with the weights of Cochran, so blocks need not be alike.
The share of each arm has a Wilson interval for as many cells as its variance is worth, and the two make that of the
difference (Newcombe 1998). It lies within [-1, 1] and has a width even where an arm has no cell of the group.
It does not come of the F test, so near p = .05 one may exclude zero where the other does not.

*References.* D. A. Williams, "Extra-binomial variation in logistic linear models", Applied Statistics 1982.
R. W. M. Wedderburn, "Quasi-likelihood functions, generalized linear models, and the Gauss-Newton method", Biometrika
1974. P. McCullagh, J. A. Nelder, "Generalized Linear Models", 1989. S. P. Lund, D. Nettleton, D. J. McCarthy, G. K.
Smyth, "Detecting differential expression in RNA-sequence data using quasi-likelihood with shrunken dispersion
estimates", Statistical Applications in Genetics and Molecular Biology 2012. B. Phipson et al., "propeller: testing for
differences in cell type proportions in single cell data", Bioinformatics 2022. R. G. Newcombe, "Interval estimation for
the difference between independent proportions", Statistics in Medicine 1998.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from thalweg.core.comparison.design import Design, make_design
from thalweg.core.comparison.moderation import fit_prior
from thalweg.errors import InputError

Floats = NDArray[np.float64]
_SLACK = 1e-9  # of a total: what rounding may add to a sum of probabilities
_LEVEL = 0.95
_STEEPEST = 40.0  # of a log odds ratio that is searched; larger ones are infinite
_CLOSE = 1e-12  # of a log odds ratio that has been found
_SURE = 1e-5  # of the logarithm of a correlation: p values hardly depend on it
_SMALLEST = 1e-9  # of a correlation: below it no unit of a million cells feels it


@dataclass(frozen=True)
class ShareShifts:
    """Differences of shares; arrays of shape ``(n_groups,)`` unless said otherwise.

    Attributes
    ----------
    share
        Share of the group in arm 0 and arm 1, shape ``(2, n_groups)``, blocks weighted alike in both.
    difference, low, high
        Share in arm 1 less share in arm 0, and its 95 % interval; the interval is NaN without replicates.
    log_odds_ratio, log_odds_ratio_se
        Log of the odds in arm 1 over those in arm 0, and its standard error; both infinite where one arm has none of
        the group or nothing else.
    dispersion
        Moderated dispersion; 1 is that of the variance that all groups share.
    df
        Degrees of freedom of the denominator of F, those of the prior included.
    p
        Of the F test; NaN without replicates, and for groups that no unit has or that are everything in all units.
    correlation
        Correlation of two cells of a unit, a number.
    """

    share: Floats
    difference: Floats
    low: Floats
    high: Floats
    log_odds_ratio: Floats
    log_odds_ratio_se: Floats
    dispersion: Floats
    df: Floats
    p: Floats
    correlation: float


def quasi_binomial(counts: ArrayLike, totals: ArrayLike, arm: ArrayLike, block: ArrayLike | None = None) -> ShareShifts:
    """Compare the share of each group between two arms.

    Parameters
    ----------
    counts
        Cells of each group in each unit, or sums of probabilities, shape ``(n_units, n_groups)``. For such sums the
        test is cautious where replicates hardly differ, since a sum of probabilities scatters less than a count.
    totals
        Cells of each unit, shape ``(n_units,)``.
    arm
        0 or 1 for each unit.
    block
        Label of the batch of each unit; None if there are no batches. Blocks that hold one arm only are allowed and
        tell nothing of the difference.

    Raises
    ------
    InputError
        If a total is not positive, a count is negative or above the total, or ``arm`` and ``block`` do not describe two
        arms that can be compared.
    """
    y, n = _checked(counts, totals)
    return compare(y, n, make_design(arm, block, len(y)))


def compare(
    y: Floats, n: Floats, design: Design, *, weighted: bool = True, bounded: bool = True, caution: float = 1.0
) -> ShareShifts:
    """`quasi_binomial` on checked arrays, with its choices open to those who compare them.

    Parameters
    ----------
    y, n, design
        Counts, totals and arms.
    weighted
        Whether cells of a unit are correlated; otherwise a unit counts by its number of cells.
    bounded
        Whether the standard error is at least that of a sample of cells.
    caution
        As in `fit_prior`; infinite for dispersions that are not moderated.
    """
    varied = _Cells.of(y, n, np.ones_like(n), design).varied()
    correlation = _correlation(y[:, varied], n, design) if weighted else 0.0
    weight = 1 / (1 + (n - 1) * correlation)
    cells = _Cells.of(y, n, weight, design)
    ratio, p = cells.fit()
    dispersion, df = np.full(y.shape[1], np.nan), np.full(y.shape[1], float(design.df))
    if design.df > 0:
        raw = _pearson(y, n, weight, p, design)[varied] / design.df
        prior = fit_prior(raw, design.df, caution=caution)
        # shares that sum to one tell of one group less
        told = int(varied.sum()) - int(np.allclose(y.sum(1), n, rtol=1e-6, atol=0))
        least = float((weight**2 * n).sum() / (weight * n).sum()) if bounded else 0.0
        dispersion[varied] = np.maximum(prior.moderate(raw, design.df), least)
        df[:] = min(prior.df + design.df, design.df * max(told, 1))
    share, worth = cells.standardised()
    low, high = _interval(share, worth[:, None] / dispersion, df)
    with np.errstate(divide="ignore", invalid="ignore"):
        f = np.maximum(cells.gain(p), 0.0) / dispersion
        error = np.where(np.isinf(ratio), np.inf, np.sqrt(dispersion / cells.information(p)))
    ratio[~varied] = error[~varied] = np.nan
    return ShareShifts(
        share, share[1] - share[0], low, high, ratio, error, dispersion, df, stats.f.sf(f, 1, df), correlation
    )


@dataclass(frozen=True)
class _Cells:
    """Weighted counts ``y`` of shape ``(n_blocks, 2, n_groups)`` and totals ``n`` of shape ``(n_blocks, 2, 1)``."""

    y: Floats
    n: Floats

    @classmethod
    def of(cls, y: Floats, n: Floats, weight: Floats, design: Design) -> _Cells:
        place = 2 * design.block + design.arm
        member = (place == np.arange(2 * design.n_blocks)[:, None]) * weight
        return cls((member @ y).reshape(design.n_blocks, 2, -1), (member @ n).reshape(design.n_blocks, 2, 1))

    @property
    def both(self) -> _Cells:
        """Those of the blocks that hold both arms: the others tell nothing of a difference."""
        whole = (self.n > 0).all((1, 2))
        return _Cells(self.y[whole], self.n[whole])

    def range(self) -> tuple[Floats, Floats]:
        """Fewest and most of each group that arm 1 can hold, given the sums of the blocks."""
        total = self.y.sum(1)
        return np.maximum(total - self.n[:, 0], 0).sum(0), np.minimum(self.n[:, 1], total).sum(0)

    def varied(self) -> NDArray[np.bool_]:
        """Whether the group could differ between arms: some unit has it, and some has others."""
        fewest, most = self.both.range()
        return most - fewest > _SLACK * self.n.sum()

    def fit(self) -> tuple[Floats, Floats]:
        """Log odds ratio of each group, and fitted shares of the shape of ``y``.

        The score of the log odds ratio falls steadily, so Newton's steps are held within a bracket. They start from
        the ratio of all blocks together, which is the answer where there is one block. For each ratio the odds of a
        block have a closed form.
        """
        both = self.both
        here, (fewest, most), slack = both.y[:, 1].sum(0), both.range(), _SLACK * self.n.sum()
        empty, full = here - fewest <= slack, most - here <= slack
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.diff(special.logit(both.y.sum(0) / both.n.sum(0)), axis=0)[0]
        ratio = np.where(empty, -np.inf, np.where(full, np.inf, np.where(np.isfinite(ratio), ratio, 0.0)))
        low, high = np.full(len(here), -_STEEPEST), np.full(len(here), _STEEPEST)
        for _ in range(100):
            p = both.shares(ratio)
            score = here - (both.n[:, 1] * p[:, 1]).sum(0)
            low, high = np.where(score > 0, ratio, low), np.where(score > 0, high, ratio)
            with np.errstate(divide="ignore", invalid="ignore"):
                ahead = ratio + score / both.information(p)
                found = empty | full | (np.abs(ahead - ratio) <= _CLOSE)
            if found.all():
                break
            ahead = np.where((ahead > low) & (ahead < high), ahead, (low + high) / 2)
            ratio = np.where(found, ratio, ahead)
        return ratio, self.shares(ratio)

    def shares(self, ratio: Floats) -> Floats:
        """Fitted shares of the cells, given the log odds ratio: the odds of a block solve a quadratic equation."""
        up = ratio > 0  # then arm 1 has the higher odds; with those no digits are lost
        times, total = np.exp(-np.abs(ratio)), self.y.sum(1)
        more, less = np.where(up, self.n[:, 1], self.n[:, 0]), np.where(up, self.n[:, 0], self.n[:, 1])
        linear = more + less * times + total * (1 - times)
        root = np.sqrt(np.maximum(linear**2 - 4 * more * (1 - times) * total, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            above = np.clip(np.where(total > 0, 2 * total / (linear + root), 0), 0, 1)
            below = np.clip(np.where(less > 0, (total - more * above) / less, 0), 0, 1)
        return np.stack([np.where(up, below, above), np.where(up, above, below)], axis=1)

    def information(self, p: Floats) -> Floats:
        """Of the log odds ratio, with the odds of the blocks unknown."""
        with np.errstate(divide="ignore"):
            return (1 / (1 / (self.n * p * (1 - p))).sum(1)).sum(0)

    def gain(self, p: Floats) -> Floats:
        """Fall of the deviance from one share in both arms to the fitted shares."""
        one = self.y.sum(1, keepdims=True) / self.n.sum(1, keepdims=True)
        terms = self._log_likelihood(p) - self._log_likelihood(np.broadcast_to(one, p.shape))
        return 2 * terms.sum((0, 1))

    def _log_likelihood(self, p: Floats) -> Floats:
        return special.xlogy(self.y, p) + special.xlog1py(np.maximum(self.n - self.y, 0), -p)

    def standardised(self) -> tuple[Floats, Floats]:
        """Shares of the arms, shape ``(2, n_groups)``, and the cells that each is worth, shape ``(2,)``."""
        y, n = self.both.y, self.both.n
        cochran = n.prod(1, keepdims=True) / n.sum(1, keepdims=True)
        cochran = cochran / cochran.sum()
        return (cochran * y / n).sum(0), 1 / (cochran**2 / n).sum((0, 2))


def _pearson(y: Floats, n: Floats, weight: Floats, p: Floats, design: Design) -> Floats:
    """Pearson's statistic of each group."""
    fitted = p[design.block, design.arm.astype(np.int64)]
    variance = n[:, None] * fitted * (1 - fitted)
    squares = weight[:, None] * np.square(y - n[:, None] * fitted)
    return np.divide(squares, variance, out=np.zeros_like(squares), where=variance > 0).sum(0)


def _correlation(y: Floats, n: Floats, design: Design) -> float:
    """Correlation at which Pearson's statistics of all groups sum to their degrees of freedom; none if they do at 0."""
    if design.df == 0 or y.shape[1] == 0:
        return 0.0

    def excess(correlation: float) -> float:  # on a logarithmic scale, where it is nearly straight
        weight = 1 / (1 + (n - 1) * correlation)
        p = _Cells.of(y, n, weight, design).fit()[1]
        return math.log(max(float(_pearson(y, n, weight, p, design).sum()) / (design.df * y.shape[1]), _SMALLEST))

    most = excess(0.0)
    if most <= 0:
        return 0.0
    if np.ptp(n) == 0 and n[0] > 1:  # one weight for all units, which divides the statistics
        return min(math.expm1(most) / float(n[0] - 1), 1.0)
    if excess(1.0) >= 0:
        return 1.0
    return math.exp(optimize.brentq(lambda log: excess(math.exp(log)), math.log(_SMALLEST), 0.0, xtol=_SURE))


def _interval(share: Floats, worth: Floats, df: Floats) -> tuple[Floats, Floats]:
    """Newcombe's interval of the difference of two shares that are worth so many cells each."""
    quantile = np.square(stats.t.ppf((1 + _LEVEL) / 2, df))
    middle = (share + quantile / (2 * worth)) / (1 + quantile / worth)
    half = np.sqrt(quantile * (share * (1 - share) / worth + quantile / (4 * worth**2))) / (1 + quantile / worth)
    below, above = share - (middle - half), middle + half - share
    difference = share[1] - share[0]
    low, high = difference - np.hypot(below[1], above[0]), difference + np.hypot(above[1], below[0])
    return np.clip(low, -1, 1), np.clip(high, -1, 1)  # rounding


def _checked(counts: ArrayLike, totals: ArrayLike) -> tuple[Floats, Floats]:
    y, n = np.asarray(counts, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    if y.ndim != 2 or n.shape != y.shape[:1] or not (np.isfinite(y).all() and np.isfinite(n).all()):
        raise InputError(
            "counts must be finite, of shape (n_units, n_groups), and totals of shape (n_units,); "
            f"found shapes {y.shape} and {n.shape}."
        )
    if not (n > 0).all():
        raise InputError(f"totals must be positive, found {n.min():g} in unit {int(n.argmin())}; leave such units out.")
    above = (y > n[:, None] * (1 + _SLACK)) | (y < 0)
    if above.any():
        unit, group = (int(k) for k in np.argwhere(above)[0])
        raise InputError(
            f"counts must lie between 0 and the total of their unit, found {y[unit, group]:g} of {n[unit]:g} in unit "
            f"{unit}, group {group}."
        )
    return y, n
