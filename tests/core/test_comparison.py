"""Tests of two arms: closed forms, other programs, invariances, and what is known of the truth."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special, stats

from thalweg.core.comparison.design import make_design
from thalweg.core.comparison.means import moderated_means
from thalweg.core.comparison.moderation import fit_prior
from thalweg.core.comparison.pvalues import adjusted, combined
from thalweg.core.comparison.shares import _interval, compare, quasi_binomial
from thalweg.errors import InputError

ARM = np.array([0, 0, 0, 1, 1, 1])
PAIRS = ["a", "b", "c", "a", "b", "c"]
SCATTER = 0.03**2 / 0.21  # correlation that gives a share of .30 a standard deviation of .03
FIELDS = ("share", "difference", "low", "high", "log_odds_ratio", "log_odds_ratio_se", "dispersion", "df", "p")


def drawn(
    mean: list[float],
    rng: np.random.Generator,
    totals: np.ndarray | None = None,
    batch: float = 0.0,
    to: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of six units; ``batch`` moves the log of the shares of a pair, ``to`` is the first share in arm 1."""
    totals = np.full(6, 1000) if totals is None else totals
    shares = np.tile(mean, (6, 1))
    if to is not None:
        shares[3:] *= np.where(np.arange(len(mean)) == 0, to / mean[0], (1 - to) / (1 - mean[0]))
    shares *= np.exp(batch * np.tile(rng.standard_normal((3, len(mean))), (2, 1)))
    scattered = rng.gamma(shares / shares.sum(1, keepdims=True) * (1 / SCATTER - 1))
    return rng.multinomial(totals, scattered / scattered.sum(1, keepdims=True)).astype(float), totals.astype(float)


# means


def test_one_feature_gets_the_ordinary_t_tests():
    y = np.random.default_rng(0).standard_normal((6, 1)) + ARM[:, None]
    plain, paired = moderated_means(y, ARM), moderated_means(y, ARM, PAIRS)
    two, pair = stats.ttest_ind(y[3:, 0], y[:3, 0]), stats.ttest_rel(y[3:, 0], y[:3, 0])
    assert [plain.t[0], plain.p[0], plain.df[0]] == pytest.approx([two.statistic, two.pvalue, 4], rel=1e-9)
    assert [paired.t[0], paired.p[0], paired.df[0]] == pytest.approx([pair.statistic, pair.pvalue, 2], rel=1e-9)
    assert plain.estimate[0] == pytest.approx(y[3:].mean() - y[:3].mean(), rel=1e-12)
    assert plain.se[0] == pytest.approx(plain.estimate[0] / two.statistic, rel=1e-9)


def test_blocks_of_any_make_are_those_of_a_linear_model():
    """Two units of an arm in one block, and a block of one arm, which tells of the variance alone."""
    rng = np.random.default_rng(1)
    block, arm = np.array(list("aaabbcc")), np.array([0, 1, 1, 0, 1, 0, 0])
    y = rng.standard_normal((7, 1))
    design = np.column_stack([*(block == b for b in "abc"), arm]).astype(float)
    fit = sm.OLS(y[:, 0], design).fit()
    found = moderated_means(y, arm, block)
    assert [found.estimate[0], found.se[0], found.p[0]] == pytest.approx([fit.params[-1], fit.bse[-1], fit.pvalues[-1]])


@pytest.mark.parametrize(("d0", "s2"), [(4.0, 0.5), (12.0, 3.0)])
def test_the_prior_of_simulated_variances_is_recovered(d0, s2):
    """Four thousand scaled inverse chi-square variances; the errors of both estimates are near 5 and 1 %."""
    rng = np.random.default_rng(2)
    true = s2 * d0 / rng.chisquare(d0, 4000)
    prior = fit_prior(true * rng.chisquare(4, 4000) / 4, 4, caution=0)
    assert prior.df == pytest.approx(d0, rel=0.2)
    np.testing.assert_allclose(prior.variance, s2, rtol=0.05)
    assert 0 < fit_prior(true * rng.chisquare(4, 4000) / 4, 4).df < 1.1 * d0  # with caution: less, if anything


