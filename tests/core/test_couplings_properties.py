"""Properties of couplings: marginals, and the same pairs wherever, in whatever unit and order the cells are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import clouds, generators, generic_clouds, rotations, weights
from thalweg.core import couplings
from thalweg.core.ot.exact import solver as exact_ot


def tensors(*arrays, dtype=torch.float64):
    return tuple(torch.as_tensor(np.ascontiguousarray(a), dtype=dtype) for a in arrays)


def dense(plan: couplings.Plan) -> np.ndarray:
    out = np.zeros(plan.shape)
    np.add.at(out, (plan.rows.numpy(), plan.cols.numpy()), plan.mass.numpy())
    return out


def squares(x, y):
    return ((np.asarray(x)[:, None] - np.asarray(y)[None]) ** 2).sum(-1)


def cost(plan, x, y):
    return float((dense(plan) * squares(x, y)).sum())


@given(st.data(), clouds())
def test_an_exact_plan_has_its_marginals_and_beats_every_other(data, pair):
    """Ties and repeated points included; any assignment of a staircase, in any order, costs as much or more."""
    x, y = pair
    a, b = data.draw(weights(len(x), zeros=True)), data.draw(weights(len(y), zeros=True))
    plan = couplings.exact(*tensors(x, y), a=torch.from_numpy(a), b=torch.from_numpy(b))
    joint = dense(plan)
    np.testing.assert_allclose(joint.sum(1), a, atol=1e-12)
    np.testing.assert_allclose(joint.sum(0), b, atol=1e-12)
    for got, wanted in zip(plan.marginals(), (a, b), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12)
    assert (joint >= 0).all()
    assert len(plan.mass) <= len(x) + len(y) - 1
    best = (joint * squares(x, y)).sum()
    order_x, order_y = data.draw(st.permutations(range(len(x)))), data.draw(st.permutations(range(len(y))))
    edges_x, edges_y = np.r_[0, a[order_x].cumsum()], np.r_[0, b[order_y].cumsum()]
    low = np.maximum(edges_x[:-1, None], edges_y[None, :-1])
    overlap = (np.minimum(edges_x[1:, None], edges_y[None, 1:]) - low).clip(0)
    assert best <= (overlap * squares(x, y)[np.ix_(order_x, order_y)]).sum() + 1e-9
    assert best <= a @ squares(x, y) @ b + 1e-9
    certified = exact_ot.solve_exact(x, y, a=a, b=b)
    assert best == pytest.approx(certified.cost, rel=1e-8, abs=1e-12)
    assert (certified.u[:, None] + certified.v[None] <= squares(x, y) + 1e-9).all()
    assert certified.u @ a + certified.v @ b == pytest.approx(certified.cost, rel=1e-8, abs=1e-6)


@given(generic_clouds(), st.sampled_from([1e4, -1e4, 3e3]), st.sampled_from([torch.float32, torch.float64]))
def test_an_offset_keeps_the_pairs(pair, offset, dtype):
    x, y = tensors(*pair, dtype=dtype)
    far_x, far_y = x + offset, y + offset
    near = dense(couplings.exact(far_x - offset, far_y - offset))  # what is left of the points after rounding
    far = dense(couplings.exact(far_x, far_y))
    np.testing.assert_allclose(far, near, atol=1e-12)
    entropic = [dense(couplings.entropic(u, v, reg=0.5)) for u, v in ((far_x, far_y), (far_x - offset, far_y - offset))]
    np.testing.assert_allclose(*entropic, atol=2e-3 / min(x.shape[0], y.shape[0]))


@given(generic_clouds(), st.sampled_from([1e-4, 2.0**-20, 1e4]))
def test_a_unit_changes_no_plan(pair, scale):
    x, y = tensors(*pair)
    np.testing.assert_array_equal(dense(couplings.exact(scale * x, scale * y)) > 0, dense(couplings.exact(x, y)) > 0)
    small, large = (
        dense(couplings.entropic(s * x, s * y, reg_relative=0.05, tau=t)) for s, t in ((1.0, None), (scale, None))
    )
    np.testing.assert_allclose(small, large, atol=1e-6)
    relaxed = [dense(couplings.entropic(s * x, s * y, reg=0.3 * s**2, tau=2.0 * s**2)) for s in (1.0, scale)]
    np.testing.assert_allclose(*relaxed, atol=1e-6)


@given(st.data(), generic_clouds())
def test_order_and_axes_change_no_plan(data, pair):
    x, y = tensors(*pair)
    i = torch.tensor(data.draw(st.permutations(range(len(x)))))
    j = torch.tensor(data.draw(st.permutations(range(len(y)))))
    q = torch.from_numpy(data.draw(rotations(x.shape[1])))
    plan = dense(couplings.exact(x, y))
    np.testing.assert_allclose(dense(couplings.exact(x[i], y[j])), plan[np.ix_(i, j)], atol=1e-12)
    np.testing.assert_allclose(dense(couplings.exact(x @ q, y @ q)), plan, atol=1e-12)
    np.testing.assert_allclose(dense(couplings.exact(y, x)), plan.T, atol=1e-12)
    soft = dense(couplings.entropic(x, y, reg=0.5))
    bound = 3e-3 / min(plan.shape)  # the marginal error that plans are solved to
    np.testing.assert_allclose(dense(couplings.entropic(x[i], y[j], reg=0.5)), soft[np.ix_(i, j)], atol=bound)
    np.testing.assert_allclose(dense(couplings.entropic(y, x, reg=0.5)), soft.T, atol=bound)


@given(generic_clouds(max_points=15))
def test_a_repeated_cell_is_two_halves(pair):
    """Every cell twice, or its weight split: the same mass between the same places, and the same cost."""
    x, y = tensors(*pair)
    plan, twice = couplings.exact(x, y), couplings.exact(x.repeat(2, 1), y.repeat_interleave(2, 0))
    joined = dense(twice)[: len(x)] + dense(twice)[len(x) :]
    np.testing.assert_allclose(joined[:, ::2] + joined[:, 1::2], dense(plan), atol=1e-12)
    soft, soft_twice = dense(couplings.entropic(x, y, reg=1.0)), dense(couplings.entropic(x.repeat(2, 1), y, reg=1.0))
    bound = 3e-3 / min(plan.shape)
    np.testing.assert_allclose(soft_twice[: len(x)] + soft_twice[len(x) :], soft, atol=bound)


@given(generic_clouds(equal=True), st.floats(-5, 5))
def test_small_blocks_of_equal_size_are_permutations_with_the_certified_cost(pair, shift):
    """The assignment, on each cloud's own centre, agrees with the certified solver on the common one."""
    x, y = tensors(pair[0], pair[1] + shift)
    plan = couplings.exact(x, y)
    assert sorted(plan.rows.tolist()) == sorted(plan.cols.tolist()) == list(range(len(x)))
    np.testing.assert_array_equal(plan.mass, 1 / len(x))
    certified = exact_ot.solve_exact(x.numpy(), y.numpy())
    assert cost(plan, x, y) == pytest.approx(certified.cost, rel=1e-9)
    assert plan.shape == (len(x), len(y))


