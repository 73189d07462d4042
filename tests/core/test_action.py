from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thalweg.core import fields, paths
from thalweg.core.action import Marginals, Potential, action
from thalweg.errors import InputError

F64 = torch.float64
Proof = Callable[..., None]
Curve = Callable[[Tensor], Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Features(nn.Module):
    """s = theta . phi(t, x), which makes the action a quadratic in theta."""

    def __init__(self, *phi: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.phi = phi
        self.theta = nn.Parameter(torch.zeros(len(phi), dtype=F64))

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.stack([f(t, x[:, 0]) for f in self.phi], 1) @ self.theta


def small_network(dim: int = 2, n_conditions: int = 0, seed: int = 0) -> Potential:
    make = lambda: fields.MLP(dim, out_dim=1, width=8, depth=2, frequencies=1, n_conditions=n_conditions)  # noqa: E731
    return Potential(fields.build(make, seeded(seed))).double()


def gaussian_samples(
    mean: Curve, sd: Curve, mass: Curve = torch.ones_like, dim: int = 1
) -> tuple[Marginals, tuple[Tensor, Tensor, Tensor]]:
    """Quadrature nodes of N(mean(t), sd(t)^2 I) and weights: means of the action over them are exact integrals.

    24 Gauss-Legendre nodes in t times 6 Gauss-Hermite nodes for each axis, exact for polynomials of degree 11 in x.
    """
    t, w_t = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(24))
    z, w_z = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(6))
    t, w_t, w_z = (t + 1) / 2, w_t / 2, w_z / w_z.sum()
    points, weight = torch.cartesian_prod(*[z] * dim).reshape(-1, dim), w_z
    for _ in range(dim - 1):
        weight = torch.kron(weight, w_z)
    k, n = len(weight), len(t) * len(weight)
    rows, columns = t.repeat_interleave(k), points.repeat(len(t), 1)

    def at(time: Tensor) -> Tensor:
        return mean(time).reshape(len(time), -1) + sd(time)[:, None] * columns

    start, end = torch.zeros(n, dtype=F64), torch.ones(n, dtype=F64)
    even = weight.repeat(len(t)) * k
    weights = (even * mass(start), even * mass(end), even * mass(rows) * w_t.repeat_interleave(k) * len(t))
    return Marginals(rows, at(rows), at(start), at(end)), weights


def minimise(
    network: Features, batch: Marginals, weights: tuple[Tensor, Tensor, Tensor], **options: object
) -> Potential:
    """Solve for theta exactly: the action is quadratic, so one Newton step with its gradient and Hessian does."""
    potential = Potential(network)
    loss = action(potential, batch, weights=weights, **options).mean()
    (gradient,) = torch.autograd.grad(loss, network.theta, create_graph=True)
    hessian = torch.stack([torch.autograd.grad(g, network.theta, retain_graph=True)[0] for g in gradient])
    with torch.no_grad():
        network.theta -= torch.linalg.solve(hessian, gradient)
    return potential


def grid() -> tuple[Tensor, Tensor]:
    points = torch.cartesian_prod(torch.linspace(0, 1, 5, dtype=F64), torch.linspace(-2, 3, 6, dtype=F64))
    return points[:, 0], points[:, 1:]


# --- value ------------------------------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """s = a(t) . x + b(t) |x|^2 / 2 + c(t) with a = a0 + a1 t, b = b0 + b1 t, c = c1 t^2."""

    a0, a1 = torch.tensor([0.3, -1.0], dtype=F64), torch.tensor([0.8, 0.5], dtype=F64)
    b0, b1, c1 = -0.4, 1.1, 0.7

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        a, b = self.a0 + t[:, None] * self.a1, self.b0 + self.b1 * t
        return (a * x).sum(1) + b * x.square().sum(1) / 2 + self.c1 * t**2


