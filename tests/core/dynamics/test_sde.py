from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from thalweg.core import losses
from thalweg.core.dynamics.marginal import marginal_score, marginal_velocity
from thalweg.core.dynamics.ode import Field, odeint, sdeint
from thalweg.core.dynamics.sde import (
    Noise,
    diffusion,
    forward_drift,
    reverse_drift,
    score_from_velocity,
    velocity_from_score,
)
from thalweg.core.maps import GaussianMap
from thalweg.core.paths import BrownianBridge, GaussianOT, GaussianPath, Linear, Trigonometric, VPDiffusion, expand
from thalweg.errors import InputError

MEAN = torch.tensor([1.5, -0.5], dtype=torch.float64)
COV = torch.tensor([[1.2, 0.5], [0.5, 0.6]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariance(t: float) -> Tensor:
    return (1 - t) ** 2 * torch.eye(2, dtype=torch.float64) + t**2 * COV


def flow_score(t: Tensor, x: Tensor) -> Tensor:
    """Score of ``N(t m, (1-t)^2 I + t^2 C)``: the straight path from N(0, I) to N(m, C), independent pairs."""
    return -torch.linalg.solve(covariance(t.item()), (x - t * MEAN).T).T


def flow_velocity(t: Tensor, x: Tensor) -> Tensor:
    """``E[x1 - x0 | x_t = x]`` by Gaussian regression."""
    gain = torch.linalg.solve(covariance(t.item()), t * COV - (1 - t) * torch.eye(2, dtype=torch.float64))
    return MEAN + (x - t * MEAN) @ gain


Proof = Callable[..., None]
NOISES: dict[str, Noise] = {"none": 0.0, "little": 0.3, "much": 2.0, "rising": lambda t: 3 * t}
N, STEPS = 20_000, 150


def law_error(x: Tensor, t: float) -> float:
    """Largest error of mean and covariance, as a share of four standard errors and the scheme's own first-order one."""
    cov, scheme = covariance(t), 3 / STEPS
    mean = (x.mean(0) - t * MEAN).abs() / (4 * torch.sqrt(cov.diagonal() / N) + scheme)
    spread = 4 * torch.sqrt((cov.diagonal()[:, None] * cov.diagonal() + cov**2) / N) + scheme
    return max(mean.max().item(), ((x.T.cov() - cov).abs() / spread).max().item())


def sample(mean: Tensor, cov: Tensor) -> Tensor:
    noise = torch.randn(N, 2, generator=generator(5), dtype=torch.float64)
    return mean + noise @ torch.linalg.cholesky(cov).T


@pytest.mark.parametrize("w", NOISES.values(), ids=NOISES)
def test_forward_sdes_share_the_marginals_of_the_ode(w: Noise, proof: Proof) -> None:
    """In units of the tolerance: four standard errors of 20,000 samples and that of the scheme, about .05."""
    x0 = sample(0 * MEAN, covariance(0))
    drift = forward_drift(flow_velocity, flow_score, w)
    states = sdeint(drift, diffusion(w), x0, (0, 0.4, 0.7, 1), generator(), n_steps=STEPS // 3)
    proof("sde_forward", max(law_error(x, t) for x, t in zip(states, (0, 0.4, 0.7, 1), strict=True)), 1.0)


@pytest.mark.parametrize("w", NOISES.values(), ids=NOISES)
def test_reverse_sdes_share_the_marginals_of_the_ode(w: Noise, proof: Proof) -> None:
    """In the units of the test above."""
    x1 = sample(MEAN, COV)
    drift = reverse_drift(flow_velocity, flow_score, w)
    states = sdeint(drift, diffusion(w), x1, (1, 0.6, 0.3, 0), generator(), n_steps=STEPS // 3)
    proof("sde_reverse", max(law_error(x, t) for x, t in zip(states, (1, 0.6, 0.3, 0), strict=True)), 1.0)


@pytest.mark.parametrize("w", NOISES.values(), ids=NOISES)
def test_moments_of_the_sde_solve_those_of_the_marginal(w: Noise, proof: Proof) -> None:
    """Without sampling: ``dC/dt = A C + C A^T + w I`` forwards, ``- w I`` backwards, and ``dm/dt = drift(m)``."""
    zero = torch.zeros(1, 2, dtype=torch.float64)
    for time in (0.1, 0.5, 0.9):
        t = torch.tensor(time, dtype=torch.float64)
        rate = w(time) if callable(w) else w
        d_cov = -2 * (1 - time) * torch.eye(2, dtype=torch.float64) + 2 * time * COV
        for row, make, sign in (("sde_forward", forward_drift, 1), ("sde_reverse", reverse_drift, -1)):
            drift = make(flow_velocity, flow_score, w)
            a = (drift(t, torch.eye(2, dtype=torch.float64)) - drift(t, zero)).T
            found = a @ covariance(time) + covariance(time) @ a.T + sign * rate * torch.eye(2, dtype=torch.float64)
            wrong_mean = (drift(t, time * MEAN[None])[0] - MEAN).abs().max()
            proof(row, max((found - d_cov).abs().max(), wrong_mean), 1e-12)


def test_without_noise_both_are_the_ode() -> None:
    x = sample(0 * MEAN, covariance(0))[:50]
    t = torch.tensor(0.3, dtype=torch.float64)
    for make in (forward_drift, reverse_drift):
        assert torch.equal(make(flow_velocity, flow_score, 0.0)(t, x), flow_velocity(t, x))
    whole = odeint(flow_velocity, x, (0, 1), rtol=1e-8, atol=1e-8)[-1]
    back = odeint(reverse_drift(flow_velocity, flow_score, 0.0), whole, (1, 0), rtol=1e-8, atol=1e-8)[-1]
    torch.testing.assert_close(back, x, rtol=0, atol=1e-6)


FROM_NOISE: dict[str, GaussianPath] = {
    "gaussian_ot": GaussianOT(0.2),
    "straight": GaussianOT(0.0),
    "vp": VPDiffusion(),
    "cosine": GaussianMap(
        lambda x0, x1, t: expand(torch.sin(t * math.pi / 2), x1) * x1, lambda x0, x1, t: torch.cos(t * math.pi / 2)
    ),
}


@pytest.mark.parametrize("name", FROM_NOISE)
def test_conversions_against_the_marginal_of_a_mixture(name: str, proof: Proof) -> None:
    path, g = FROM_NOISE[name], generator()
    x1 = torch.randn(6, 3, generator=g, dtype=torch.float64)
    x = torch.randn(40, 3, generator=g, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 40, dtype=torch.float64)
    v, s = marginal_velocity(path, 0 * x1, x1, t, x), marginal_score(path, 0 * x1, x1, t, x)
    both = ((score_from_velocity(path, t, x, v), s), (velocity_from_score(path, t, x, s), v))
    error = max(((found - wanted).abs() / (1 + wanted.abs())).max().item() for found, wanted in both)
    proof("velocity_score", error, 1e-10)


def test_conversions_of_the_straight_path_are_the_short_formula() -> None:
    g = generator()
    x, v = (torch.randn(30, 2, 2, generator=g, dtype=torch.float64) for _ in range(2))
    t = torch.linspace(0, 0.98, 30, dtype=torch.float64)
    s = t[:, None, None]
    score = score_from_velocity(GaussianOT(0.0), t, x, v)
    torch.testing.assert_close(score, (s * v - x) / (1 - s), rtol=1e-10, atol=1e-10)
    assert torch.equal(score[0], -x[0])  # at t = 0 the score is that of the noise
    back = velocity_from_score(GaussianOT(0.0), t[1:], x[1:], score[1:])
    torch.testing.assert_close(back, v[1:], rtol=1e-10, atol=1e-10)


def test_conversion_on_the_analytic_gaussian_flow() -> None:
    x = sample(0 * MEAN, COV)[:20]
    for time in (0.2, 0.6, 0.9):
        t = torch.tensor(time, dtype=torch.float64)
        score = score_from_velocity(GaussianOT(0.0), t.expand(20), x, flow_velocity(t, x))
        torch.testing.assert_close(score, flow_score(t, x), rtol=1e-10, atol=1e-10)


# A Schrödinger bridge in one dimension: N(M0, S0^2) to N(M1, S1^2), Brownian reference of diffusion SIGMA.
M0, S0, M1, S1, SIGMA = -1.0, 0.8, 2.0, 0.5, 0.9
# Covariance of the end points under the entropic plan of regularisation 2 SIGMA^2 (Janati et al. 2020, theorem 1;
# Mallasto et al., Information Geometry 2022).
CROSS = 0.5 * (math.sqrt(4 * S0**2 * S1**2 + SIGMA**4) - SIGMA**2)


def bridge_moments(t: float) -> tuple[float, float]:
    spread = SIGMA**2 * t * (1 - t)
    return (1 - t) * M0 + t * M1, (1 - t) ** 2 * S0**2 + t**2 * S1**2 + 2 * t * (1 - t) * CROSS + spread


def enumerated_affine(t: float, target: str) -> tuple[float, float]:
    """Least-squares ``a x + b`` under the loss, its expectation over (x0, x1, eps) enumerated by exact quadrature."""
    z, w = np.polynomial.hermite_e.hermegauss(4)
    grid = torch.tensor(np.stack(np.meshgrid(z, z, z), -1).reshape(-1, 3))
    weight = torch.tensor(np.prod(np.stack(np.meshgrid(w, w, w), -1), -1).reshape(-1) / w.sum() ** 3)
    x0 = M0 + S0 * grid[:, :1]
    rest = math.sqrt(S1**2 - (CROSS / S0) ** 2)
    x1 = M1 + CROSS / S0 * grid[:, :1] + rest * grid[:, 1:2]
    batch = BrownianBridge(SIGMA).at(x0, x1, torch.full((64,), t, dtype=torch.float64), grid[:, 2:])
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def model(t: Tensor, x: Tensor, condition: Tensor | None) -> Tensor:
        return theta[0] * x + theta[1]

    each = losses.velocity(model, batch) if target == "v" else losses.score(model, batch, scale=2 / SIGMA**2)
    (grad,) = torch.autograd.grad((weight * each).sum(), theta, create_graph=True)
    hessian = torch.stack([torch.autograd.grad(g, theta, retain_graph=True)[0] for g in grad])
    a, b = torch.linalg.solve(hessian, -grad.detach()).tolist()
    return a, b


@pytest.mark.parametrize("t", [0.05, 0.3, 0.5, 0.8])
def test_sf2m_minimiser_is_half_sigma_squared_times_the_score(t: float, proof: Proof) -> None:
    mean, variance = bridge_moments(t)
    a, b = enumerated_affine(t, "s")
    slope = -(SIGMA**2) / (2 * variance)
    proof("sf2m", max(abs(a - slope), abs(b + slope * mean)), 1e-10)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.5, 0.8])
def test_learned_drifts_of_the_bridge_carry_its_closed_form(t: float, proof: Proof) -> None:
    """``v + s`` with diffusion sigma moves mean and variance as the bridge does; ``v - s`` is the way back."""
    mean, variance = bridge_moments(t)
    d_mean = M1 - M0
    d_variance = -2 * (1 - t) * S0**2 + 2 * t * S1**2 + (1 - 2 * t) * (2 * CROSS + SIGMA**2)
    (slope_v, offset_v), (slope_s, offset_s) = enumerated_affine(t, "v"), enumerated_affine(t, "s")
    for sign in (1, -1):
        a, b = slope_v + sign * slope_s, offset_v + sign * offset_s
        drift = (d_variance - sign * SIGMA**2) / (2 * variance)  # its slope; at the mean it is the mean's velocity
        proof("sf2m", max(abs(a - drift), abs(a * mean + b - d_mean)), 1e-10)
        # The learned term is w score/2 with w = sigma^2.
        score = Affine(2 * slope_s / SIGMA**2, 2 * offset_s / SIGMA**2)
        make = forward_drift if sign == 1 else reverse_drift
        x, time = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None], torch.tensor(t, dtype=torch.float64)
        found = make(Affine(slope_v, offset_v), score, SIGMA**2)(time, x)
        torch.testing.assert_close(found, a * x + b, rtol=1e-12, atol=1e-12)


class Affine:
    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        return self.a * x + self.b


def test_the_bridge_is_the_drift_of_least_energy() -> None:
    """The optimal drift of a Schrödinger bridge solves Burgers' equation: here ``da/dt + a^2 = 0``."""
    h = 1e-4
    for t in (0.2, 0.5, 0.7):
        a = [sum(enumerated_affine(s, k)[0] for k in "vs") for s in (t - h, t, t + h)]
        assert (a[2] - a[0]) / (2 * h) == pytest.approx(-(a[1] ** 2), abs=1e-6)


def test_on_a_mixture_the_minimiser_at_a_point_is_the_scaled_score() -> None:
    """At a fixed x the loss is least at ``-E[eps | x] / lambda_t``, the mean over pairs weighted by their density."""
    x0, x1 = torch.tensor([[-1.0], [0.0], [1.0]]).double(), torch.tensor([[2.0], [-1.0], [0.5]]).double()
    path, t = BrownianBridge(SIGMA), torch.full((1,), 0.3, dtype=torch.float64)
    for point in (-1.0, 0.2, 1.4):
        x = torch.tensor([[point]], dtype=torch.float64)
        m = path.moments(x0, x1, t.expand(3))
        eps = (x - m.mu)[:, 0] / m.sigma
        r = torch.softmax(-(eps**2) / 2, 0)
        lam = 2 * math.sqrt(0.3 * 0.7) / SIGMA
        wanted = SIGMA**2 / 2 * marginal_score(path, x0, x1, t, x).item()
        assert -(r * eps).sum().item() / lam == pytest.approx(wanted, rel=1e-10)


def test_wrong_arguments_are_refused() -> None:
    x = torch.ones(3, 2, dtype=torch.float64)
    t = torch.full((3,), 0.5, dtype=torch.float64)
    still: Field = lambda t, x: 0 * x  # noqa: E731
    for w in (-1.0, math.nan, math.inf, lambda t: -t):
        for make in (forward_drift, reverse_drift):
            with pytest.raises(InputError, match="w must be finite and not negative"):
                make(still, still, w)(t[0], x)
        with pytest.raises(InputError, match="w must be finite and not negative"):
            diffusion(w)(0.5)
    for convert in (score_from_velocity, velocity_from_score):
        for path in (Linear(), BrownianBridge(), Trigonometric()):
            with pytest.raises(InputError, match="depends on x0"):
                convert(path, t, x, x)
        with pytest.raises(InputError, match="velocity or score must have the shape of x"):
            convert(GaussianOT(), t, x, x[:1])
        with pytest.raises(InputError, match="one time for each point"):
            convert(GaussianOT(), t[:1], x, x)
    with pytest.raises(InputError, match="sigma_t is 0"):
        score_from_velocity(GaussianOT(0.0), 2 * t, x, x)
    with pytest.raises(InputError, match="alpha_t is 0"):
        velocity_from_score(GaussianOT(), 0 * t, x, x)
