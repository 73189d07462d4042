from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thalweg.core import losses
from thalweg.core.dynamics.marginal import marginal_density, marginal_log_density, marginal_score, marginal_velocity
from thalweg.core.dynamics.ode import odeint
from thalweg.core.fields.mlp import MLP, build
from thalweg.core.maps import GaussianMap
from thalweg.core.paths import BrownianBridge, GaussianOT, GaussianPath, Linear, VPDiffusion, expand
from thalweg.errors import InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(k: int = 5, d: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    g = generator()
    x0, x1 = torch.randn(k, d, generator=g, dtype=torch.float64), torch.randn(k, d, generator=g, dtype=torch.float64)
    return x0, x1, 0.5 + torch.rand(k, generator=g, dtype=torch.float64)


PATHS: dict[str, GaussianPath] = {
    "linear": Linear(0.8),
    "bridge": BrownianBridge(1.2),
    "gaussian_ot": GaussianOT(0.3),
    "vp": VPDiffusion(),
    "map": GaussianMap(lambda x0, x1, t: x0 + expand(t**2, x0) * x1, lambda x0, x1, t: 0.6 + 0.4 * torch.sin(2 * t)),
}
every = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


@every
@pytest.mark.parametrize("weighted", [False, True])
def test_fields_against_a_direct_sum(path: GaussianPath, weighted: bool, proof: Callable[..., None]) -> None:
    """Loops over queries and pairs in numpy, with scipy's normal density."""
    from scipy.stats import multivariate_normal

    x0, x1, p = pairs(d=2)
    weights = p if weighted else None
    n = 7
    t = torch.linspace(0.1, 0.8, n, dtype=torch.float64)
    x = torch.randn(n, 2, generator=generator(1), dtype=torch.float64)
    velocity, score = marginal_velocity(path, x0, x1, t, x, weights), marginal_score(path, x0, x1, t, x, weights)
    density = marginal_density(path, x0, x1, t, x, weights)
    share = (p / p.sum()).numpy() if weighted else np.full(5, 0.2)
    error = 0.0  # relative to 1 + |wanted|
    for i in range(n):
        total, u, s = 0.0, np.zeros(2), np.zeros(2)
        for k in range(5):
            m = path.moments(x0[k : k + 1], x1[k : k + 1], t[i : i + 1])
            mu, dmu, sigma, dsigma = m.mu[0].numpy(), m.dmu[0].numpy(), m.sigma.item(), m.dsigma.item()
            r = share[k] * multivariate_normal(mu, sigma**2).pdf(x[i].numpy())
            total += r
            u += r * (dmu + dsigma / sigma * (x[i].numpy() - mu))
            s -= r * (x[i].numpy() - mu) / sigma**2
        np.testing.assert_allclose(density[i].item(), total, rtol=1e-10)
        for found, wanted in ((velocity[i].numpy(), u / total), (score[i].numpy(), s / total)):
            error = max(error, (np.abs(found - wanted) / (1 + np.abs(wanted))).max())
    proof("marginal", error, 1e-9)


@every
def test_score_is_the_gradient_of_the_log_density(path: GaussianPath) -> None:
    x0, x1, p = pairs(d=3)
    x = torch.randn(20, 3, generator=generator(1), dtype=torch.float64).requires_grad_()
    t = torch.linspace(0.1, 0.9, 20, dtype=torch.float64)
    (wanted,) = torch.autograd.grad(marginal_log_density(path, x0, x1, t, x, p).sum(), x)
    torch.testing.assert_close(marginal_score(path, x0, x1, t, x, p), wanted, rtol=1e-9, atol=1e-9)


@every
def test_density_and_velocity_satisfy_the_continuity_equation(path: GaussianPath, proof: Callable[..., None]) -> None:
    """``d p/dt + d (p u)/dx = 0``: the velocity carries the marginal."""
    x0, x1, p = pairs()
    x = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None].requires_grad_()
    t = torch.full((40,), 0.37, dtype=torch.float64)
    flux = marginal_density(path, x0, x1, t, x, p) * marginal_velocity(path, x0, x1, t, x, p)[:, 0]
    (outflow,) = torch.autograd.grad(flux.sum(), x)
    h = 1e-5
    ahead, behind = (marginal_density(path, x0, x1, t + s, x.detach(), p) for s in (h, -h))
    proof("marginal", ((ahead - behind) / (2 * h) + outflow[:, 0]).abs().max(), 1e-7)


