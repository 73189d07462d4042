"""Couplings: the pairs drawn follow the joint distribution asked for."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch

from thalweg.core import couplings
from thalweg.core.ot.exact import solver as exact_ot
from thalweg.errors import InputError, NotConvergedError


def clouds(n=40, m=50, d=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g), torch.randn(m, d, generator=g) + 1


def dense(plan: couplings.Plan) -> np.ndarray:
    out = np.zeros(plan.shape)
    np.add.at(out, (plan.rows.numpy(), plan.cols.numpy()), plan.mass.numpy())
    return out


def test_exact_plan_equals_pot():
    x0, x1 = clouds()
    cost = torch.cdist(x0.double(), x1.double()).square().numpy()
    reference = ot.emd(np.full(40, 1 / 40), np.full(50, 1 / 50), cost)
    plan = dense(couplings.exact(x0, x1))
    assert (plan * cost).sum() == pytest.approx((reference * cost).sum(), rel=1e-9)
    np.testing.assert_allclose(plan.sum(1), 1 / 40, atol=1e-12)
    np.testing.assert_allclose(plan.sum(0), 1 / 50, atol=1e-12)


def test_exact_plan_keeps_its_pairs_far_from_the_origin():
    # float32 distances without centring keep none of the pairs here
    x0, x1 = clouds(60, 60)
    near, far = (dense(couplings.exact(x0 + s, x1 + s)) > 0 for s in (0.0, 1e4))
    assert (near & far).sum() / near.sum() >= 0.99


def test_entropic_plan_equals_pot_and_scales_with_the_data():
    x0, x1 = clouds(30, 35)
    cost = torch.cdist(x0.double(), x1.double()).square().numpy()
    reference = ot.sinkhorn(np.full(30, 1 / 30), np.full(35, 1 / 35), cost, reg=0.5, stopThr=1e-12, numItermax=100_000)
    np.testing.assert_allclose(dense(couplings.entropic(x0, x1, reg=0.5)), reference, atol=2e-5)
    relative = [dense(couplings.entropic(s * x0, s * x1, reg_relative=0.05)) for s in (1e-4, 1.0, 1e4)]
    np.testing.assert_allclose(relative[0], relative[1], atol=1e-6)
    np.testing.assert_allclose(relative[2], relative[1], atol=1e-6)


def test_entropic_needs_exactly_one_regularisation():
    x0, x1 = clouds()
    for kwargs in ({}, {"reg": 1.0, "reg_relative": 0.1}):
        with pytest.raises(InputError, match="exactly one"):
            couplings.entropic(x0, x1, **kwargs)


def test_plan_is_sampled_by_its_mass(generator):
    mass = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    plan = couplings.Plan(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 0]), mass, (3, 2))
    rows, cols = plan.sample(40_000, generator)
    counts = torch.zeros(3, 2).index_put_((rows, cols), torch.ones(40_000), accumulate=True) / 40_000
    expected = torch.tensor([[0.1, 0.2], [0.0, 0.3], [0.4, 0.0]])
    assert (counts - expected).abs().max() < 4 * (0.25 / 40_000) ** 0.5


def test_entries_without_mass_are_never_drawn(generator):
    mass = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0], dtype=torch.float64)
    index = torch.arange(5)
    rows, _ = couplings.Plan(index, index, mass, (5, 5)).sample(10_000, generator)
    assert set(rows.tolist()) == {1, 3}


def test_independent_draws_each_end_by_its_weight(generator):
    a = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
    b = torch.tensor([0.5, 0.5], dtype=torch.float64)
    rows, cols = couplings.Independent(a, b).sample(40_000, generator)
    joint = torch.zeros(3, 2).index_put_((rows, cols), torch.ones(40_000), accumulate=True) / 40_000
    assert (joint - (a[:, None] * b).float()).abs().max() < 0.01


@pytest.mark.parametrize("kind", ["independent", "plan", "minibatch"])
def test_restriction_conditions_on_the_source(kind, generator):
    x0, x1 = clouds(20, 20)
    a = b = couplings.uniform(20)
    coupling = {
        "independent": couplings.Independent(a, b),
        "plan": couplings.exact(x0, x1),
        "minibatch": couplings.Minibatch(x0, x1, a, b, couplings.exact, block=16),
    }[kind]
    keep = torch.arange(20) < 5
    rows, _ = coupling.restrict(keep).sample(500, generator)
    assert set(rows.tolist()) == set(range(5))
    with pytest.raises(InputError, match="no source row"):
        coupling.restrict(torch.zeros(20, dtype=torch.bool))


def test_minibatch_approaches_the_whole_plan_as_blocks_grow(generator):
    x0, x1 = clouds(200, 200)
    whole = couplings.exact(x0, x1)
    best = float((whole.mass * (x0[whole.rows] - x1[whole.cols]).square().sum(1)).sum())
    cost = []
    for block in (4, 32, 256):
        minibatch = couplings.Minibatch(x0, x1, *[couplings.uniform(200)] * 2, couplings.exact, block)
        i, j = minibatch.sample(4096, generator)
        cost.append(float((x0[i] - x1[j]).square().sum(1).mean()))
    assert cost[0] > cost[1] > cost[2] > 0.95 * best
    assert cost[2] < 1.25 * best


def test_mixture_keeps_shares_and_names_rows_of_the_common_array(generator):
    parts = [couplings.Independent(couplings.uniform(2), couplings.uniform(2))] * 2
    sources, targets = [torch.tensor([0, 1]), torch.tensor([2, 3])], [torch.tensor([2, 3]), torch.tensor([4, 5])]
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    rows, cols, part = couplings.Mixture(parts, sources, targets, weights).sample(1000, generator)
    assert abs(int((part == 0).sum()) - 250) <= 1
    for k in (0, 1):
        assert set(rows[part == k].tolist()) == set(sources[k].tolist())
        assert set(cols[part == k].tolist()) == set(targets[k].tolist())


def test_an_entropic_plan_that_does_not_converge_is_not_replaced(monkeypatch):
    from thalweg.core.ot import entropic as entropic_ot

    def fail(*args, **kwargs):
        raise NotConvergedError("marginal error")

    monkeypatch.setattr(entropic_ot, "solve_entropic", fail)
    with pytest.raises(NotConvergedError):
        couplings.entropic(*clouds(), reg=0.1)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_small_blocks_are_assigned_exactly(offset, generator):
    """As many cells as cells: a permutation of the cost that the certified solver finds, wherever the clouds lie."""
    x0 = torch.randn(200, 5, generator=generator) + offset
    x1 = torch.randn(200, 5, generator=generator) * 0.5 - offset
    plan = couplings.exact(x0, x1)
    assert sorted(plan.cols.tolist()) == list(range(200))
    cost = float((plan.mass * (x0[plan.rows] - x1[plan.cols]).double().square().sum(1)).sum())
    best = exact_ot.solve_exact(x0.double().numpy(), x1.double().numpy(), cost="sqeuclidean").cost
    assert cost == pytest.approx(best, rel=1e-6)


def test_small_blocks_refuse_what_is_not_finite():
    x = torch.zeros(4, 2)
    with pytest.raises(InputError):
        couplings.exact(torch.full_like(x, float("nan")), x)
