"""One bad value among good ones, or the first beyond a bound, is refused; the last good one is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from thalweg.core import (
    action,
    contrastive,
    couplings,
    dispersive,
    distances,
    fields,
    manifolds,
    maps,
    objectives,
    paths,
)
from thalweg.core.dynamics import likelihood, marginal, ode, sde
from thalweg.core.fields import features
from thalweg.core.ot import entropic as entropic_ot
from thalweg.errors import InputError, MemoryBudgetError, NotConvergedError

N = 5
SPHERE, TORUS = manifolds.Sphere(), manifolds.Torus()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def points(d: int = 2) -> Tensor:
    return torch.randn(N, d, generator=generator(), dtype=torch.float64)


def times() -> Tensor:
    return torch.linspace(0.2, 0.8, N, dtype=torch.float64)


def one(value: float, like: Tensor) -> Tensor:
    """``like`` with a bad value in the middle."""
    out = like.clone()
    out.view(-1)[out.numel() // 2] = value
    return out


def batch(**changes: Any) -> paths.Batch:
    x = points()
    values = {"t": times(), "x_t": x, "u_t": x, "x0": x, "x1": x + 1, "eps": x, "sigma_t": times()} | changes
    return paths.Batch(**values)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def potential() -> action.Potential:
    return fields.build(lambda: action.Potential(fields.MLP(2, out_dim=1, width=4).double()), generator())


def mean_negative(labels: list[int]) -> contrastive.MeanNegative:
    mean = contrastive.MeanNegative("other_condition")
    mean.update(batch(condition=torch.tensor(labels)))
    return mean


Call = Callable[[], object]
REFUSED: dict[str, tuple[Call, str]] = {
    "times beyond one": (lambda: paths.check_pair(points(), points(), one(1 + 1e-9, times())), "t must lie"),
    "times of a query": (lambda: marginal.check_points(one(-1e-9, times()), points()), "lie in"),
    "a query without axes": (lambda: marginal.check_points(times(), points()[:, 0]), "x must be"),
    "weights of a marginal": (
        lambda: marginal.marginal_velocity(paths.Linear(1.0), points(), points(), times(), points(), one(-1, times())),
        "weights",
    ),
    "nan weights of a marginal": (
        lambda: marginal.marginal_velocity(
            paths.Linear(1.0), points(), points(), times(), points(), one(math.nan, times())
        ),
        "weights",
    ),
    "a marginal without noise at one time": (
        lambda: marginal.marginal_velocity(paths.GaussianOT(0.0), points(), points(), one(1.0, times()), points()),
        "sigma",
    ),
    "sigma of a map": (
        lambda: maps.GaussianMap(lambda x0, x1, t: x0 * t[:, None], lambda x0, x1, t: t - 0.5).moments(
            points(), points(), times()
        ),
        "sigma must not be negative",
    ),
    "sigma of action matching": (lambda: _action(sigma=one(-1e-3, times())), "sigma must be finite"),
    "infinite sigma of action matching": (lambda: _action(sigma=one(math.inf, times())), "sigma must be finite"),
    "one sigma too many": (lambda: _action(sigma=torch.ones(N + 1)), "sigma must be finite"),
    "ends of another shape": (lambda: _action(x1=points(3)), "one shape"),
    "times of another shape": (lambda: _action(t=times()[:2]), "one shape"),
    "two weights": (lambda: _action(weights=(times(), times())), "three tensors"),
    "weights of another shape": (lambda: _action(weights=(times(), times(), times()[:2])), "three tensors"),
    "a negative label": (lambda: mean_negative([0, 1, -1, 0, 1]), "integer labels"),
    "a label never seen": (lambda: _mean([0, 1, 0, 1, 0], [0, 2, 1, 0, 1]), "seen by update"),
    "a label without samples": (lambda: _mean([0, 2, 0, 2, 0], [0, 1, 2, 0, 2]), "seen by update"),
    "the only label": (lambda: _mean([1, 1, 1, 1, 1], [1, 1, 1, 1, 1]), "two or more"),
    "no label": (lambda: mean_negative([0, 1, 0, 1, 0])(times(), points()), "found None"),
    "a time outside a restricted view": (
        lambda: contrastive.paired_views(
            paths.BrownianBridge(), points(), points(), one(0.001, times()), generator(), noise="restricted"
        ),
        "inside path.t_range",
    ),
    "a contrastive weight of one": (lambda: objectives.Contrastive(1.0), r"\[0, 1\)"),
    "a negative contrastive weight": (lambda: objectives.Contrastive(-1e-9), r"\[0, 1\)"),
    "unknown negatives": (lambda: objectives.Contrastive(negatives="some"), "negatives must be one of"),
    "a dispersive weight of zero": (lambda: objectives.Dispersive(0.0), "dispersive weight must be positive"),
    "an infinite dispersive weight": (lambda: objectives.Dispersive(math.inf), "dispersive weight must be positive"),
    "a temperature of zero": (lambda: objectives.Dispersive(tau=0.0), "dispersive tau must be positive"),
    "a margin of zero": (lambda: objectives.Dispersive(margin=0.0), "dispersive margin must be positive"),
    "an unknown kind": (lambda: objectives.Dispersive(kind="loss"), "dispersive kind must be one of"),
    "a group of one row": (lambda: objectives.Dispersive(group=1), "at least 2 rows"),
    "one feature that is not finite": (lambda: dispersive.feature_stats(one(math.nan, points())), "finite"),
    "a point off the sphere": (lambda: SPHERE.dist(one(3.0, unit(points())), unit(points())), "1 of 5|1 row|in 1"),
    "a point off the torus": (lambda: TORUS.dist(one(7.0, points().remainder(6)), points().remainder(6)), "."),
    "a pair of opposite points": (
        lambda: SPHERE.log(unit(points()), torch.cat([unit(points())[:4], -unit(points())[4:]])),
        "1 of 5 pairs are opposite",
    ),
    "a vector off the tangent space": (
        lambda: SPHERE.exp(unit(points()), torch.cat([torch.zeros(4, 2).double(), unit(points())[4:] * 2e-4])),
        "tangent space at `x` in 1 rows",
    ),
    "a cost that is not finite": (lambda: couplings.exact(one(math.nan, points()), points()), "NaN or infinity in 1"),
    "an infinite point of a plan": (lambda: couplings.entropic(one(math.inf, points()), points(), reg=1.0), "x"),
    "a point of a plan": (lambda: couplings.entropic(points(), one(math.nan, points()), reg=1.0), "y"),
    "a weight of a plan": (lambda: couplings.entropic(points(), points(), reg=1.0, a=one(-1, times())), "a"),
    "masses that differ": (
        lambda: entropic_ot.solve_entropic(points(), points(), a=times(), b=times() * (1 + 1.1e-5), epsilon=1.0),
        "sum",
    ),
    "a point of a distance": (lambda: distances.energy(one(math.nan, points()).numpy(), points().numpy()), "finite"),
    "a weight of a distance": (
        lambda: distances.energy(points().numpy(), points().numpy(), b=one(-1e-12, times()).numpy()),
        "weights of y",
    ),
    "weights without mass": (
        lambda: distances.energy(points().numpy(), points().numpy(), a=np.zeros(N)),
        "weights of x",
    ),
    "a width of zero": (lambda: distances.mmd(points().numpy(), points().numpy(), bandwidth=0.0), "bandwidth"),
    "times that stand still": (lambda: _solve([0.0, 0.5, 0.5, 1.0]), "strictly monotone"),
    "times that turn": (lambda: _solve([0.0, 0.5, 0.4]), "strictly monotone"),
    "a single time": (lambda: _solve([0.0]), "strictly monotone"),
    "no step": (lambda: _solve([0.0, 1.0], n_steps=0), "at least 1"),
    "an unknown solver": (lambda: _solve([0.0, 1.0], method="magic"), "magic"),
    "negative noise": (lambda: sde.diffusion(-1e-9)(0.0), "noise|negative"),
    "a score at the end of a path": (
        lambda: sde.score_from_velocity(paths.GaussianOT(0.0), one(1.0, times()), points(), points()),
        "sigma|noise",
    ),
    "a velocity at the start of a path": (
        lambda: sde.velocity_from_score(paths.GaussianOT(), one(0.0, times()), points(), points()),
        "alpha|t = 0|start|signal",
    ),
    "no dimension": (lambda: likelihood.bits_per_dim(times(), 0), "at least 1|positive|>= 1|d must"),
    "no draw": (
        lambda: likelihood.importance_bits(lambda x: x.sum(1), torch.zeros(2, 3, dtype=torch.uint8), 0, generator()),
        "k",
    ),
    "no depth": (lambda: features.block_at(fields.MLP(2), 0.0), r"\(0, 1\]"),
    "more than the depth": (lambda: features.block_at(fields.MLP(2), 1.0 + 1e-9), r"\(0, 1\]"),
}


def _zero(t: Tensor, x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def _action(sigma: Any = 0.0, weights: Any = None, **changes: Any) -> object:
    return action.action(potential(), batch(**changes), sigma=sigma, weights=weights, generator=generator())


def _mean(seen: list[int], asked: list[int]) -> object:
    return mean_negative(seen)(times(), points(), torch.tensor(asked))


def _solve(at: list[float], method: str = "rk4", n_steps: int = 2) -> object:
    return ode.odeint(_zero, points(), at, method=method, n_steps=n_steps)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name):
    call, text = REFUSED[name]
    with pytest.raises(InputError, match=text):
        call()


def test_the_last_good_values_are_not_refused():
    """Each beside a bad one above."""
    paths.check_pair(points(), points(), one(1.0, one(0.0, times())))
    marginal.check_points(one(0.0, times()), points())
    weights = one(0.0, times())
    marginal.marginal_velocity(paths.Linear(1.0), points(), points(), times(), points(), weights)
    maps.GaussianMap(lambda x0, x1, t: x0 * t[:, None], lambda x0, x1, t: t - 0.2).moments(points(), points(), times())
    _action(sigma=one(0.0, times()))
    _action(weights=(times(), times(), times()))
    assert _mean([0, 1, 2, 0, 1], [2, 2, 0, 1, 0]).shape == (N, 2)
    bridge = paths.BrownianBridge()
    edge = one(bridge.t_range[0], one(bridge.t_range[1], times()))
    contrastive.paired_views(bridge, points(), points(), edge, generator(), noise="restricted")
    assert objectives.Contrastive(0.0).weight == 0
    assert objectives.Dispersive(group=2).group == 2
    assert objectives.Dispersive(group=None).group is None
    small = unit(points()).flip(1) * torch.tensor([-1.0, 1.0]) * 0.9e-4  # tangent, and smaller than any tolerance
    SPHERE.exp(unit(points()), small + unit(points()) * 0.9e-4)
    _solve([1.0, 0.5, -3.0])
    _solve([0.0, 1.0], n_steps=1)
    entropic_ot.solve_entropic(points(), points(), a=times(), b=times() * (1 + 0.9e-5), epsilon=1.0)
    assert features.block_at(fields.MLP(2), 1.0)


def test_a_solution_of_which_one_value_is_infinite_is_refused():
    def field(t: Tensor, x: Tensor) -> Tensor:
        return torch.where(x > 1e3, x * 1e300 * 1e300, 0 * x)

    x = one(1e4, points())
    for method in ("euler", "dopri5"):
        with pytest.raises(NotConvergedError, match="diverges"):
            ode.odeint(field, x, [0.0, 1.0], method=method, n_steps=3)
    assert torch.equal(ode.odeint(field, points(), [0.0, 1.0], method="euler", n_steps=3)[-1], points())


def test_a_plan_takes_as_much_memory_as_it_says_and_not_a_byte_more():
    x = torch.randn(40, 2, generator=generator(), dtype=torch.float64)
    options = {"epsilon": 50.0, "tol": 1e-5}  # wide: every entry counts, float64
    entropic_ot.solve_entropic(x, x + 1, max_memory=40 * 40 * 8, **options)
    with pytest.raises(MemoryBudgetError, match=r"40 rows x 40 columns x 8 bytes = 12800 bytes"):
        entropic_ot.solve_entropic(x, x + 1, max_memory=40 * 40 * 8 - 1, **options)


def test_options_reach_the_loss():
    """Every field of `Dispersive` changes it; the loss is the one of the module, times its weight."""
    z = torch.randn(12, 6, generator=generator(), dtype=torch.float64)
    defaults = objectives.Dispersive()
    assert (defaults.weight, defaults.kind, defaults.tau, defaults.margin) == (0.5, "infonce_l2", 0.5, 1.0)
    assert (defaults.normalize, defaults.group, defaults.block) == (False, 64, 0.25)
    assert (objectives.Contrastive().weight, objectives.Contrastive().negatives) == (0.05, "any")
    assert objectives.Contrastive().undo is False
    for options in ({}, {"tau": 2.0}, {"normalize": True}, {"group": 4}, {"kind": "hinge", "margin": 3.0}):
        loss = objectives.Dispersive(0.25, **options).loss(z)
        arguments = {"tau": 0.5, "margin": 1.0, "normalize": False, "group": 64} | options
        kind = arguments.pop("kind", "infonce_l2")
        torch.testing.assert_close(loss, 0.25 * dispersive.dispersive(z, kind, **arguments))
        if options:
            assert not torch.isclose(loss, objectives.Dispersive(0.25).loss(z))


def test_feature_report_uses_the_first_rows_and_the_condition():
    net = fields.build(lambda: fields.MLP(2, width=8, n_conditions=3), generator())
    n = 1500
    x = torch.randn(n, 2, generator=generator())
    label = torch.randint(3, (n,), generator=generator())
    whole = paths.Batch(torch.rand(n, generator=generator()), x, x, x, x, x, torch.ones(n), label)
    option = objectives.Dispersive(block=1.0)
    report = objectives.feature_report(net, whole, option)
    with features.tap(net, option.block_of(net)) as tapped:
        net(whole.t[:1024], x[:1024], label[:1024])
    expected = dispersive.feature_stats(tapped.value)
    assert report == {"feature_norm": expected.mean_norm, "effective_rank": expected.effective_rank}
