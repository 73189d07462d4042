from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from thalweg.core import fields, losses, paths
from thalweg.core.contrastive import (
    MeanNegative,
    contrastive_terms,
    contrastive_velocity,
    negative_rows,
    paired_views,
    undo,
)
from thalweg.core.dynamics.ode import odeint
from thalweg.errors import InputError

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(n: int = 12, dim: int = 3, conditions: int = 0, seed: int = 0) -> paths.Batch:
    g = seeded(seed)
    x0, x1 = (torch.randn(n, dim, generator=g, dtype=F64) for _ in range(2))
    batch = paths.Linear(0.1)(x0, x1, torch.rand(n, generator=g, dtype=F64), g)
    return replace(batch, condition=torch.arange(n) % conditions) if conditions else batch


def make_model(dim: int = 3, n_conditions: int = 0) -> fields.MLP:
    return fields.build(lambda: fields.MLP(dim, width=8, depth=2, n_conditions=n_conditions), seeded(5)).double()


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_loss_equals_a_loop_and_costs_one_pass():
    batch, model, calls = make_batch(), make_model(), []

    def counted(t, x, condition):
        calls.append(len(t))
        return model(t, x, condition)

    loss = contrastive_velocity(counted, batch, weight=0.3, generator=seeded(1))
    rows, v = negative_rows(batch, seeded(1)).tolist(), model(batch.t, batch.x_t).detach().numpy()
    u = batch.u_t.numpy()
    expected = [((v[i] - u[i]) ** 2).sum() / 3 - 0.3 * ((v[i] - u[j]) ** 2).sum() / 3 for i, j in enumerate(rows)]
    np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=1e-12)
    assert calls == [12]


def test_weight_zero_is_the_plain_loss_bit_for_bit_and_draws_nothing():
    batch, model, g = make_batch(), make_model(), seeded()
    before = g.get_state()
    assert torch.equal(contrastive_velocity(model, batch, weight=0.0, generator=g), losses.velocity(model, batch))
    assert torch.equal(g.get_state(), before)
    positive, _ = contrastive_terms(model, batch, generator=g)
    assert torch.equal(positive, losses.velocity(model, batch))


def test_gradients():
    batch, weight = make_batch(6), 0.4
    v = torch.randn(6, 3, generator=seeded(2), dtype=F64, requires_grad=True)

    def loss(v: Tensor) -> Tensor:
        return contrastive_velocity(lambda t, x, c: v, batch, weight=weight, generator=seeded(3))

    assert torch.autograd.gradcheck(loss, (v,))
    rows = negative_rows(batch, seeded(3))
    expected = 2 / 3 * ((v - batch.u_t) - weight * (v - batch.u_t[rows]))
    torch.testing.assert_close(torch.autograd.grad(loss(v).sum(), v)[0], expected)


@pytest.mark.parametrize("weight", [1.0, 1.5, -0.1, math.nan])
def test_weight_outside_its_range_is_refused(weight):
    with pytest.raises(InputError, match="weight"):
        contrastive_velocity(make_model(), make_batch(), weight=weight, generator=seeded())
    with pytest.raises(InputError, match="weight"):
        undo(make_model(), weight, MeanNegative())


def test_unusable_batches_are_refused():
    batch, model = make_batch(), make_model()
    with pytest.raises(InputError, match="at least 2 samples, found 1"):
        contrastive_velocity(model, make_batch(1), generator=seeded())
    with pytest.raises(InputError, match="condition, found None"):
        contrastive_velocity(model, batch, generator=seeded(), negatives="other_condition")
    one = replace(batch, condition=torch.full((12,), 3))
    with pytest.raises(InputError, match="found one"):
        contrastive_velocity(model, one, generator=seeded(), negatives="other_condition")
    with pytest.raises(InputError, match="negatives must be one of"):
        contrastive_velocity(model, batch, generator=seeded(), negatives="others")
    with pytest.raises(InputError, match="returned shape"):
        contrastive_velocity(lambda t, x, c: x[:, :1], batch, generator=seeded())


# --- the negatives ----------------------------------------------------------------------------------------------------


def frequencies(batch: paths.Batch, negatives: str, draws: int) -> Tensor:
    """Share of draws in which row j is the negative of row i, shape (n, n)."""
    g, n = seeded(4), len(batch)
    counts = torch.zeros(n, n)
    for _ in range(draws):
        counts[torch.arange(n), negative_rows(batch, g, negatives)] += 1
    return counts / draws


