r"""A branching landscape: a stochastic differential equation whose drift is known in closed form.

A cell is a point z = (s, u, q) of R^5: progress s along the valley floor, position u in R^2 across the valleys,
activity q in R^2 of two programmes shared by all branches. It follows the autonomous Itô SDE

    dz = f(z) dt + sigma dW,
    f(z) = ( v(s),  -kappa (u - M(z)) + v(s) D(z),  -kappa (q - c(s)) + v(s) c'(s) ),

    v(s)   = speed tanh((end - s) / brake)                        progress, at rest at s = end
    r_j(s) = radius_j / (1 + exp(-(s - fork_j) / width_j))        opening of fork j = 1, 2
    m_k(s) = r_1(s) a_k + r_2(s) b_k                              floor of the valley of branch k; a_k, b_k in R^2
    w_k(z) = pi_k exp(-|u - m_k(s)|^2 / (2 reach^2)) / (the sum over the branches of the same)
    M(z)   = sum_k w_k(z) m_k(s),   D(z) = sum_k w_k(z) m_k'(s)
    c(s)   = ( bump exp(-(s - bump_at)^2 / (2 bump_width^2)),  wave sin(3 pi s / (2 end)) )

so a cell slides along its valley (f on the floor of a valley is the velocity v(s) (1, m_k', c') of the floor) and is
pulled back to it at rate kappa. One valley opens into A against the rest at fork 1, the rest into B against C at fork
2. At time 0, z ~ N(0, diag(spread^2, tau^2, tau^2, tau^2, tau^2)) with tau^2 = sigma^2 / (2 kappa). Cells do not
divide or die.

Sampling is Euler-Maruyama with ceil(t / DT) equal steps from 0 to t, so the law at time t depends on t alone. The
spread of s at time 0 and the noise make the cells of one snapshot asynchronous.

Not guaranteed: f is the drift of the SDE. The velocity field whose ODE moves the marginals p_t is
f - (sigma^2 / 2) grad log p_t, which has no closed form here.

Arrays hold one cell per column: z and f are (5, n).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

N_LATENT = 5
BRANCHES = ("A", "B", "C")
DT = 0.05
DECIDED = 0.999  # responsibility w_k at which a simulated future counts as having reached branch k
HORIZON = 20.0  # time after which an undecided future goes to the nearest branch
CHUNK = 128  # cells whose futures run together: arrays that stay in the processor's cache are 3 times faster


@dataclass(frozen=True)
class Landscape:
    """Parameters of the SDE of the module docstring, in its symbols."""

    a: Array = field(default_factory=lambda: np.array([[1.0, 0.0], [-0.8, 0.0], [-0.8, 0.0]]))
    b: Array = field(default_factory=lambda: np.array([[0.0, 0.0], [-0.6, 0.8], [0.6, -0.8]]))
    pi: Array = field(default_factory=lambda: np.array([0.42, 0.36, 0.22]))
    speed: float = 1.3
    end: float = 6.0
    brake: float = 1.0
    kappa: float = 2.0
    sigma: float = 0.5
    reach: float = 0.6
    radius: Array = field(default_factory=lambda: np.array([2.2, 2.0]))
    fork: Array = field(default_factory=lambda: np.array([1.8, 3.6]))
    width: Array = field(default_factory=lambda: np.array([0.45, 0.4]))
    bump: float = 1.2
    bump_at: float = 2.6
    bump_width: float = 1.0
    wave: float = 1.0
    spread: float = 0.5

    def floors(self, s: Array) -> tuple[Array, Array]:
        """Return m_k(s) and m_k'(s), each (branches, 2, n)."""
        width = self.width[:, None]
        opening = 0.5 + 0.5 * np.tanh((s - self.fork[:, None]) / (2.0 * width))  # a logistic that cannot overflow
        r = self.radius[:, None] * opening
        dr = r * (1.0 - opening) / width
        a, b = self.a[:, :, None], self.b[:, :, None]
        return a * r[0] + b * r[1], a * dr[0] + b * dr[1]

    def programmes(self, s: Array) -> tuple[Array, Array]:
        """Return c(s) and c'(s), each (2, n)."""
        away, rate = (s - self.bump_at) / self.bump_width, 1.5 * np.pi / self.end
        bump = self.bump * np.exp(-0.5 * away**2)
        c = np.stack([bump, self.wave * np.sin(rate * s)])
        return c, np.stack([-bump * away / self.bump_width, self.wave * rate * np.cos(rate * s)])

    def evaluate(self, z: Array) -> tuple[Array, Array]:
        """Return f(z), (5, n), in latent units per unit of time, and w_k(z), (branches, n)."""
        s, u = z[0], z[1:3]
        m, dm = self.floors(s)
        log_w = np.log(self.pi)[:, None] - ((u - m) ** 2).sum(axis=1) / (2.0 * self.reach**2)
        w = np.exp(log_w - log_w.max(axis=0))
        w /= w.sum(axis=0)
        c, dc = self.programmes(s)
        v = self.speed * np.tanh((self.end - s) / self.brake)
        floor = np.concatenate([(w[:, None] * m).sum(axis=0), c])
        slope = np.concatenate([(w[:, None] * dm).sum(axis=0), dc])
        return np.concatenate([v[None], v * slope - self.kappa * (z[1:] - floor)]), w

    def start(self, n_cells: int, generator: np.random.Generator) -> Array:
        """Draw cells of time 0, (5, n_cells)."""
        sd = np.array([self.spread] + [self.sigma / np.sqrt(2.0 * self.kappa)] * (N_LATENT - 1))
        z: Array = sd[:, None] * generator.standard_normal((N_LATENT, n_cells))
        return z

    def step(self, z: Array, f: Array, dt: float, generator: np.random.Generator) -> Array:
        """Return the cells one Euler-Maruyama step later; f is the drift at z."""
        moved: Array = z + dt * f + self.sigma * np.sqrt(dt) * generator.standard_normal(z.shape)
        return moved