def test_density_integrates_to_one() -> None:
    x0, x1, p = pairs()
    x = torch.linspace(-8, 8, 2001, dtype=torch.float64)[:, None]
    for path in PATHS.values():
        density = marginal_density(path, x0, x1, torch.full((2001,), 0.4, dtype=torch.float64), x, p)
        assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-10)


def test_the_velocity_carries_noise_to_the_mixture(proof: Callable[..., None]) -> None:
    """Particles from N(0, I), moved by the marginal field of `GaussianOT`, have its mixture's quantiles at t = 1."""
    from scipy.special import ndtr, ndtri

    x1, n = torch.tensor([[-1.0], [0.5], [2.0]], dtype=torch.float64), 41
    p, path = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64), GaussianOT(0.3)
    level = np.linspace(0.02, 0.98, n)
    start = torch.as_tensor(ndtri(level))[:, None]
    end = odeint(lambda t, x: marginal_velocity(path, x1, x1, t.expand(n), x, p), start, (0, 1), rtol=1e-9, atol=1e-9)[
        -1
    ]
    reached = (p.numpy() * ndtr((end.numpy() - x1.numpy().T) / 0.3)).sum(1)
    proof("marginal", np.abs(reached - level).max(), 1e-7)  # maps of a line keep quantiles


def tensor_grid(nodes: int, d: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes (m, d) and weights (m,) for a standard normal in ``d`` dimensions."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    points = torch.tensor(list(itertools.product(z, repeat=d)), dtype=torch.float64)
    weights = torch.tensor([math.prod(c) for c in itertools.product(w, repeat=d)], dtype=torch.float64)
    return points, weights


def small_net(d: int) -> MLP:
    return build(lambda: MLP(d, width=8, depth=2, frequencies=1), generator(7)).double()


def gradient(net: nn.Module, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(net.parameters()))])


def enumerated(path: GaussianPath, d: int, nodes: int, net: MLP) -> tuple[Tensor, Tensor]:
    """Gradients of the marginal and of the conditional loss, their expectations enumerated."""
    x0, x1, p = pairs(d=d)
    eps, w = tensor_grid(nodes, d)
    fm, cfm = [], []
    for time in (0.2, 0.5, 0.8):
        k, m = len(x0), len(eps)
        every = [z.repeat_interleave(m, 0) for z in (x0, x1)]
        t = torch.full((k * m,), time, dtype=torch.float64)
        batch = path.at(every[0], every[1], t, eps.repeat(k, 1))
        weight = (p / p.sum()).repeat_interleave(m) * w.repeat(k)
        u = marginal_velocity(path, x0, x1, t, batch.x_t, p)
        cfm.append(gradient(net, (weight * losses.velocity(net, batch)).sum()))
        fm.append(gradient(net, (weight * losses.velocity(net, replace(batch, u_t=u))).sum()))
    return torch.stack(fm).mean(0), torch.stack(cfm).mean(0)


@every
def test_gradients_of_fm_and_cfm_are_equal_when_enumerated(path: GaussianPath, proof: Callable[..., None]) -> None:
    fm, cfm = enumerated(path, 1, 120, small_net(1))
    proof("fm_cfm", (fm - cfm).norm() / fm.norm(), 1e-6)


def test_gradients_of_fm_and_cfm_are_equal_in_two_dimensions(proof: Callable[..., None]) -> None:
    fm, cfm = enumerated(Linear(1.0), 2, 48, small_net(2))
    proof("fm_cfm", (fm - cfm).norm() / fm.norm(), 1e-6)


def test_gradients_of_both_score_losses_are_equal_when_enumerated(proof: Callable[..., None]) -> None:
    """Denoising score matching against the squared distance to the marginal score (Vincent 2011), on the VP path."""
    path, net = PATHS["vp"], small_net(1)
    x0, x1, p = pairs()
    eps, w = tensor_grid(120, 1)
    k, m = len(x0), len(eps)
    t = torch.full((k * m,), 0.8, dtype=torch.float64)
    batch = path.at(x0.repeat_interleave(m, 0), x1.repeat_interleave(m, 0), t, eps.repeat(k, 1))
    weight = (p / p.sum()).repeat_interleave(m) * w.repeat(k)
    wanted = marginal_score(path, x0, x1, t, batch.x_t, p)
    explicit = losses.mean_square(expand(batch.sigma_t, wanted) * (net(t, batch.x_t) - wanted))
    a, b = (gradient(net, (weight * loss).sum()) for loss in (explicit, losses.score(net, batch)))
    proof("score_vp", (a - b).norm() / a.norm(), 1e-6)


