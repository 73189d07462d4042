"""The parts of exact transport by themselves: listing of pairs, starting potentials, the staircase, whole weights."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from strategies import clouds, seeds, weights
from thalweg.core.ot.entropic import start as starts
from thalweg.core.ot.exact import arcs, certify, pairs, solve_exact
from thalweg.core.ot.exact import problem as problems
from thalweg.errors import InputError

COSTS = {False: "euclidean", True: "sqeuclidean"}


def listed(found):
    return set(zip(found.rows.tolist(), found.cols.tolist(), strict=True))


@given(st.data(), clouds(), st.booleans(), st.integers(1, 60))
def test_every_pair_below_the_potentials_is_listed(data, pair, squared, block):
    """Against the whole cost matrix; potentials lie off the lattice of the costs, so that nothing is a tie."""
    x, y = pair
    levels = st.integers(-40, 80).map(lambda k: k / 8 + 0.0123)
    u = np.array(data.draw(st.lists(levels, min_size=len(x), max_size=len(x)))) + 1e3
    v = np.array(data.draw(st.lists(levels, min_size=len(y), max_size=len(y)))) - 1e3
    c = cdist(x, y, COSTS[squared])
    with mock.patch.object(pairs, "BLOCK_ENTRIES", block):
        found = pairs.below(x, y, u, v, squared)
    assert found.complete
    assert listed(found) == set(map(tuple, np.argwhere(c < u[:, None] + v).tolist()))
    np.testing.assert_allclose(found.cost, c[found.rows, found.cols], rtol=1e-9, atol=1e-9)
    assert (np.diff(found.rows * len(y) + found.cols) > 0).all()


@given(st.data(), seeds(), st.booleans())
def test_crowded_rows_give_their_lowest_pairs_and_say_so(data, seed, squared):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(20, 2))
    c = cdist(x, y, COSTS[squared])
    u, v = np.full(6, np.quantile(c, data.draw(st.floats(0.3, 1)))), np.zeros(20)
    with mock.patch.object(pairs, "HITS_PER_ROW", 3):
        found = pairs.below(x, y, u, v, squared)
    wanted = c < u[:, None] + v
    assert listed(found) <= set(map(tuple, np.argwhere(wanted).tolist()))
    assert found.complete == (len(found.rows) == wanted.sum())
    for i in np.flatnonzero(wanted.any(1)):
        lowest = np.argsort(c[i])[: min(3, int(wanted[i].sum()))]
        assert set(lowest.tolist()) <= set(found.cols[found.rows == i].tolist())


@given(clouds(), st.booleans(), st.integers(1, 7))
def test_ground_costs_are_those_of_scipy_and_exactly_zero_for_equal_points(pair, squared, block):
    x, y = pair
    rows, cols = (index.ravel() for index in np.indices((len(x), len(y))))
    with mock.patch.object(pairs, "BLOCK_ENTRIES", block):
        cost = pairs.ground_cost(x, y, rows, cols, squared)
    np.testing.assert_allclose(cost.reshape(len(x), -1), cdist(x, y, COSTS[squared]), rtol=1e-12)
    diagonal = np.arange(len(x))
    assert not pairs.ground_cost(x + 1e5, x + 1e5, diagonal, diagonal, squared).any()


def gap_of(x, y, a, b, f, squared, optimum):
    """Relative gap of the dual value that row potentials reach: columns get the largest feasible potential."""
    v = (cdist(x, y, COSTS[squared]) - f[:, None]).min(0)
    return 1 - (a @ f + b @ v) / optimum


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("n", "m", "d", "subset"), [(150, 120, 5, 1500), (200, 260, 2, 80)])
def test_starting_potentials_are_near_the_optimum_and_their_arcs_hold_it(squared, n, m, d, subset):
    """A bad start costs rounds, not correctness, so only this test sees it."""
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, d)), rng.normal(0.7, 1.4, size=(m, d))
    a, b = rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, m)
    a, b = a / a.sum(), b / b.sum()
    best = solve_exact(x, y, a=a, b=b, cost=COSTS[squared])
    with mock.patch.object(starts, "SUBSET", subset), mock.patch.object(pairs, "BLOCK_ENTRIES", 3000):
        f, g, eps = arcs.start_potentials(x, y, a, b, squared)
        pool = arcs.pool_of_arcs(x, y, f, g, squared)
        fine_f, _ = arcs.refine(pool, a, b, f, g, eps)
    coarse, fine = (gap_of(x, y, a, b, potential, squared, best.cost) for potential in (f, fine_f))
    print(f"gap {coarse:.4f} then {fine:.4f}, arcs {len(pool.rows)} of {n * m}, eps {eps:.4f}")
    assert 0 <= coarse < 0.1  # grows with the regularisation: half of it, half the gap
    assert -1e-9 <= fine < 0.004
    assert listed(best) <= listed(pool)
    assert len(pool.rows) == pytest.approx(min(n * m, arcs.POOL_PER_POINT * (n + m)), rel=0.1)
    # Entropic potentials: their plan has the marginal of the side that was updated last.
    plan = a[:, None] * b * np.exp((f[:, None] + g - cdist(x, y, COSTS[squared])) / eps)
    assert np.abs(plan.sum(0) - b).sum() < 1e-3
    assert np.abs(plan.sum(1) - a).sum() < 0.3


@given(st.data(), clouds(max_dims=1), st.booleans())
def test_the_staircase_is_optimal_on_a_line(data, pair, squared):
    x, y = pair
    a, b = data.draw(weights(len(x))), data.draw(weights(len(y)))
    plan = solve_exact(x, y, a=a, b=b, cost=COSTS[squared])
    joint = np.zeros((len(x), len(y)))
    np.add.at(joint, (plan.rows, plan.cols), plan.mass)
    np.testing.assert_allclose(joint.sum(0), b, atol=1e-12)
    np.testing.assert_allclose(joint.sum(1), a, atol=1e-12)
    assert (plan.u[:, None] + plan.v <= cdist(x, y, COSTS[squared]) + 1e-7).all()
    assert plan.u @ a + plan.v @ b == pytest.approx(plan.cost, rel=1e-7, abs=1e-6)
    assert plan.gap <= 1e-9
    # Quantiles: the cost is that of the inverse distribution functions.
    levels = np.unique(np.r_[0, a[np.argsort(x[:, 0])].cumsum(), b[np.argsort(y[:, 0])].cumsum()].round(12))
    middle = (levels[1:] + levels[:-1]) / 2
    inverse = [
        np.sort(z[:, 0])[np.searchsorted(w[np.argsort(z[:, 0])].cumsum(), middle).clip(max=len(z) - 1)]
        for z, w in ((x, a), (y, b))
    ]
    far = np.abs(inverse[0] - inverse[1]) ** (2 if squared else 1)
    assert plan.cost == pytest.approx((np.diff(levels) * far).sum(), rel=1e-6, abs=1e-9)


@given(st.data(), clouds(), st.booleans())
def test_points_of_weight_zero_change_nothing_and_get_feasible_potentials(data, pair, squared):
    x, y = pair
    a, b = data.draw(weights(len(x), zeros=True)), data.draw(weights(len(y), zeros=True))
    whole = solve_exact(x, y, a=a, b=b, cost=COSTS[squared])
    part = solve_exact(x[a > 0], y[b > 0], a=a[a > 0], b=b[b > 0], cost=COSTS[squared])
    assert whole.cost == pytest.approx(part.cost, rel=1e-9, abs=1e-12)
    assert (a[whole.rows] > 0).all()
    assert (b[whole.cols] > 0).all()
    slack = cdist(x, y, COSTS[squared]) - whole.u[:, None] - whole.v
    assert slack.min() >= -1e-7
    assert certify(whole, x, y, a=a, b=b, cost=COSTS[squared]) < 1e-6
    # The largest that is feasible: every point without weight touches one.
    assert np.abs(slack[a == 0].min(1, initial=np.inf)).max(initial=0) < 1e-6


def test_a_plan_with_one_negative_mass_or_for_other_weights_is_refused():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    plan = solve_exact(x, y)
    assert certify(plan, x, y) < 1e-9
    rows, cols = np.r_[plan.rows, 0, 0, 1, 1], np.r_[plan.cols, 0, 1, 0, 1]
    swirl = type(plan)(rows, cols, np.r_[plan.mass, -0.1, 0.1, 0.1, -0.1], plan.cost, plan.u, plan.v, 0.0)
    with pytest.raises(InputError, match="marginals miss"):
        certify(swirl, x, y)
    with pytest.raises(InputError, match="made for other weights"):
        certify(plan, x, y, a=[1, 1, 1, 1, 2])


@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_weights_are_counted_in_whole_units(data, n, m):
    for a, b in (
        (np.full(n, 1 / n), np.full(m, 1 / m)),
        (data.draw(weights(n)), data.draw(weights(m))),
    ):
        whole_a, whole_b, total = problems._whole_units(a, b)
        for whole, w in ((whole_a, a), (whole_b, b)):
            np.testing.assert_array_equal(whole, np.rint(whole))
            assert whole.sum() == total
            assert (whole >= 1).all()
            np.testing.assert_allclose(whole / total, w, rtol=1e-14, atol=2.0**-50)


@pytest.mark.parametrize("squared", [False, True])
def test_the_floor_of_gaps_is_a_share_of_the_mean_cost(squared):
    """For the squared distance exactly 2^-10 of the mean over all pairs; else of its root mean square."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(2, 1, size=(9, 3))
    a, b = np.full(7, 1 / 7), np.full(9, 1 / 9)
    p = problems.problem(x + 1e3, y + 1e3, a, b, COSTS[squared])
    mean = float(a @ cdist(x, y, "sqeuclidean") @ b)
    assert p.floor * p.unit == pytest.approx((mean if squared else mean**0.5) / 1024, rel=1e-6)
    assert p.unit == (p.scale**2 if squared else p.scale)
    assert np.log2(p.scale) % 1 == 0
    assert 0.5 <= max(np.abs(p.x).max(), np.abs(p.y).max()) <= 1
    assert problems.problem(x[:1], x[:1], a[:1] * 7, a[:1] * 7, COSTS[squared]).floor == 2.0**-1000