@pytest.mark.parametrize(("sigma", "unbalanced"), [(0.0, False), (0.8, False), (0.0, True), (0.8, True)])
def test_value_of_a_quadratic_potential_on_gaussians(sigma, unbalanced, proof):
    """Against moments of N(mu, r^2 I) in two dimensions, mu = mu0 + mu1 t, r^2 = 1 + t, mass 1 + t / 2."""
    q, mu0, mu1 = Quadratic(), np.array([0.5, -0.2]), np.array([1.0, 2.0])

    def mean_s(t: float) -> tuple[float, float]:
        a, b, mu, r2 = q.a0.numpy() + t * q.a1.numpy(), q.b0 + q.b1 * t, mu0 + t * mu1, 1 + t
        first = a @ mu + b * (mu @ mu + 2 * r2) / 2 + q.c1 * t**2
        slope = a + b * mu
        return first, first**2 + r2 * slope @ slope + b**2 * r2**2  # Var of |z|^2 in two dimensions is 4

    def inner(t: float) -> float:
        a, b, mu, r2 = q.a0.numpy() + t * q.a1.numpy(), q.b0 + q.b1 * t, mu0 + t * mu1, 1 + t
        square = mu @ mu + 2 * r2
        value = (a @ a + 2 * b * a @ mu + b**2 * square) / 2 + q.a1.numpy() @ mu + q.b1 * square / 2 + 2 * q.c1 * t
        value += sigma**2 / 2 * 2 * b
        return value + (mean_s(t)[1] / 2 if unbalanced else 0.0)

    nodes, weights = np.polynomial.legendre.leggauss(30)
    integral = sum(w / 2 * (1 + (t + 1) / 4) * inner((t + 1) / 2) for t, w in zip(nodes, weights, strict=True))
    expected = mean_s(0.0)[0] - 1.5 * mean_s(1.0)[0] + integral
    batch, sample_weights = gaussian_samples(
        lambda t: torch.from_numpy(mu0) + t[:, None] * torch.from_numpy(mu1),
        lambda t: (1 + t).sqrt(),
        lambda t: 1 + t / 2,
        2,
    )
    loss = action(Potential(q), batch, sigma=sigma, unbalanced=unbalanced, weights=sample_weights)
    assert loss.shape == (24 * 36,)
    row = "uam" if unbalanced else "eam" if sigma else "am"
    proof(row, abs(loss.mean().item() / expected - 1), 1e-10)


def test_rows_are_unreduced_and_ones_are_the_default_weights():
    batch, _ = gaussian_samples(lambda t: t, torch.ones_like)
    potential = small_network(1)
    ones = torch.ones_like(batch.t)
    loss = action(potential, batch, sigma=0.3)
    assert torch.equal(loss, action(potential, batch, sigma=0.3, weights=(ones, ones, ones)))
    part = Marginals(batch.t[5:9], batch.x_t[5:9], batch.x0[5:9], batch.x1[5:9])
    torch.testing.assert_close(action(potential, part, sigma=0.3), loss[5:9])


# --- what the minimiser is --------------------------------------------------------------------------------------------


def test_recovers_the_velocity_of_a_moving_and_scaling_gaussian(proof):
    m, kappa = 1.3, -0.6  # N(m t, exp(2 kappa t)): v = m + kappa (x - m t)
    batch, weights = gaussian_samples(lambda t: m * t, lambda t: torch.exp(kappa * t))
    network = Features(*[lambda t, x, i=i, k=k: x**i * t**k for i in (1, 2, 3) for k in (0, 1, 2)])
    potential = minimise(network, batch, weights)
    t, x = grid()
    proof("am", (potential.velocity(t, x) - m - kappa * (x - m * t[:, None])).abs().max(), 1e-7)
    # At the minimum A = -1/2 int E|v|^2 = -1/2 int m^2 + kappa^2 exp(2 kappa t) dt.
    bound = -(m**2 + kappa * math.expm1(2 * kappa) / 2) / 2
    assert action(potential, batch, weights=weights).mean().item() == pytest.approx(bound, abs=1e-9)


def test_entropic_recovers_the_drift_of_an_ornstein_uhlenbeck_process(proof):
    rate, sigma, m0, s0 = 1.2, 0.9, 2.0, 0.5  # dX = -rate X dt + sigma dW from N(m0, s0^2)
    stationary = sigma**2 / (2 * rate)

    def sd(t: Tensor) -> Tensor:
        return (stationary + (s0**2 - stationary) * torch.exp(-2 * rate * t)).sqrt()

    batch, weights = gaussian_samples(lambda t: m0 * torch.exp(-rate * t), sd)
    network = Features(*[lambda t, x, i=i, k=k: x**i * t**k for i in (1, 2, 3) for k in (0, 1)])
    t, x = grid()
    drift = minimise(network, batch, weights, sigma=sigma).velocity(t, x)
    proof("eam", (drift + rate * x).abs().max(), 1e-7)


@pytest.mark.parametrize("sigma", [0.0, 0.9])
def test_diffusion_tells_a_stationary_process_from_no_motion(sigma):
    rate = 1.2  # the stationary law of the drift -rate x: without diffusion nothing moves
    batch, weights = gaussian_samples(torch.zeros_like, lambda t: torch.full_like(t, 0.9 / math.sqrt(2 * rate)))
    potential = minimise(Features(lambda t, x: x, lambda t, x: x**2), batch, weights, sigma=sigma)
    t, x = grid()
    torch.testing.assert_close(potential.velocity(t, x), -rate * x if sigma else 0 * x, rtol=0, atol=1e-9)