@pytest.mark.parametrize("n", [2, 3, 5])
def test_any_is_a_derangement_uniform_over_the_other_rows(n):
    rows = negative_rows(make_batch(n), seeded(1))
    assert sorted(rows.tolist()) == list(range(n))
    share = frequencies(make_batch(n), "any", 4000)
    assert share.diagonal().max() == 0
    np.testing.assert_allclose(share.numpy(), (1 - np.eye(n)) / (n - 1), atol=5 * math.sqrt(0.25 / 4000))


def test_other_condition_is_uniform_over_rows_of_other_conditions():
    batch = replace(make_batch(7), condition=torch.tensor([4, 0, 4, 9, 4, 4, 0]))
    share = frequencies(batch, "other_condition", 4000)
    other = (batch.condition[:, None] != batch.condition[None]).float()
    assert (share * (1 - other)).max() == 0
    np.testing.assert_allclose(share, other / other.sum(1, keepdim=True), atol=5 * math.sqrt(0.25 / 4000))


@pytest.mark.parametrize("negatives", ["any", "other_condition"])
def test_permutation_of_the_batch_changes_nothing_but_the_draw(negatives):
    batch, model = make_batch(8, conditions=3), make_model(n_conditions=3)
    order = torch.randperm(8, generator=seeded(7))
    shuffled = paths.Batch(**{k: v[order] for k, v in vars(batch).items()})
    allowed = torch.ones(8, 8, dtype=F64) - torch.eye(8, dtype=F64)
    if negatives == "other_condition":
        allowed = (batch.condition[:, None] != batch.condition[None]).double()
    v = model(batch.t, batch.x_t, batch.condition).detach()
    each = (v[:, None] - batch.u_t[None]).square().mean(2)
    expected = (each * allowed).sum(1) / allowed.sum(1)  # over all draws
    for b, want in ((batch, expected), (shuffled, expected[order])):
        g = seeded(8)
        with torch.no_grad():
            terms = torch.stack([contrastive_terms(model, b, generator=g, negatives=negatives)[1] for _ in range(1500)])
        error = (terms.mean(0) - want) / (terms.std(0) / math.sqrt(len(terms)))
        assert error.abs().max() < 4.5


# --- the minimiser, in closed form ------------------------------------------------------------------------------------

P_CONDITION = torch.tensor([0.5, 0.3, 0.2], dtype=F64)


def finite_batch(n: int, seed: int) -> tuple[paths.Batch, Tensor]:
    """Pairs, times and conditions with finitely many values; also the cell (t, x_t, condition) of each row.

    The mean velocity depends on t (trigonometric path) and on the condition, and at t = 1/2 two pairs of ends meet in
    one point, so that v_FM there is a true mean.
    """
    g = seeded(seed)
    condition = torch.multinomial(P_CONDITION, n, replacement=True, generator=g)
    x0 = torch.randint(2, (n, 1), generator=g).double()
    x1 = torch.randint(2, (n, 1), generator=g).double() * (1 + condition[:, None])
    t = torch.tensor([0.25, 0.5], dtype=F64)[torch.randint(2, (n,), generator=g)]
    batch = replace(paths.Trigonometric()(x0, x1, t, g), condition=condition)
    key = torch.stack([batch.t, batch.x_t[:, 0].mul(1e9).round(), condition.double()], 1)
    _, cell = torch.unique(key, dim=0, return_inverse=True)
    return batch, cell


def least_squares(loss) -> Tensor:
    """Minimiser of a quadratic loss of a vector (as many entries as its attribute says): one Newton step from zero."""
    zero = torch.zeros(loss.size, dtype=F64)
    gradient = torch.autograd.functional.jacobian(loss, zero)
    return -torch.linalg.solve(torch.autograd.functional.hessian(loss, zero), gradient)


