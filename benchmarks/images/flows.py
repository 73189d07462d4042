"""What is done with a trained velocity: samples, their cost, straightness, bits per dimension.

The flow runs from ``t = 0`` to the end of the path's ``t_range`` where its velocity is unbounded beyond (VP diffusion:
0.999), else to 1; both are mapped to [0, 1] for the solver. NFE counts network passes: guidance takes two a step.

Straightness (Liu et al. 2023): ``int_0^1 E ||x(1) - x(0) - v||^2 dt / E ||x(1) - x(0)||^2``; 0 for straight paths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from benchmarks.images.data import ImageSet, grey_levels
from benchmarks.images.objectives import Objective
from torch import Tensor

from thalweg.core.dynamics.likelihood import Solver, bits_per_dim, importance_bits, log_likelihood, log_standard_normal
from thalweg.core.dynamics.ode import FIXED_STEP, odeint
from thalweg.core.losses import Model
from thalweg.core.paths import VPDiffusion
from thalweg.errors import InputError


@dataclass(frozen=True)
class Sampler:
    """How samples are drawn.

    Attributes
    ----------
    method, steps, tolerance
        Solver of `thalweg.core.dynamics.ode.odeint`, its steps (fixed-step methods) or both tolerances (adaptive ones).
    guidance
        Weight ``w`` of classifier-free guidance, ``v_null + w (v - v_null)`` (Ho & Salimans 2022); 1 is none.
    undo
        Use ΔFM's field turned back into that of flow matching.
    """

    method: str = "euler"
    steps: int = 50
    tolerance: float = 1e-5
    guidance: float = 1.0
    undo: bool = False

    @property
    def label(self) -> str:
        """Short name for tables."""
        solver = f"{self.method}-{self.steps}" if self.method in FIXED_STEP else self.method
        return solver + (f" w={self.guidance:g}" if self.guidance != 1 else "") + (" undo" if self.undo else "")


@dataclass
class Flow:
    """A velocity with its labels, as a function of the solver's time; counts its network passes.

    Attributes
    ----------
    model
        Velocity ``(t, x, condition)``.
    labels
        Class of each row, or None.
    guidance
        As in `Sampler`; other than 1 needs labels.
    end
        Path time at which the flow ends.
    passes
        Network passes so far.
    """

    model: Model
    labels: Tensor | None
    guidance: float = 1.0
    end: float = 1.0
    passes: int = 0

    def __post_init__(self) -> None:
        if self.guidance != 1 and self.labels is None:
            raise InputError(f"guidance {self.guidance:g} needs a conditional model; train it with labels.")

    def __call__(self, s: Tensor, x: Tensor) -> Tensor:
        t = (self.end * s).expand(len(x))
        self.passes += 1
        v = self.model(t, x, self.labels)
        if self.guidance != 1:
            self.passes += 1
            null = self.model(t, x, None)
            v = null + self.guidance * (v - null)
        return self.end * v


def end_time(objective: Objective) -> float:
    """Path time at which flows of an objective end."""
    return objective.path.t_range[1] if isinstance(objective.path, VPDiffusion) else 1.0


@torch.no_grad()
def sample(flow: Flow, x0: Tensor, sampler: Sampler) -> Tensor:
    """Carry ``x0`` (n, channels, height, width) to the end of the flow."""
    tol = sampler.tolerance
    return odeint(flow, x0, (0.0, 1.0), method=sampler.method, n_steps=sampler.steps, rtol=tol, atol=tol)[-1]


@torch.no_grad()
def straightness(flow: Flow, x0: Tensor, steps: int = 50) -> float:
    """Departure from straight paths, see the module's docstring, by Euler's method."""
    x, velocities = x0, []
    for k in range(steps):
        v = flow(torch.tensor(k / steps, dtype=x.dtype, device=x.device), x)
        velocities.append(v)
        x = x + v / steps
    chord = x - x0
    bend = torch.stack([(v - chord).square().mean() for v in velocities]).mean()
    return float(bend / chord.square().mean())


@torch.no_grad()
def bits(
    flow: Flow, images: ImageSet, k: int, trace: str, generator: torch.Generator, tolerance: float = 1e-4
) -> float:
    """Mean bits per dimension of images under the flow from Gaussian noise.

    Parameters
    ----------
    flow
        Flow whose labels are those of the images.
    images
        Images of ``L`` levels: ``- log p / (d ln 2) + log2(L/2)``, the 7 of 256 levels.
    k
        Dequantisations averaged over, ``log mean_k p``.
    trace
        ``"exact"`` or ``"hutchinson"``. An estimate of ``log p`` is unbiased, its exponential is not: ``k > 1`` would
        reward the noise of the estimate and needs the exact trace.
    generator
        Source of dequantisation and probes.
    tolerance
        Both tolerances of the solver.

    Raises
    ------
    InputError
        For ``k > 1`` with Hutchinson's estimate, or more than 256 levels.
    """
    if k > 1 and trace != "exact":
        raise InputError(f"bits with k={k} need the exact trace; use trace='exact' or k=1.")
    solver = Solver(rtol=tolerance, atol=tolerance)
    probe = generator if trace == "hutchinson" else None

    def log_p(x: Tensor) -> Tensor:
        return log_likelihood(flow, x, log_standard_normal, method=trace, generator=probe, solver=solver)  # type: ignore[arg-type]

    grey, d = grey_levels(images.x, images.levels), images.x[0].numel()
    if images.levels == 256:
        return float(importance_bits(log_p, grey, k, generator).mean())
    noise = [torch.rand(grey.shape, generator=generator, device=grey.device) for _ in range(k)]
    density = torch.stack([log_p((grey + u) * (2 / images.levels) - 1) for u in noise])
    log_mean = torch.logsumexp(density, 0) - torch.log(torch.tensor(float(k)))
    return float((bits_per_dim(log_mean, d) - 7 + torch.log2(torch.tensor(images.levels / 2))).mean())