def test_unbalanced_recovers_pure_growth(proof):
    g = 0.7  # a static law whose mass is exp(g t)
    batch, weights = gaussian_samples(torch.zeros_like, torch.ones_like, lambda t: torch.exp(g * t))
    network = Features(*[lambda t, x, i=i, k=k: x**i * t**k for i in (0, 1, 2) for k in (0, 1)])
    potential = minimise(network, batch, weights, unbalanced=True)
    t, x = grid()
    proof("uam", (potential.growth(t, x) - g).abs().max(), 1e-8)
    torch.testing.assert_close(potential.velocity(t, x), 0 * x, rtol=0, atol=1e-8)


def test_unbalanced_recovers_growth_and_motion_together(proof):
    """s* = alpha x: the mean moves by transport and by selection, alpha (1 + V); V stays; d log M/dt = alpha mean."""
    alpha, m0, sd = 0.4, 0.5, 0.8
    speed = alpha * (1 + sd**2)
    batch, weights = gaussian_samples(
        lambda t: m0 + speed * t,
        lambda t: torch.full_like(t, sd),
        lambda t: torch.exp(alpha * (m0 * t + speed * t**2 / 2)),
    )
    network = Features(*[lambda t, x, i=i, k=k: x**i * t**k for i in (0, 1, 2) for k in (0, 1)])
    potential = minimise(network, batch, weights, unbalanced=True)
    t, x = grid()
    growth, velocity = potential.growth(t, x) - alpha * x[:, 0], potential.velocity(t, x) - alpha
    proof("uam", max(growth.abs().max(), velocity.abs().max()), 1e-7)


def test_a_trained_network_finds_the_velocity(proof):
    """MLP on batches of a path, N(0, I) -> N((2, 0), I) with the pairs of the translation: v = (2, 0)."""
    g, shift = seeded(1), torch.tensor([2.0, 0.0])
    potential = Potential(fields.build(lambda: fields.MLP(2, out_dim=1, width=32, depth=2, frequencies=1), seeded()))
    optimiser = torch.optim.Adam(potential.parameters(), lr=5e-3)
    for _ in range(300):
        x0 = torch.randn(256, 2, generator=g)
        batch = paths.Linear()(x0, x0 + shift, torch.rand(256, generator=g), g)
        loss = action(potential, batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        v = potential.velocity(batch.t, batch.x_t)
    proof("am", (v - shift).square().sum(1).mean().sqrt() / 2, 0.15)


# --- derivatives ------------------------------------------------------------------------------------------------------


def test_fields_of_a_network_against_reverse_mode():
    potential = small_network(3, n_conditions=2)
    g = seeded(2)
    t, x = torch.rand(5, generator=g, dtype=F64), torch.randn(5, 3, generator=g, dtype=F64, requires_grad=True)
    condition = torch.tensor([0, 1, 1, 0, 1])
    (gradient,) = torch.autograd.grad(potential(t, x, condition).sum(), x)
    torch.testing.assert_close(potential.velocity(t, x, condition), gradient)
    assert torch.equal(potential.growth(t, x, condition), potential(t, x, condition))
    trace = [
        torch.autograd.functional.hessian(
            lambda y, i=i: potential(t[i : i + 1], y[None], condition[i : i + 1]).sum(), x[i]
        )
        .diagonal()
        .sum()
        for i in range(5)
    ]
    torch.testing.assert_close(potential.laplacian(t, x, condition), torch.stack(trace))


def test_one_probe_gives_the_laplacian_of_a_diagonal_hessian_exactly(proof):
    """``s = sum_k c_k x_k^2 / 2 + t x_0``: the probe's signs square to one."""
    c = torch.tensor([0.7, -1.9, 3.1], dtype=F64)

    class Diagonal(nn.Module):
        def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
            return (c * x.square()).sum(1) / 2 + t * x[:, 0]

    t, x = torch.rand(9, generator=seeded(), dtype=F64), torch.randn(9, 3, generator=seeded(1), dtype=F64)
    probed = Potential(Diagonal()).laplacian(t, x, generator=seeded(2))
    proof("eam", (probed - c.sum()).abs().max(), 1e-12)
    batch = Marginals(t, x, x, x)
    losses = [action(Potential(Diagonal()), batch, sigma=0.8, generator=g) for g in (None, seeded(2))]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=1e-12)


def test_one_probe_gives_the_laplacian_in_expectation(proof):
    """In standard errors of 4,000 probes, about 1e-3; and each row has a probe of its own, set by the seed."""
    potential, copies = small_network(3), 4000
    t, x = torch.rand(4, generator=seeded(), dtype=F64), torch.randn(4, 3, generator=seeded(1), dtype=F64)
    many = Marginals(*[v.repeat(copies, *[1] * (v.ndim - 1)) for v in (t, x, x, x)])
    with torch.no_grad():
        exact = action(potential, Marginals(t, x, x, x), sigma=1.3)
        found = action(potential, many, sigma=1.3, generator=seeded(3)).reshape(copies, 4)
        again = action(potential, many, sigma=1.3, generator=seeded(3)).reshape(copies, 4)
    error = found.std(0) / math.sqrt(copies)
    assert bool((error > 1e-6).all())
    proof("eam", ((found.mean(0) - exact).abs() / error).max(), 4.0)
    assert torch.equal(found, again)


