"""Bent paths: Hermite's cubic over another path, and how it is chained over the intervals of a course."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thalweg.core.paths import BrownianBridge, Cubic, Linear, Trigonometric, bends

UNEVEN = torch.tensor([0.0, 0.7, 1.1, 2.6, 3.0, 4.4], dtype=torch.float64)


def random_path(base):
    g = torch.Generator().manual_seed(0)
    x0, x1, e0, e1 = torch.randn(4, 50, 3, generator=g, dtype=torch.float64)
    t, eps = 0.02 + 0.96 * torch.rand(50, generator=g, dtype=torch.float64), torch.randn_like(x0)
    return Cubic(base, e0, e1), x0, x1, t, eps


@pytest.mark.parametrize("base", [Linear(0.1), BrownianBridge(0.5), Trigonometric()], ids=lambda b: type(b).__name__)
def test_the_velocity_is_the_derivative_of_the_path(base):
    path, x0, x1, t, eps = random_path(base)
    t.requires_grad_()
    x_t = path.at(x0, x1, t, eps).x_t
    slope = torch.stack([torch.autograd.grad(x_t[:, j].sum(), t, retain_graph=True)[0] for j in range(3)], 1)
    torch.testing.assert_close(path.at(x0, x1, t, eps).u_t.detach(), slope, rtol=1e-10, atol=1e-10)
    assert path.t_range == base.t_range


def test_it_ends_where_the_other_path_ends_and_leaves_with_more():
    path, x0, x1, _, eps = random_path(Linear(0.0))
    for t, end, more in ((0.0, x0, path.e0), (1.0, x1, path.e1)):
        batch = path.at(x0, x1, torch.full((50,), t, dtype=torch.float64), eps)
        torch.testing.assert_close(batch.x_t, end)
        torch.testing.assert_close(batch.u_t, x1 - x0 + more)


def chained(curve, times, at=21):
    """Positions of the bent and of the straight path in the intervals between two inner knots, and the true ones."""
    points = curve(times)
    length = times.diff()
    e0, e1 = bends(points.diff(dim=0), length)
    t = torch.linspace(0, 1, at, dtype=torch.float64)
    found = []
    for k in range(1, len(length) - 1):
        x0, x1 = (points[j].expand(at, -1) for j in (k, k + 1))
        still = torch.zeros_like(x0)
        bent = Cubic(Linear(0.0), e0[k], e1[k]).at(x0, x1, t, still)
        found.append(
            (bent.x_t, Linear(0.0).at(x0, x1, t, still).x_t, curve(times[k] + t * length[k]), bent.u_t / length[k])
        )
    return [torch.cat(v) for v in zip(*found, strict=True)]


def parabola(t):
    return torch.stack([1 + 2 * t - 0.5 * t**2, t, 3 - t**2], -1)


def circle(t):
    return torch.stack([t.cos(), t.sin()], -1)


def test_a_parabola_at_uneven_times_is_exact():
    bent, straight, true, velocity = chained(parabola, UNEVEN)
    torch.testing.assert_close(bent, true, rtol=0, atol=1e-12)
    assert float((straight - true).abs().max()) > 0.2
    torch.testing.assert_close(velocity[0], torch.tensor([2 - 0.7, 1.0, -1.4], dtype=torch.float64))


def test_a_circle_is_met_to_the_third_order_where_a_straight_path_has_the_second():
    errors = []
    for n in (20, 40, 80):
        even = torch.linspace(0, 3, n + 1, dtype=torch.float64)
        times = even + 0.3 * (3 / n) * torch.sin(7 * even)  # uneven, by the same share at every n
        bent, straight, true, _ = chained(circle, times)
        errors.append([float((x - true).norm(dim=1).max()) for x in (bent, straight)])
    order = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (order[:, 0] > 2.8).all()
    assert (np.abs(order[:, 1] - 2) < 0.35).all()


def test_velocities_agree_on_both_sides_of_a_knot_and_the_outer_ends_are_straight():
    moved, length = circle(UNEVEN).diff(dim=0), UNEVEN.diff()
    e0, e1 = bends(moved, length)
    leaving, arriving = ((moved + e) / length[:, None] for e in (e0, e1))
    torch.testing.assert_close(arriving[:-1], leaving[1:])
    assert not e0[0].any()
    assert not e1[-1].any()
    assert all(not e.any() for e in bends(torch.ones(1, 2), torch.ones(1)))  # one interval has nothing to bend to


def test_constant_speed_does_not_bend():
    moved = UNEVEN.diff()[:, None] * torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    e0, e1 = bends(moved, UNEVEN.diff())
    assert float(torch.stack([e0, e1]).abs().max()) < 1e-14 * math.pi
