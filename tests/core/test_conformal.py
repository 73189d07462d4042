"""Conformal p values: the level that they promise, closed forms, and that density does not matter."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.core.conformal import conformal_p, held_back, rank_p


@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.2])
def test_of_fresh_cells_a_share_of_alpha_is_called_outside(alpha):
    """Over 40 populations of a skewed law; the share of one population has a standard deviation of about 0.02."""
    shares = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        cells, fresh = rng.standard_normal((200, 4)) ** 3, rng.standard_normal((400, 4)) ** 3
        shares.append((conformal_p(fresh, cells) <= alpha).mean())
    expected = np.floor(alpha * 101) / 101  # the largest multiple of 1 / (m + 1)
    assert abs(np.mean(shares) - expected) < 4 * np.std(shares) / np.sqrt(40) + 1e-3
    assert np.std(shares) < 0.06


def test_cells_of_a_wide_type_are_not_called_outside_for_it():
    """Two types, one ten times as wide: by distances alone all cells outside would be of the wide one."""
    rng = np.random.default_rng(0)

    def draw(n):
        return np.concatenate([rng.standard_normal((n, 3)), 100 + 10 * rng.standard_normal((n, 3))])

    p = conformal_p(draw(2000), draw(1000))
    for half in (p[:2000], p[2000:]):
        assert 0.025 < (half <= 0.05).mean() < 0.1


def test_points_far_away_have_the_smallest_p_value_and_a_shift_does_not_matter():
    rng = np.random.default_rng(1)
    cells = rng.standard_normal((100, 3))
    np.testing.assert_array_equal(conformal_p(cells[:5] + 50, cells), np.full(5, 1 / 51))
    np.testing.assert_allclose(conformal_p(cells * 3 + 7, cells * 3 + 7), conformal_p(cells, cells))


def test_a_p_value_is_a_rank_and_ties_count_as_stranger():
    held = np.array([3.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(rank_p(np.array([0.0, 2.0, 2.5, 9.0]), held), [1.0, 0.8, 0.4, 0.2])


def test_half_of_few_cells_and_a_thousand_of_many_are_held_back_once_each():
    for n, m in ((0, 0), (1, 0), (7, 3), (100, 50), (5000, 1000)):
        held = held_back(n)
        assert len(held) == len(set(held.tolist())) == m
        assert not m or held.max() < n


def test_of_two_cells_nothing_can_be_told_and_of_identical_ones_nothing_breaks():
    np.testing.assert_array_equal(conformal_p(np.ones((2, 2)), np.zeros((2, 2))), np.ones(2))
    p = conformal_p(np.array([[0.0, 0.0], [1.0, 0.0]]), np.zeros((40, 2)))
    np.testing.assert_allclose(p, [1.0, 1 / 21])