def test_least_squares_minimiser_and_undo(proof):
    """In standard errors of the mean negative of each point, about .01."""
    weight = 0.4
    batch, cell = finite_batch(200_000, 0)
    size = int(cell.max()) + 1
    pairs = torch.tensor([[a, b] for a in (0.0, 1.0) for b in (0.0, 1.0)], dtype=F64)
    u_mean = torch.zeros(3, dtype=F64)  # E[u | condition], enumerated
    for c in range(3):
        for t in (0.25, 0.5):
            cos, sin = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
            u_mean[c] += (math.pi / 2 * (cos * pairs[:, 1] * (1 + c) - sin * pairs[:, 0])).mean() / 2
    u_any = (P_CONDITION * u_mean).sum()
    u_other = (u_any - P_CONDITION * u_mean) / (1 - P_CONDITION)

    first = torch.tensor([(cell == k).nonzero()[0, 0] for k in range(size)])
    t, x, condition = batch.t[first], batch.x_t[first], batch.condition[first]
    rows = torch.bincount(cell)
    v_fm = torch.zeros(size, dtype=F64).index_add_(0, cell, batch.u_t[:, 0]) / rows
    error = batch.u_t.std() / rows.sqrt()  # of the mean negative of a cell
    for negatives, u_bar in (("any", u_any.expand(size)), ("other_condition", u_other[condition])):

        def loss(v: Tensor, negatives=negatives) -> Tensor:
            return contrastive_velocity(
                lambda t, x, c: v[cell][:, None], batch, weight=weight, generator=seeded(1), negatives=negatives
            ).mean()

        loss.size = size
        v_d = least_squares(loss)
        closed = (v_fm - weight * u_bar) / (1 - weight)
        row = {"any": "delta_fm", "other_condition": "delta_fm_condition"}[negatives]
        proof(row, ((v_d - closed).abs() * (1 - weight) / weight / error).max(), 4.0)

        mean = MeanNegative(negatives)
        for seed in range(2, 12):
            mean.update(finite_batch(10_000, seed)[0])
        torch.testing.assert_close(mean(t, x, condition)[:, 0], u_bar, rtol=0, atol=0.02)
        restored = undo(lambda t, x, c, v_d=v_d: v_d[:, None], weight, mean)(t, x, condition)[:, 0]
        proof("delta_fm_undo", ((restored - v_fm).abs() / weight / (error + 0.01)).max(), 4.0)
        assert (v_d - v_fm).abs().max() > 0.3  # there was something to undo


def test_mean_negative_is_the_mean_over_all_batches():
    batches = [make_batch(n, conditions=k, seed=n) for n, k in ((6, 2), (11, 3), (5, 5))]
    u, c = torch.cat([b.u_t for b in batches]), torch.cat([b.condition for b in batches])
    whole, others = MeanNegative("any"), MeanNegative("other_condition")
    for b in batches:
        whole.update(b)
        others.update(b)
    x, label = torch.zeros(4, 3), torch.tensor([4, 0, 2, 0])
    torch.testing.assert_close(whole(torch.zeros(4), x), u.mean(0).expand(4, 3).float())
    expected = torch.stack([u[c != k].mean(0) for k in label])
    torch.testing.assert_close(others(torch.zeros(4), x.double(), label), expected)


def test_mean_negative_refuses_what_it_has_not_seen():
    mean, t, x = MeanNegative("other_condition"), torch.zeros(2), torch.zeros(2, 3)
    with pytest.raises(InputError, match="no batch"):
        mean(t, x, torch.tensor([0, 1]))
    with pytest.raises(InputError, match="condition"):
        mean.update(make_batch())
    mean.update(make_batch(conditions=1))
    with pytest.raises(InputError, match=r"two or more seen by update, \[0\]; found \[0\]"):
        mean(t, x, torch.tensor([0, 0]))
    mean.update(make_batch(conditions=2))
    with pytest.raises(InputError, match=r"found \[0, 5\]"):
        mean(t, x, torch.tensor([0, 5]))
    with pytest.raises(InputError, match="found None"):
        mean(t, x)


# --- N(0, 1) -> N(m, s^2) ---------------------------------------------------------------------------------------------

M, S = 1.5, 0.5


@pytest.mark.parametrize("weight", [0.0, 0.05, 0.3])
def test_closed_form_field_ends_with_the_sharpened_gaussian(weight):
    def v_d(t: Tensor, x: Tensor) -> Tensor:
        rate = (S**2 * t - (1 - t)) / ((1 - t) ** 2 + t**2 * S**2)
        return (M + rate * (x - t * M) - weight * M) / (1 - weight)

    ends = torch.tensor([[-1.0], [1.0]], dtype=F64)  # an affine flow is known from two points
    low, high = odeint(v_d, ends, [0.0, 1.0], rtol=1e-9, atol=1e-9)[-1][:, 0].tolist()
    assert (high - low) / 2 == pytest.approx(S ** (1 / (1 - weight)), abs=1e-6)
    assert (high + low) / 2 == pytest.approx(M, abs=1e-6)
    if weight == 0.05:
        assert (high - low) / 2 == pytest.approx(0.482, abs=5e-4)


