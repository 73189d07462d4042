import math

import numpy as np
import ot
import pytest
import torch

from thalweg.core.ot.entropic import passes, plan_entries, relative_epsilon, solve_entropic, start
from thalweg.core.ot.entropic.newton import ScalingProblem
from thalweg.errors import InputError, MemoryBudgetError, NotConvergedError


def clouds(n=40, m=55, d=3, seed=0, shift=0.5):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    y = torch.randn(m, d, generator=g, dtype=torch.float64) * 0.8 + shift
    a, b = (torch.rand(k, generator=g, dtype=torch.float64) + 0.1 for k in (n, m))
    return x, y, a / a.sum(), b / b.sum()


def cost(x, y):
    return (x[:, None] - y[None]).square().sum(-1)


def dense(x, y, plan):
    """The definition of the plan, without the module's factors, blocks or centring."""
    exponent = (plan.f[:, None] + plan.g[None] - cost(x.double(), y.double())) / plan.epsilon
    return plan.a[:, None] * plan.b * exponent.exp()


@pytest.fixture
def sparse(monkeypatch):
    """Make small problems take the way of large ones: chosen entries, several blocks, warm start on a subset."""
    monkeypatch.setattr(passes, "_SMALL", 0)
    monkeypatch.setattr(passes, "_DENSE_ABOVE", 1.1)
    monkeypatch.setattr(start, "SUBSET", 25)


@pytest.mark.parametrize("epsilon", [2.0, 0.2, 0.05])
def test_balanced_plan_equals_pot(epsilon, proof):
    x, y, a, b = clouds()
    reference = ot.bregman.sinkhorn_log(a, b, cost(x, y), epsilon, numItermax=5_000, stopThr=1e-10)
    plan = solve_entropic(x, y, a=a, b=b, epsilon=epsilon, tol=1e-9)
    proof("entropic_plan", (dense(x, y, plan) - reference).abs().max(), 1e-8)
    full = dense(x, y, plan)
    proof("entropic_plan", max((full.sum(1) - a).abs().sum(), (full.sum(0) - b).abs().sum()), 1.1e-9)
    assert plan.marginal_error <= 1e-9


@pytest.mark.parametrize("epsilon", [0.2, 0.02])
def test_chosen_entries_give_the_same_plan(epsilon, sparse):
    x, y, a, b = clouds(120, 90)
    reference = ot.bregman.sinkhorn_log(a, b, cost(x, y), epsilon, numItermax=100_000, stopThr=1e-9)
    plan = solve_entropic(x, y, a=a, b=b, epsilon=epsilon, tol=1e-8)
    torch.testing.assert_close(dense(x, y, plan), reference, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("tau_a", "tau_b"), [(0.5, 0.5), (3.0, 0.2), (None, 0.7), (0.7, None), (10.0, 10.0)])
@pytest.mark.parametrize("way", ["dense", "sparse"])
def test_relaxed_plan_equals_pot(tau_a, tau_b, way, request, proof):
    if way == "sparse":
        request.getfixturevalue("sparse")
    x, y, a, b = clouds(shift=1.0)
    a = 1.7 * a
    taus = [math.inf if tau is None else tau for tau in (tau_a, tau_b)]
    reference = ot.unbalanced.sinkhorn_unbalanced(
        a, b, cost(x, y), 0.3, taus, reg_type="kl", numItermax=20_000, stopThr=1e-12
    )
    plan = solve_entropic(x, y, a=a, b=b, epsilon=0.3, tau_a=tau_a, tau_b=tau_b, tol=1e-9)
    proof("unbalanced_plan", (dense(x, y, plan) - reference).abs().max(), 1e-7)


def test_two_diracs_exchange_the_mass_of_the_closed_form(proof):
    # one entry p minimises p C + eps KL(p | ab) + tau_a KL(p | a) + tau_b KL(p | b)
    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    a, b, eps, tau_a, tau_b = 2.0, 0.5, 0.3, 1.5, 4.0
    log_p = (eps * math.log(a * b) + tau_a * math.log(a) + tau_b * math.log(b) - 5.0) / (eps + tau_a + tau_b)
    weights = {"a": torch.tensor([a], dtype=torch.float64), "b": torch.tensor([b], dtype=torch.float64)}
    plan = solve_entropic(x, y, **weights, epsilon=eps, tau_a=tau_a, tau_b=tau_b, tol=1e-12)
    proof("unbalanced_plan", abs(float(dense(x, y, plan)) / math.exp(log_p) - 1), 1e-10)


