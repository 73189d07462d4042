from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from thalweg.core.manifolds import Euclidean, Manifold, Sphere, Torus, time_derivative
from thalweg.errors import InputError

MANIFOLDS: list[Manifold] = [Euclidean(), Sphere(), Torus()]
every = pytest.mark.parametrize("m", MANIFOLDS, ids=lambda m: type(m).__name__)
DTYPES = pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(m: Manifold, n: int = 200, d: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    g = generator()
    x0, x1 = m.random((n, d), g, dtype=dtype), m.random((n, d), g, dtype=dtype)
    return x0, x1, torch.rand(n, generator=g, dtype=dtype)


def close(a: Tensor, b: Tensor, tol: float) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tol)


def great_circle(angle: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x0 = torch.tensor([[1.0, 0.0, 0.0]], dtype=dtype)
    return x0, torch.tensor([[math.cos(angle), math.sin(angle), 0.0]], dtype=dtype)


def on_circle(a: Tensor, b: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Spherical linear interpolation and its derivative, the textbook form."""
    w = torch.arccos((a * b).sum(-1, keepdim=True))
    t = t[:, None]
    x = (torch.sin((1 - t) * w) * a + torch.sin(t * w) * b) / w.sin()
    u = w * (torch.cos(t * w) * b - torch.cos((1 - t) * w) * a) / w.sin()
    return x, u


def test_sphere_follows_great_circles(proof: Callable[..., None]) -> None:
    """Against spherical linear interpolation and its derivative."""
    x0, x1, t = pairs(Sphere(), d=6)
    x_t, u_t = Sphere().geodesic_and_velocity(x0, x1, t)
    x, u = on_circle(x0, x1, t)
    proof("sphere", (x_t - x).abs().max(), 1e-12)
    proof("sphere", (u_t - u).abs().max(), 1e-11)


@pytest.mark.parametrize("angle", [1e-12, 1e-9, 1e-6, 1e-3, 0.0063, 0.0064, 0.5, math.pi / 2, 3.0, 3.1415])
def test_sphere_angle_and_log_to_relative_precision(angle: float) -> None:
    x0, x1 = great_circle(angle)
    rel = 1e-13 if angle < 3 else 1e-11  # near pi, cos(angle) itself is only known to 1e-16 / (pi - angle)
    assert Sphere().dist(x0, x1).item() == pytest.approx(angle, rel=rel, abs=0)
    close(Sphere().log(x0, x1) / angle, torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64), 1e-11)


@pytest.mark.parametrize("angle", [1e-4, 3.1e-3, 3.2e-3, 6.2e-3, 6.4e-3])  # on both sides of where series take over
def test_sphere_series_join_the_closed_forms(angle: float) -> None:
    x, y = great_circle(angle)
    v = torch.tensor([[0.0, angle, 0.0]], dtype=torch.float64)
    close(Sphere().exp(x, v), y, 1e-16)
    assert Sphere().log(x, y).norm().item() == pytest.approx(angle, rel=1e-15, abs=0)


@every
@DTYPES
def test_paths_stay_on_the_manifold(m: Manifold, dtype: torch.dtype, tol: float, proof: Callable[..., None]) -> None:
    """In single precision to 1e-6, in double to 1e-12."""
    x0, x1, _ = pairs(m, dtype=dtype)
    off = 0.0
    for s in torch.linspace(0, 1, 21).tolist():
        x_t = m.geodesic(x0, x1, torch.full((len(x0),), s, dtype=dtype))
        assert x_t.dtype == dtype
        distance = x_t.norm(dim=-1) - 1 if isinstance(m, Sphere) else m.project(x_t) - x_t
        off = max(off, distance.abs().max().item())
    proof(type(m).__name__.lower(), off, tol if isinstance(m, Sphere) else 0.0)


def test_sphere_path_stays_on_the_manifold_near_the_opposite_point() -> None:
    gap = 10.0 ** torch.arange(-6, 0, 0.25, dtype=torch.float64)
    x = Sphere().random((len(gap), 5), generator(), dtype=torch.float64)
    v = Sphere().project(Sphere().to_tangent(x, Sphere().random(x.shape, generator(1), dtype=torch.float64)))
    x0, x1 = x.float(), Sphere().exp(x, (math.pi - gap)[:, None] * v).float()
    for s in torch.linspace(0, 1, 21).tolist():
        x_t, u_t = Sphere().geodesic_and_velocity(x0, x1, torch.full((len(x0),), s))
        close(x_t.norm(dim=-1), torch.ones(len(x0)), 1e-6)
        close(u_t.norm(dim=-1), Sphere().dist(x0, x1), 2e-6)
    close(x_t, x1, 1e-6)


@every
@DTYPES
def test_log_and_exp_are_inverse_and_end_points_are_met(m: Manifold, dtype: torch.dtype, tol: float) -> None:
    x0, x1, t = pairs(m, dtype=dtype)
    scale = 20.0  # the coordinates' size in units of tol: a torus goes to 2 pi, and dist to 8
    close(m.exp(x0, m.log(x0, x1)), x1, scale * tol)
    v = 0.3 * m.to_tangent(x0, x1)
    close(m.log(x0, m.exp(x0, v)), v, scale * tol)
    assert torch.equal(m.geodesic(x0, x1, torch.zeros_like(t)), x0)
    close(m.geodesic(x0, x1, torch.ones_like(t)), x1, scale * tol)


@every
def test_velocity_is_tangent_with_constant_speed_equal_to_the_distance(m: Manifold, proof: Callable[..., None]) -> None:
    x0, x1, t = pairs(m)
    x_t, u_t = m.geodesic_and_velocity(x0, x1, t)
    assert torch.equal(x_t, m.geodesic(x0, x1, t))
    normal, speed = u_t - m.to_tangent(x_t, u_t), m.sqnorm(x_t, u_t).sqrt()
    proof(type(m).__name__.lower(), max(normal.abs().max(), (speed - m.dist(x0, x1)).abs().max()), 1e-12)
    close(m.dist(x0, x_t), t * m.dist(x0, x1), 1e-12)


@every
def test_velocity_is_the_finite_difference_of_the_path(m: Manifold) -> None:
    x0, x1, t = pairs(m)
    h = 1e-5
    before, after = m.geodesic(x0, x1, t - h), m.geodesic(x0, x1, t + h)
    # The chord is read in the chart at `before`, so that a turn past 2 pi on the torus does not count as a jump.
    x_t, u_t = m.geodesic_and_velocity(x0, x1, t)
    difference = (m.log(x_t, after) - m.log(x_t, before)) / (2 * h)
    close(u_t, difference, 1e-9)


@every
def test_one_time_expanded_to_all_pairs(m: Manifold) -> None:
    x0, x1, t = pairs(m, n=5)
    one = t[:1].expand(5)
    for a, b in zip(m.geodesic_and_velocity(x0, x1, one), m.geodesic_and_velocity(x0, x1, one.clone()), strict=True):
        assert torch.equal(a, b)
    value, slope = time_derivative(torch.sin, one.reshape(5, 1).expand(5, 3))
    assert torch.equal(value, one.sin()[:, None].expand(5, 3))
    assert torch.equal(slope, one.cos()[:, None].expand(5, 3))


@every
def test_reversal_and_symmetry(m: Manifold) -> None:
    x0, x1, t = pairs(m)
    forward, u = m.geodesic_and_velocity(x0, x1, t)
    backward, w = m.geodesic_and_velocity(x1, x0, 1 - t)
    close(m.dist(forward, backward), torch.zeros_like(t), 1e-11)
    close(u, -w, 1e-11)
    close(m.dist(x0, x1), m.dist(x1, x0), 1e-14)


def test_sphere_commutes_with_rotations() -> None:
    x0, x1, t = pairs(Sphere())
    q = torch.linalg.qr(torch.randn(4, 4, generator=generator(1), dtype=torch.float64)).Q
    close(Sphere().geodesic(x0 @ q, x1 @ q, t), Sphere().geodesic(x0, x1, t) @ q, 1e-13)


def test_torus_wraps_the_short_way(proof: Callable[..., None]) -> None:
    x0 = torch.tensor([[6.2, 0.1], [1.0, 5.0]], dtype=torch.float64)
    x1 = torch.tensor([[0.2, 6.1], [2.0, 4.0]], dtype=torch.float64)
    across = 2 * math.pi - 6.0
    velocity = torch.tensor([[across, -across], [1.0, -1.0]], dtype=torch.float64)
    close(Torus().log(x0, x1), velocity, 1e-15)
    close(Torus().dist(x0, x1), velocity.norm(dim=1), 1e-15)
    x_t, u_t = Torus().geodesic_and_velocity(x0, x1, torch.full((2,), 0.75, dtype=torch.float64))
    close(u_t, velocity, 0.0)
    reached = torch.tensor([0.2 - across / 4, 6.1 + across / 4], dtype=torch.float64) % (2 * math.pi)
    proof("torus", (x_t[0] - reached).abs().max(), 1e-14)
    half = Torus().log(torch.zeros(1, 1), torch.full((1, 1), math.pi))
    assert half.item() == pytest.approx(math.pi)


@pytest.mark.parametrize("manifold", [Euclidean(), Sphere(), Torus()])
def test_each_point_is_judged_whatever_the_leading_axes(manifold: Manifold) -> None:
    x = manifold.random((2, 3, 4), generator())
    x[1, 2, 3] = torch.nan
    expected = torch.ones(2, 3, dtype=torch.bool)
    expected[1, 2] = False
    assert torch.equal(manifold.contains(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torus_project_never_returns_a_full_turn(dtype: torch.dtype) -> None:
    angles = torch.tensor([[-1e-30, -1e-9, 0.0, 2 * math.pi, 4 * math.pi, 7.0, -1.0]], dtype=dtype)
    x = Torus().project(angles)
    assert bool(Torus().contains(x).all())
    close(x.sin(), angles.sin(), 4 * torch.finfo(dtype).eps)
    close(x.cos(), angles.cos(), 4 * torch.finfo(dtype).eps)


def test_euclidean_is_linear_interpolation_exactly(proof: Callable[..., None]) -> None:
    g = generator()
    x0, x1 = (torch.randint(-64, 64, (50, 3), generator=g).double() for _ in range(2))
    t = torch.randint(0, 257, (50,), generator=g).double() / 256  # dyadic: both forms are exact in floating point
    x_t, u_t = Euclidean().geodesic_and_velocity(x0, x1, t)
    proof("euclidean", (x_t - (1 - t[:, None]) * x0 - t[:, None] * x1).abs().max(), 0.0)
    assert torch.equal(u_t, x1 - x0)
    assert torch.equal(Euclidean().project(x0), x0)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_points_give_zero_motion_and_the_right_gradients(m: Manifold, dtype: torch.dtype) -> None:
    x, _, t = pairs(m, n=5, dtype=dtype)
    x0, x1 = x.clone().requires_grad_(), x.clone().requires_grad_()
    x_t, u_t = m.geodesic_and_velocity(x0, x1, t)
    assert torch.equal(u_t, torch.zeros_like(u_t))
    a = m.to_tangent(x, torch.randn(x.shape, generator=generator(3), dtype=dtype))
    # At coinciding points exp and log are the identity of the tangent space: d x_t = (1-t) d x0 + t d x1.
    g0, g1 = torch.autograd.grad((a * x_t).sum(), [x0, x1], retain_graph=True)
    eps = 20 * torch.finfo(dtype).eps
    close(m.to_tangent(x, g0), (1 - t)[:, None] * a, eps)
    close(m.to_tangent(x, g1), t[:, None] * a, eps)
    h0, h1 = torch.autograd.grad((a * u_t).sum(), [x0, x1])
    close(m.to_tangent(x, h0), -a, eps)
    close(m.to_tangent(x, h1), a, eps)
    d = m.dist(x0, x1)
    assert torch.equal(d, torch.zeros_like(d))
    for grad in torch.autograd.grad(d.sum(), [x0, x1]):
        assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("angle", [1e-7, 1e-3, 0.0063, 0.0064, 1.0, 3.0])
def test_sphere_gradients_near_and_far(angle: float) -> None:
    a, b = great_circle(angle)
    t = torch.tensor([0.3], dtype=torch.float64)

    def path(p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
        p, q = Sphere().project(p), Sphere().project(q)
        return Sphere().geodesic_and_velocity(p, q, t)

    a, b = a.requires_grad_(), b.requires_grad_()
    assert torch.autograd.gradcheck(path, (a, b), eps=1e-6, atol=1e-7)


def test_sphere_distance_gradient_is_the_unit_log() -> None:
    x0, x1, _ = pairs(Sphere())
    x1 = x1.requires_grad_()
    (grad,) = torch.autograd.grad(Sphere().dist(x0, x1).sum(), x1)
    unit = -Sphere().log(x1, x0) / Sphere().dist(x0, x1)[:, None]
    close(Sphere().to_tangent(x1, grad), unit, 1e-12)


def test_sphere_opposite_points_raise_but_their_distance_is_pi() -> None:
    x = Sphere().random((4, 3), generator())
    y = torch.cat([-x[:2], x[:2]])
    close(Sphere().dist(x, -x), torch.full((4,), math.pi), 1e-6)
    with pytest.raises(InputError, match="2 of 4 pairs are opposite"):
        Sphere().geodesic(x, y, torch.rand(4))
    grad = torch.autograd.grad(Sphere().dist(x, (-x).requires_grad_().clone()).sum() + x.requires_grad_().sum(), x)[0]
    assert bool(grad.isfinite().all())


def test_random_points_are_uniform_and_repeatable() -> None:
    n = 20_000
    s = Sphere().random((n, 3), generator(), dtype=torch.float64)
    # Archimedes: each coordinate of a uniform point on S^2 is uniform on [-1, 1].
    quantiles = torch.linspace(-1, 1, n, dtype=torch.float64)
    assert float((s[:, 2].sort().values - quantiles).abs().max()) < 0.04
    a = Torus().random((n, 2), generator(), dtype=torch.float64)
    assert float((a[:, 1].sort().values - torch.linspace(0, 2 * math.pi, n, dtype=torch.float64)).abs().max()) < 0.12
    for m in MANIFOLDS:
        state = torch.random.get_rng_state()
        assert torch.equal(m.random((5, 3), generator(7)), m.random((5, 3), generator(7)))
        assert torch.equal(torch.random.get_rng_state(), state)


@every
def test_nothing_broadcasts(m: Manifold) -> None:
    x0, x1, t = pairs(m, n=4, d=4)
    for bad_t in (t[:, None], t[:1], t[0], t.float(), t[None].expand(4, 4)):
        with pytest.raises(InputError, match="`t`"):
            m.geodesic_and_velocity(x0, x1, bad_t)
    for bad in (x1[:1], x1[0], x1[:, :1], x1.float()):
        for call in (m.log, m.dist, m.exp, m.to_tangent):
            with pytest.raises(InputError, match="nothing is broadcast"):
                call(x0, bad)
        with pytest.raises(InputError, match="nothing is broadcast"):
            m.inner(x0, x1, bad)
    with pytest.raises(InputError, match="floating"):
        m.project(torch.ones(3, 2, dtype=torch.int64))
    deep = [z.reshape(2, 2, 4) for z in (x0, x1)]
    assert torch.equal(m.geodesic(*deep, t.reshape(2, 2)).reshape(4, 4), m.geodesic(x0, x1, t))


@every
def test_points_off_the_manifold_are_refused(m: Manifold) -> None:
    x, y, _ = pairs(m, n=4)
    bad = x.clone()
    bad[1] = math.nan if isinstance(m, Euclidean) else 9.0
    for call in (m.log, m.dist):
        with pytest.raises(InputError, match="`y` has 1 of 4 points off"):
            call(y, bad)
    with pytest.raises(InputError, match="`x` has 1 of 4 points off"):
        m.exp(bad, torch.zeros_like(bad))
    with pytest.raises(InputError, match="1 of 4 rows with no nearest point"):
        m.project(torch.where(bad == bad[1], math.nan, bad))


def test_sphere_refuses_vectors_that_are_not_tangent() -> None:
    x, v, _ = pairs(Sphere())
    with pytest.raises(InputError, match="to_tangent"):
        Sphere().exp(x, v)
    with pytest.raises(InputError, match="no nearest point"):
        Sphere().project(torch.zeros(1, 3))
