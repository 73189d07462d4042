"""States, gaps between them, and the growth that they tell: closed forms and courses of which the answer is known."""

import numpy as np
import pytest

from thalweg.data.cells import Cells
from thalweg.flows import normalisation
from thalweg.flows.config import FitConfig
from thalweg.flows.population import entrants, in_place, size, sizes
from thalweg.flows.states import States, describe, find_states, separation
from thalweg.flows.turnover import find_turnover, mean_turnover, pack_turnovers, read_turnovers


def gaussians(*means, spread=1.0, weights=None):
    means = np.array(means, dtype=float)
    k, d = means.shape
    return States(
        np.full(k, 1 / k) if weights is None else np.array(weights), means, np.tile(spread**2 * np.eye(d), (k, 1, 1))
    )


def clusters(n, far, rng, *, distance=10.0, d=2, shift=0.0):
    """``n`` cells of unit spread, the last ``far`` of them at a distance."""
    x = rng.standard_normal((n, d))
    x[n - far :, 0] += distance
    x[:, -1] += shift
    return x


def course(*clouds):
    """The cells of a course, and their normalised coordinates."""
    time = np.repeat(np.arange(float(len(clouds))), [len(x) for x in clouds])
    x = np.concatenate(clouds)
    cells = Cells(x, time, np.ones(len(x)), np.zeros(len(x), dtype=np.int64))
    return cells, normalisation.normalise(x, *normalisation.measure(x))


def found(cells, z, counted=None, **options):
    """The turnover, and the cells with it."""
    turnover = find_turnover(cells, z, describe(cells, z), FitConfig(**options), counted)
    return turnover, turnover.of(cells, z)


# -- states


def test_separation_is_the_distance_in_spreads_and_gaps_are_the_widest_step_of_the_best_way():
    one = gaussians([0, 0], spread=2.0)
    assert separation(one, gaussians([0, 10], spread=2.0))[0, 0] == pytest.approx(5)
    chain = gaussians([0, 0], [3, 0], [6, 0], [20, 0])  # the way to the last one has a gap of 14 after steps of 3
    np.testing.assert_allclose(separation(chain, chain)[0], [0, 3, 3, 14])


def test_separation_is_measured_along_the_way_and_changes_with_no_unit_or_rotation(generator):
    rng = np.random.default_rng(0)
    flat = States(np.ones(1), np.zeros((1, 2)), np.diag([100.0, 1.0])[None])
    over = States(np.ones(1), np.array([[0.0, 8.0]]), flat.covariances)
    assert separation(flat, over)[0, 0] == pytest.approx(8)  # across, however long the cloud is
    q = np.linalg.qr(rng.normal(size=(2, 2)))[0] * 7.0
    turned = [
        States(s.weights, s.means @ q + 5, np.einsum("ji,kjl,lm->kim", q, s.covariances, q)) for s in (flat, over)
    ]
    assert separation(*turned)[0, 0] == pytest.approx(8)


def test_a_gaussian_is_one_state_and_clusters_are_as_many():
    rng = np.random.default_rng(0)
    assert len(find_states(rng.standard_normal((400, 3)), np.ones(400)).weights) == 1
    two = find_states(clusters(400, 100, rng), np.ones(400))
    np.testing.assert_allclose(np.sort(two.weights), [0.25, 0.75], atol=1e-6)
    member = two.membership(two.means)
    np.testing.assert_allclose(member, np.eye(2), atol=1e-6)


@pytest.mark.parametrize("x", [np.zeros((30, 2)), np.zeros((1, 2)), np.ones((3, 1))])
def test_cells_that_are_all_alike_or_few_are_one_state(x):
    states = find_states(x, np.ones(len(x)))
    np.testing.assert_allclose(states.membership(x), 1)


def test_weights_of_cells_count():
    rng = np.random.default_rng(0)
    x = clusters(400, 200, rng)
    states = find_states(x, np.where(np.arange(400) < 200, 3.0, 1.0))
    np.testing.assert_allclose(np.sort(states.weights), [0.25, 0.75], atol=1e-6)


# -- growth


@pytest.mark.parametrize("d", [2, 10])
def test_a_translation_and_a_population_at_rest_have_no_growth(d):
    rng = np.random.default_rng(0)
    for shift in (0.0, 5.0, 50.0):
        _, alive = found(*course(clusters(300, 0, rng, d=d), clusters(300, 0, rng, d=d, shift=shift)))
        np.testing.assert_allclose(alive.rates, 0, atol=1e-9)
        assert not alive.lost.any()
        assert not alive.arrived.any()
    both = [clusters(300, 150, rng, d=d, shift=shift) for shift in (0.0, 5.0)]
    np.testing.assert_allclose(found(*course(*both))[1].rates, 0, atol=0.02)