def test_sampled_cfm_gradient_approaches_the_fm_gradient(proof: Callable[..., None]) -> None:
    """As 1/sqrt(n): the slope of the error against n in logarithms is -1/2."""
    path, net = PATHS["linear"], small_net(1)
    x0, x1, p = pairs()
    exact = enumerated(path, 1, 120, net)[0]
    sizes, errors = [64, 256, 1024, 4096], []
    g = generator(11)
    for n in sizes:
        squares = []
        for _ in range(40):
            k = torch.multinomial(p, n, replacement=True, generator=g)
            t = 0.2 + 0.3 * torch.randint(0, 3, (n,), generator=g).double()
            batch = path(x0[k], x1[k], t, g)
            squares.append((gradient(net, losses.velocity(net, batch).mean()) - exact).square().sum().item())
        errors.append(math.sqrt(np.mean(squares)))
    proof("fm_cfm", abs(np.polyfit(np.log(sizes), np.log(errors), 1)[0] + 0.5), 0.15)
    assert errors[-1] < 0.2 * exact.norm().item()


def test_only_ratios_of_weights_matter_and_zero_removes_a_pair() -> None:
    x0, x1, p = pairs(d=2)
    path, x = PATHS["bridge"], torch.randn(6, 2, generator=generator(), dtype=torch.float64)
    t = torch.full((6,), 0.3, dtype=torch.float64)
    for f in (marginal_velocity, marginal_score, marginal_log_density):
        torch.testing.assert_close(f(path, x0, x1, t, x, 7 * p), f(path, x0, x1, t, x, p))
        cut = p * torch.tensor([1, 1, 0, 1, 1])
        keep = torch.tensor([0, 1, 3, 4])
        torch.testing.assert_close(f(path, x0, x1, t, x, cut), f(path, x0[keep], x1[keep], t, x, p[keep]))
        torch.testing.assert_close(f(path, x0, x1, t, x), f(path, x0, x1, t, x, torch.ones(5)))


def test_far_from_every_pair_nothing_underflows() -> None:
    x0, x1, _ = pairs(d=2)
    x, t = torch.full((1, 2), 1e4, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64)
    path = Linear(0.01)
    m = path.moments(x0, x1, t.expand(5))
    nearest = (x - m.mu).square().sum(1).argmin()
    torch.testing.assert_close(marginal_velocity(path, x0, x1, t, x)[0], (x1 - x0)[nearest])
    torch.testing.assert_close(marginal_score(path, x0, x1, t, x)[0], -(x[0] - m.mu[nearest]) / 1e-4)


def test_images_are_flattened_vectors() -> None:
    x0, x1, p = pairs(d=12)
    x, t = torch.randn(4, 12, generator=generator(), dtype=torch.float64), torch.full((4,), 0.6, dtype=torch.float64)
    whole = marginal_velocity(PATHS["vp"], *(z.reshape(5, 3, 2, 2) for z in (x0, x1)), t, x.reshape(4, 3, 2, 2), p)
    assert torch.equal(whole.flatten(1), marginal_velocity(PATHS["vp"], x0, x1, t, x, p))


def test_wrong_arguments_are_refused() -> None:
    x0, x1, p = pairs(d=2)
    x, t, path = torch.zeros(3, 2, dtype=torch.float64), torch.full((3,), 0.5, dtype=torch.float64), Linear(1.0)
    for bad_x, bad_t in ((x[0], t), (x, t[:, None]), (x, t[0])):
        with pytest.raises(InputError, match=r"x must be \(n, ...\) and t \(n,\)"):
            marginal_velocity(path, x0, x1, bad_t, bad_x)
    with pytest.raises(InputError, match="t must lie in"):
        marginal_velocity(path, x0, x1, t + 1, x)
    for bad0, bad1 in ((x0[:1], x1), (x0[:, :1], x1[:, :1]), (x0[:0], x1[:0])):
        with pytest.raises(InputError, match="x0 and x1 must be"):
            marginal_score(path, bad0, bad1, t, x)
    with pytest.raises(InputError, match=r"weights must have shape \(5,\)"):
        marginal_density(path, x0, x1, t, x, p[:4])
    for bad in (-p, 0 * p, p * math.nan, p / 0):
        with pytest.raises(InputError, match="weights must be finite"):
            marginal_density(path, x0, x1, t, x, bad)
    with pytest.raises(InputError, match="sigma_t is 0"):
        marginal_velocity(Linear(), x0, x1, t, x)
