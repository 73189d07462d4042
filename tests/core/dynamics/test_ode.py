from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from thalweg.core.dynamics import ode
from thalweg.core.dynamics.ode import ADAPTIVE, FIXED_STEP, Field, chunked, odeint, sdeint
from thalweg.errors import InputError, NotConvergedError

EVERY = FIXED_STEP + ADAPTIVE


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(n: int = 5) -> Tensor:
    return torch.linspace(0.5, 1.5, n, dtype=torch.float64)[:, None]


def logistic(t: Tensor, x: Tensor) -> Tensor:
    """``dx/dt = cos(t) x (1 - x/3)``: non-linear and dependent on time."""
    return torch.cos(t) * x * (1 - x / 3)


def logistic_solution(x0: Tensor, t: float, t0: float = 0.0) -> Tensor:
    growth = math.exp(math.sin(t) - math.sin(t0))
    return 3 * x0 * growth / (3 + x0 * (growth - 1))


def slope(steps: list[int], errors: list[float]) -> float:
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
@pytest.mark.parametrize("times", [(0.0, 2.0), (2.0, 0.0)])
def test_error_falls_with_the_order(method: str, order: int, times: tuple[float, float]) -> None:
    steps = [16, 32, 64, 128]
    exact = logistic_solution(start(), times[1], times[0])
    errors = [
        (odeint(logistic, start(), times, method=method, n_steps=n)[-1] - exact).abs().max().item() for n in steps
    ]
    assert slope(steps, errors) == pytest.approx(-order, abs=0.2)


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("times", [(0.0, 2.0), (2.0, 0.0)])
def test_adaptive_methods_reach_the_tolerance(method: str, times: tuple[float, float]) -> None:
    exact = logistic_solution(start(), times[1], times[0])
    for tol in (1e-3, 1e-5, 1e-7, 1e-9, 1e-11):
        end = odeint(logistic, start(), times, method=method, rtol=tol, atol=tol)[-1]
        assert (end - exact).abs().max().item() < 10 * tol


@pytest.mark.parametrize("method", ADAPTIVE)
def test_tight_tolerance_costs_what_a_fifth_order_method_costs(method: str) -> None:
    calls = {}
    for tol in (1e-6, 1e-11):
        counter = itertools.count()

        def counted(t: Tensor, x: Tensor, counter: itertools.count[int] = counter) -> Tensor:
            next(counter)
            return logistic(t, x)

        odeint(counted, start(), (0, 2), method=method, rtol=tol, atol=tol)
        calls[tol] = next(counter)
    assert calls[1e-11] / calls[1e-6] < 2 * 10 ** (5 / 5)  # steps of single precision would be rejected far more often


@pytest.mark.parametrize("method", EVERY)
def test_the_way_back_returns_to_the_start(method: str) -> None:
    there = odeint(logistic, start(), (0, 1.5), method=method, n_steps=200, rtol=1e-9, atol=1e-9)[-1]
    back = odeint(logistic, there, (1.5, 0), method=method, n_steps=200, rtol=1e-9, atol=1e-9)[-1]
    tol = {"euler": 2e-2, "midpoint": 1e-4}.get(method, 1e-7)
    torch.testing.assert_close(back, start(), rtol=0, atol=tol)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("times", [(0.0, 0.3, 1.0, 1.7), (1.7, 1.0, 0.3, 0.0)])
def test_several_times_equal_separate_solves(method: str, times: tuple[float, ...]) -> None:
    whole = odeint(logistic, start(), times, method=method, n_steps=10)
    assert whole.shape == (4, 5, 1)
    x = start()
    for k, span in enumerate(itertools.pairwise(times)):
        assert torch.equal(whole[k], x)
        x = odeint(logistic, x, span, method=method, n_steps=10)[-1]
    assert torch.equal(whole[-1], x)


@pytest.mark.parametrize("method", ["rk4", "dopri5", "tsit5"])
def test_gradients_of_a_linear_ode(method: str) -> None:
    """``dx/dt = A x + b``: value and gradients in A, b and x against the matrix exponential."""
    g = generator()
    a, b, x = (torch.randn(*s, generator=g, dtype=torch.float64).requires_grad_() for s in ((3, 3), (3,), (4, 3)))
    weight = torch.randn(4, 3, generator=g, dtype=torch.float64)
    options = {"method": method, "n_steps": 200, "rtol": 1e-9, "atol": 1e-9}
    end = odeint(lambda t, y: y @ a.T + b, x, (0, 1.3), **options)[-1]  # type: ignore[arg-type]
    whole = torch.cat([torch.cat([a, b[:, None]], 1), a.new_zeros(1, 4)])
    exact = (torch.cat([x, x.new_ones(4, 1)], 1) @ torch.matrix_exp(1.3 * whole).T)[:, :3]
    torch.testing.assert_close(end, exact, rtol=1e-7, atol=1e-7)
    found = torch.autograd.grad((end * weight).sum(), (a, b, x))
    wanted = torch.autograd.grad((exact * weight).sum(), (a, b, x))
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, w, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", EVERY)
def test_gradients_are_finite_for_a_field_that_stands_still(method: str) -> None:
    x, speed = torch.zeros(3, 2, requires_grad=True), torch.zeros((), requires_grad=True)
    end = odeint(lambda t, y: speed * torch.ones_like(y), x, (0, 2), method=method, n_steps=5)[-1]
    dx, dspeed = torch.autograd.grad(end.sum(), (x, speed))
    assert torch.equal(dx, torch.ones(3, 2))
    assert dspeed.item() == pytest.approx(12, rel=1e-5)  # 6 entries, each speed * 2


