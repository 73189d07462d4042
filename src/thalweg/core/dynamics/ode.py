"""Integration of fields: ODEs through torchdyn, SDEs by Euler-Maruyama.

This module is the one place that knows torchdyn. Its steppers and its adaptive controller are used; the loop, time
reversal, the points to save and the number of rows in flight are handled here. A field is called ``field(t, x)`` with
``t`` a scalar tensor; a solution runs from ``t0`` to ``t1``, forwards or backwards.

Not guaranteed: with an adaptive method the error is controlled over all rows of a chunk together, so a row's value
depends, within the tolerance, on the rows it was integrated with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from thalweg.errors import InputError, NotConvergedError

Field = Callable[[Tensor, Tensor], Tensor]

FIXED_STEP = ("euler", "midpoint", "rk4")
ADAPTIVE = ("dopri5", "tsit5")
MAX_STEPS = 2000
"""Steps an adaptive method may try between two times; a fitted flow takes ten or so."""


def odeint(
    field: Field,
    x: Tensor,
    times: Sequence[float],
    *,
    method: str = "dopri5",
    n_steps: int = 100,
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> Tensor:
    """Integrate ``dx/dt = field(t, x)``.

    Parameters
    ----------
    field
        Right-hand side; receives a scalar tensor and the state.
    x
        State at ``times[0]``, shape ``(n, ...)``.
    times
        Two or more strictly monotone times.
    method
        ``"dopri5"`` or ``"tsit5"`` (adaptive), ``"euler"``, ``"midpoint"`` or ``"rk4"`` (fixed step).
    n_steps
        Steps between two successive times; fixed-step methods only.
    rtol, atol
        Tolerances; adaptive methods only.

    Returns
    -------
    States at ``times``, shape ``(len(times), n, ...)``; the first is ``x``.

    Raises
    ------
    InputError
        If ``method`` is unknown, ``times`` is not strictly monotone or ``n_steps`` is less than 1.
    NotConvergedError
        If the solution stops being finite, or an adaptive method tries `MAX_STEPS` steps between two times.
    """
    check_times(times)
    if method not in FIXED_STEP + ADAPTIVE:
        raise InputError(f"method={method!r} is unknown; choose one of {', '.join(FIXED_STEP + ADAPTIVE)}.")
    _check_n_steps(n_steps)
    step = _fixed if method in FIXED_STEP else _adaptive
    states = [x]
    for t0, t1 in pairwise(times):
        # Integrated in s in [0, 1]: torchdyn compares its running time with the end point exactly, and evaluates the
        # field at the wrong sign of t when a reversed span starts.
        length = t1 - t0

        def scaled(s: Tensor, y: Tensor, t0: float = t0, length: float = length) -> Tensor:
            return length * field((t0 + length * s).reshape(()), y)

        states.append(step(scaled, states[-1], method, n_steps, rtol, atol))
    out = torch.stack(states)
    if not bool(torch.isfinite(out[-1]).all()):
        raise NotConvergedError(f"the solution of {method} is not finite at t={times[-1]:g}; the field diverges.")
    return out


def check_times(times: Sequence[float]) -> None:
    """Refuse times that are fewer than two or not strictly monotone.

    Raises
    ------
    InputError
        If they are.
    """
    steps = [b - a for a, b in pairwise(times)]
    if len(times) < 2 or not (all(s > 0 for s in steps) or all(s < 0 for s in steps)):
        raise InputError(f"times must be two or more strictly monotone numbers, found {list(times)}.")


def _check_n_steps(n_steps: int) -> None:
    if n_steps < 1:
        raise InputError(f"n_steps must be at least 1, found {n_steps}.")


def _solver(method: str, dtype: torch.dtype) -> object:
    from torchdyn.numerics.solvers.ode import str_to_solver

    solver = str_to_solver(method, dtype)
    if method == "rk4":
        # torchdyn lists the nodes from the first stage, 0, but its step reads them from the second: each stage is then
        # evaluated at the time of the one before it, and the order falls to 1 for fields that depend on time.
        solver.tableau = (torch.tensor([0.5, 0.5, 1.0], dtype=dtype), *solver.tableau[1:])
    return solver


def _fixed(field: Field, x: Tensor, method: str, n_steps: int, rtol: float, atol: float) -> Tensor:
    solver = _solver(method, x.dtype)
    x, s = solver.sync_device_dtype(x, torch.linspace(0, 1, n_steps + 1, dtype=x.dtype, device=x.device))  # type: ignore[attr-defined]
    for k in range(n_steps):
        _, x, _ = solver.step(field, x, s[k], s[k + 1] - s[k])  # type: ignore[attr-defined]
    return x


def _adaptive(field: Field, x: Tensor, method: str, n_steps: int, rtol: float, atol: float) -> Tensor:
    """The loop is written here because torchdyn's keeps every state and ends only when the time is up."""
    from torchdyn.numerics.utils import adapt_step, hairer_norm, init_step

    solver = _solver(method, x.dtype)
    x, t = solver.sync_device_dtype(x, torch.zeros((), dtype=x.dtype, device=x.device))  # type: ignore[attr-defined]
    # torchdyn keeps these in float32, and a step multiplied by them, like all stages after it, is float32 too.
    limits = [getattr(solver, name).to(x.dtype)[0] for name in ("safety", "min_factor", "max_factor")]

    def finite(s: Tensor, y: Tensor) -> Tensor:
        value = field(s, y)
        if not bool(torch.isfinite(value).all()):  # the step would be rejected and tried again
            raise NotConvergedError(
                f"the field is not finite {float(s):.3g} of the way: it, or the solution, diverges."
            )
        return value

    slope = finite(t, x)
    step = init_step(finite, slope, x, t, solver.order, atol, rtol).detach()  # type: ignore[attr-defined]
    for _ in range(MAX_STEPS):
        step = torch.minimum(step, 1 - t)
        next_slope, y, error, _ = solver.step(finite, x, t, step, k1=slope)  # type: ignore[attr-defined]
        with torch.no_grad():
            ratio = hairer_norm(error / (atol + rtol * torch.maximum(x.abs(), y.abs())))
        if ratio <= 1:
            x, slope = y, next_slope
            if t + step >= 1:
                return x
            t = t + step
        step = adapt_step(step, ratio, *limits, solver.order)  # type: ignore[attr-defined]
    raise NotConvergedError(
        f"{method} is {float(t):.3g} of the way after {MAX_STEPS} steps: the field changes too fast, or diverges. A "
        "fixed-step method ends in any case; a larger rtol takes fewer steps."
    )