def snapshot(model: Landscape, n_cells: int, time: float, generator: np.random.Generator) -> Array:
    """Draw cells of one time, (5, n_cells)."""
    z = model.start(n_cells, generator)
    n_steps = int(np.ceil(time / DT))
    for _ in range(n_steps):
        z = model.step(z, model.evaluate(z)[0], time / n_steps, generator)
    return z


def fates(model: Landscape, z: Array, n_futures: int, generator: np.random.Generator) -> Array:
    """Return the share of simulated futures of each cell that reach each branch, (n_cells, branches)."""
    share = np.empty((z.shape[1], len(model.pi)))
    for first in range(0, z.shape[1], CHUNK):
        part = z[:, first : first + CHUNK]
        share[first : first + CHUNK] = _count_fates(model, part, n_futures, generator) / n_futures
    return share


def _count_fates(model: Landscape, z: Array, n_futures: int, generator: np.random.Generator) -> NDArray[np.int64]:
    n_cells, n_branches = z.shape[1], len(model.pi)
    counts = np.zeros(n_cells * n_branches, dtype=np.int64)
    owner, z = np.repeat(np.arange(n_cells), n_futures), np.repeat(z, n_futures, axis=1)
    n_steps = int(HORIZON / DT)
    for i in range(n_steps + 1):
        f, w = model.evaluate(z)
        decided = (w.max(axis=0) >= DECIDED) | (i == n_steps)
        reached = owner[decided] * n_branches + w[:, decided].argmax(axis=0)
        counts += np.bincount(reached, minlength=counts.size)
        going = ~decided
        owner, z, f = owner[going], z[:, going], f[:, going]
        if not owner.size:
            break
        z = model.step(z, f, DT, generator)
    return counts.reshape(n_cells, n_branches)