@pytest.mark.parametrize("method", EVERY)
def test_precision_and_shape_of_the_state_are_kept(method: str) -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.ones(2, 3, 4, dtype=dtype)
        seen = []

        def field(t: Tensor, y: Tensor, seen: list[tuple[torch.Size, torch.dtype]] = seen) -> Tensor:
            seen.append((t.shape, t.dtype))
            return -y

        out = odeint(field, x, (0, 1), method=method, n_steps=50, rtol=1e-6, atol=1e-6)
        assert out.dtype == dtype
        torch.testing.assert_close(out[-1], math.exp(-1) * x, rtol=2e-2 if method == "euler" else 1e-4, atol=0)
        assert set(seen) == {(torch.Size([]), dtype)}


@pytest.mark.parametrize("method", FIXED_STEP)
def test_chunks_equal_the_whole(method: str) -> None:
    x = torch.rand(23, 2, generator=generator(), dtype=torch.float64)

    def push(block: Tensor) -> Tensor:
        return odeint(logistic, block, (0, 0.5, 1), method=method, n_steps=8)

    whole = push(x)
    for rows in (1, 7, 23, 100):
        assert torch.equal(chunked(push, x, rows, axis=1), whole)
    assert torch.equal(chunked(torch.sin, x, 4), torch.sin(x))
    with pytest.raises(InputError, match="rows must be at least 1, found 0"):
        chunked(push, x, 0)


def ou(theta: float, mean: float) -> Field:
    return lambda t, x: theta * (mean - x)


def test_ornstein_uhlenbeck_has_the_exact_law_of_its_scheme_and_the_limit() -> None:
    n, theta, mean, g, steps, end = 100_000, 1.5, 2.0, 0.8, 64, 1.2
    x = torch.full((n, 1), -1.0, dtype=torch.float64)
    states = sdeint(ou(theta, mean), g, x, (0, end / 3, end), generator(), n_steps=steps)
    for k, t in ((1, end / 3), (2, end)):
        # Euler-Maruyama on a linear SDE: x_{j+1} - m = (1 - theta h)(x_j - m) + g sqrt(h) xi.
        m, v = -3.0, 0.0
        for span in itertools.pairwise((0, end / 3, end)[: k + 1]):
            h = (span[1] - span[0]) / steps
            for _ in range(steps):
                m, v = (1 - theta * h) * m, (1 - theta * h) ** 2 * v + g**2 * h
        assert states[k].mean().item() == pytest.approx(mean + m, abs=4 * math.sqrt(v / n))
        assert states[k].var().item() == pytest.approx(v, rel=4 * math.sqrt(2 / n))
        exact = g**2 * (1 - math.exp(-2 * theta * t)) / (2 * theta)
        assert states[k].mean().item() == pytest.approx(mean - 3 * math.exp(-theta * t), abs=0.03)
        assert states[k].var().item() == pytest.approx(exact, rel=0.03)


def test_euler_maruyama_weak_order_one() -> None:
    n, theta, end = 400_000, 1.0, 1.0
    exact_mean, exact_var = math.exp(-theta * end), (1 - math.exp(-2 * theta * end)) / (2 * theta)
    steps = [2, 4, 8, 16]
    mean_error, var_error = [], []
    for k in steps:
        x = sdeint(ou(theta, 0), 1.0, torch.ones(n, 1), (0, end), generator(k), n_steps=k)[-1].double()
        mean_error.append(abs(x.mean().item() - exact_mean))
        var_error.append(abs(x.var().item() - exact_var))
    assert slope(steps, var_error) == pytest.approx(-1, abs=0.2)
    assert slope(steps, mean_error) == pytest.approx(-1, abs=0.2)