def test_relaxed_clouds_far_apart_satisfy_their_marginals_although_the_mass_all_but_vanishes():
    x, y, a, b = clouds(shift=15.0)
    plan = solve_entropic(x, y, a=a, b=b, epsilon=0.5, tau_a=1.0, tau_b=2.0, tol=1e-8)
    full, mass_log = dense(x, y, plan), (a.log() - plan.f / 1.0).logsumexp(0)
    assert float(mass_log) < -100
    wrong_rows = (full.sum(1) - a * (-plan.f / 1.0).exp()).abs().sum()
    wrong_columns = (full.sum(0) - b * (-plan.g / 2.0).exp()).abs().sum()
    assert float((wrong_rows + wrong_columns) / full.sum()) <= 1.1e-8


@pytest.mark.parametrize(("tau_a", "tau_b"), [(2.9, 0.05), (0.05, 0.02), (None, 0.01)])
def test_weights_over_six_orders_of_magnitude_and_weak_penalties(tau_a, tau_b):
    x, y, a, b = clouds(700, 800, d=4, shift=3.0)
    a, b = ((14 * w / w.max()).exp() for w in (a, b))
    a, b = a / a.sum(), b / b.sum()
    plan = solve_entropic(x, y, a=a, b=b, epsilon=0.06, tau_a=tau_a, tau_b=tau_b, tol=1e-3)
    full = dense(x, y, plan)
    rows, columns = a if tau_a is None else a * (-plan.f / tau_a).exp(), b * (-plan.g / tau_b).exp()
    assert float(((full.sum(1) - rows).abs().sum() + (full.sum(0) - columns).abs().sum()) / full.sum()) < 1.3e-3


def test_large_penalties_approach_the_balanced_plan_at_first_order():
    x, y, a, b = clouds()
    exact = dense(x, y, solve_entropic(x, y, a=a, b=b, epsilon=0.5, tol=1e-10))
    gaps = []
    for tau in (1e2, 1e3, 1e4):
        plan = solve_entropic(x, y, a=a, b=b, epsilon=0.5, tau_a=tau, tau_b=tau, tol=1e-10)
        gaps.append(float((dense(x, y, plan) - exact).abs().sum()))
    np.testing.assert_allclose(np.array(gaps[:-1]) / gaps[1:], 10, rtol=0.1)


def test_gaussians_have_the_cross_covariance_of_the_closed_form(proof):
    # Janati et al. 2020, eps = 2 s^2: D = (4 A^1/2 B A^1/2 + s^4 I)^1/2, cross = (A^1/2 D A^-1/2 - s^2 I) / 2
    n, eps = 3000, 0.5
    sd_x, sd_y = torch.tensor([1.0, 0.5]), torch.tensor([0.7, 1.2])
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(n, 2, generator=generator) * sd for sd in (sd_x, sd_y))
    plan = solve_entropic(x, y, epsilon=eps, tol=1e-3)
    rows, cols, mass, _ = plan_entries(x, y, plan)
    cross = torch.einsum("k,ki,kj->ij", mass, x.double()[rows], y.double()[cols])
    expected = torch.diag(((4 * sd_x**2 * sd_y**2 + (eps / 2) ** 2).sqrt() - eps / 2) / 2).double()
    proof("entropic_plan", (cross - expected).abs().max(), 4 / n**0.5)


def test_small_epsilon_approaches_the_cost_of_exact_transport():
    x, y, a, b = clouds()
    exact = float(ot.emd2(a, b, cost(x, y)))
    gaps = []
    for epsilon in (0.1, 0.02, 0.004):
        plan = solve_entropic(x, y, a=a, b=b, epsilon=epsilon, tol=1e-7)
        gaps.append(float((dense(x, y, plan) * cost(x, y)).sum()) - exact)
    assert gaps[0] > gaps[1] > gaps[2] > -1e-6
    assert gaps[2] < 0.005 * exact


def test_full_marginals_hold_on_a_large_problem_with_weights():
    x, y, a, b = clouds(2500, 3100, d=5)
    plan = solve_entropic(x.float(), y.float(), a=a, b=b, epsilon=0.05, tol=1e-3)
    full = dense(x.float(), y.float(), plan)
    error = float((full.sum(1) - a).abs().sum() + (full.sum(0) - b).abs().sum())
    assert error <= 1.2e-3
    assert plan.marginal_error == pytest.approx(error, abs=2e-4)
    entries = plan_entries(x.float(), y.float(), plan, drop=1e-4)
    assert 0 < entries.dropped <= 1e-4
    assert bool((entries.mass >= 1e-4 / len(y) * full.sum(1)[entries.rows] * (1 - 1e-9)).all())
    assert len(entries.mass) == int((full >= 1e-4 / len(y) * full.sum(1, keepdim=True)).sum())
    kept = torch.zeros_like(full)
    kept[entries.rows, entries.cols] = entries.mass
    assert float((full - kept).sum() / full.sum()) == pytest.approx(entries.dropped, rel=1e-3)
    torch.testing.assert_close(kept[kept > 0], full[kept > 0], rtol=1e-9, atol=0)


