"""Between Gaussians the field of least loss is affine and known: losses, paths and solvers together against it.

Expectations over ``x0 ~ N(M0, S0^2)``, ``x1 ~ N(M1, S1^2)`` and the noise are enumerated by Gauss-Hermite quadrature,
exact for the quadratic losses of an affine field, so that only the solver's error is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from thalweg.core import losses
from thalweg.core.dynamics.ode import odeint, sdeint
from thalweg.core.dynamics.sde import velocity_from_score
from thalweg.core.maps import GaussianMap
from thalweg.core.paths import (
    Batch,
    BrownianBridge,
    GaussianOT,
    Linear,
    Path,
    Trigonometric,
    VPDiffusion,
    expand,
)

F64 = torch.float64
M0, S0, M1, S1, SIGMA = -1.0, 0.8, 2.0, 0.5, 0.9
Pairs = Literal["independent", "monotone", "entropic"]
#: Covariance of the ends. In one dimension the optimal transport plan is monotone; the entropic one, of regularisation
#: 2 SIGMA^2, is that of the Schrödinger bridge (Janati et al. 2020, theorem 1).
CROSS = {
    "independent": 0.0,
    "monotone": S0 * S1,
    "entropic": 0.5 * (math.sqrt(4 * S0**2 * S1**2 + SIGMA**4) - SIGMA**2),
}
Affine = tuple[float, float]
Loss = Callable[..., Tensor]


def least(path: Path, pairs: Pairs, t: float, loss: Loss = losses.velocity) -> Affine:
    """``a, b`` of the field ``a x + b`` that minimises the loss at one time: a Newton step of a quadratic."""
    z, w = np.polynomial.hermite_e.hermegauss(4)
    nodes = torch.cartesian_prod(*[torch.from_numpy(z)] * 3)
    weight = torch.cartesian_prod(*[torch.from_numpy(w / w.sum())] * 3).prod(1)
    along = CROSS[pairs] / S0
    x0 = M0 + S0 * nodes[:, :1]
    x1 = M1 + along * nodes[:, :1] + math.sqrt(S1**2 - along**2) * nodes[:, 1:2]
    batch = path.at(x0, x1, torch.full((64,), t, dtype=F64), nodes[:, 2:])
    theta = torch.zeros(2, dtype=F64, requires_grad=True)
    value = (weight * loss(lambda t, x, c: theta[0] * x + theta[1], batch)).sum()
    (grad,) = torch.autograd.grad(value, theta, create_graph=True)
    hessian = torch.stack([torch.autograd.grad(g, theta, retain_graph=True)[0] for g in grad])
    a, b = torch.linalg.solve(hessian, -grad.detach()).tolist()
    return a, b


def vp_alpha(t: float) -> float:
    return math.exp(-((1 - t) ** 2 * 19.9 / 2 + 0.1 * (1 - t)) / 2)


def straight_sd(t: float, pairs: Pairs, spread: float) -> float:
    """Of ``(1-t) x0 + t x1`` plus noise of variance ``spread``."""
    return math.sqrt((1 - t) ** 2 * S0**2 + t**2 * S1**2 + 2 * t * (1 - t) * CROSS[pairs] + spread)


# Row of the table: path, pairs, and mean and standard deviation of x_t.
Law = Callable[[float], tuple[float, float]]
FLOWS: dict[str, tuple[Path, Pairs, Law]] = {
    "icfm": (
        Linear(0.3),
        "independent",
        lambda t: ((1 - t) * M0 + t * M1, straight_sd(t, "independent", 0.09)),
    ),
    "otcfm": (
        Linear(0.1),
        "monotone",
        lambda t: ((1 - t) * M0 + t * M1, straight_sd(t, "monotone", 0.01)),
    ),
    "sbcfm": (
        BrownianBridge(SIGMA),
        "entropic",
        lambda t: ((1 - t) * M0 + t * M1, straight_sd(t, "entropic", SIGMA**2 * t * (1 - t))),
    ),
    "vpcfm": (
        Trigonometric(),
        "independent",
        lambda t: (
            math.cos(math.pi * t / 2) * M0 + math.sin(math.pi * t / 2) * M1,
            math.hypot(math.cos(math.pi * t / 2) * S0, math.sin(math.pi * t / 2) * S1),
        ),
    ),
    "fm": (GaussianOT(0.01), "independent", lambda t: (t * M1, math.hypot(t * S1, 1 - 0.99 * t))),
    "fm_vp": (
        VPDiffusion(),
        "independent",
        lambda t: (vp_alpha(t) * M1, math.sqrt(vp_alpha(t) ** 2 * S1**2 + 1 - vp_alpha(t) ** 2)),
    ),
    "gaussian_map": (
        GaussianMap(lambda x0, x1, t: expand(t**2, x1) * x1, lambda x0, x1, t: torch.exp(-t)),
        "independent",
        lambda t: (t**2 * M1, math.hypot(t**2 * S1, math.exp(-t))),
    ),
}


@pytest.mark.parametrize("row", FLOWS)
def test_flow_of_the_field_of_least_loss_reaches_the_target(row: str, proof: Callable[..., None]) -> None:
    """W2 between the law reached and the known one: both are Gaussian, and an affine flow is known from two points."""
    path, pairs, law = FLOWS[row]
    start, end = path.t_range

    def field(t: Tensor, x: Tensor) -> Tensor:
        a, b = least(path, pairs, t.item())
        return a * x + b

    (mean, sd), (wanted_mean, wanted_sd) = law(start), law(end)
    x = torch.tensor([[mean - sd], [mean + sd]], dtype=F64)
    low, high = odeint(field, x, (start, end), rtol=1e-8, atol=1e-8)[-1][:, 0].tolist()
    proof(row, math.hypot((low + high) / 2 - wanted_mean, (high - low) / 2 - wanted_sd), 1e-7)


def test_flow_of_optimal_pairs_is_the_optimal_map_at_constant_speed(proof: Callable[..., None]) -> None:
    """Without noise: ``x_t = (1-t) x + t T(x)``, ``T`` the monotone map, at every time."""
    x = torch.linspace(-3, 1, 9, dtype=F64)[:, None]
    target = M1 + S1 / S0 * (x - M0)

    def field(t: Tensor, y: Tensor) -> Tensor:
        a, b = least(Linear(), "monotone", t.item())
        return a * y + b

    times = (0.0, 0.3, 0.8, 1.0)
    states = odeint(field, x, times, rtol=1e-8, atol=1e-8)
    wanted = torch.stack([(1 - t) * x + t * target for t in times])
    proof("otcfm", (states - wanted).abs().max(), 1e-9)


@pytest.mark.parametrize("t", [0.2, 0.5, 0.8, 0.99])
def test_score_and_flow_matching_learn_one_field_on_the_vp_path(t: float, proof: Callable[..., None]) -> None:
    """The score of least loss is that of N(alpha M1, alpha^2 S1^2 + sigma^2); as a velocity it has least FM loss."""
    path, alpha = VPDiffusion(), vp_alpha(t)
    variance = alpha**2 * S1**2 + 1 - alpha**2
    slope, offset = least(path, "independent", t, losses.score)
    proof("score_vp", max(abs(slope + 1 / variance), abs(offset - alpha * M1 / variance)), 1e-9)
    x = torch.linspace(-3, 3, 7, dtype=F64)[:, None]
    velocity = velocity_from_score(path, torch.full((7,), t, dtype=F64), x, slope * x + offset)
    a, b = least(path, "independent", t)
    proof("score_vp", (velocity - a * x - b).abs().max(), 1e-9)


def bridge_drifts(t: float) -> tuple[Affine, Affine]:
    """Velocity and the [SF]2M term ``(SIGMA^2/2) score`` of least loss."""
    path = BrownianBridge(SIGMA, clip=1e-6)

    def scaled_score(model: losses.Model, batch: Batch) -> Tensor:
        return losses.score(model, batch, scale=2 / SIGMA**2)

    return least(path, "entropic", t), least(path, "entropic", t, scaled_score)


def test_ode_and_sdes_of_the_bridge_agree_in_distribution(proof: Callable[..., None]) -> None:
    """Moments of v, of v + s with diffusion, and of v - s backwards, at every tested time, against the closed form.

    In units of four standard errors of 40,000 samples and the first-order error of the scheme, about .03.
    """
    n, steps, times = 40_000, 100, (0.0, 0.25, 0.5, 0.75, 1.0)
    law = FLOWS["sbcfm"][2]
    noise = torch.randn(n, 1, generator=torch.Generator().manual_seed(4), dtype=F64)

    def drift(sign: int) -> Callable[[Tensor, Tensor], Tensor]:
        def at(t: Tensor, x: Tensor) -> Tensor:
            inside = min(max(t.item(), 1e-6), 1 - 1e-6)  # at the ends of the bridge itself the noise is gone
            (a, b), (c, d) = bridge_drifts(inside)
            return (a + sign * c) * x + b + sign * d

        return at

    def start(t: float) -> Tensor:
        mean, sd = law(t)
        return mean + sd * noise

    g, share = torch.Generator().manual_seed(5), steps // 4
    runs = {
        "ode": odeint(drift(0), start(0), times, rtol=1e-6, atol=1e-6),
        "forwards": sdeint(drift(1), SIGMA, start(0), times, g, n_steps=share),
        "backwards": sdeint(drift(-1), SIGMA, start(1), times[::-1], g, n_steps=share).flip(0),
    }
    error = 0.0
    for states in runs.values():
        for t, x in zip(times, states[..., 0], strict=True):
            mean, sd = law(t)
            scale = 4 / math.sqrt(n) + 1 / steps
            error = max(error, abs(x.mean().item() - mean) / sd / scale, abs(x.std().item() / sd - 1) / scale)
    proof("sf2m", error, 1.0)
    middle = [runs[k][2, :, 0].sort().values for k in ("ode", "forwards", "backwards")]
    for other in middle[1:]:  # Kolmogorov-Smirnov of two samples at the level 1e-3
        pooled = torch.cat([middle[0], other])
        ranks = [torch.searchsorted(m, pooled, right=True) / n for m in (middle[0], other)]
        proof("sf2m", (ranks[0] - ranks[1]).abs().max(), 1.95 * math.sqrt(2 / n))