@pytest.mark.parametrize("d", [2, 10])
def test_a_change_of_shares_across_a_gap_is_growth_and_next_to_nothing_crosses(d):
    rng = np.random.default_rng(0)
    cells, z = course(clusters(400, 200, rng, d=d), clusters(400, 80, rng, d=d))
    _, alive = found(cells, z)
    near, far = (alive.rates[:200].mean(), alive.rates[200:400].mean())
    np.testing.assert_allclose([near, far], np.log([1.6, 0.4]), atol=0.02)
    left = alive.grown(np.arange(400), 1.0) / 400
    assert left[:200].sum() == pytest.approx(0.8, abs=0.02)  # all of the difference would have to cross


def test_a_wide_gap_that_all_cells_cross_is_movement():
    """A cluster that moves by twenty spreads beside one that rests: nothing dies, nothing arrives."""
    rng = np.random.default_rng(0)
    start, end = (rng.standard_normal((300, 2)) for _ in range(2))
    start[150:, 0] += 40
    end[:150, 1] += 20
    end[150:, 0] += 40
    _, alive = found(*course(start, end))
    np.testing.assert_allclose(alive.rates, 0, atol=0.02)
    assert not alive.lost.any()
    assert not alive.arrived.any()


def test_what_vanishes_dies_in_place_and_what_arrives_has_no_ancestors():
    rng = np.random.default_rng(0)
    apart, alone = clusters(400, 80, rng), clusters(400, 0, rng)
    cells, z = course(apart, alone)
    _, alive = found(cells, z)
    np.testing.assert_array_equal(np.flatnonzero(alive.lost > 0.5), np.arange(320, 400))
    np.testing.assert_allclose(alive.grown(np.arange(400), 1.0).sum(), 400, rtol=1e-6)  # the others make up for it
    _, alive = found(*course(alone, apart))
    np.testing.assert_array_equal(np.flatnonzero(alive.arrived > 0.5), 400 + np.arange(320, 400))
    np.testing.assert_allclose(alive.grown(np.arange(400), 1.0).sum(), 320, rtol=1e-6)
    assert sizes(alive, 0) == {0.0: 1.0, 1.0: pytest.approx(1)}