def test_diffusion_may_depend_on_time_and_runs_backwards() -> None:
    n = 100_000
    x = torch.zeros(n, 1, dtype=torch.float64)
    for times in ((0.0, 1.0), (1.0, 0.0)):
        end = sdeint(lambda t, y: 2 + 0 * y, lambda t: 1 + t, x, times, generator(), n_steps=200)[-1]
        assert end.mean().item() == pytest.approx(2 * (times[1] - times[0]), abs=4 * math.sqrt(7 / 3 / n))
        assert end.var().item() == pytest.approx(7 / 3, rel=0.025)  # int_0^1 (1+t)^2 dt; the scheme sums at left ends


def test_sde_without_noise_is_euler() -> None:
    for times in ((0.0, 0.4, 2.0), (2.0, 0.4, 0.0)):
        a = sdeint(logistic, 0.0, start(), times, generator(), n_steps=20)
        torch.testing.assert_close(a, odeint(logistic, start(), times, method="euler", n_steps=20), rtol=0, atol=1e-13)


def test_sde_repeats_with_the_seed() -> None:
    runs = [sdeint(logistic, 0.5, start(), (0, 1), generator(s), n_steps=5)[-1] for s in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def solve_ode(times: object, **options: object) -> Callable[[], Tensor]:
    return lambda: odeint(logistic, start(), times, **options)  # type: ignore[arg-type]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="method='heun' is unknown; choose one of euler"):
        odeint(logistic, start(), (0, 1), method="heun")
    for times in ((0.0,), (), (0.0, 0.0), (0.0, 1.0, 0.5), (0.0, math.nan)):
        with pytest.raises(InputError, match="strictly monotone"):
            odeint(logistic, start(), times)
        with pytest.raises(InputError, match="strictly monotone"):
            sdeint(logistic, 1.0, start(), times, generator())
    for n in (0, -3):
        with pytest.raises(InputError, match=f"n_steps must be at least 1, found {n}"):
            odeint(logistic, start(), (0, 1), method="rk4", n_steps=n)
        with pytest.raises(InputError, match=f"n_steps must be at least 1, found {n}"):
            sdeint(logistic, 1.0, start(), (0, 1), generator(), n_steps=n)


@pytest.mark.parametrize("method", EVERY)
def test_a_solution_that_diverges_is_an_error(method: str) -> None:
    with pytest.raises(NotConvergedError, match="finite"):
        odeint(lambda t, x: x**2, start(), (0, 40), method=method)  # blows up at t = 1/x0
    with pytest.raises(NotConvergedError, match="finite"):
        odeint(lambda t, x: x * math.nan, start(), (0, 1), method=method)


def test_a_diverging_sde_is_an_error() -> None:
    with pytest.raises(NotConvergedError, match="n_steps=7"):
        sdeint(lambda t, x: x**3 * 1e9, 1.0, start(), (0, 1), generator(), n_steps=7)


QUIET = """
import warnings; warnings.simplefilter("error")
import random, numpy as np, torch
x = torch.ones(3, 2)
states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
from thalweg.core.dynamics.ode import odeint
before = list(warnings.filters)
for method in ("euler", "midpoint", "rk4", "dopri5", "tsit5"):
    for times in ((0, 1), (1, 0.5, 0)):
        odeint(lambda t, x: -x, x, times, method=method, n_steps=3)
assert torch.equal(states[0], torch.random.get_rng_state()), "torch generator"
assert (states[1] == np.random.get_state()[1]).all() and states[2] == random.getstate(), "other generators"
"""


def test_first_use_warns_of_nothing_and_leaves_the_global_generators() -> None:
    """In a process of its own, since importing torchdyn is part of the first call."""
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_global_generators_are_untouched() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    odeint(logistic, start(), (0, 1))
    sdeint(logistic, 1.0, start(), (0, 1), generator())
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert before[2] == random.getstate()


@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_field_that_changes_too_fast_is_given_up(method: str, monkeypatch) -> None:
    monkeypatch.setattr(ode, "MAX_STEPS", 50)
    x = torch.tensor([[1.0]], dtype=torch.float64)
    with pytest.raises(NotConvergedError, match=rf"{method} is .* of the way after 50 steps"):
        odeint(lambda t, y: 1e9 * torch.cos(1e9 * t) * torch.ones_like(y), x, [0.0, 1.0], method=method)
    assert torch.allclose(odeint(lambda t, y: -y, x, [0.0, 1.0], method=method)[-1], torch.exp(-x), atol=1e-3)


def test_memory_of_an_adaptive_method_does_not_grow_with_its_steps() -> None:
    """Hundreds of steps, and never more than a few states alive."""
    states, most = [], 0

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal most
        states.append(weakref.ref(y))
        most = max(most, sum(state() is not None for state in states))
        return 200 * torch.cos(200 * t) * torch.ones_like(y)

    with torch.no_grad():
        odeint(field, torch.zeros(1, 1, dtype=torch.float64), [0.0, 1.0], rtol=1e-8, atol=1e-8)
    assert len(states) > 500
    assert most < 20
