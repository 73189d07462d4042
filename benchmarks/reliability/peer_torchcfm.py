"""Cases of torchcfm: plans, pairs, paths and training. It has no time column, no AnnData and no checkpoints."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from benchmarks.reliability import peer_common as common
from torchcfm.conditional_flow_matching import (
    ConditionalFlowMatcher,
    ExactOptimalTransportConditionalFlowMatcher,
    SchrodingerBridgeConditionalFlowMatcher,
    VariancePreservingConditionalFlowMatcher,
)
from torchcfm.models import MLP
from torchcfm.optimal_transport import OTPlanSampler, wasserstein

warnings.simplefilter("ignore")
SETTINGS = {"method": "exact", "sigma": 0.0, "optimizer": "Adam", "lr": 2e-3, "batch_size": 256, "width": 32}


def plan(x: Any, y: Any, **options: Any) -> Any:
    return OTPlanSampler(**({"method": SETTINGS["method"]} | options)).get_map(torch.as_tensor(x), torch.as_tensor(y))


def not_finite() -> common.Result:
    x, y = common.clouds()
    x[7, 2] = np.nan
    return common.refuses(lambda: plan(x, y), lambda p: f"plan of {len(np.unique(p))} different value(s)")


def shifted() -> common.Result:
    x, y = common.clouds()
    share = float((plan(x, y).argmax(1) == plan(x + np.float32(1e4), y + np.float32(1e4)).argmax(1)).mean())
    w2 = [wasserstein(*(torch.as_tensor(v + np.float32(s)) for v in (x, y))) for s in (0, 1e4)]
    change = abs(w2[1] / w2[0] - 1)
    return share >= 0.99 and change <= 1e-4, f"{share:.1%} of pairs kept, W2 changes by {change:.1e}"


def scaled() -> common.Result:
    """With its `normalize_cost`, which makes the regularisation relative; and a regularisation it cannot solve."""
    x, y = common.clouds()
    options = {"method": "sinkhorn", "normalize_cost": True}
    reference = plan(x, y, **options)
    worst = max(
        float(np.abs(plan(x * np.float32(s), y * np.float32(s), **options) - reference).sum()) for s in (1e-4, 1e4)
    )
    said = common.refuses(lambda: plan(x * 100, y * 100, method="sinkhorn"), lambda p: f"{len(np.unique(p))} value(s)")
    figure = f"normalised plans differ by {worst:.1e}; reg far below the cost: {said[1]}"
    return worst <= 2e-3 and said[0], figure


def permuted() -> common.Result:
    x, y = common.clouds()
    order = np.random.default_rng(1).permutation(len(x))
    share = float((plan(x, y)[order].argmax(1) == plan(x[order], y).argmax(1)).mean())
    w2 = wasserstein(torch.as_tensor(x), torch.as_tensor(y))
    change = abs(wasserstein(torch.as_tensor(np.r_[x, x]), torch.as_tensor(np.r_[y, y, y])) / w2 - 1)
    return share == 1 and change < 1e-5, f"{share:.0%} of pairs kept; of duplicated cells W2 differs by {change:.0e}"


def identical() -> common.Result:
    x = torch.full((64, 3), 7.0)
    _, x_t, u_t = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0).sample_location_and_conditional_flow(x, x)
    passed = bool((u_t == 0).all()) and bool(torch.isfinite(x_t).all())
    return passed, f"largest velocity {float(u_t.abs().max()):.1e}"


def ends() -> common.Result:
    torch.manual_seed(0)
    x0, x1, eps = torch.randn(3, 50, 3, dtype=torch.float64)
    worst_end, worst_slope = 0.0, 0.0
    kinds = (
        ConditionalFlowMatcher(sigma=0.0),
        SchrodingerBridgeConditionalFlowMatcher(sigma=0.7),
        VariancePreservingConditionalFlowMatcher(sigma=0.0),
    )
    for path in kinds:
        for t, end in ((torch.zeros(50).double(), x0), (torch.ones(50).double(), x1)):
            x_t = path.sample_xt(x0, x1, t, eps)
            u_t = path.compute_conditional_flow(x0, x1, t, x_t)
            if not bool(torch.isfinite(u_t).all()):
                return False, f"{type(path).__name__}: velocity not finite at t = {float(t[0]):g}"
            worst_end = max(worst_end, float((x_t - end).abs().max()))
        t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64).requires_grad_()
        x_t = path.sample_xt(x0, x1, t, eps)
        u_t = path.compute_conditional_flow(x0, x1, t, x_t)
        for k in range(3):
            (slope,) = torch.autograd.grad(x_t[:, k].sum(), t, retain_graph=True)
            worst_slope = max(worst_slope, float(((slope - u_t[:, k]) / (1 + slope.abs())).abs().max()))
    passed = worst_end <= 1e-12 and worst_slope <= 1e-8
    return passed, f"{len(kinds)} paths: ends to {worst_end:.1e}, u_t = dx_t/dt to {worst_slope:.1e}"


def train(
    seed: int, steps: int, x: Any, y: Any, batch: int = SETTINGS["batch_size"], width: int = SETTINGS["width"]
) -> MLP:
    """Its own tutorial loop."""
    torch.manual_seed(seed)
    model = MLP(dim=x.shape[1], time_varying=True, w=width)
    optimizer = torch.optim.Adam(model.parameters(), SETTINGS["lr"])
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=SETTINGS["sigma"])
    for _ in range(steps):
        i, j = torch.randint(len(x), (batch,)), torch.randint(len(y), (batch,))
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(torch.as_tensor(x)[i], torch.as_tensor(y)[j])
        loss = (model(torch.cat([x_t, t[:, None]], 1)) - u_t).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def gaussian() -> common.Result:
    from torchcfm.utils import torch_wrapper
    from torchdyn.core import NeuralODE

    errors = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((1000, 2)).astype(np.float32)
        y = (rng.standard_normal((1000, 2)) @ np.array([[1.5, 0.0], [0.4, 0.6]]) + [2, -1]).astype(np.float32)
        node = NeuralODE(torch_wrapper(train(seed, 800, x, y)), solver="dopri5", sensitivity="adjoint")
        with torch.no_grad():
            pushed = node.trajectory(torch.as_tensor(x), torch.linspace(0, 1, 2))[-1].numpy()
        errors.append(_bures(pushed, y))
    return max(errors) <= 0.2, f"W2 to the target's moments {', '.join(f'{e:.3f}' for e in errors)} (tolerance 0.2)"


def _bures(x: Any, y: Any) -> float:
    cx, cy = np.cov(x.T), np.cov(y.T)
    cross = np.sqrt(np.maximum(np.linalg.eigvals(cx @ cy).real, 0)).sum()
    return float(np.sqrt(max(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx) + np.trace(cy) - 2 * cross, 0)))


def same_seed() -> common.Result:
    x, y = common.clouds()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    weights = [torch.cat([p.flatten() for p in train(0, 20, x, y, 32, 8).parameters()]) for _ in range(2)]
    untouched = bool((before == np.random.get_state()[1]).all())  # noqa: NPY002
    equal = bool(torch.equal(*weights))
    return (
        equal and untouched,
        f"torch.manual_seed twice: equal to the bit: {equal}; numpy's generator untouched: {untouched}",
    )


def other_seed() -> common.Result:
    x, y = common.clouds()
    weights = [torch.cat([p.flatten() for p in train(s, 20, x, y, 32, 8).parameters()]) for s in (0, 1)]
    return not torch.equal(*weights), "weights differ"


def threads() -> common.Result:
    x, y = common.clouds(400, 20)
    out = []
    for n in (1, 2):
        torch.set_num_threads(n)
        np.random.seed(0)  # noqa: NPY002, the generator it draws from
        out.append(torch.cat([p.detach().flatten() for p in train(0, 60, x, y).parameters()]))
    worst = float((out[0] - out[1]).abs().max())
    return worst <= 1e-5, f"weights of 1 and 2 threads differ by {worst:.1e} (numpy's seed set by hand)"


CASES: dict[int, common.Case] = {
    9: not_finite,
    13: shifted,
    14: scaled,
    15: permuted,
    16: identical,
    17: ends,
    19: gaussian,
    20: same_seed,
    21: other_seed,
    22: threads,
}

if __name__ == "__main__":
    common.run("torchcfm", CASES, SETTINGS)
