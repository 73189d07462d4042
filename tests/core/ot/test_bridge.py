"""The bridge of an entropic plan in closed form: between Gaussians, and against sums that are written out."""

from __future__ import annotations

import math

import pytest
import torch

from thalweg.core.ot import bridge
from thalweg.core.ot.entropic import solve_entropic

LENGTH = 0.7


def grid(mean, sd, n=400):
    """Quantiles of a normal, shape ``(n, 1)``: a population without sampling error."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return mean + sd * math.sqrt(2) * torch.erfinv(2 * u - 1)[:, None]


@pytest.fixture(scope="module")
def gaussian():
    x0, x1 = grid(0.0, 1.0), grid(2.0, 0.6)
    return x0, x1, solve_entropic(x0, x1, epsilon=2 * LENGTH, tol=1e-6)


def closed_form(t, s0=1.0, s1=0.6, m1=2.0):
    """Mean and variance of the bridge between N(0, s0^2) and N(m1, s1^2) (Bunne et al. 2023), and the covariance."""
    d = math.sqrt(4 * s0**2 * s1**2 + LENGTH**2)
    c = (d - LENGTH) / 2
    return t * m1, (1 - t) ** 2 * s0**2 + t**2 * s1**2 + t * (1 - t) * (2 * c + LENGTH), c


@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_density_of_the_bridge_between_gaussians(gaussian, t):
    mean, variance, _ = closed_form(t)
    x = mean + math.sqrt(variance) * torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None]
    expected = -0.5 * ((x - mean) ** 2 / variance + math.log(2 * math.pi * variance))[:, 0]
    torch.testing.assert_close(bridge.log_density(x, *gaussian, t), expected, atol=0.01, rtol=0)


def test_density_sums_to_one(gaussian):
    x = torch.linspace(-6, 8, 4001, dtype=torch.float64)[:, None]
    assert torch.trapezoid(bridge.log_density(x, *gaussian, 0.4).exp(), x[:, 0]) == pytest.approx(1, abs=1e-3)


def test_what_a_cell_becomes_is_linear_between_gaussians(gaussian):
    """E[x1 | x0] = m1 + (C / s0^2)(x0 - m0), the regression of the static bridge."""
    _, x1, plan = gaussian
    x = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    found = bridge.conditional_mean(x, x1, plan, x1).value
    torch.testing.assert_close(found, 2 + closed_form(0.0)[2] * x, atol=0.01, rtol=0)


@pytest.mark.parametrize("relaxed", [None, 3.0])
@pytest.mark.parametrize("t", [0.0, 0.6])
def test_conditional_mean_is_the_sum_written_out(relaxed, t, generator):
    x0, x1 = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (40, 50))
    b = torch.rand(50, generator=generator, dtype=torch.float64)
    b = b / b.sum()
    plan = solve_entropic(x0, x1, b=b, epsilon=2 * LENGTH, tau_a=relaxed, tau_b=relaxed)
    x, values = x0[:7] + 0.1, torch.rand(50, 2, generator=generator, dtype=torch.float64)
    heat = torch.exp(-(torch.cdist(x, x1) ** 2) / (2 * (1 - t) * LENGTH))
    p = heat * b * torch.exp(plan.g / plan.epsilon)
    p = p / p.sum(1, keepdim=True)
    found = bridge.conditional_mean(x, x1, plan, values, t)
    torch.testing.assert_close(found.value, p @ values, atol=1e-6, rtol=0)
    square = ((p**2)[:, :, None] * (values - (p @ values)[:, None]) ** 2).sum(1)
    torch.testing.assert_close(found.square, square, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.effective, 1 / (p**2).sum(1), rtol=1e-5, atol=0)


def test_at_the_start_it_is_the_row_of_the_plan(gaussian):
    x0, x1, plan = gaussian
    mass = plan.a[:, None] * plan.b * torch.exp((plan.f[:, None] + plan.g - torch.cdist(x0, x1) ** 2) / plan.epsilon)
    expected = mass @ x1 / mass.sum(1, keepdim=True)
    torch.testing.assert_close(bridge.conditional_mean(x0, x1, plan, x1).value, expected, atol=1e-6, rtol=0)


def test_an_offset_changes_nothing(gaussian):
    x0, x1, plan = gaussian
    near = bridge.conditional_mean(x0[:5], x1, plan, x1 - 2).value
    far = bridge.conditional_mean(x0[:5] + 1e4, x1 + 1e4, plan, x1 - 2).value
    torch.testing.assert_close(near, far, atol=1e-6, rtol=0)