def test_moments_of_the_prior_are_those_of_smyth():
    """Variances made so that mean and variance of their logarithms are exactly those of a scaled F."""
    d, d0, s2 = 4, 10.0, 2.0
    spread = special.polygamma(1, d / 2) + special.polygamma(1, d0 / 2)
    centre = np.log(s2) + special.digamma(d / 2) - special.digamma(d0 / 2) + np.log(d0 / d)
    z = np.random.default_rng(3).standard_normal(50)
    z = (z - z.mean()) / z.std(ddof=1) * np.sqrt(spread) + centre
    prior = fit_prior(np.exp(z), d, caution=0)
    assert prior.df == pytest.approx(d0, rel=1e-6)
    np.testing.assert_allclose(prior.variance, s2, rtol=1e-6)
    variances = np.exp(z)
    np.testing.assert_allclose(prior.moderate(variances, d), (d0 * s2 + d * variances) / (d0 + d), rtol=1e-6)


def test_variances_that_are_all_alike_have_a_prior_without_end():
    prior = fit_prior(np.full(5, 2.0), 4, caution=0)
    assert prior.df == np.inf
    moderated = prior.moderate(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 4)
    level = 2.0 / np.exp(special.digamma(2) - np.log(2))  # the logarithm of a chi square is low on average
    np.testing.assert_allclose(moderated, level)


def test_degrees_of_freedom_are_no_more_than_those_of_all_features():
    y = np.tile(np.random.default_rng(4).standard_normal((6, 1)), (1, 3)) * [1, -1, 1]
    assert moderated_means(y, ARM).df.max() <= 12
    assert moderated_means(np.random.default_rng(5).standard_normal((6, 2000)), ARM).df[0] > 20


def test_constant_features_do_not_move_the_others():
    y = np.random.default_rng(6).standard_normal((6, 40)) + 5
    some = moderated_means(y, ARM)
    all_of_them = moderated_means(np.column_stack([y, np.full((6, 3), 0.1)]), ARM)
    np.testing.assert_allclose(all_of_them.p[:40], some.p, rtol=1e-9)
    np.testing.assert_allclose(all_of_them.p[40:], 1.0)
    split = moderated_means(np.column_stack([y, ARM * 4.0]), ARM)
    assert 0 < split.p[40] < 1e-2  # its own variance is zero, that of the others is not
    assert np.isnan(moderated_means(np.ones((6, 1)), ARM).p[0])


def test_the_trend_follows_variances_that_grow_with_the_mean():
    rng = np.random.default_rng(7)
    level = np.linspace(0, 10, 20000)
    y = level + rng.standard_normal((6, 20000)) * np.exp(0.15 * (level - 5))
    flat, bent = moderated_means(y, ARM).p < 0.05, moderated_means(y, ARM, trend=True).p < 0.05
    high = level > 8
    assert flat[high].mean() > 0.09 > 0.065 > bent[high].mean() > 0.04  # without: too many where variances are large
    prior = fit_prior(np.exp(level), 4, trend=level, caution=0)
    np.testing.assert_allclose(np.diff(np.log(prior.variance)), np.diff(level), rtol=1e-6)


def test_the_trend_bends_inside_and_is_straight_at_the_ends():
    x = np.linspace(0, 1, 400)
    bend = np.diff(np.log(fit_prior(np.exp(3 * x**2), 4, trend=x).variance), 2)
    assert np.abs(bend[[0, -1]]).max() < 0.02 * bend.max()
    assert bend[100:300].min() > 0.5 * bend.max()


def test_the_moderated_test_is_right_and_stronger():
    rng = np.random.default_rng(8)
    sd = np.sqrt(1 / (rng.chisquare(10, 4000) / 10))
    null = rng.standard_normal((6, 4000)) * sd
    shifted = null + 2.5 * ARM[:, None]
    moderated = moderated_means(null, ARM).p < 0.01
    assert moderated.mean() == pytest.approx(0.01, abs=0.005)
    plain = stats.ttest_ind(shifted[:3], shifted[3:]).pvalue < 0.01
    assert (moderated_means(shifted, ARM).p < 0.01).mean() > plain.mean() + 0.15


