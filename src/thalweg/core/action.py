r"""Action matching: learn the potential whose gradient moves the marginals, without conditional velocities.

Source: Neklyudov et al., "Action Matching: Learning Stochastic Dynamics from Samples" (2023). Samples x_t of the
marginals rho_t are enough; any path of `paths` supplies them. The potential s(t, x) is a scalar network and the
velocity is v = grad s. The loss ("action gap"), for t uniform on [0, 1], is

    A(s) = E s(0, x0) - E s(1, x1) + E_t E[ ||grad s||^2 / 2 + ds/dt + (sigma^2 / 2) lap s  (+ s^2 / 2 if unbalanced) ].

Why. Let the true marginals obey, with a potential s*,

    d rho/dt = -div(rho grad s*) + (sigma^2 / 2) lap rho  (+ s* rho if unbalanced),                       (1)

which for sigma > 0 is the Fokker-Planck equation of dX = grad s*(t, X) dt + sigma dW: grad s is then the *drift*, not
the velocity of the equivalent ODE. The term s* rho creates mass at rate g = s*. Integrating s d rho/dt over x by parts,
d/dt E s = E[ds/dt] + E[grad s . grad s*] + (sigma^2 / 2) E[lap s] (+ E[s s*]). Integrating over t puts the end points
in place of E[ds/dt] and leaves

    A(s) = 1/2 int E||grad s - grad s*||^2 - 1/2 int E||grad s*||^2   (+ the same with s - s* and s*),

so the minimiser is s*, up to a function of t alone in the balanced case; A is negative at it and is not a distance.
In the unbalanced case E is against the unnormalised mass rho: `action` takes the weights that turn means over
samples into such integrals.

Not guaranteed: values comparable with those of `losses.velocity` (norms here are sums over the axes, not means: the
growth term fixes the scale); an unbiased loss when t does not cover [0, 1] evenly, since the end points then stand for
more than the integral (draw t on [0, 1], or weight by 1 / density); smoothness of a network whose kinks are written as
functions inside `forward`, where only modules are inspected.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.core.dynamics.likelihood import rademacher
from thalweg.core.paths import Batch
from thalweg.errors import InputError

#: Layers whose first or second derivative jumps.
NOT_SMOOTH = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Threshold, nn.ELU, nn.CELU, nn.SELU, nn.Softsign),
    *(nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softshrink),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)


@dataclass(frozen=True)
class Marginals:
    """Samples of the marginals alone, where no path gives a `paths.Batch`; rows need not be paired.

    Attributes
    ----------
    t
        Times, shape ``(n,)``.
    x_t, x0, x1
        Samples of the marginals at ``t``, 0 and 1, shape ``(n, ...)``.
    condition
        Integer label of each row, common to its three samples, shape ``(n,)``, or None.
    """

    t: Tensor
    x_t: Tensor
    x0: Tensor
    x1: Tensor
    condition: Tensor | None = None


class Potential(nn.Module):
    """A scalar potential ``s(t, x, condition)`` and the fields derived from it.

    Derivatives are taken with `torch.func`: they can be differentiated again, in parameters and inputs, unless
    gradients are switched off around the call.

    Parameters
    ----------
    network
        Module called ``network(t, x, condition)`` with ``t`` of shape ``(n,)`` and ``x`` of shape ``(n, ...)``; returns
        ``(n,)`` or ``(n, 1)``, each row from its own input only, and is twice differentiable.

    Raises
    ------
    InputError
        If the network holds layers that are not twice differentiable; the message lists them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        kinked = [
            f"{name or '(itself)'}: {type(m).__name__}"
            for name, m in network.named_modules()
            if isinstance(m, NOT_SMOOTH)
        ]
        if kinked:
            raise InputError(
                f"a potential must be twice differentiable, found {', '.join(kinked)}; use SiLU, GELU or Tanh."
            )
        self.network = network

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Value ``s`` at each row, shape ``(n,)``.

        Raises
        ------
        InputError
            If the network returns another shape than ``(n,)`` or ``(n, 1)``.
        """
        out: Tensor = self.network(t, x, condition)
        if out.shape not in (x.shape[:1], (len(x), 1)):
            raise InputError(f"a potential returns (n,) or (n, 1), found {tuple(out.shape)} for x {tuple(x.shape)}.")
        return out.reshape(-1)

    def velocity(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Velocity ``grad_x s``, shape of ``x``; the drift of the SDE when trained with ``sigma > 0``."""
        grad: Tensor = torch.func.grad(lambda y: self(t, y, condition).sum())(x)
        return grad

    def growth(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Growth rate ``g = s`` per unit of ``t``, shape ``(n,)``; has a meaning after unbalanced training."""
        growth: Tensor = self(t, x, condition)
        return growth

    def laplacian(
        self, t: Tensor, x: Tensor, condition: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Laplacian in ``x``, shape ``(n,)``.

        Without a generator exact, by ``d`` passes at once: for tens of coordinates. With one, an unbiased estimate
        ``e^T (Hessian) e`` by a single pass, ``e`` fresh random signs for each row (Hutchinson 1990); its variance is
        twice the sum of the squared off-diagonal entries of the Hessian.
        """
        # Rows of the Hessian by reverse mode: it is symmetric, and forward mode is missing for many layers.
        row = torch.func.vjp(lambda y: self.velocity(t, y, condition), x)[1]

        def quadratic(e: Tensor) -> Tensor:
            return (row(e)[0] * e).flatten(1).sum(1)

        if generator is not None:
            return quadratic(rademacher(x, generator))
        d = x[0].numel()
        basis = torch.eye(d, dtype=x.dtype, device=x.device).reshape(d, *x.shape[1:])
        trace: Tensor = torch.func.vmap(lambda e: quadratic(e.expand_as(x)))(basis).sum(0)
        return trace


def action(
    potential: Potential,
    batch: Batch | Marginals,
    *,
    sigma: float | Tensor = 0.0,
    unbalanced: bool = False,
    weights: tuple[Tensor, Tensor, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Action-matching loss (Neklyudov et al. 2023), formula in the module's docstring.

    Parameters
    ----------
    potential
        The potential ``s``.
    batch
        Samples; only ``t``, ``x_t``, ``x0``, ``x1`` and ``condition`` are used. ``t`` uniform on [0, 1].
    sigma
        Diffusion of the SDE whose drift is sought (entropic action matching), a number or one for each row, shape
        ``(n,)``; 0 (default) for the ODE.
    unbalanced
        Add ``s^2 / 2``: mass grows at rate ``s``.
    weights
        Weights of the samples ``x0``, ``x1`` and ``x_t``, each ``(n,)``; ones by default. Unbalanced, their means are
        the total masses at 0, at 1 and at each ``t``, the mass at 0 being the unit. A factor ``1 / density`` of ``t``
        belongs to the third.
    generator
        Source of one probe of random signs for each row, which estimates the Laplacian without bias at a cost that does
        not grow with the coordinates; None (default) for the exact one. Used only with ``sigma > 0``.

    Returns
    -------
    Loss of each row, shape ``(n,)``; its mean estimates the action, only the mean has a meaning.

    Raises
    ------
    InputError
        If ``sigma`` is negative or not finite, or shapes do not match.
    """
    _check(batch, sigma, weights)
    t, x, condition = batch.t, batch.x_t, batch.condition

    def value(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        s = potential(t, x, condition)
        return s.sum(), s

    (s_t, grad), s = torch.func.grad(value, argnums=(0, 1), has_aux=True)(t, x)
    inner = s_t + grad.flatten(1).square().sum(1) / 2
    if isinstance(sigma, Tensor) or sigma > 0:
        inner = inner + sigma**2 / 2 * potential.laplacian(t, x, condition, generator=generator)
    if unbalanced:
        inner = inner + s.square() / 2
    start = potential(torch.zeros_like(t), batch.x0, condition)
    end = potential(torch.ones_like(t), batch.x1, condition)
    w0, w1, w_t = weights if weights is not None else (1.0, 1.0, 1.0)
    gap: Tensor = w0 * start - w1 * end + w_t * inner
    return gap


def _check(batch: Batch | Marginals, sigma: float | Tensor, weights: tuple[Tensor, Tensor, Tensor] | None) -> None:
    n = batch.x_t.shape[:1]
    values = torch.as_tensor(sigma)
    if values.shape not in ((), n) or not bool(((values >= 0) & values.isfinite()).all()):
        raise InputError(f"sigma must be finite and not negative, one number or one for each row, found {sigma}.")
    if batch.t.shape != n or not batch.x_t.shape == batch.x0.shape == batch.x1.shape:
        shapes = [tuple(v.shape) for v in (batch.t, batch.x_t, batch.x0, batch.x1)]
        raise InputError(f"t must be (n,) and x_t, x0, x1 of one shape (n, ...), found {shapes}.")
    if weights is not None and (len(weights) != 3 or any(w.shape != n for w in weights)):
        raise InputError(
            f"weights must be three tensors of shape {tuple(n)}, found {[tuple(w.shape) for w in weights]}."
        )
