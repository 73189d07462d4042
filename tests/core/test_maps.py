from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from thalweg.core import losses
from thalweg.core.losses import riemannian_velocity
from thalweg.core.manifolds import Euclidean, Manifold, Sphere, Torus
from thalweg.core.maps import GaussianMap, Geodesic, MapPath
from thalweg.core.paths import BrownianBridge, GaussianPath, Linear, VPDiffusion, expand
from thalweg.errors import InputError

MANIFOLDS: list[Manifold] = [Euclidean(), Sphere(), Torus()]
every = pytest.mark.parametrize("m", MANIFOLDS, ids=lambda m: type(m).__name__)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(m: Manifold | None = None, n: int = 32, d: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    g, m = generator(), m or Euclidean()
    x0, x1 = m.random((n, d), g, dtype=torch.float64), m.random((n, d), g, dtype=torch.float64)
    return x0, x1, 0.05 + 0.9 * torch.rand(n, generator=g, dtype=torch.float64)


def straight(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    s = expand(t, x0)
    return (1 - s) * x0 + s * x1


def vp_alpha(t: Tensor) -> Tensor:
    s = 1 - t
    return torch.exp(-(s**2 * 19.9 / 2 + 0.1 * s) / 2)


CLOSED_FORMS: list[tuple[GaussianMap, GaussianPath]] = [
    (GaussianMap(straight, lambda x0, x1, t: torch.full_like(t, 0.4)), Linear(0.4)),
    (GaussianMap(straight, lambda x0, x1, t: 0.7 * torch.sqrt(t * (1 - t))), BrownianBridge(0.7)),
    (
        GaussianMap(lambda x0, x1, t: expand(vp_alpha(t), x1) * x1, lambda x0, x1, t: torch.sqrt(1 - vp_alpha(t) ** 2)),
        VPDiffusion(),
    ),
]


@pytest.mark.parametrize(("mapped", "closed"), CLOSED_FORMS, ids=["linear", "bridge", "vp"])
def test_functions_reproduce_the_closed_paths(
    mapped: GaussianMap, closed: GaussianPath, proof: Callable[..., None]
) -> None:
    x0, x1, t = pairs()
    a, b = mapped(x0, x1, t, generator(1)), closed(x0, x1, t, generator(1))
    names = ("x_t", "u_t", "sigma_t", "eps")
    proof("gaussian_map", max((getattr(a, k) - getattr(b, k)).abs().max().item() for k in names), 1e-11)
    for f, g in zip(mapped.moments(x0, x1, t), closed.moments(x0, x1, t), strict=True):
        torch.testing.assert_close(f, g, rtol=1e-11, atol=1e-11)


def test_a_map_of_the_noise_that_is_gaussian_is_the_gaussian_path() -> None:
    x0, x1, t = pairs()

    def bridge(t: Tensor, eps: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        return straight(x0, x1, t) + 0.7 * expand(torch.sqrt(t * (1 - t)), x0) * eps

    a, b = MapPath(bridge)(x0, x1, t, generator(1)), BrownianBridge(0.7)(x0, x1, t, generator(1))
    torch.testing.assert_close(a.x_t, b.x_t, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.u_t, b.u_t, rtol=1e-12, atol=1e-12)
    assert bool(a.sigma_t.isnan().all())
    assert bool(losses.score(lambda t, x, c: x, a).isnan().all())


def test_a_non_gaussian_map_transports_what_it_says(proof: Callable[..., None]) -> None:
    """``x_t = sign(eps) |eps|^(1+t)``: velocity and law in closed form."""
    n = 50_000
    zero = torch.zeros(n, 1, dtype=torch.float64)
    path = MapPath(lambda t, eps, x0, x1: eps.sign() * eps.abs() ** (1 + expand(t, eps)))
    batch = path(zero, zero, torch.ones(n, dtype=torch.float64), generator())
    proof("map", (batch.u_t - batch.x_t * batch.eps.abs().log()).abs().max(), 1e-12)
    # At t = 1, x = sign(eps) eps^2: E x^2 = E eps^4 = 3, with Var eps^4 = 105 - 9.
    assert batch.x_t.square().mean().item() == pytest.approx(3, abs=4 * math.sqrt(96 / n))


def test_gradients_reach_the_parameters_of_a_learned_path() -> None:
    """``mu = straight + c t(1-t)``: ``u`` has ``c (1-2t)``, so d mean(u^2)/dc is known."""
    x0, x1, t = pairs()
    c = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for path in (
        GaussianMap(
            lambda x0, x1, t: straight(x0, x1, t) + c * expand(t * (1 - t), x0), lambda x0, x1, t: torch.zeros_like(t)
        ),
        MapPath(lambda t, eps, x0, x1: straight(x0, x1, t) + c * expand(t * (1 - t), x0)),
    ):
        u = path(x0, x1, t, generator()).u_t
        (found,) = torch.autograd.grad(u.square().mean(), c)
        bend = (1 - 2 * t)[:, None]
        wanted = (2 * (x1 - x0 + 0.3 * bend) * bend).mean()
        assert found.item() == pytest.approx(wanted.item(), rel=1e-12)


def test_one_time_expanded_to_all_rows() -> None:
    x0, x1, _ = pairs(Sphere())
    t = torch.tensor(0.3, dtype=torch.float64).expand(len(x0))
    transport = lambda t, eps, x0, x1: straight(x0, x1, t) * eps  # noqa: E731
    for path in (CLOSED_FORMS[1][0], MapPath(transport), Geodesic(Sphere())):
        a, b = path(x0, x1, t, generator()), path(x0, x1, t.clone(), generator())
        assert torch.equal(a.u_t, b.u_t)


def test_functions_that_return_the_wrong_thing_are_refused() -> None:
    x0, x1, t = pairs()
    one = lambda x0, x1, t: torch.ones_like(t)  # noqa: E731
    with pytest.raises(InputError, match="mu must return shape"):
        GaussianMap(lambda x0, x1, t: x0[:, :1] * t[:, None], one)(x0, x1, t, generator())
    with pytest.raises(InputError, match="sigma must return shape"):
        GaussianMap(straight, lambda x0, x1, t: t[:, None])(x0, x1, t, generator())
    for bad in (-0.1, math.nan):
        with pytest.raises(InputError, match="sigma must not be negative"):
            GaussianMap(straight, lambda x0, x1, t, bad=bad: t * bad)(x0, x1, t, generator())
    with pytest.raises(InputError, match="transport must return shape"):
        MapPath(lambda t, eps, x0, x1: t[:, None])(x0, x1, t, generator())


def test_times_are_drawn_within_the_given_range() -> None:
    for path in (GaussianMap(straight, straight, (0.2, 0.3)), MapPath(straight, (0.2, 0.3))):  # type: ignore[arg-type]
        t = path.draw_t(1000, generator())
        assert 0.2 <= t.min().item() < 0.201
        assert 0.299 < t.max().item() <= 0.3


@every
def test_geodesic_velocity_is_the_time_derivative_of_the_position(m: Manifold, proof: Callable[..., None]) -> None:
    """By reverse mode, one pass for each coordinate: another route than the package's."""
    x0, x1, t = pairs(m)
    path, times = Geodesic(m), t.clone().requires_grad_()
    columns = path(x0, x1, times, generator()).x_t.unbind(1)
    wanted = torch.stack([torch.autograd.grad(c.sum(), times, retain_graph=True)[0] for c in columns], 1)
    proof(type(m).__name__.lower(), (path(x0, x1, t, generator()).u_t - wanted).abs().max(), 1e-8)


@every
def test_geodesic_ends_speed_and_constraint(m: Manifold) -> None:
    x0, x1, t = pairs(m)
    path = Geodesic(m)
    batch = path(x0, x1, t, generator())
    assert bool(m.contains(batch.x_t).all())
    torch.testing.assert_close(m.to_tangent(batch.x_t, batch.u_t), batch.u_t, rtol=0, atol=1e-12)
    torch.testing.assert_close(m.sqnorm(batch.x_t, batch.u_t).sqrt(), m.dist(x0, x1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(m.dist(x0, batch.x_t), t * m.dist(x0, x1), rtol=1e-9, atol=1e-9)
    assert torch.equal(path(x0, x1, torch.zeros_like(t), generator()).x_t, x0)
    end = path(x0, x1, torch.ones_like(t), generator()).x_t
    torch.testing.assert_close(m.dist(end, x1), torch.zeros_like(t), rtol=0, atol=1e-10)
    assert not batch.sigma_t.any()


def test_geodesic_velocity_on_the_sphere_is_that_of_the_great_circle() -> None:
    x0, x1, t = pairs(Sphere())
    batch = Geodesic(Sphere())(x0, x1, t, generator())
    angle = torch.arccos((x0 * x1).sum(1, keepdim=True))
    s = t[:, None]
    wanted = angle * (torch.cos(s * angle) * x1 - torch.cos((1 - s) * angle) * x0) / torch.sin(angle)
    torch.testing.assert_close(batch.u_t, wanted, rtol=1e-8, atol=1e-8)


def test_geodesic_in_flat_space_is_the_rectified_path() -> None:
    x0, x1, t = pairs()
    a, b = Geodesic(Euclidean())(x0, x1, t, generator()), Linear()(x0, x1, t, generator())
    for name in ("x_t", "u_t", "sigma_t", "eps"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=1e-14)


@every
def test_rows_of_several_points_move_at_the_time_of_their_row(m: Manifold) -> None:
    x0, x1, t = pairs(m, n=6)
    rows = Geodesic(m)(x0.reshape(3, 2, 3), x1.reshape(3, 2, 3), t[:3], generator())
    flat = Geodesic(m)(x0, x1, t[:3].repeat_interleave(2), generator())
    assert torch.equal(rows.x_t.reshape(6, 3), flat.x_t)
    assert torch.equal(rows.u_t.reshape(6, 3), flat.u_t)
    loss = riemannian_velocity(lambda t, x, c: torch.sin(x), rows, m)
    each = riemannian_velocity(lambda t, x, c: torch.sin(x), flat, m)
    torch.testing.assert_close(loss, each.reshape(3, 2).mean(1))


def test_riemannian_loss_in_flat_space_is_the_velocity_loss() -> None:
    x0, x1, t = pairs()
    batch = Linear(0.3)(x0, x1, t, generator())
    model = lambda t, x, c: torch.sin(x) * t[:, None]  # noqa: E731
    torch.testing.assert_close(
        riemannian_velocity(model, batch, Euclidean()), losses.velocity(model, batch), rtol=1e-14, atol=0
    )


def test_riemannian_loss_ignores_what_points_off_the_sphere() -> None:
    x0, x1, t = pairs(Sphere())
    batch = Geodesic(Sphere())(x0, x1, t, generator())
    model = lambda t, x, c: torch.sin(3 * x)  # noqa: E731
    plain = riemannian_velocity(model, batch, Sphere())
    radial = riemannian_velocity(lambda t, x, c: model(t, x, c) + 5 * x * t[:, None], batch, Sphere())
    torch.testing.assert_close(radial, plain, rtol=1e-10, atol=1e-12)
    exact = riemannian_velocity(lambda t, x, c: batch.u_t - 7 * x, batch, Sphere())
    assert exact.max().item() < 1e-24
    v, x, u = torch.sin(3 * batch.x_t), batch.x_t, batch.u_t
    by_hand = (v - (v * x).sum(1, keepdim=True) * x - u).square().sum(1) / 3
    torch.testing.assert_close(plain, by_hand, rtol=1e-12, atol=0)


class Stretched(Euclidean.__mro__[1]):  # type: ignore[misc]
    """Flat space where the first coordinate counts four times: a metric other than the surrounding one."""

    contains, _project, _exp, _log, _random = (
        vars(Euclidean)[k] for k in ("contains", "_project", "_exp", "_log", "_random")
    )

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return super().inner(x, u, v) + 3 * u[..., 0] * v[..., 0]


def test_the_loss_is_measured_in_the_metric() -> None:
    x0, x1, t = pairs()
    batch = Linear()(x0, x1, t, generator())
    r = torch.sin(batch.x_t) - batch.u_t
    wanted = (4 * r[:, 0] ** 2 + r[:, 1] ** 2 + r[:, 2] ** 2) / 3
    torch.testing.assert_close(riemannian_velocity(lambda t, x, c: torch.sin(x), batch, Stretched()), wanted)


def test_a_field_on_the_sphere_is_learned_to_the_marginal() -> None:
    """Two mirror-image pairs meet at one point: the best field there is the mean of their velocities."""
    m, c = Sphere(), math.sqrt(0.5)
    x0 = torch.tensor([[c, c, 0.0], [c, -c, 0.0]], dtype=torch.float64)
    batch = Geodesic(m)(x0, x0.flip(0), torch.full((2,), 0.5, dtype=torch.float64), generator())
    torch.testing.assert_close(batch.x_t[0], batch.x_t[1], rtol=0, atol=1e-14)
    theta = torch.randn(3, generator=generator(), dtype=torch.float64).requires_grad_()
    value = riemannian_velocity(lambda t, x, c: theta.expand(2, 3), batch, m).mean()
    (grad,) = torch.autograd.grad(value, theta)
    # d/dtheta of |P theta|^2 / 3 with mean velocity zero: 2 P theta / 3, and nothing along the normal.
    torch.testing.assert_close(grad, 2 / 3 * m.to_tangent(batch.x_t[:1], theta[None])[0], rtol=0, atol=1e-12)


@every
def test_a_model_of_another_shape_is_refused(m: Manifold) -> None:
    x0, x1, t = pairs(m)
    batch = replace(Geodesic(m)(x0, x1, t, generator()), condition=None)
    for shape in (lambda x: x[:, :1], lambda x: x[:1], lambda x: x.float()):
        with pytest.raises(InputError, match="shape and dtype"):
            riemannian_velocity(lambda t, x, c, shape=shape: shape(x), batch, m)


def test_opposite_points_are_refused() -> None:
    x0, _, t = pairs(Sphere())
    with pytest.raises(InputError, match="32 of 32 pairs are opposite"):
        Geodesic(Sphere())(x0, -x0, t, generator())