# shares


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("unequal", [False, True])
def test_one_group_is_the_quasi_binomial_of_statsmodels(blocked, unequal):
    rng = np.random.default_rng(9)
    n = rng.integers(200, 3000, 6) if unequal else np.full(6, 1000)
    y, n = drawn([0.3, 0.7], rng, n, batch=0.4 * blocked)
    found = quasi_binomial(y[:, :1], n, ARM, PAIRS if blocked else None)
    blocks = np.array(PAIRS)[:, None] == list("abc") if blocked else np.ones((6, 1))
    weights = n / (1 + (n - 1) * found.correlation)

    def fitted(x):
        return sm.GLM(y[:, 0] / n, x, family=sm.families.Binomial(), var_weights=weights).fit(scale="X2", tol=1e-14)

    full, null = fitted(np.column_stack([blocks, ARM]).astype(float)), fitted(np.asarray(blocks, dtype=float))
    f = (null.deviance - full.deviance) / full.scale
    assert found.correlation > 0
    assert found.log_odds_ratio[0] == pytest.approx(full.params[-1], rel=1e-7)
    assert found.log_odds_ratio_se[0] == pytest.approx(full.bse[-1], rel=1e-6)
    assert found.dispersion[0] == pytest.approx(full.scale, rel=1e-7)
    assert found.p[0] == pytest.approx(stats.f.sf(f, 1, full.df_resid), rel=1e-6)


def test_a_group_and_all_other_cells_say_the_same():
    y, n = drawn([0.3, 0.7], np.random.default_rng(10), to=0.2)
    both, one = quasi_binomial(y, n, ARM, PAIRS), quasi_binomial(y[:, :1], n, ARM, PAIRS)
    assert both.p == pytest.approx([one.p[0]] * 2, rel=1e-7)
    assert both.df[0] == one.df[0] == 2  # a second group that is the rest adds no degree of freedom
    assert both.difference == pytest.approx([one.difference[0], -one.difference[0]])
    assert [both.low[1], both.high[1]] == pytest.approx([-both.high[0], -both.low[0]])
    assert both.log_odds_ratio[1] == pytest.approx(-both.log_odds_ratio[0])


@pytest.mark.parametrize("block", [None, PAIRS])
def test_order_and_names_do_not_matter_and_arms_may_be_exchanged(block):
    rng = np.random.default_rng(11)
    y, n = drawn([0.3, 0.4, 0.2, 0.1, 0.0], rng, rng.integers(200, 3000, 6), to=0.2)
    found = quasi_binomial(y, n, ARM, block)
    units, groups = rng.permutation(6), rng.permutation(5)
    names = None if block is None else [f"batch {block[i]}" for i in units]
    moved = quasi_binomial(y[units][:, groups], n[units], ARM[units], names)
    turned = quasi_binomial(y, n, 1 - ARM, block)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(moved, name), getattr(found, name)[..., groups], rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(turned.p, found.p, rtol=1e-4)
    np.testing.assert_allclose(turned.low, -found.high, rtol=1e-4)
    np.testing.assert_allclose(turned.share[::-1], found.share, rtol=1e-6)


def test_equal_totals_need_no_correlation():
    y, n = drawn([0.3, 0.4, 0.2, 0.1], np.random.default_rng(12), to=0.25)
    design = make_design(ARM, None, 6)
    with_it, without = compare(y, n, design), compare(y, n, design, weighted=False)
    assert with_it.correlation > 0 == without.correlation
    np.testing.assert_allclose(with_it.p, without.p, rtol=1e-7)
    np.testing.assert_allclose([with_it.low, with_it.high], [without.low, without.high], rtol=1e-7)


def test_the_correlation_of_cells_is_recovered_from_units_of_many_sizes():
    rng = np.random.default_rng(13)
    found = []
    for _ in range(40):
        y, n = drawn([0.1] * 10, rng, rng.integers(200, 3000, 6))
        found.append(quasi_binomial(y, n, ARM).correlation)
    assert np.mean(found) == pytest.approx(SCATTER, rel=0.1)


