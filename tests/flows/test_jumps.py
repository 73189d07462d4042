"""Fields that jump at an observed time, in closed form: nothing is lost there, in any way a flow is run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.flows.flow import Flow
from thalweg.flows.running import Integrator, Noise
from thalweg.flows.time_axis import make_axis

TIMES = np.array([0.0, 1.0, 3.0])  # on an axis of index 0, 1, 2: the field jumps at 1


class Jumping(nn.Module):
    """``v = rate z + push`` with one rate and one push before the middle time, and others from it on."""

    def __init__(self, rates: tuple[float, float], pushes: tuple[float, float]) -> None:
        super().__init__()
        self.rates = nn.Parameter(torch.tensor(rates))
        self.pushes = torch.tensor(pushes)
        self.grows = False

    def velocity(self, s, z, condition):
        late = (2 * s >= 1).long()
        return self.rates[late, None] * z + self.pushes[late, None]

    def score(self, s, z, condition):
        return torch.zeros_like(z)


def flow(rates=(0.0, 0.0), pushes=(0.0, 0.0), sigma=0.0):
    return Flow(Jumping(rates, pushes), make_axis(TIMES, "index"), np.zeros(2), 1.0, sigma)


@pytest.mark.parametrize(("start", "end", "moved"), [(0.0, 3.0, -2.0), (3.0, 0.0, 2.0), (0.5, 2.0, -1.0)])
@pytest.mark.parametrize("n_steps", [1, 3, 7])
def test_few_steps_of_an_sde_are_exact_where_each_part_is(start, end, moved, n_steps):
    """A constant drift is exact in any number of steps, if none crosses the jump or is evaluated beyond it."""
    run = flow(pushes=(1.0, -3.0), sigma=1e-6)
    noise = Noise(torch.Generator().manual_seed(0))
    out = run.push(np.zeros((3, 2)), [start, end], noise=noise, integrator=Integrator(n_steps=n_steps))
    np.testing.assert_allclose(out.x[-1], moved, atol=1e-4)


def test_noise_adds_up_across_a_jump():
    noise = Noise(torch.Generator().manual_seed(0), strength=0.5)
    out = flow(sigma=0.6).push(np.zeros((4000, 2)), TIMES[[0, 2]], noise=noise, integrator=Integrator(n_steps=5))
    assert out.x[-1].std() == pytest.approx(0.5 * 0.6 * np.sqrt(2), rel=0.03)  # 8,000 draws: 1 % is a deviation


@pytest.mark.parametrize("hutchinson", [False, True])
@pytest.mark.parametrize("time", [0.4, 1.0, 2.0, 3.0])
def test_the_density_across_a_jump_is_that_of_the_gaussian_it_carries(time, hutchinson):
    """A scalar Jacobian, so that Hutchinson's estimate is exact, too."""
    early, late = 0.5, -1.5
    log_scale = early * min(time, 1) + late * max(time - 1, 0) / 2
    x = np.random.default_rng(0).normal(size=(6, 2)) * np.exp(log_scale)
    generator = torch.Generator().manual_seed(0) if hutchinson else None

    def standard(z):
        return -0.5 * (z**2 + np.log(2 * np.pi)).sum(1)

    found = flow(rates=(early, late)).log_density(x, time, standard, generator=generator)
    np.testing.assert_allclose(found, standard(x * np.exp(-log_scale)) - 2 * log_scale, atol=2e-5)
