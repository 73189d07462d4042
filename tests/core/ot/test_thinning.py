"""Threshold sampling: what stays, what is kept in the mean, and what it is used for."""

from __future__ import annotations

import math

import pytest
import torch

from thalweg.core import couplings
from thalweg.core.couplings import unbalanced
from thalweg.core.ot import entropic as entropic_ot
from thalweg.core.ot.entropic import entries
from thalweg.core.ot.thinning import thin
from thalweg.errors import InputError, MemoryBudgetError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def masses(n=40, m=300, seed=0):
    """Rows of very unequal entries, some of them zero."""
    z = torch.randn(n, m, generator=seeded(seed), dtype=torch.float64)
    return (3 * z).exp() * (z > -1)


@pytest.mark.parametrize("k", [1, 7, 50, 200])
def test_rows_keep_their_sum_their_largest_entries_and_no_more_than_k(k):
    m = masses()
    out = thin(m, k, seeded())
    torch.testing.assert_close(out.sum(1), m.sum(1), rtol=1e-12, atol=0)
    assert (out > 0).sum(1).max() <= k
    assert bool((out[m == 0] == 0).all())
    changed = (out != m) & (out > 0)
    for row, before, other in zip(out, m, changed, strict=True):
        if bool(other.any()):
            (c,) = row[other].unique()  # one value stands for all that are drawn
            assert bool((before[other] < c).all())
            torch.testing.assert_close(row[before >= c], before[before >= c])  # what is above it stays as it is


def test_every_entry_keeps_its_expectation():
    m, n = masses(6, 80), 4000
    g = seeded(1)
    draws = torch.stack([thin(m, 10, g) for _ in range(n)])
    c = torch.where(draws[0] != m, draws[0], 0.0).amax(1, keepdim=True)  # what an entry is worth if it is drawn
    assert bool((c > 0).all())
    deviation = (m * (c - m)).clamp_min(0).sqrt() / math.sqrt(n)
    assert bool(((draws.mean(0) - m).abs() <= 5 * deviation + 1e-12 * m).all())


@pytest.mark.parametrize("k", [300, 1000])
def test_a_row_with_room_for_all_is_left_alone(k):
    m = masses()
    assert torch.equal(thin(m, k, seeded()), m)
    sparse = torch.zeros(3, 300, dtype=torch.float64)
    sparse[:2, 10:14] = 0.25  # four entries of one size, and a row without any
    assert torch.equal(thin(sparse, 4, seeded()), sparse)


def test_no_entries_are_no_plan():
    with pytest.raises(InputError, match="k must be at least 1, found 0"):
        thin(masses(), 0, seeded())


def clouds(n=400):
    g = seeded(2)
    return torch.randn(n, 3, generator=g), torch.randn(n + 50, 3, generator=g) + 0.5


def test_a_plan_too_large_for_the_memory_is_thinned_where_that_is_asked_for():
    x, y = clouds()
    whole = couplings.entropic(x, y, reg_relative=0.1)
    small = 48 * 60 * len(x)
    with pytest.raises(MemoryBudgetError, match="plan entries"):
        couplings.entropic(x, y, reg_relative=0.1, max_memory=small)
    plan = couplings.entropic(x, y, reg_relative=0.1, max_memory=small, per_row=50)
    assert plan.thinned
    assert not whole.thinned
    assert len(plan.mass) <= 50 * len(x) < len(whole.mass)
    torch.testing.assert_close(plan.marginals()[0], whole.marginals()[0], rtol=2e-4, atol=0)
    off = (plan.marginals()[1] / whole.marginals()[1]).log().square().mean().sqrt()
    assert off < 0.2  # fifty entries a row: 1 / sqrt(50) = .14 a column if none were kept for certain
    half = plan.restrict(torch.arange(len(x)) < 200)
    assert half.thinned
    again = couplings.entropic(x, y, reg_relative=0.1, max_memory=small, per_row=50)
    assert torch.equal(again.cols, plan.cols)  # nothing but the arguments decides


def test_what_fits_is_not_thinned():
    x, y = clouds()
    assert not couplings.entropic(x, y, reg_relative=0.01, per_row=50).thinned
    fewer = couplings.entropic(x, y, reg_relative=0.1, max_memory=48 * 60 * len(x), per_row=10_000)
    assert fewer.thinned
    assert len(fewer.mass) <= 60 * len(x)


def test_unbalanced_plans_of_many_cells_carry_the_same_mass(monkeypatch):
    x, y = clouds()
    whole = unbalanced(x, y, 0.5)
    dear = 100 * entropic_ot.ENTRY  # as if each entry took a hundred times as much
    monkeypatch.setattr(entropic_ot, "ENTRY", dear)
    monkeypatch.setattr(entries, "ENTRY", dear)
    plan = unbalanced(x, y, 0.5, max_memory=20 * entropic_ot.ENTRY * len(x))
    assert plan.thinned
    assert float(plan.mass.sum()) == pytest.approx(float(whole.mass.sum()), rel=1e-3)