@given(st.data(), generic_clouds(), st.floats(0.2, 3.0))
def test_an_entropic_plan_has_its_marginals_and_the_gibbs_form(data, pair, reg):
    x, y = tensors(*pair)
    a, b = torch.from_numpy(data.draw(weights(len(x)))), torch.from_numpy(data.draw(weights(len(y))))
    plan = couplings.entropic(x, y, reg=reg, a=a, b=b)
    leaving, arriving = plan.marginals()
    assert float((leaving - a).abs().sum() + (arriving - b).abs().sum()) < 1.2e-3
    # log P + C / reg is f_i + g_j: its mixed second differences vanish wherever entries are kept.
    joint = dense(plan)
    kept = joint > 1e-9 * joint.max()
    whole_rows, whole_cols = kept.all(1), kept.all(0)
    assume(whole_rows.any() and whole_cols.any())
    potential = np.log(joint[whole_rows]) + squares(x, y)[whole_rows] / reg
    mixed = potential - potential[:1] - potential[:, :1] + potential[0, 0]
    assert np.abs(mixed).max() < 1e-6
    assert cost(plan, x, y) >= exact_ot.solve_exact(x, y, a=a, b=b).cost * (1 - 1e-2) - 2e-3 * squares(x, y).max()


@given(st.data(), generic_clouds(max_points=8), generators())
def test_pairs_are_drawn_from_the_support_and_restricted_to_what_is_kept(data, pair, generator):
    x, y = tensors(*pair)
    keep = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(x), max_size=len(x)).filter(any)))
    a, b = couplings.uniform(len(x)), couplings.uniform(len(y))
    plan = couplings.exact(x, y)
    support = set(zip(plan.rows.tolist(), plan.cols.tolist(), strict=True))
    rows, cols = plan.restrict(keep).sample(50, generator)
    assert set(zip(rows.tolist(), cols.tolist(), strict=True)) <= support
    assert bool(keep[rows].all())
    np.testing.assert_allclose(
        dense(plan.restrict(keep)), dense(plan) * keep.numpy()[:, None], atol=0
    )  # what remains is as it was
    for other in (couplings.Independent(a, b), couplings.Minibatch(x, y, a, b, couplings.exact, 4)):
        rows, cols = other.restrict(keep).sample(50, generator)
        assert bool(keep[rows].all())
        assert rows.shape == cols.shape == (50,)
        assert 0 <= int(cols.min()) <= int(cols.max()) < len(y)


@given(st.data(), st.integers(1, 200), generators())
def test_a_mixture_gives_every_part_its_share_up_to_one_pair(data, n, generator):
    k = data.draw(st.integers(1, 5))
    share = torch.from_numpy(data.draw(weights(k)))
    sources = [torch.arange(3) + 6 * i for i in range(k)]
    targets = [torch.arange(3) + 6 * i + 3 for i in range(k)]
    parts = [couplings.Independent(couplings.uniform(3), couplings.uniform(3))] * k
    rows, cols, part = couplings.Mixture(parts, sources, targets, share).sample(n, generator)
    assert len(rows) == len(cols) == len(part) == n
    counts = torch.bincount(part, minlength=k)
    assert float((counts - n * share).abs().max()) < 1 + 1e-9
    np.testing.assert_array_equal(rows // 6, part)
    np.testing.assert_array_equal(cols // 6, part)
    assert bool(((rows % 6 < 3) & (cols % 6 >= 3)).all())


@given(st.data(), st.integers(1, 40), generators())
def test_draws_follow_the_cumulative_weights(data, k, generator):
    """An index without weight never; each other as often as its weight says, within five standard deviations."""
    mass = torch.from_numpy(data.draw(weights(k, zeros=True)))
    n = 4000
    drawn = torch.bincount(couplings.draw(mass.cumsum(0), n, generator), minlength=k)
    assert len(drawn) == k
    assert bool((drawn[mass == 0] == 0).all())
    assert bool(((drawn - n * mass).abs() <= 5 * (n * mass * (1 - mass)).sqrt() + 1e-9).all())
