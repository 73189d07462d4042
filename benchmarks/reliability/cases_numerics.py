"""Cases 13 to 19: distances, plans, paths, solvers and what is learned."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from benchmarks.reliability.common import Case, Result, both, course, refusal
from torch import Tensor

import thalweg as tw
from thalweg.core import couplings, paths
from thalweg.core.dynamics import ode
from thalweg.core.ot import entropic as entropic_ot


def clouds(n: int = 200, d: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two float32 clouds, two standard deviations apart."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g), torch.randn(n, d, generator=g) + 2 / math.sqrt(d)


def pairs(plan: couplings.Plan) -> dict[int, int]:
    return dict(zip(plan.rows.tolist(), plan.cols.tolist(), strict=True))


def kept(a: dict[int, int], b: dict[int, int]) -> float:
    return float(np.mean([b.get(k) == v for k, v in a.items()]))


def shifted() -> Result:
    x, y = clouds()
    # The AnnData holds what float32 leaves of a shifted coordinate; nothing more can be asked than its plan.
    far = [(v.double() + 1e4).float() for v in (x, y)]
    near = [(v.double() - 1e4).float() for v in far]
    share = kept(pairs(couplings.exact(*near)), pairs(couplings.exact(*far)))
    whole = kept(pairs(couplings.exact(x, y)), pairs(couplings.exact(*far)))
    w2 = [tw.metrics.wasserstein(*v, p=2) for v in ((x, y), far)]
    change = abs(w2[1] / w2[0] - 1)
    return share >= 0.99 and whole >= 0.99 and change <= 1e-4, f"{whole:.1%} of pairs kept, W2 changes by {change:.1e}"


def scaled() -> Result:
    x, y = clouds()

    def dense(scale: float) -> Tensor:
        plan = couplings.entropic(x * scale, y * scale, reg_relative=0.05)
        out = torch.zeros(plan.shape, dtype=torch.float64)
        out[plan.rows, plan.cols] = plan.mass
        return out

    reference = dense(1.0)
    worst = max(float((dense(s) - reference).abs().sum()) for s in (1e-4, 1e4))
    hard = {"epsilon": 1e-4, "max_iterations": 1}
    said = refusal(lambda: entropic_ot.solve_entropic(x, y, **hard), "marginal error", "Raise epsilon")
    return both((worst <= 2e-3, f"entropic plans differ by {worst:.1e} of their mass"), said)


def permuted() -> Result:
    x, y = clouds()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    mixed = pairs(couplings.exact(x[order], y))
    share = kept(pairs(couplings.exact(x, y)), {int(order[i]): j for i, j in mixed.items()})
    w2 = tw.metrics.wasserstein(x, y, p=2)
    twice = tw.metrics.wasserstein(torch.cat([x, x]), torch.cat([y, y, y]), p=2)
    return share == 1.0 and abs(
        twice / w2 - 1
    ) < 1e-9, f"{share:.0%} of pairs kept; duplicated, W2 is {twice / w2:.12f} of it"


def identical() -> Result:
    adata = course()
    adata.obsm["X_pca"][:] = 7.0
    config = tw.tl.FitConfig(max_steps=600, batch_size=64, width=16, depth=2, sigma=0.0)
    tw.tl.fit(adata, "time", method="otcfm", rng=0, config=config)
    tw.tl.velocity(adata)
    loss = float(adata.uns["thalweg"]["history"]["loss"].iloc[-1])
    speed = float(np.abs(adata.obsm["velocity_X_pca"]).max())
    plan = couplings.exact(torch.full((30, 3), 7.0), torch.full((30, 3), 7.0))
    finite = bool(torch.isfinite(plan.mass).all())
    return (
        finite and loss < 1e-4 and speed < 1e-2,
        f"largest learned velocity {speed:.1e}, last loss {loss:.1e}, no NaN",
    )


def ends() -> Result:
    g = torch.Generator().manual_seed(0)
    x0, x1, eps = (torch.randn(50, 3, generator=g, dtype=torch.float64) for _ in range(3))
    kinds = {
        "linear": paths.Linear(0.0),
        "trigonometric": paths.Trigonometric(),
        "bridge": paths.BrownianBridge(0.7),
        "noise OT": paths.GaussianOT(),
        "noise VP": paths.VPDiffusion(),
    }
    worst_end, worst_slope = 0.0, 0.0
    for name, path in kinds.items():
        for t, end in ((torch.zeros(50), x0), (torch.ones(50), x1)):
            batch = path.at(x0, x1, t.double(), eps)
            if not bool(torch.isfinite(batch.x_t).all() and torch.isfinite(batch.u_t).all()):
                return False, f"{name}: not finite at t = {float(t[0]):g}"
            if not name.startswith("noise"):
                worst_end = max(worst_end, float((batch.x_t - end).abs().max()))
        t = torch.linspace(*path.t_range, 52, dtype=torch.float64)[1:-1].requires_grad_()
        batch = path.at(x0, x1, t, eps)
        for k in range(3):
            (slope,) = torch.autograd.grad(batch.x_t[:, k].sum(), t, retain_graph=True)
            worst_slope = max(worst_slope, float(((slope - batch.u_t[:, k].detach()) / (1 + slope.abs())).abs().max()))
    passed = worst_end <= 1e-12 and worst_slope <= 1e-8
    return passed, f"{len(kinds)} paths: ends to {worst_end:.1e}, u_t = dx_t/dt to {worst_slope:.1e}"


def orders() -> Result:
    a = torch.tensor([[-0.3, 1.0], [-1.0, -0.2]], dtype=torch.float64)
    x = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    exact = x @ torch.linalg.matrix_exp(2 * a).T
    found, good = [], True
    for method, order in (("euler", 1), ("midpoint", 2), ("rk4", 4)):
        steps = (20, 40, 80)
        errors = [
            float((ode.odeint(lambda t, v: v @ a.T, x, [0.0, 2.0], method=method, n_steps=n)[-1] - exact).norm())
            for n in steps
        ]
        slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
        good &= abs(slope - order) <= 0.2
        found.append(f"{method} {slope:.2f}")
    slope = _weak_order()
    good &= abs(slope - 1) <= 0.2
    start = x.clone().requires_grad_()
    end = ode.odeint(lambda t, v: v @ a.T, start, [0.0, 2.0], rtol=1e-10, atol=1e-10)[-1]
    (gradient,) = torch.autograd.grad(end.sum(), start)
    error = float((gradient - torch.linalg.matrix_exp(2 * a).sum(0)).abs().max())
    return good and error <= 1e-6, f"orders {', '.join(found)}, SDE {slope:.2f}; gradient to {error:.0e}"


def _weak_order() -> float:
    """Order of the variance of an OU process, dX = -X dt + dW from 0, whose variance is (1 - exp(-2t)) / 2."""
    steps, errors = (4, 8, 16), []
    for n in steps:
        g = torch.Generator().manual_seed(n)
        zero = torch.zeros(400_000, 1, dtype=torch.float64)
        end = ode.sdeint(lambda t, v: -v, 1.0, zero, [0.0, 1.0], g, n_steps=n)[-1]
        errors.append(abs(float(end.var()) - (1 - math.exp(-2)) / 2))
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


def gaussian() -> Result:
    errors = [_gaussian_error(seed) for seed in range(3)]  # the tolerance is a tenth of the distance moved
    return max(errors) <= 0.2, f"W2 to the target's moments {', '.join(f'{e:.3f}' for e in errors)} (tolerance 0.2)"


def _gaussian_error(seed: int) -> float:
    """Bures distance between the moments of the pushed cells and of the target cells, sd about 1."""
    rng = np.random.default_rng(seed)
    adata = course((0.0, 1.0), n=1000, dims=2, seed=seed)
    turn = np.array([[1.5, 0.4], [0.0, 0.6]])
    late = adata.obs["time"].to_numpy() == 1.0
    adata.obsm["X_pca"][late] = (rng.standard_normal((1000, 2)) @ turn.T + [2, -1]).astype(np.float32)
    config = tw.tl.FitConfig(max_steps=800, batch_size=256, width=32, depth=2, sigma=0.0)
    tw.tl.fit(adata, "time", method="otcfm", rng=seed, config=config)
    pushed = tw.tl.interpolate(adata, 1.0, source_time=0.0).obsm["X_pca"]
    return bures(pushed, adata.obsm["X_pca"][late])


def bures(x: Any, y: Any) -> float:
    """W2 between the Gaussians with the moments of two clouds."""
    x, y = (np.asarray(v, dtype=np.float64) for v in (x, y))
    cx, cy = np.cov(x.T), np.cov(y.T)
    cross = np.sqrt(np.maximum(np.linalg.eigvals(cx @ cy).real, 0)).sum()
    squared = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx) + np.trace(cy) - 2 * cross
    return float(np.sqrt(max(squared, 0.0)))


CASES: dict[int, tuple[str, Case]] = {
    13: ("coordinates shifted by 1e4", shifted),
    14: ("scaled by 1e-4 and 1e4", scaled),
    15: ("permuted; every cell duplicated", permuted),
    16: ("all points identical", identical),
    17: ("path end points and derivatives", ends),
    18: ("linear ODE, OU process", orders),
    19: ("Gaussian to Gaussian, three seeds", gaussian),
}