def test_growth_by_the_ratio_of_densities_mimics_a_translation():
    """Cells of N(0, 1), weighed by exp(2 x - 2), are N(2, 1): the example of the page on growth."""
    x = np.linspace(-8, 8, 4001)
    moved = np.exp(-(x**2) / 2) * np.exp(2 * x - 2)
    np.testing.assert_allclose(moved, np.exp(-((x - 2) ** 2) / 2), atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_units_and_offsets_change_nothing(scale):
    rng = np.random.default_rng(0)
    clouds = clusters(400, 200, rng), clusters(400, 80, rng)
    rates = found(*course(*clouds))[1].rates
    np.testing.assert_allclose(found(*course(*(scale * x + 3 * scale for x in clouds)))[1].rates, rates, atol=1e-3)


def test_sizes_are_met_at_every_time():
    rng = np.random.default_rng(0)
    cells, z = course(clusters(200, 100, rng), clusters(200, 120, rng), clusters(200, 150, rng))
    _, alive = found(cells, z, np.array([[100.0, 150.0, 600.0]]))
    known = sizes(alive, 0)
    np.testing.assert_allclose(list(known.values()), [1, 1.5, 6], rtol=1e-6)
    assert size(alive, 0, 9.0) == pytest.approx(6)
    middle = np.exp(alive.rates[:200] * 0.5).mean()
    assert size(alive, 0, 0.5) == pytest.approx(middle)


def test_given_rates_are_the_reference_and_their_strength_decides():
    """Two clusters of equal shares at both times, of which one is said to double."""
    rng = np.random.default_rng(0)
    cells, z = course(clusters(400, 200, rng), clusters(400, 200, rng))
    rate = np.where(np.arange(800) % 400 < 200, np.log(2.0), 0.0)
    given = Cells(**{**cells.__dict__, "rates": rate})
    difference = {}
    for strength in (0.1, 1.0, np.inf):
        alive = found(given, z, growth_strength=strength)[1]
        difference[strength] = alive.rates[:200].mean() - alive.rates[200:400].mean()
    assert difference[np.inf] == pytest.approx(np.log(2))  # the rates as they are
    assert difference[0.1] < 0.1  # what the cells show
    assert difference[0.1] <= difference[1.0] <= difference[np.inf]
    assert sizes(found(given, z)[1], 0)[1.0] == pytest.approx(1.5, rel=1e-6)  # totals are those of the rates


def test_a_turnover_comes_back_from_what_is_stored():
    rng = np.random.default_rng(0)
    cells, z = course(clusters(200, 50, rng), clusters(200, 100, rng), clusters(200, 100, rng))
    turnover, alive = found(cells, z)
    (again,) = read_turnovers(pack_turnovers([turnover]))
    for name in ("rates", "lost", "arrived"):
        np.testing.assert_array_equal(getattr(again.of(cells, z), name), getattr(alive, name))
    np.testing.assert_array_equal(again.now(cells, z), turnover.now(cells, z))
    assert read_turnovers(pack_turnovers([])) == ()


def test_the_rate_at_a_time_is_the_mean_of_both_sides_and_extrapolated_at_the_ends():
    """One state that grows by 1, then by 3 per unit of time: 0, 2 and 4 at the three times."""
    rng = np.random.default_rng(0)
    cells, z = course(*(clusters(100, 0, rng) for _ in range(3)))
    turnover, _ = found(cells, z, np.array([[1.0, np.e, np.e**4]]))
    now = turnover.now(cells, z)
    np.testing.assert_allclose([now[cells.time == t].mean() for t in (0, 1, 2)], [0, 2, 4], atol=1e-6)


# -- who takes part in a population


def turned(lost, arrived):
    """Two cells at each of the times 0, 1 and 2, with shares that die or arrive."""
    x, time = np.arange(12.0).reshape(6, 2), np.repeat([0.0, 1.0, 2.0], 2)
    zero = np.zeros(6, dtype=np.int64)
    return Cells(x, time, np.ones(6), zero, rates=np.zeros(6), lost=np.array(lost), arrived=np.array(arrived))


def test_entrants_are_those_of_passed_times_and_those_on_their_way():
    cells = turned([0.0] * 6, [0, 0, 1, 0, 0, 1])  # half of the cells of times 1 and 2 have no ancestors
    first, second = entrants(cells, 0, 0.0, 1.5)
    assert (first.rows.tolist(), first.time, second.rows.tolist(), second.time) == ([2], 1.0, [5], None)
    assert first.mass[0] == pytest.approx(2)  # as much as the two cells before: half of a population of 4
    assert second.mass[0] == pytest.approx(4 * 0.5)  # half of 8, half-way
    assert entrants(cells, 0, 2.0, 0.0) == []  # backwards nothing enters, as nothing has died


def test_sizes_between_two_times():
    cells = turned([1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0])
    assert size(cells, 0, 1.0) == pytest.approx(1)  # one half dies, the other is half of what is there
    assert size(cells, 0, 0.5) == pytest.approx(0.5 + 0.25 + 0.25)  # what stays, what is left of the dying, what came


def test_in_place_sets_those_right_that_fade():
    cells = turned([1, 0, 0, 0, 0, 0], [0] * 6)
    x, grown = in_place(cells, 0, np.array([0, 1]), 0.0, 0.25, np.full((2, 2), 9.0), np.array([5.0, 3.0]))
    np.testing.assert_allclose(x, [[0, 1], [9, 9]])  # the dying cell stays where it was
    np.testing.assert_allclose(grown, [0.75, 1.0])


def test_models_of_other_cells_have_turnovers_of_their_own_and_a_mean():
    rng = np.random.default_rng(0)
    cells, z = course(clusters(200, 50, rng), clusters(200, 100, rng), clusters(200, 100, rng))
    fewer, z_fewer = course(clusters(150, 80, rng), clusters(200, 100, rng), clusters(200, 100, rng))
    both = [found(cells, z)[0], found(fewer, z_fewer)[0]]
    again = read_turnovers(pack_turnovers(both))
    mean = mean_turnover(again, cells, z)
    expected = np.mean([one.of(cells, z).rates for one in both], axis=0)
    np.testing.assert_array_equal(mean.rates, expected)
    assert np.abs(both[0].of(cells, z).rates - both[1].of(cells, z).rates).max() > 0.05
    assert mean_turnover((), cells, z) is cells