def test_the_probe_is_drawn_only_where_there_is_diffusion():
    batch, _ = gaussian_samples(lambda t: t, torch.ones_like)
    g, state = seeded(), torch.random.get_rng_state()
    assert torch.equal(action(small_network(1), batch, generator=g), action(small_network(1), batch))
    assert torch.equal(g.get_state(), seeded().get_state())
    action(small_network(1), batch, sigma=1.0, generator=g)
    assert not torch.equal(g.get_state(), seeded().get_state())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_laplacian_of_image_shaped_points():
    class Cubes(nn.Module):
        def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
            return (t[:, None] * x.flatten(1) ** 3).sum(1, keepdim=True)

    t, x = torch.rand(4, generator=seeded()), torch.randn(4, 2, 3, generator=seeded(1))
    potential = Potential(Cubes())
    for g in (None, seeded(2)):  # the Hessian is diagonal, so that one probe is exact
        torch.testing.assert_close(potential.laplacian(t, x, generator=g), 6 * t * x.flatten(1).sum(1))
    torch.testing.assert_close(potential.velocity(t, x), 3 * t[:, None, None] * x**2)


@pytest.mark.parametrize(("sigma", "unbalanced"), [(0.0, False), (0.7, True)])
def test_gradient_of_the_loss_against_differences(sigma, unbalanced):
    g = seeded(3)
    x0, x1 = torch.randn(6, 2, generator=g, dtype=F64), torch.randn(6, 2, generator=g, dtype=F64)
    batch = paths.Linear(0.1)(x0, x1, torch.rand(6, generator=g, dtype=F64), g)
    potential = small_network(2)
    weights = tuple(torch.rand(6, generator=g, dtype=F64) for _ in range(3))

    def loss() -> Tensor:
        return action(potential, batch, sigma=sigma, unbalanced=unbalanced, weights=weights).mean()

    gradients = torch.autograd.grad(loss(), list(potential.parameters()), allow_unused=True)
    h = 1e-5
    for p, gradient in zip(potential.parameters(), gradients, strict=True):
        step = torch.randn(p.shape, generator=g, dtype=F64)
        with torch.no_grad():
            p += h * step
            up = loss()
            p -= 2 * h * step
            down = loss()
            p += h * step
        exact = 0.0 if gradient is None else (gradient * step).sum().item()
        assert (up - down).item() / (2 * h) == pytest.approx(exact, rel=1e-6, abs=1e-9)


def test_velocity_keeps_a_graph_exactly_when_gradients_are_on():
    potential = small_network(2)
    t, x = torch.full((3,), 0.5, dtype=F64), torch.ones(3, 2, dtype=F64)
    with torch.no_grad():
        off = potential.velocity(t, x)
    on = potential.velocity(t, x)
    assert not off.requires_grad
    assert on.requires_grad
    assert torch.equal(on.detach(), off)
    on.square().sum().backward()
    assert potential.network.blocks[0][0].weight.grad.abs().max() > 0


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_layers_with_kinks_are_refused_by_name():
    with pytest.raises(InputError, match=r"found 1: ReLU, 2\.0: ELU; use SiLU"):
        Potential(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.ELU(), nn.Tanh())))
    with pytest.raises(InputError, match=r"\(itself\): LeakyReLU"):
        Potential(nn.LeakyReLU())


def test_unusable_arguments_are_refused():
    batch, weights = gaussian_samples(lambda t: t, torch.ones_like)
    potential = small_network(1)
    with pytest.raises(InputError, match="sigma"):
        action(potential, batch, sigma=-1.0)
    with pytest.raises(InputError, match="weights must be three"):
        action(potential, batch, weights=(weights[0][:3], *weights[1:]))
    with pytest.raises(InputError, match="one shape"):
        action(potential, Marginals(batch.t, batch.x_t, batch.x0[:5], batch.x1))
    wide = Potential(fields.build(lambda: fields.MLP(1, width=4, depth=1), seeded())).double()
    assert wide(batch.t, batch.x_t).shape == batch.t.shape  # one coordinate, one output: a potential
    with pytest.raises(InputError, match=r"returns \(n,\) or \(n, 1\)"):
        Potential(fields.build(lambda: fields.MLP(1, out_dim=2, width=4), seeded())).double()(batch.t, batch.x_t)
