from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from thalweg.core.dynamics.likelihood import (
    Solver,
    bits_per_dim,
    dequantise,
    divergence,
    hutchinson,
    importance_bits,
    log_likelihood,
    log_standard_normal,
    negative_log_likelihood,
    rademacher,
)
from thalweg.core.dynamics.ode import Field
from thalweg.core.fields.mlp import MLP, build
from thalweg.core.paths import Batch, Linear
from thalweg.errors import InputError, NotConvergedError

Proof = Callable[..., None]
RK4 = Solver("rk4", n_steps=20)
MEAN = torch.tensor([1.5, -0.5], dtype=torch.float64)
COV = torch.tensor([[1.2, 0.5], [0.5, 0.6]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_flow(t: Tensor, x: Tensor) -> Tensor:
    """Marginal velocity of the straight path from N(0, I) to N(MEAN, COV)."""
    one = torch.eye(2, dtype=torch.float64)
    gain = torch.linalg.solve((1 - t) ** 2 * one + t**2 * COV, t * COV - (1 - t) * one)
    return MEAN + (x - t * MEAN) @ gain


def net_field(d: int = 4) -> tuple[MLP, Field]:
    net = build(lambda: MLP(d, width=16, depth=2), generator()).double()
    return net, lambda t, x: net(t.expand(len(x)), x)


def points(n: int = 8, d: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


TIME = torch.tensor(0.3, dtype=torch.float64)


def test_divergence_is_the_trace_of_the_jacobian() -> None:
    _, field = net_field()
    x = points()
    wanted = [torch.autograd.functional.jacobian(lambda y: field(TIME, y[None])[0], row).trace() for row in x]
    torch.testing.assert_close(divergence(field, TIME, x), torch.stack(wanted), rtol=1e-12, atol=1e-13)


def test_divergence_in_closed_form() -> None:
    x = points()
    torch.testing.assert_close(divergence(lambda t, x: t * x**3, TIME, x), (3 * TIME * x**2).sum(1))
    swirl = divergence(lambda t, x: x.roll(1, 1), TIME, x)
    assert torch.equal(swirl, torch.zeros(8, dtype=torch.float64))
    for constant in (lambda t, x: torch.ones_like(x), lambda t, x: TIME.clone().requires_grad_() * torch.ones_like(x)):
        assert not divergence(constant, TIME, x).any()
        assert not hutchinson(constant, TIME, x, torch.ones_like(x)).any()
    image = x.reshape(2, 4, 2, 2)
    torch.testing.assert_close(divergence(lambda t, x: x.sin(), TIME, image), image.cos().flatten(1).sum(1))


def test_hutchinson_averaged_over_all_signs_is_exact(proof: Proof) -> None:
    _, field = net_field()
    x = points()
    signs = [torch.tensor(s, dtype=torch.float64).expand(8, 4) for s in itertools.product((-1, 1), repeat=4)]
    estimates = torch.stack([hutchinson(field, TIME, x, e) for e in signs])
    exact = divergence(field, TIME, x)
    proof("likelihood_hutchinson", (estimates.mean(0) - exact).abs().max(), 1e-12)
    assert (estimates - exact).abs().max().item() > 1e-3  # a single probe is not


def test_hutchinson_is_the_quadratic_form_of_the_jacobian() -> None:
    _, field = net_field()
    x, e = points(), points(seed=2)
    wanted = [
        v @ torch.autograd.functional.jacobian(lambda y: field(TIME, y[None])[0], row) @ v
        for row, v in zip(x, e, strict=True)
    ]
    torch.testing.assert_close(hutchinson(field, TIME, x, e), torch.stack(wanted), rtol=1e-12, atol=1e-13)


def test_divergence_gradients_in_points_and_parameters() -> None:
    net, field = net_field(d=3)
    x = points(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: divergence(field, TIME, y), (x,))
    a = torch.randn(3, 3, generator=generator(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: divergence(lambda t, y: torch.tanh(y @ m), TIME, x.detach()), (a,))
    e = torch.ones_like(x)
    assert torch.autograd.gradcheck(lambda m: hutchinson(lambda t, y: torch.tanh(y @ m), TIME, x.detach(), e), (a,))
    with torch.no_grad():
        value = divergence(field, TIME, x)
    assert not value.requires_grad
    assert all(p.grad is None for p in net.parameters())
    torch.testing.assert_close(value, divergence(field, TIME, x).detach())


def test_rademacher_is_balanced_signs() -> None:
    e = rademacher(torch.zeros(400, 250), generator())
    assert set(e.unique().tolist()) == {-1.0, 1.0}
    assert abs(e.mean().item()) < 4 / math.sqrt(e.numel())


@pytest.mark.parametrize("method", ["dopri5", "tsit5", "rk4"])
def test_log_likelihood_of_a_gaussian_flow(method: str, proof: Proof) -> None:
    x1 = MEAN + 2 * points(50, 2)
    wanted = torch.distributions.MultivariateNormal(MEAN, COV).log_prob(x1)
    found = log_likelihood(gaussian_flow, x1, log_standard_normal, solver=Solver(method))  # the default tolerance
    proof("likelihood", (found - wanted).abs().max(), 1e-4)
    tight = log_likelihood(gaussian_flow, x1, log_standard_normal, solver=Solver(method, 200, 1e-10, 1e-10))
    torch.testing.assert_close(tight, wanted, rtol=0, atol=1e-8)


def test_log_likelihood_of_any_source() -> None:
    """A shift and a scaling of a Laplace source: ``dx/dt = a x + b``."""
    a, b = 0.7, -0.4
    laplace = torch.distributions.Laplace(torch.tensor(0.2).double(), torch.tensor(1.3).double())
    x1 = points(20, 3)
    shift = b * (math.exp(a) - 1) / a
    wanted = laplace.log_prob((x1 - shift) * math.exp(-a)).sum(1) - 3 * a
    found = log_likelihood(lambda t, x: a * x + b, x1, lambda x: laplace.log_prob(x).sum(1), solver=RK4)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_density_of_a_non_linear_flow_integrates_to_one() -> None:
    _, field = net_field(d=1)
    x = torch.linspace(-12, 12, 1201, dtype=torch.float64)[:, None]
    with torch.no_grad():
        density = log_likelihood(lambda t, x: 3 * field(t, x), x, log_standard_normal, solver=RK4).exp()
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_images_are_flattened_vectors() -> None:
    x = points(3, 12)
    flat = log_likelihood(lambda t, x: x.sin(), x, log_standard_normal, solver=RK4)
    image = log_likelihood(lambda t, x: x.sin(), x.reshape(3, 3, 2, 2), log_standard_normal, solver=RK4)
    torch.testing.assert_close(image, flat, rtol=1e-14, atol=0)


def test_hutchinson_equals_exact_for_a_diagonal_jacobian() -> None:
    x = points(10, 5)
    exact = log_likelihood(lambda t, x: torch.sin(x + t), x, log_standard_normal, solver=RK4)
    for seed in (0, 1):
        found = log_likelihood(
            lambda t, x: torch.sin(x + t),
            x,
            log_standard_normal,
            method="hutchinson",
            generator=generator(seed),
            solver=RK4,
        )
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


def test_hutchinson_agrees_with_exact_in_expectation(proof: Proof) -> None:
    """Along given paths the estimate is linear in the divergence, so its mean over probes is the exact value.

    In standard errors of 4,000 probes, about 1e-3.
    """
    _, field = net_field()
    x, copies = points(3), 4000
    strong: Field = lambda t, x: 2 * field(t, x)  # noqa: E731
    few = Solver("rk4", n_steps=5)
    with torch.no_grad():
        exact = log_likelihood(strong, x, log_standard_normal, solver=few)
        found = log_likelihood(
            strong, x.repeat(copies, 1), log_standard_normal, method="hutchinson", generator=generator(), solver=few
        ).reshape(copies, 3)
    error = found.std(0) / math.sqrt(copies)
    assert bool((error > 1e-6).all())
    proof("likelihood_hutchinson", ((found.mean(0) - exact).abs() / error).max(), 4.0)


def test_probe_is_held_during_a_solve_and_set_by_the_seed() -> None:
    _, field = net_field()
    x = points()
    runs = [
        log_likelihood(field, x, log_standard_normal, method="hutchinson", generator=generator(s), solver=RK4).detach()
        for s in (3, 3, 4)
    ]
    assert torch.equal(runs[0], runs[1])
    assert (runs[0] - runs[2]).abs().max().item() > 1e-4
    # A right-hand side that is smooth in time: halving the step of a fourth-order method changes little.
    finer = log_likelihood(
        field, x, log_standard_normal, method="hutchinson", generator=generator(3), solver=Solver("rk4", n_steps=40)
    )
    torch.testing.assert_close(runs[0], finer.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", [RK4, Solver(rtol=1e-9, atol=1e-9)], ids=["rk4", "dopri5"])
def test_gradients_of_the_likelihood_in_closed_form(solver: Solver) -> None:
    """``v = a x + b``: log p is that of N(b (e^a - 1)/a, e^{2a})."""
    theta = torch.tensor([0.4, -0.3], dtype=torch.float64, requires_grad=True)
    x = points(30, 1)
    found = log_likelihood(lambda t, y: theta[0] * y + theta[1], x, log_standard_normal, solver=solver)
    mean, sd = theta[1] * torch.expm1(theta[0]) / theta[0], torch.exp(theta[0])
    wanted = torch.distributions.Normal(mean, sd).log_prob(x)[:, 0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    (a,), (b,) = (torch.autograd.grad(y.sum(), theta) for y in (found, wanted))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def batch_of(x1: Tensor, condition: Tensor | None = None) -> Batch:
    zero = torch.zeros(len(x1), dtype=x1.dtype)
    batch = Linear()(torch.zeros_like(x1), x1, zero, generator())
    return Batch(batch.t, batch.x_t, batch.u_t, batch.x0, x1, batch.eps, batch.sigma_t, condition)


@pytest.mark.parametrize("method", ["exact", "hutchinson"])
def test_maximum_likelihood_recovers_mean_and_standard_deviation(method: str, proof: Proof) -> None:
    """The optimum of an affine flow is the sample's own mean and standard deviation."""
    x1 = 2 + 0.5 * points(500, 1)
    batch = batch_of(x1)
    theta = torch.tensor([0.1, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([theta], max_iter=40, line_search_fn="strong_wolfe")

    def model(t: Tensor, x: Tensor, condition: Tensor | None) -> Tensor:
        return theta[0] * x + theta[1]

    def closure() -> Tensor:
        optimiser.zero_grad()
        g = generator() if method == "hutchinson" else None
        few = Solver("rk4", n_steps=10)
        value = negative_log_likelihood(model, batch, method=method, generator=g, solver=few).mean()  # type: ignore[arg-type]
        value.backward()
        return value

    optimiser.step(closure)
    a, b = theta.tolist()
    sd, mean = x1.std(correction=0).item(), x1.mean().item()
    proof("maximum_likelihood", max(abs(math.exp(a) / sd - 1), abs(b * math.expm1(a) / a / mean - 1)), 1e-4)
    assert b * math.expm1(a) / a == pytest.approx(2, abs=0.1)


def test_loss_of_a_conditional_model_is_that_of_each_condition() -> None:
    x1 = points(6, 2)
    label = torch.tensor([0, 1, 0, 1, 1, 0])

    def model(t: Tensor, x: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None
        assert t.shape == (6,)
        return x * condition[:, None]  # the second condition scales by e, the first stands still

    found = negative_log_likelihood(model, batch_of(x1, label), solver=RK4)
    wanted = -log_standard_normal(x1 * torch.exp(-label[:, None].double())) + 2 * label
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_standard_normal_log_density() -> None:
    x = points(5, 6)
    wanted = torch.distributions.Normal(0, 1).log_prob(x).sum(1)
    torch.testing.assert_close(log_standard_normal(x.reshape(5, 3, 2)), wanted)


def test_bits_of_the_uniform_density_are_eight(proof: Proof) -> None:
    for d in (1, 28 * 28, 3072):
        bits = bits_per_dim(torch.tensor([-d * math.log(2)], dtype=torch.float64), d)
        proof("bits_per_dim", abs(bits.item() - 8), 1e-12)
    images = torch.randint(0, 256, (4, 3, 5, 5), generator=generator(), dtype=torch.uint8)
    for k in (1, 3):
        bits = importance_bits(
            lambda x: x.new_full((len(x),), -75 * math.log(2), dtype=torch.float64), images, k, generator()
        )
        torch.testing.assert_close(bits, torch.full((4,), 8.0, dtype=torch.float64), rtol=0, atol=1e-12)


def test_bits_fall_as_the_density_rises(proof: Proof) -> None:
    """Doubling the density of an image saves exactly one bit, shared by its values."""
    log_p = torch.tensor([0.3], dtype=torch.float64)
    saved = bits_per_dim(log_p, 10) - bits_per_dim(log_p + math.log(2), 10)
    proof("bits_per_dim", (saved - 0.1).abs(), 1e-12)


def test_dequantisation_is_uniform_within_each_level() -> None:
    levels = torch.arange(256, dtype=torch.uint8).repeat(2000, 1)
    x = dequantise(levels, generator(), torch.float64)
    within = (x + 1) * 128 - levels
    assert 0 <= within.min().item() < within.max().item() <= 1
    grid = torch.linspace(0, 1, within.numel(), dtype=torch.float64)
    assert (within.flatten().sort().values - grid).abs().max().item() < 1.95 / math.sqrt(within.numel())
    single = dequantise(levels, generator())
    assert single.dtype == torch.float32
    assert -1 <= single.min().item() < single.max().item() <= 1
    with pytest.raises(InputError, match="dtype uint8"):
        dequantise(levels.float(), generator())


def triangle(x: Tensor) -> Tensor:
    """Log of the density ``prod (1 + x_i)/2`` on [-1, 1]^d."""
    return torch.log((1 + x.double()) / 2).flatten(1).sum(1)


def test_more_importance_samples_never_cost_bits(proof: Proof) -> None:
    images = torch.randint(0, 20, (50, 4), generator=generator(), dtype=torch.uint8)
    k = 16
    many = importance_bits(triangle, images, k, generator(3))
    g = generator(3)
    single = torch.stack([importance_bits(triangle, images, 1, g) for _ in range(k)])
    assert bool((many <= single.mean(0) + 1e-12).all())  # Jensen, sample by sample
    # In expectation: each doubling gains, and the exact code length of the pixels is the limit.
    means = [importance_bits(triangle, images.repeat(40, 1), k, generator(4)).mean().item() for k in (1, 2, 4, 8)]
    assert all(a > b for a, b in itertools.pairwise(means))
    low = images.double() / 128
    exact = (-torch.log2(((low + 1 / 128) ** 2 - low**2) / 4).sum(1) / 4).mean().item()  # mass of each level
    assert means[-1] > exact
    limit = importance_bits(triangle, images, 3000, generator(5)).mean().item()
    proof("bits_per_dim", abs(limit - exact), 2e-3)


def test_wrong_arguments_are_refused() -> None:
    x = points()
    normal = log_standard_normal
    with pytest.raises(InputError, match="method='trace' is unknown; choose one of exact, hutchinson"):
        log_likelihood(gaussian_flow, x, normal, method="trace")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="generator is the source of the probe"):
        log_likelihood(gaussian_flow, x, normal, method="hutchinson")
    with pytest.raises(InputError, match="generator is the source of the probe"):
        log_likelihood(gaussian_flow, x, normal, generator=generator())
    with pytest.raises(InputError, match="at least two axes"):
        log_likelihood(gaussian_flow, x[:, 0], normal)
    for bad in (lambda t, x: x[:, :1], lambda t, x: x[:1], lambda t, x: x.sum(1)):
        with pytest.raises(InputError, match="the field returned shape"):
            log_likelihood(bad, x, normal)
    with pytest.raises(InputError, match="log_source must return shape"):
        log_likelihood(lambda t, x: x, x, lambda x: -(x**2))
    with pytest.raises(InputError, match="probe must have the shape of x"):
        hutchinson(lambda t, x: x, TIME, x, x[:1])
    with pytest.raises(InputError, match="k must be at least 1, found 0"):
        importance_bits(triangle, torch.zeros(2, 2, dtype=torch.uint8), 0, generator())
    with pytest.raises(InputError, match="d must be at least 1, found 0"):
        bits_per_dim(x[:, 0], 0)
    with pytest.raises(NotConvergedError, match="not finite"):
        log_likelihood(lambda t, x: x / 0, x, normal)


def test_global_generator_is_untouched() -> None:
    state = torch.random.get_rng_state()
    log_likelihood(
        lambda t, x: x, points(), log_standard_normal, method="hutchinson", generator=generator(), solver=RK4
    )
    importance_bits(triangle, torch.zeros(2, 2, dtype=torch.uint8), 2, generator())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.isfinite(bits_per_dim(torch.zeros(1), 1).item())