def test_an_offset_of_ten_thousand_in_float32_changes_nothing():
    x, y = (torch.round(z * 64) / 64 for z in clouds()[:2])  # multiples of 1/64 survive the shift exactly
    plans = [dense(x, y, solve_entropic((x + s).float(), (y + s).float(), epsilon=0.1, tol=1e-8)) for s in (0.0, 1e4)]
    torch.testing.assert_close(plans[0], plans[1], atol=1e-9, rtol=0)
    entries = plan_entries(
        (x + 1e4).float(), (y + 1e4).float(), solve_entropic(x, y, epsilon=0.1, tol=1e-8), drop=1e-12
    )
    torch.testing.assert_close(plans[0][entries.rows, entries.cols], entries.mass, atol=1e-9, rtol=0)
    far = [relative_epsilon((x + s).float(), (y + s).float(), 0.1) for s in (0.0, 1e4)]
    assert far[1] == pytest.approx(far[0], rel=1e-9)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_data_and_epsilon_scale_together(scale):
    x, y, a, b = clouds()
    options = [{"epsilon": 0.1 * s**2, "tau_a": 2.0 * s**2, "tau_b": 3.0 * s**2} for s in (1.0, scale)]
    plain = dense(x, y, solve_entropic(x, y, a=a, b=b, tol=1e-9, **options[0]))
    scaled = dense(scale * x, scale * y, solve_entropic(scale * x, scale * y, a=a, b=b, tol=1e-9, **options[1]))
    torch.testing.assert_close(scaled, plain, atol=1e-9, rtol=0)
    assert relative_epsilon(scale * x, scale * y, 0.1) == pytest.approx(scale**2 * relative_epsilon(x, y, 0.1))


def test_permuted_points_give_the_permuted_plan_and_a_repeat_the_same_bits():
    x, y, a, b = clouds()
    p, q = (torch.randperm(k, generator=torch.Generator().manual_seed(3)) for k in (len(x), len(y)))
    plan = solve_entropic(x, y, a=a, b=b, epsilon=0.1, tol=1e-10)
    other = solve_entropic(x[p], y[q], a=a[p], b=b[q], epsilon=0.1, tol=1e-10)
    torch.testing.assert_close(dense(x[p], y[q], other), dense(x, y, plan)[p][:, q], atol=1e-9, rtol=0)
    state = torch.random.get_rng_state()
    again = solve_entropic(x, y, a=a, b=b, epsilon=0.1, tol=1e-10)
    assert torch.equal(again.f, plan.f)
    assert torch.equal(again.g, plan.g)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_duplicates_share_the_mass_of_one_point():
    x, y, a, b = clouds()
    single = dense(x, y, solve_entropic(x, y, a=a, b=b, epsilon=0.1, tol=1e-10))
    twice = solve_entropic(torch.cat([x, x]), y, a=torch.cat([a, a]) / 2, b=b, epsilon=0.1, tol=1e-10)
    both = dense(torch.cat([x, x]), y, twice)
    torch.testing.assert_close(both[:40] + both[40:], single, atol=1e-9, rtol=0)


def test_identical_points_give_the_independent_plan():
    _, _, a, b = clouds()
    x, y = torch.full((40, 3), 7.0), torch.full((55, 3), 7.0)
    plan = solve_entropic(x, y, a=a, b=b, epsilon=0.1, tol=1e-10)
    torch.testing.assert_close(dense(x, y, plan), a[:, None] * b, atol=1e-12, rtol=0)
    with pytest.raises(InputError, match="absolute units"):
        relative_epsilon(x, y, 0.1)


def test_zero_weights_carry_no_mass_and_change_no_other():
    x, y, a, b = clouds()
    a0, b0 = a.clone(), b.clone()
    a0[[0, 7]], b0[[3]] = 0, 0
    a0, b0 = a0 / a0.sum(), b0 / b0.sum()
    plan = solve_entropic(x, y, a=a0, b=b0, epsilon=0.1, tol=1e-10)
    full = dense(x, y, plan)
    assert float(full[[0, 7]].sum() + full[:, 3].sum()) == 0
    keep_x, keep_y = a0 > 0, b0 > 0
    alone = solve_entropic(x[keep_x], y[keep_y], a=a0[keep_x], b=b0[keep_y], epsilon=0.1, tol=1e-10)
    torch.testing.assert_close(full[keep_x][:, keep_y], dense(x[keep_x], y[keep_y], alone), atol=1e-9, rtol=0)
    # the potential of an absent point is the soft minimum: its row would sum to its weight
    torch.testing.assert_close(
        ((plan.f[:, None] + plan.g - cost(x, y)) / 0.1).exp()[[0, 7]] @ b0, torch.ones(2).double(), atol=1e-8, rtol=0
    )
    entries = plan_entries(x, y, plan, drop=0.0)
    assert not set(entries.rows.tolist()) & {0, 7}