def sdeint(
    drift: Field,
    diffusion: float | Tensor | Callable[[float], float | Tensor],
    x: Tensor,
    times: Sequence[float],
    generator: torch.Generator,
    *,
    n_steps: int = 100,
) -> Tensor:
    """Integrate ``dX = drift(t, X) dt + diffusion(t) dW`` by Euler-Maruyama (strong order 1 for additive noise).

    Parameters
    ----------
    drift
        Drift; receives a scalar tensor and the state.
    diffusion
        Constant, or a function of time: a number, or a tensor that broadcasts to the state, such as one number for each
        component.
    x
        State at ``times[0]``, shape ``(n, ...)``.
    times
        Two or more strictly monotone times; with decreasing times ``drift`` is that of the reverse-time process,
        written as a derivative in forward time.
    generator
        Source of the noise, on the device of ``x``.
    n_steps
        Steps between two successive times.

    Returns
    -------
    States at ``times``, shape ``(len(times), n, ...)``.

    Raises
    ------
    InputError
        If ``times`` is not strictly monotone or ``n_steps`` is less than 1.
    NotConvergedError
        If the solution stops being finite.
    """
    check_times(times)
    _check_n_steps(n_steps)
    states = [x]
    for t0, t1 in pairwise(times):
        h = (t1 - t0) / n_steps
        y = states[-1]
        for k in range(n_steps):
            t = t0 + k * h
            g = diffusion(t) if callable(diffusion) else diffusion
            noise = torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype)
            y = y + h * drift(torch.as_tensor(t, dtype=y.dtype, device=y.device), y) + g * abs(h) ** 0.5 * noise
        states.append(y)
    out = torch.stack(states)
    if not bool(torch.isfinite(out[-1]).all()):
        raise NotConvergedError(f"the SDE solution is not finite at t={times[-1]:g}; use more than n_steps={n_steps}.")
    return out


def chunked(push: Callable[[Tensor], Tensor], x: Tensor, rows: int, *, axis: int = 0) -> Tensor:
    """Apply ``push`` to blocks of at most ``rows`` rows of ``x`` and join along ``axis``, which bounds the memory."""
    if rows < 1:
        raise InputError(f"rows must be at least 1, found {rows}.")
    return torch.cat([push(block) for block in torch.split(x, rows)], dim=axis)
