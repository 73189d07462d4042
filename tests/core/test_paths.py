from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from thalweg.core.maps import GaussianMap, MapPath
from thalweg.core.paths import (
    Batch,
    BrownianBridge,
    GaussianOT,
    GaussianPath,
    Linear,
    Path,
    Trigonometric,
    VPDiffusion,
    expand,
)
from thalweg.errors import InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def curved_mean(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    s = expand(t, x0)
    return (1 - s**2) * x0 + s**2 * x1 + torch.sin(3 * s) * x0 * x1


def skewed(t: Tensor, eps: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    s = expand(t, x0)
    return (1 - s) * x0 + s * x1 + s * (1 - s) * torch.exp(eps * s)


PATHS: dict[str, Path] = {
    "linear": Linear(0.3),
    "rectified": Linear(),
    "trigonometric": Trigonometric(),
    "bridge": BrownianBridge(0.7),
    "gaussian_ot": GaussianOT(1e-2),
    "vp": VPDiffusion(),
    "gaussian_map": GaussianMap(curved_mean, lambda x0, x1, t: 0.1 + torch.cos(t) * x0.square().mean(1)),
    "map": MapPath(skewed),
}
every = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
ROWS = {
    "linear": "icfm",
    "rectified": "icfm",
    "trigonometric": "vpcfm",
    "bridge": "sbcfm",
    "gaussian_ot": "fm",
    "vp": "fm_vp",
    "gaussian_map": "gaussian_map",
    "map": "map",
}


def pairs(n: int = 64, d: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = generator()
    return torch.randn(n, d, generator=g, dtype=dtype), torch.randn(n, d, generator=g, dtype=dtype)


def backward_derivative(position: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """``d position/dt`` by one reverse-mode pass for each coordinate: another route than the package's."""
    t = t.clone().requires_grad_()
    columns = position(t).unbind(1)
    return torch.stack([torch.autograd.grad(c.sum(), t, retain_graph=True)[0] for c in columns], 1)


@pytest.mark.parametrize("name", PATHS)
def test_velocity_is_the_time_derivative_of_the_position(name: str, proof: Callable[..., None]) -> None:
    path, (x0, x1) = PATHS[name], pairs()
    lo, hi = path.t_range
    t = lo + (hi - lo) * torch.rand(len(x0), generator=generator(1), dtype=torch.float64)
    batch = path(x0, x1, t, generator(2))
    wanted = backward_derivative(lambda s: path.at(x0, x1, s, batch.eps).x_t, t)
    proof(ROWS[name], (batch.u_t - wanted).abs().max(), 1e-8)


@pytest.mark.parametrize("name", ["linear", "bridge", "gaussian_ot", "vp", "gaussian_map"])
def test_moments_derivatives_and_batch_agree_with_autograd(name: str) -> None:
    path = PATHS[name]
    assert isinstance(path, GaussianPath)
    x0, x1 = pairs()
    t = torch.linspace(0.05, 0.95, len(x0), dtype=torch.float64).requires_grad_()
    m = path.moments(x0, x1, t)
    if m.sigma.requires_grad:
        (dsigma,) = torch.autograd.grad(m.sigma.sum(), t)
        torch.testing.assert_close(m.dsigma, dsigma, rtol=1e-10, atol=1e-10)
    else:
        assert name == "linear"
        assert not m.dsigma.any()
    batch = path(x0, x1, t.detach(), generator())
    torch.testing.assert_close((batch.x_t - m.mu) / m.sigma[:, None], batch.eps, rtol=1e-9, atol=1e-9)
    assert torch.equal(batch.sigma_t, m.sigma)


@pytest.mark.parametrize("name", ["rectified", "trigonometric", "bridge"])
def test_both_ends_are_the_pair(name: str) -> None:
    path, (x0, x1) = PATHS[name], pairs()
    start = path(x0, x1, torch.zeros(len(x0), dtype=torch.float64), generator())
    end = path(x0, x1, torch.ones(len(x0), dtype=torch.float64), generator())
    torch.testing.assert_close(start.x_t, x0, rtol=0, atol=1e-15)
    torch.testing.assert_close(end.x_t, x1, rtol=0, atol=1e-15)
    assert bool(start.u_t.isfinite().all())
    assert bool(end.u_t.isfinite().all())


def test_ends_of_paths_from_noise() -> None:
    x0, x1 = pairs()
    zero, one = torch.zeros(len(x0), dtype=torch.float64), torch.ones(len(x0), dtype=torch.float64)
    ot, vp = GaussianOT(1e-3), VPDiffusion()
    start = ot(x0, x1, zero, generator())
    assert torch.equal(start.x_t, start.eps)
    end = ot(x0, x1, one, generator())
    torch.testing.assert_close(end.x_t, x1 + 1e-3 * end.eps, rtol=0, atol=1e-12)
    end = vp(x0, x1, one, generator())
    assert torch.equal(end.x_t, x1)
    assert bool(end.u_t.isfinite().all())
    # At t = 0 the data is damped by exp(-T(1)/2), T(1) = (20 - 0.1)/2 + 0.1.
    start = vp(x0, x1, zero, generator())
    alpha = math.exp(-(19.9 / 2 + 0.1) / 2)
    torch.testing.assert_close(start.x_t, alpha * x1 + math.sqrt(1 - alpha**2) * start.eps, rtol=0, atol=1e-12)


def test_formulas_of_the_papers() -> None:
    x0, x1 = pairs()
    t = torch.rand(len(x0), generator=generator(3), dtype=torch.float64) * 0.9 + 0.05
    s = t[:, None]
    bridge = PATHS["bridge"](x0, x1, t, generator())
    mean = (1 - s) * x0 + s * x1
    torch.testing.assert_close(bridge.u_t, (1 - 2 * s) / (2 * s * (1 - s)) * (bridge.x_t - mean) + x1 - x0)
    ot = PATHS["gaussian_ot"](x0, x1, t, generator())
    torch.testing.assert_close(ot.u_t, (x1 - 0.99 * ot.x_t) / (1 - 0.99 * s))
    linear = PATHS["linear"](x0, x1, t, generator())
    assert torch.equal(linear.u_t, x1 - x0)


def test_vp_preserves_variance_and_its_rate_is_beta() -> None:
    path = VPDiffusion()
    t = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
    one = torch.ones_like(t)
    m = path.moments(torch.zeros_like(t), one, t[:, 0])
    torch.testing.assert_close(m.mu[:, 0] ** 2 + m.sigma**2, one[:, 0], rtol=0, atol=1e-14)
    # d log alpha / dt = beta(t) / 2 = half of dT/ds at s = 1 - t
    torch.testing.assert_close(2 * m.dmu / m.mu, path.beta(t))
    assert path.beta(one[:1]).item() == pytest.approx(0.1)
    assert path.beta(torch.zeros(1)).item() == pytest.approx(20)


def test_bridge_with_one_diffusion_for_each_row_equals_single_bridges() -> None:
    x0, x1 = pairs(n=4)
    t, sigma = torch.tensor([0.2, 0.4, 0.6, 0.8]), torch.tensor([0.1, 0.5, 1.0, 2.0])
    eps = torch.randn(4, 3, generator=generator(), dtype=torch.float64)
    whole = BrownianBridge(sigma.double()).at(x0, x1, t.double(), eps)
    for k in range(4):
        row = slice(k, k + 1)
        single = BrownianBridge(sigma[k].item()).at(x0[row], x1[row], t[row].double(), eps[row])
        torch.testing.assert_close(whole.x_t[row], single.x_t)
        torch.testing.assert_close(whole.u_t[row], single.u_t)


def test_the_bridge_is_the_conditioned_random_walk() -> None:
    """A Brownian motion simulated and pinned by hand has variance ``sigma^2 t(1-t)``."""
    n, steps, sigma = 40_000, 20, 0.7
    walk = torch.randn(steps, n, generator=generator(5), dtype=torch.float64).cumsum(0) * sigma / math.sqrt(steps)
    for k in (4, 9, 16):
        t = (k + 1) / steps
        pinned = walk[k] - t * walk[-1]
        m = BrownianBridge(sigma).moments(torch.zeros(1, 1), torch.zeros(1, 1), torch.tensor([t], dtype=torch.float64))
        assert pinned.var().item() == pytest.approx(m.sigma.item() ** 2, rel=4 * math.sqrt(2 / n))


@every
def test_draws_repeat_with_the_seed_and_leave_the_global_generator(path: Path) -> None:
    x0, x1 = pairs(dtype=torch.float32)
    state = torch.random.get_rng_state()

    def draw(seed: int) -> Batch:
        g = generator(seed)
        return path(x0, x1, path.draw_t(len(x0), g), g)

    a, b, other = draw(3), draw(3), draw(4)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name in ("t", "x_t", "u_t", "eps"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert not torch.equal(a.eps, other.eps)
    assert not torch.equal(a.t, other.t)
    assert a.x_t.dtype == a.u_t.dtype == a.t.dtype == torch.float32
    # The noise of a path depends on the seed alone: paths are compared on the same draws.
    assert torch.equal(a.eps, Linear()(x0, x1, a.t, _after_times(3, len(x0))).eps)


def _after_times(seed: int, n: int) -> torch.Generator:
    g = generator(seed)
    torch.rand(n, generator=g)
    return g


@every
def test_times_are_uniform_within_the_range(path: Path) -> None:
    n = 20_000
    lo, hi = path.t_range
    t = path.draw_t(n, generator(), torch.float64)
    assert lo <= t.min().item() <= t.max().item() <= hi
    # Kolmogorov-Smirnov at the level 1e-3.
    grid = torch.linspace(lo, hi, n, dtype=torch.float64)
    assert (t.sort().values - grid).abs().max().item() < 1.95 / math.sqrt(n) * (hi - lo)


def test_rows_do_not_mix() -> None:
    x0, x1 = pairs()
    t = torch.rand(len(x0), generator=generator(), dtype=torch.float64) * 0.9 + 0.05
    eps = torch.randn(x0.shape, generator=generator(1), dtype=torch.float64)
    order = torch.randperm(len(x0), generator=generator(2))
    for path in PATHS.values():
        a, b = path.at(x0, x1, t, eps), path.at(x0[order], x1[order], t[order], eps[order])
        torch.testing.assert_close(a.x_t[order], b.x_t, rtol=0, atol=1e-14)
        torch.testing.assert_close(a.u_t[order], b.u_t, rtol=0, atol=1e-13)


def test_images_are_flattened_vectors() -> None:
    x0, x1 = pairs(n=5, d=12)
    t = torch.full((5,), 0.3, dtype=torch.float64)
    for name in ("linear", "bridge", "vp", "trigonometric", "gaussian_ot", "map"):
        flat = PATHS[name](x0, x1, t, generator())
        image = PATHS[name](x0.reshape(5, 3, 2, 2), x1.reshape(5, 3, 2, 2), t, generator())
        assert torch.equal(image.x_t.flatten(1), flat.x_t)
        assert torch.equal(image.u_t.flatten(1), flat.u_t)


@every
def test_wrong_shapes_and_times_are_refused(path: Path) -> None:
    x0, x1 = pairs(n=4)
    t = torch.full((4,), 0.5, dtype=torch.float64)
    for bad in (x1[:1], x1[0], x1[:, :1]):
        with pytest.raises(InputError, match="x0 and x1 must have one shape"):
            path(x0, bad, t, generator())
    with pytest.raises(InputError, match="x0 and x1 must have one shape"):
        path(x0[:, 0], x1[:, 0], t, generator())
    for bad in (t[:, None], t[:1], t[0]):
        with pytest.raises(InputError, match=r"t must have shape \(4,\)"):
            path(x0, x1, bad, generator())
    for value in (-1e-6, 1.0001, math.nan):
        with pytest.raises(InputError, match=r"t must lie in \[0, 1\]"):
            path(x0, x1, torch.where(t.cumsum(0) > 1.5, value, t), generator())
