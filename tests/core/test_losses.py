from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from thalweg.core import losses
from thalweg.core.fields.mlp import MLP, build
from thalweg.core.paths import Batch, BrownianBridge, Linear, VPDiffusion
from thalweg.errors import InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bridge_batch(n: int = 32, d: int = 3, sigma: float = 0.7) -> Batch:
    g = generator()
    x0, x1 = torch.randn(n, d, generator=g, dtype=torch.float64), torch.randn(n, d, generator=g, dtype=torch.float64)
    path = BrownianBridge(sigma)
    return path(x0, x1, path.draw_t(n, g, torch.float64), g)


def permuted(batch: Batch, order: Tensor) -> Batch:
    names = ("t", "x_t", "u_t", "x0", "x1", "eps", "sigma_t")
    return replace(batch, **{name: getattr(batch, name)[order] for name in names})


def wavy(t: Tensor, x: Tensor, condition: Tensor | None) -> Tensor:
    return torch.sin(x) + t[:, None] * x.flip(1)


def wavy_numpy(t: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.sin(x) + t[:, None] * x[:, ::-1]


def test_velocity_loss_against_numpy() -> None:
    batch = bridge_batch()
    t, x, x0, x1 = (getattr(batch, k).numpy() for k in ("t", "x_t", "x0", "x1"))
    s = t[:, None]
    u = (1 - 2 * s) / (2 * s * (1 - s)) * (x - (1 - s) * x0 - s * x1) + x1 - x0
    wanted = [sum((wavy_numpy(t, x) - u)[i, j] ** 2 for j in range(3)) / 3 for i in range(len(x))]
    np.testing.assert_allclose(losses.velocity(wavy, batch).numpy(), wanted, rtol=1e-10)


def test_score_loss_against_numpy(proof: Callable[..., None]) -> None:
    g = generator()
    x1 = torch.randn(16, 3, generator=g, dtype=torch.float64)
    path = VPDiffusion()
    batch = path(x1, x1, path.draw_t(16, g, torch.float64), g)
    t, x, eps = batch.t.numpy(), batch.x_t.numpy(), batch.eps.numpy()
    s = 1 - t
    sigma = np.sqrt(1 - np.exp(-(s**2 * 19.9 / 2 + 0.1 * s)))[:, None]
    wanted = ((sigma * wavy_numpy(t, x) + eps) ** 2).sum(1) / 3
    proof("score_vp", np.abs(losses.score(wavy, batch).numpy() / wanted - 1).max(), 1e-10)


def test_sf2m_weight_is_lambda_of_t(proof: Callable[..., None]) -> None:
    sigma = 0.7
    batch = bridge_batch(sigma=sigma)
    t, eps = batch.t.numpy(), batch.eps.numpy()
    lam = 2 * np.sqrt(t * (1 - t)) / sigma
    wanted = ((lam[:, None] * wavy_numpy(t, batch.x_t.numpy()) + eps) ** 2).mean(1)
    proof("sf2m", np.abs(losses.score(wavy, batch, scale=2 / sigma**2).numpy() / wanted - 1).max(), 1e-12)
    each = torch.full((len(batch),), 2 / sigma**2, dtype=torch.float64)
    np.testing.assert_allclose(losses.score(wavy, batch, scale=each).numpy(), wanted, rtol=1e-12)


def test_zero_exactly_at_the_target() -> None:
    batch = bridge_batch()
    assert not losses.velocity(lambda t, x, c: batch.u_t, batch).any()
    perfect = -batch.eps / (3.0 * batch.sigma_t)[:, None]
    assert losses.score(lambda t, x, c: perfect, batch, scale=3.0).max().item() < 1e-30


def test_permutation_of_the_batch_permutes_the_losses() -> None:
    batch = bridge_batch()
    order = torch.randperm(len(batch), generator=generator(1))
    shuffled = permuted(batch, order)
    assert torch.equal(losses.velocity(wavy, shuffled), losses.velocity(wavy, batch)[order])
    assert torch.equal(losses.score(wavy, shuffled, scale=2.0), losses.score(wavy, batch, scale=2.0)[order])


def test_gradient_against_finite_differences() -> None:
    batch = bridge_batch(n=6)
    w = torch.randn(3, 3, generator=generator(2), dtype=torch.float64, requires_grad=True)

    def total(w: Tensor) -> Tensor:
        def model(t: Tensor, x: Tensor, condition: Tensor | None) -> Tensor:
            return torch.tanh(x @ w) * (1 + t[:, None])

        return torch.stack([losses.velocity(model, batch).mean(), losses.score(model, batch, scale=1.5).mean()])

    assert torch.autograd.gradcheck(total, (w,))


def test_square_norms_are_means_over_all_feature_axes() -> None:
    r = torch.randn(4, 3, 2, 5, generator=generator(), dtype=torch.float64)
    wanted = np.array([np.linalg.norm(r[i].numpy()) ** 2 / 30 for i in range(4)])
    np.testing.assert_allclose(losses.mean_square(r).numpy(), wanted, rtol=1e-13)


def test_the_condition_reaches_the_model() -> None:
    batch = replace(bridge_batch(n=4), condition=torch.tensor([0, 1, 1, 0]))
    seen = []

    def model(t: Tensor, x: Tensor, condition: Tensor | None) -> Tensor:
        seen.append(condition)
        return x

    losses.velocity(model, batch)
    losses.score(model, batch)
    assert all(c is batch.condition for c in seen)
    assert len(seen) == 2


def test_a_linear_path_is_learned_in_closed_form() -> None:
    """Least squares over ``a x + b`` at one time: the minimiser is the regression of ``x1 - x0`` on ``x_t``."""
    n, t, sigma = 4000, 0.3, 0.5
    g = generator()
    x0, x1 = (
        torch.randn(n, 1, generator=g, dtype=torch.float64),
        2 + 0.5 * torch.randn(n, 1, generator=g, dtype=torch.float64),
    )
    batch = Linear(sigma)(x0, x1, torch.full((n,), t, dtype=torch.float64), g)
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    value = losses.velocity(lambda t, x, c: theta[0] * x + theta[1], batch).mean()
    (grad,) = torch.autograd.grad(value, theta, create_graph=True)
    hessian = torch.stack([torch.autograd.grad(g, theta, retain_graph=True)[0] for g in grad])
    slope, offset = torch.linalg.solve(hessian, -grad.detach()).tolist()  # quadratic: one Newton step from zero
    # x_t and u_t are jointly Gaussian: slope = Cov(u, x_t) / Var(x_t).
    variance = (1 - t) ** 2 + 0.25 * t**2 + sigma**2
    wanted = (0.25 * t - (1 - t)) / variance
    assert slope == pytest.approx(wanted, abs=5 * math.sqrt(1.25 / variance / n))
    assert offset == pytest.approx(2 - wanted * 2 * t, abs=0.12)


@pytest.mark.parametrize("loss", [losses.velocity, losses.score])
def test_a_model_of_another_shape_is_refused(loss: object) -> None:
    batch = bridge_batch()
    shapes = [lambda x: x[:, :1], lambda x: x[:1], lambda x: x.mean(1), lambda x: x[..., None]]
    for shape in shapes:  # the first three would broadcast
        with pytest.raises(InputError, match="the model returned shape"):
            loss(lambda t, x, c, shape=shape: shape(x), batch)  # type: ignore[operator]


def test_networks_fit_the_contract() -> None:
    """A field evaluated in a loss equals its layers applied by hand."""
    batch = bridge_batch(n=8)
    net = build(lambda: MLP(3, width=16, depth=2, frequencies=2), generator()).double()
    t = batch.t[:, None]
    h = torch.cat(
        [batch.x_t, t, *(torch.sin(k * math.pi * t) for k in (1, 2)), *(torch.cos(k * math.pi * t) for k in (1, 2))], 1
    )
    for i in range(2):
        layer = net.blocks[i][0]
        z = h @ layer.weight.T + layer.bias
        h = z * torch.sigmoid(z)
    out = h @ net.out.weight.T + net.out.bias
    torch.testing.assert_close(losses.velocity(net, batch), (out - batch.u_t).square().mean(1))
    state = torch.random.get_rng_state()
    again = build(lambda: MLP(3, width=16, depth=2, frequencies=2), generator()).double()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), again.parameters(), strict=True))