def test_replicates_closer_than_samples_can_be_count_as_samples():
    """The standard error of three exact thirds is that of 3,000 cells of each arm."""
    y = np.full((6, 1), 300.0)
    found = quasi_binomial(y, np.full(6, 1000.0), ARM)
    assert found.dispersion[0] == 1
    assert found.log_odds_ratio_se[0] == pytest.approx(np.sqrt(2 / (3000 * 0.21)))


def test_groups_that_are_absent():
    y, n = drawn([0.3, 0.4, 0.3], np.random.default_rng(14))
    one_arm = np.array([0, 0, 0, 12.0, 15, 9])
    y = np.column_stack([y[:, 0], y[:, 1], np.zeros(6), one_arm, n])
    found = quasi_binomial(y, n, ARM)
    assert np.isnan(found.p[[2, 4]]).all()
    assert np.isfinite(found.p[[0, 1, 3]]).all()
    assert found.difference[[2, 4]].tolist() == [0, 0]
    assert found.log_odds_ratio[3] == np.inf
    assert found.log_odds_ratio_se[3] == np.inf
    assert found.p[3] < 0.05
    assert 0 < found.low[3] < found.difference[3] < found.high[3] < 1
    alone = quasi_binomial(y[:, [0, 1, 3]], n, ARM)
    np.testing.assert_allclose(alone.p, found.p[[0, 1, 3]], rtol=1e-7)  # what cannot be tested changes nothing


@pytest.mark.parametrize("block", [None, PAIRS])
def test_a_whole_exchange_of_groups_stays_within_its_bounds(block):
    y = np.outer(1 - ARM, [50.0, 0]) + np.outer(ARM, [0, 50.0])
    found = quasi_binomial(y, np.full(6, 50.0), ARM, block)
    assert found.difference == pytest.approx([-1, 1])
    assert [found.low[0], found.high[1]] == pytest.approx([-1, 1])
    assert np.abs([found.low, found.high]).max() <= 1
    assert found.high[0] < -0.8
    assert (found.p < 0.01).all()
    assert found.log_odds_ratio.tolist() == [-np.inf, np.inf]


def test_without_replicates_there_are_shares_and_no_tests():
    found = quasi_binomial([[30.0, 70], [15, 85]], [100, 100], [0, 1])
    assert found.difference == pytest.approx([-0.15, 0.15])
    assert np.isnan([found.p, found.low, found.high, found.dispersion, found.log_odds_ratio_se]).all()
    means = moderated_means([[1.0, 2], [3, 3]], [0, 1])
    assert means.estimate.tolist() == [2, 1]
    assert np.isnan([means.p, means.se]).all()


def test_blocks_find_what_batches_hide_and_break_nothing():
    rng, sets = np.random.default_rng(15), 200
    mean = [0.3, 0.25, 0.2, 0.15, 0.1]
    null = [drawn(mean, rng, batch=0.4) for _ in range(sets)]
    shifted = [drawn(mean, rng, batch=0.4, to=0.2) for _ in range(sets)]
    kept = np.mean([quasi_binomial(*s, ARM, PAIRS).p < 0.05 for s in null])
    assert kept == pytest.approx(0.05, abs=0.025)
    power = [np.mean([quasi_binomial(*s, ARM, b).p[0] < 0.05 for s in shifted]) for b in (None, PAIRS)]
    assert power[1] > power[0] + 0.3


def test_null_sets_of_units_of_unequal_size_are_seldom_called_and_shifts_often():
    """The figures are in ``comparison_calibration.json``; without a correlation of cells the first is near .10."""
    rng, sets = np.random.default_rng(16), 300
    rest = 0.75 ** np.arange(7)
    mean = [0.3, *(0.7 * rest / rest.sum())]
    null = [drawn(mean, rng, np.exp(rng.uniform(np.log(200), np.log(3000), 6)).astype(int)) for _ in range(sets)]
    shifted = [drawn(mean, rng, to=0.15) for _ in range(60)]
    design = make_design(ARM, None, 6)
    assert np.mean([quasi_binomial(*s, ARM).p < 0.05 for s in null]) < 0.07
    assert np.mean([compare(*s, design, weighted=False).p < 0.05 for s in null]) > 0.075
    assert np.mean([adjusted(quasi_binomial(*s, ARM).p)[0] < 0.05 for s in shifted]) > 0.8


