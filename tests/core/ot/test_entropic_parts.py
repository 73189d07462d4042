"""The parts of entropic transport by themselves, against loops: a wrong one costs rounds before it costs the result."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from strategies import generators
from thalweg.core.ot.entropic import passes
from thalweg.core.ot.entropic import start as starts
from thalweg.core.ot.entropic.newton import sparse_kernel
from thalweg.core.ot.entropic.problem import Problem, mean_cost, shuffled
from thalweg.errors import MemoryBudgetError


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def problem(generator: torch.Generator, n: int = 7, m: int = 5, tau: float = math.inf, squared: bool = True) -> Problem:
    log_a, log_b = normal(generator, n), normal(generator, m)
    x, y = normal(generator, n, 2), normal(generator, m, 2)
    return Problem(x, y, log_a, log_b, tau, 2 * tau, torch.float64, 2**30, squared)


def costs(p: Problem) -> Tensor:
    square = (p.x[:, None] - p.y[None]).square().sum(-1)
    return square if p.squared else square.sqrt()


def exponents(p: Problem, f: Tensor, g: Tensor, t: float) -> Tensor:
    """``log a_i b_j + (f_i + g_j - C_ij)/t``, entry by entry."""
    return p.log_a[:, None] + p.log_b + (f[:, None] + g - costs(p)) / t


@given(generators(), st.sampled_from([1.0, 0.3, 4.0]), st.sampled_from([math.inf, 2.0]), st.booleans())
def test_the_soft_minimum_is_the_formula(generator, t, tau, squared):
    p = problem(generator, tau=tau, squared=squared)
    g = normal(generator, 5)
    share = 1.0 if math.isinf(tau) else tau / (tau + t)
    expected = -t * share * torch.logsumexp(p.log_b + (g - costs(p)) / t, 1)
    torch.testing.assert_close(passes.soft_min(p, g, t), expected, rtol=1e-10, atol=1e-10)


@given(generators(), st.sampled_from([1.0, 0.3, 4.0]), st.booleans(), st.booleans())
def test_a_full_pass_sums_the_whole_plan(generator, t, relaxed, squared):
    """The error is that of both marginals of every entry over the mass, whatever entries are kept."""
    p = problem(generator, tau=2.0 if relaxed else math.inf, squared=squared)
    f, g = normal(generator, 7), normal(generator, 5)
    kept, error = passes.full_pass(p, f, g, t, tol=1e-3)
    plan = exponents(p, f, g, t).exp()
    r, c = (p.log_a - f / p.tau_a).exp(), (p.log_b - g / p.tau_b).exp()
    wrong = (plan.sum(1) - r).abs().sum() + (plan.sum(0) - c).abs().sum()
    assert error == pytest.approx(float(wrong / plan.sum()), rel=1e-9)
    dense, transposed = kept.kernel()
    torch.testing.assert_close(dense, plan / r.sum(), rtol=1e-9, atol=2e-35)  # exponents end at -80
    assert transposed.shape == (5, 7)
    for got, wanted in zip(kept.targets(), (r / r.sum(), c / r.sum()), strict=True):
        torch.testing.assert_close(got.exp(), wanted, rtol=1e-9, atol=1e-300)


@given(generators(), st.floats(0.1, 6), st.integers(0, 3))
def test_entries_are_kept_for_their_row_or_their_column(generator, depth, start):
    """Beside a loop: within ``depth`` of the row's mass, or of its largest entry if that is lower; or the column's."""
    log_r, log_c = normal(generator, 7), normal(generator, 5)
    kept = passes.Kept(log_r, log_c, depth)
    block = 3 * normal(generator, 4, 5)
    expected = [
        [
            bool(block[i, j] > min(float(block[i].max()), float(log_r[start + i])) - depth)
            or bool(block[i, j] > log_c[j] - depth)
            for j in range(5)
        ]
        for i in range(4)
    ]
    assert kept.mask(start, block).tolist() == expected
    assert all(any(row) for row in expected)


@given(generators(), st.floats(0.5, 5))
def test_collected_entries_make_the_kernel_of_the_mask(generator, depth):
    log_r, log_c = normal(generator, 6), normal(generator, 5)
    kept = passes.Kept(log_r, log_c, depth)
    whole = 3 * normal(generator, 6, 5)
    mask = torch.cat([kept.mask(0, whole[:4]), kept.mask(4, whole[4:])])
    list(kept.collect(iter([(0, whole[:4].clone()), (4, whole[4:].clone())])))
    forward, backward = kept.kernel()
    expected = torch.where(mask, whole.exp(), 0.0)
    torch.testing.assert_close(forward.to_dense(), expected)
    torch.testing.assert_close(backward.to_dense(), expected.T)


@given(generators(), st.integers(1, 6), st.integers(1, 6))
def test_a_sparse_kernel_multiplies_as_its_dense_form(generator, n, m):
    dense = normal(generator, n, m).exp() * (normal(generator, n, m) > 0)
    rows, cols = dense.nonzero(as_tuple=True)
    forward, backward = sparse_kernel(rows.int(), cols.int(), dense[rows, cols], (n, m))
    v, u = normal(generator, m), normal(generator, n)
    torch.testing.assert_close(forward @ v, dense @ v)
    torch.testing.assert_close(backward @ u, dense.T @ u)


def test_blocks_cover_every_row_once_and_stay_small():
    left, right = torch.randn(9, 3), torch.randn(3, 2**19)
    seen = [(start, len(block)) for start, block in passes.blocks(left, right)]
    assert seen == [(0, 4), (4, 4), (8, 1)]  # 2^21 entries, 16 MB in float64
    out = torch.empty(9, 2**19)
    for start, block in passes.blocks(left, right, out):
        assert block.data_ptr() == out[start:].data_ptr()
    torch.testing.assert_close(out, left @ right)


def test_a_kernel_is_dense_when_small_or_full_and_sparse_when_that_is_all_that_fits(monkeypatch):
    g = torch.Generator().manual_seed(0)
    left, right = normal(g, 40, 3), normal(g, 3, 30)
    whole = passes.Exponents(left, right)
    size = 40 * 30 * 8

    def kept(depth: float) -> passes.Kept:
        return passes.Kept(torch.zeros(40, dtype=torch.float64), torch.zeros(30, dtype=torch.float64), depth)

    assert kept(0.1).fits_dense(whole, size)  # small: without a look at its entries
    monkeypatch.setattr(passes, "_SMALL", 0)
    assert kept(50.0).fits_dense(whole, size)  # every entry matters
    share = float(kept(-3.0).mask(0, left @ right).double().mean())
    assert 0 < share < passes._DENSE_ABOVE
    assert not kept(-3.0).fits_dense(whole, size)  # few do
    sparse = int(share * 40 * 30 * passes._BYTES_PER_ENTRY)
    assert sparse < size
    assert not kept(-3.0).fits_dense(whole, sparse + 1)  # and fit where all would not
    with pytest.raises(MemoryBudgetError, match="40 rows x 30 columns x 8 bytes = 9600 bytes dense"):
        kept(-3.0).fits_dense(whole, sparse - 1)
    with pytest.raises(MemoryBudgetError):
        kept(50.0).fits_dense(whole, size - 1)


@given(generators(), st.integers(1, 9))
def test_a_subset_carries_the_whole_mass(generator, size):
    p = problem(generator)
    part = p.subset(size)
    assert len(part.x) == len(part.log_a) == min(size, 7)
    assert len(part.y) == len(part.log_b) == min(size, 5)
    for kept, whole in ((part.log_a, p.log_a), (part.log_b, p.log_b)):
        assert kept.logsumexp(0) == pytest.approx(float(whole.logsumexp(0)), rel=1e-12)
        shift = kept - whole[: len(kept)]
        torch.testing.assert_close(shift, shift[:1].expand_as(shift))
    twice = p.flipped()
    assert torch.equal(twice.x, p.y)
    assert torch.equal(twice.log_b, p.log_a)
    assert (twice.tau_a, twice.tau_b) == (p.tau_b, p.tau_a)


@given(generators())
def test_the_mean_cost_is_that_of_all_pairs_far_from_the_origin_too(generator):
    x, y = normal(generator, 6, 3), normal(generator, 4, 3) + 2
    a, b = normal(generator, 6).exp(), normal(generator, 4).exp()
    cost = (x[:, None] - y[None]).square().sum(-1)
    expected = float((a / a.sum()) @ cost @ (b / b.sum()))
    assert mean_cost(x, y, a, b) == pytest.approx(expected, rel=1e-12)
    assert mean_cost(x + 1e6, y + 1e6, 7 * a, b) == pytest.approx(expected, rel=1e-8)


def test_the_order_is_random_fixed_and_of_positive_weights():
    weights = torch.ones(200)
    weights[::3] = 0
    order = shuffled(weights)
    assert sorted(order.tolist()) == [i for i in range(200) if i % 3]
    assert torch.equal(order, shuffled(weights))
    # Random: no correlation with the index beyond four standard deviations.
    rank = np.corrcoef(np.arange(len(order)), order.numpy())[0, 1]
    assert abs(rank) < 4 / math.sqrt(len(order))


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("solved_next", [False, True])
@pytest.mark.parametrize("subset", [30, 400])
def test_a_warm_start_ends_near_the_potential_of_all_points(squared, solved_next, subset, monkeypatch):
    """Beside a soft minimum of zero, which is far off; only the rounds that follow would hide a bad start."""
    monkeypatch.setattr(starts, "SUBSET", subset)
    g = torch.Generator().manual_seed(0)
    uniform = torch.full((400,), 1 / 400, dtype=torch.float64).log()
    x, y = 4 * normal(g, 400, 2), 3 * normal(g, 400, 2) + 4
    p = Problem(x, y, uniform, uniform, math.inf, math.inf, torch.float64, 2**30, squared)
    best, _, error, _ = starts.alternate(p, torch.zeros(400, dtype=torch.float64), 1.0, 1e-9, 1000, rounds=50)
    assert error < 1e-9
    f = starts.warm_start(p, tol=1e-2, max_iterations=50, rounds=3, solved_next=solved_next)
    bare = passes.soft_min(p, torch.zeros_like(f), 1.0)

    def off(found: Tensor) -> float:
        return float((found - best - (found - best).mean()).abs().mean())  # the constant is free

    print(f"off by {off(f):.3f}, {off(bare):.3f} without a start")
    assert off(f) < (0.1 if subset == 400 and not solved_next else 0.3) * off(bare)


def test_temperatures_fall_by_four_and_the_last_is_left_to_a_caller_who_solves_the_whole(monkeypatch):
    seen = []
    g = torch.Generator().manual_seed(0)
    p = problem(g, 40, 30)

    def spy(part, f, temperature, *_):
        seen.append((len(part.x), len(part.y), temperature))
        return f, torch.zeros_like(part.log_b), 0.0, 0

    monkeypatch.setattr(starts, "alternate", spy)
    cases = ((16.0, False, [16, 4, 1]), (4.1, True, [16, 4]), (0.5, True, []), (0.5, False, [1]))
    for hottest, solved_next, wanted in cases:
        starts.warm_start(p, hottest, tol=0.1, max_iterations=5, rounds=1, solved_next=solved_next)
        assert [t for _, _, t in seen] == wanted
        seen.clear()
    monkeypatch.setattr(starts, "SUBSET", 35)
    starts.warm_start(p, 4.0, tol=0.1, max_iterations=5, rounds=1, solved_next=True)
    assert seen == [(35, 30, 4.0), (35, 30, 1.0)]