@pytest.mark.parametrize("name", ["x", "y", "a", "b"])
@pytest.mark.parametrize("bad", ["nan", "inf", "shape", "negative", "zero"])
def test_one_bad_value_is_refused_by_the_name_of_its_argument(name, bad):
    arguments = {"x": np.ones((4, 2)), "y": np.zeros((3, 2)), "a": np.ones(4), "b": np.ones(3)}
    value = arguments[name]
    if bad in ("nan", "inf"):
        value.flat[1] = float(bad)
    elif bad == "shape":
        value = value[..., None] if name in "ab" else value[:, 0]
    elif bad == "negative" and name in "ab":
        value[1] = -1e-9
    elif bad == "zero" and name in "ab":
        value[:] = 0
    else:
        value = np.empty((0, 2) if bad == "zero" else (4, 0))
    arguments[name] = value
    with pytest.raises(InputError, match=rf"^{name} "):
        solve_exact(arguments["x"], arguments["y"], a=arguments["a"], b=arguments["b"])


def test_masses_must_agree_and_rtol_must_lie_in_its_range():
    x, y = np.ones((4, 2)), np.zeros((3, 2))
    solve_exact(x, y, a=np.full(4, 0.25), b=np.full(3, (1 + 5e-7) / 3))  # rounding
    with pytest.raises(InputError, match="scale both to the same total mass"):
        solve_exact(x, y, a=np.full(4, 0.25), b=np.full(3, 1.1 / 3))
    for rtol in (0.0, 1.0, -1e-9, np.nan):
        with pytest.raises(InputError, match="rtol must lie between"):
            solve_exact(x, y, rtol=rtol)
    with pytest.raises(InputError, match=r"x has 2 dimensions and y has 1"):
        solve_exact(x, y[:, :1])
    with pytest.raises(InputError, match="cost must be"):
        solve_exact(x, y, cost="cityblock")