def test_intervals_hold_the_true_difference():
    rng, held = np.random.default_rng(17), []
    for _ in range(300):
        found = quasi_binomial(*drawn([0.3, 0.3, 0.2, 0.15, 0.05], rng, to=0.15), ARM)
        held.append([found.low[0] < -0.15 < found.high[0], found.low[4] < 0.05 * 0.15 / 0.7 < found.high[4]])
    assert np.mean(held, axis=0) == pytest.approx([0.95, 0.95], abs=0.04)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 10), 0.6075, 1.0)],
)
def test_intervals_are_those_of_newcombe(one, other, low, high):
    """Table II of his paper, method 10: counts of cells that are all there is."""
    share, worth = np.array([[k / n] for k, n in (other, one)]), np.array([[n] for _, n in (other, one)])
    found = _interval(share, worth, np.array([np.inf]))
    assert np.ravel(found) == pytest.approx([low, high], abs=2e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"totals": [10, 10, 0, 10]}, r"totals must be positive, found 0 in unit 2"),
        ({"counts": [[11], [1], [1], [1]]}, r"found 11 of 10 in unit 0, group 0"),
        ({"counts": [[-1], [1], [1], [1]]}, r"found -1 of 10"),
        ({"counts": [[np.nan], [1], [1], [1]]}, r"must be finite"),
        ({"totals": [10, 10]}, r"found shapes \(4, 1\) and \(2,\)"),
        ({"arm": [0, 0, 2, 1]}, r"arm must hold 0 or 1"),
        ({"arm": [1, 1, 1, 1]}, r"every entry of arm is 1"),
        ({"block": ["a", "a", "b", "b"]}, r"no block has units of both arms"),
        ({"block": ["a", None, "a", "b"]}, r"none may be missing"),
        ({"block": [0.0, np.nan, 0, 1]}, r"none may be missing"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    given = {"counts": [[3], [4], [5], [6]], "totals": [10] * 4, "arm": [0, 0, 1, 1]} | change
    with pytest.raises(InputError, match=message):
        quasi_binomial(**given)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="finite array of shape"):
        moderated_means([[1.0], [np.inf]], [0, 1])


# p values


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg():
    assert adjusted([0.01, np.nan, 0.02, 0.03, 1.0]) == pytest.approx([0.04, np.nan, 0.04, 0.04, 1.0], nan_ok=True)
    assert adjusted(np.full((2, 2), 0.5)).shape == (2, 2)
    assert np.isnan(adjusted([np.nan])).all()
    with pytest.raises(InputError, match=r"between 0 and 1, found 1\.5"):
        adjusted([0.1, 1.5])


def test_combined_p_values():
    p = [0.01, 0.2, 0.7]
    assert combined(p) == pytest.approx(stats.cauchy.sf(np.mean(stats.cauchy.isf(p))), rel=1e-9)
    assert combined([[0.3], [np.nan]], axis=0) == pytest.approx([0.3])
    assert combined([1e-300, 0.5]) == pytest.approx(2e-300)  # half of its weight, to the last digit
    assert combined([[0.0, 0.5], [0.01, 1.0], [1.0, 1.0], [0.0, 1.0]]) == pytest.approx([0, 0.02, 1, 0])
    assert np.isnan(combined([np.nan, np.nan]))


def test_tests_that_depend_on_each_other_are_combined_without_false_alarms():
    rng = np.random.default_rng(18)
    z = 0.8 * rng.standard_normal((20000, 1)) + 0.6 * rng.standard_normal((20000, 10))
    assert (combined(2 * stats.norm.sf(np.abs(z))) < 0.01).mean() == pytest.approx(0.01, abs=0.002)