def test_the_potential_of_an_absent_point_knows_the_penalty():
    x, y, a, b = clouds()
    a[0] = 0
    plan = solve_entropic(x, y, a=a, b=b, epsilon=0.1, tau_a=0.3, tau_b=0.5, tol=1e-10)
    row = ((plan.f[0] + plan.g - cost(x, y)[0]) / 0.1).exp() @ b  # P 1 = a exp(-f / tau_a), divided by a
    assert float(row) == pytest.approx(math.exp(-float(plan.f[0]) / 0.3), rel=1e-8)


def test_weights_that_agree_up_to_rounding_are_solved_beyond_it():
    x, y, a, b = clouds()
    plan = solve_entropic(x, y, a=a, b=b * (1 + 5e-6), epsilon=0.5, tol=1e-9)
    torch.testing.assert_close(plan.b, b, atol=1e-15, rtol=0)


@pytest.mark.parametrize(("kappa_a", "kappa_b"), [(0.0, 0.0), (0.4, 0.0), (0.3, 0.8)])
def test_newton_direction_solves_with_the_derivative_of_the_gradient(kappa_a, kappa_b):
    x, y, a, b = clouds()
    kernel = a[:, None] * b * (-0.1 * cost(x, y)).exp()
    problem = ScalingProblem(kernel, kernel.T, a.log(), b.log(), kappa_a, kappa_b)
    at = problem._at(0.1 * x[:, 0])
    hessian = torch.autograd.functional.jacobian(lambda phi: problem._at(phi).gradient, at.phi)
    step = problem._direction(at, 1e-10, 10_000)
    torch.testing.assert_close(hessian @ step, -at.gradient, atol=1e-10, rtol=0)


def sinkhorn_iterations(x, y, a, b, epsilon, damping, tol):
    f, exponent = torch.zeros_like(a), -cost(x, y) / epsilon
    for iteration in range(20_000):
        g = -damping * (exponent + (f + a.log())[:, None]).logsumexp(0)
        previous, f = f, -damping * (exponent + g + b.log()).logsumexp(1)
        if float((f - previous).expm1().abs() @ a) < tol:
            return iteration
    return 20_000


@pytest.mark.parametrize("tau", [None, 5.0])
def test_newton_steps_need_a_small_share_of_the_iterations_of_sinkhorn(tau):
    x, y, a, b = clouds()
    damping = 1.0 if tau is None else tau / (tau + 0.02)
    plan = solve_entropic(x, y, a=a, b=b, epsilon=0.02, tau_a=tau, tau_b=tau, tol=1e-4)
    assert plan.iterations < sinkhorn_iterations(x, y, a, b, 0.02, damping, 1e-4) / 4


def test_relative_epsilon_is_a_share_of_the_mean_over_all_pairs():
    x, y, a, b = clouds()
    assert relative_epsilon(x, y, 0.05) == pytest.approx(0.05 * float(cost(x, y).mean()))
    assert relative_epsilon(x, y, 0.05, a=3 * a, b=b) == pytest.approx(0.05 * float(a @ cost(x, y) @ b))


def test_an_unfinished_plan_is_an_error_that_names_its_state():
    x, y, a, b = clouds()
    with pytest.raises(NotConvergedError, match=r"error .* after \d+ iterations.*tol=.*mean squared distance.*Raise"):
        solve_entropic(x, y, a=a, b=b, epsilon=0.01, tol=1e-9, max_iterations=2)


def test_memory_bounds_hold_and_name_the_size():
    x, y, _, _ = clouds(700, 800)
    with pytest.raises(MemoryBudgetError, match="700 rows x 800 columns"):
        solve_entropic(x, y, epsilon=5.0, max_memory=100_000)
    plan = solve_entropic(x, y, epsilon=5.0)
    with pytest.raises(MemoryBudgetError, match="700 rows x 800 columns"):
        plan_entries(x, y, plan, max_memory=100_000)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"tau_a": -1.0}, "tau_a"),
        ({"tol": 0.0}, "tol"),
        ({"a": -torch.ones(40)}, "a: weights"),
        ({"b": torch.ones(54)}, "one weight per point"),
        ({"a": torch.ones(40), "b": torch.ones(55)}, "differ"),
        ({"y": torch.zeros(55, 2)}, "shapes"),
        ({"x": torch.full((40, 3), math.nan)}, "row 0"),
    ],
)
def test_unusable_input_is_named(change, match):
    x, y, _, _ = clouds()
    with pytest.raises(InputError, match=match):
        solve_entropic(**{"x": x, "y": y, "epsilon": 1.0} | change)