def test_least_squares_field_ends_with_the_sharpened_gaussian_and_undo_restores_it(proof):
    weight, n = 0.05, 2**13
    points = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(n, dtype=F64)
    x0, x1 = torch.special.ndtri(points.clamp(1e-9, 1 - 1e-9)).split(1, 1)
    nodes, node_weights = np.polynomial.legendre.leggauss(12)
    growth, restored = 0.0, 0.0
    for node, w in zip((nodes + 1) / 2, node_weights / 2, strict=True):
        batch = paths.Linear()(x0, M + S * x1, torch.full((n,), float(node), dtype=F64), seeded())

        def loss(theta: Tensor, batch=batch) -> Tensor:
            return contrastive_velocity(
                lambda t, x, c: theta[0] + theta[1] * x, batch, weight=weight, generator=seeded(1)
            ).mean()

        loss.size = 2
        intercept, slope = least_squares(loss).tolist()
        mean = MeanNegative()
        mean.update(batch)
        field = undo(lambda t, x, c, a=intercept, b=slope: a + b * x, weight, mean)
        ends = field(torch.zeros(2), torch.tensor([[0.0], [1.0]], dtype=F64), None)
        growth += w * slope  # dx/dt = a + b x multiplies the standard deviation by exp(int b dt)
        restored += w * (ends[1] - ends[0]).item()
    proof("delta_fm", abs(math.exp(growth) - S ** (1 / (1 - weight))), 2e-3)
    proof("delta_fm_undo", abs(math.exp(restored) - S), 2e-3)


# --- two views --------------------------------------------------------------------------------------------------------

PATHS = [paths.Linear(0.5), paths.GaussianOT(), paths.VPDiffusion(), paths.BrownianBridge(0.7)]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("noise", ["independent", "restricted"])
def test_views_are_two_points_of_the_path_with_their_own_noise(path, noise):
    n, g = 4000, seeded(3)
    x0, x1 = torch.randn(n, 2, generator=g, dtype=F64), torch.randn(n, 2, generator=g, dtype=F64)
    t = path.draw_t(n, g, F64)
    first, second = paired_views(path, x0, x1, t, seeded(1), noise=noise, max_gap=0.02)
    alone = path(x0, x1, t, seeded(1))
    assert torch.equal(first.x_t, alone.x_t)
    assert torch.equal(first.u_t, alone.u_t)
    again = path.at(x0, x1, second.t, second.eps)
    assert torch.equal(second.x_t, again.x_t)
    assert torch.equal(second.u_t, again.u_t)
    assert abs(np.corrcoef(first.eps.flatten(), second.eps.flatten())[0, 1]) < 5 / math.sqrt(2 * n)
    lo, hi = path.t_range
    assert lo <= second.t.min()
    assert second.t.max() <= hi
    gap = second.t - first.t
    if noise == "independent":
        assert abs(np.corrcoef(first.t, second.t)[0, 1]) < 5 / math.sqrt(n)
        assert second.t.std().item() == pytest.approx((hi - lo) / math.sqrt(12), rel=0.05)
    else:
        assert gap.abs().max() <= 0.02 + 1e-12
        inside = (t > lo + 0.02) & (t < hi - 0.02)  # uniform on +-max_gap away from the ends
        assert gap[inside].std().item() == pytest.approx(0.02 / math.sqrt(3), rel=0.05)
        assert abs(gap[inside].mean().item()) < 5 * 0.02 / math.sqrt(3 * n)


def test_restricted_levels_differ_by_at_most_five_thousandths(proof):
    """By default; the noise is independent all the same, its correlation in standard errors."""
    n, g, path = 4000, seeded(3), paths.VPDiffusion()
    x1 = torch.randn(n, 2, generator=g, dtype=F64)
    first, second = paired_views(path, x1, x1, path.draw_t(n, g, F64), seeded(1), noise="restricted")
    gap = (second.t - first.t).abs()
    proof("paired_views", gap.max(), 0.005 + 1e-12)
    assert gap.max() > 0.0049
    correlation = np.corrcoef(first.eps.flatten(), second.eps.flatten())[0, 1]
    proof("paired_views", abs(correlation) * math.sqrt(2 * n), 5.0)


def test_restricted_levels_reach_both_ends_of_the_times_of_a_path():
    path, n = paths.BrownianBridge(clip=0.1), 4000
    x, t = torch.zeros(n, 1, dtype=F64), torch.full((n,), 0.5, dtype=F64)
    _, second = paired_views(path, x, x, t, seeded(), noise="restricted", max_gap=1.0)
    lo, hi = path.t_range
    assert lo < second.t.min() < lo + 0.005
    assert hi - 0.005 < second.t.max() < hi


def test_views_refuse_unusable_arguments():
    x, t = torch.randn(4, 2, generator=seeded()), torch.full((4,), 0.5)
    with pytest.raises(InputError, match="noise must be one of"):
        paired_views(paths.Linear(), x, x, t, seeded(), noise="same")
    with pytest.raises(InputError, match="max_gap=-1"):
        paired_views(paths.Linear(), x, x, t, seeded(), noise="restricted", max_gap=-1)
    with pytest.raises(InputError, match="draw_t"):
        paired_views(paths.BrownianBridge(), x, x, 0 * t, seeded(), noise="restricted")
