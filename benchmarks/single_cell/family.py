r"""A family of simulated courses with known drift, growth and fates: one course for each seed.

A cell has a stage ``s`` and a side ``u``, which follow an SDE ``dz = f(z) dt + sigma dW``, and noise components, which
return to zero:

    branching      ds = v tanh(end - s),  du = k (r(s) tanh(3 (u + b)) - u),   the width r(s) opens from 0 to 2
    asynchronous   the same, from stages that differ by a third of the course
    converging     the same, r(s) closes from 2 to 0; a third group, which stays apart, keeps to itself
    cycling        a turn around a circle: the angle at a constant rate, the radius back to 2

With growth, cells past the fork divide at a rate that depends on the side, so that populations change in proportion. A
snapshot is a fresh sample of its population, with cells as frequent as they are many. A fate is the side on which the
descendants of a cell end, by simulated futures that count as they have grown. The components are turned at random, so
that no axis is special.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

Floats = NDArray[np.float64]
KINDS = ("branching", "cycling", "converging", "asynchronous")
LENGTH = 5.0
"""Time from the first snapshot to the last."""
_DT = 0.05
_SIGMA, _PULL, _END, _SPEED = 0.4, 2.0, 6.0, 1.2
_FORK, _WIDTH, _APART = 2.5, 0.5, 5.0
_FUTURES = 64
_MANY = 4  # cells simulated for each one drawn, where they grow
_NOISE, _FALL, _RETURN = 0.5, 0.93, 2.0  # spread of the first noise component, ratio of the next, rate of return


@dataclass(frozen=True)
class Design:
    """What a seed draws: the kind of course and its size."""

    kind: str
    n_cells: int
    times: tuple[float, ...]
    even: bool
    n_dims: int
    growth: float
    bias: float

    @classmethod
    def of(cls, seed: int) -> Design:
        """The design of a seed; kinds take turns, all else is drawn."""
        rng = np.random.default_rng([18, seed])
        n_times = int(rng.integers(3, 9))
        even = bool(rng.random() < 0.5)
        gaps = np.ones(n_times - 1) if even else 0.25 + rng.dirichlet(np.ones(n_times - 1)) * (n_times - 1)
        times = np.concatenate([[0.0], np.cumsum(gaps / gaps.sum())]) * LENGTH
        n_cells = max(round(float(np.exp(rng.uniform(np.log(200), np.log(5000))))), 20 * n_times)
        return cls(
            KINDS[seed % len(KINDS)],
            n_cells,
            tuple(times.round(2).tolist()),
            even,
            int(rng.choice([2, 3, 5, 10, 20, 50])),
            float(rng.choice([0.0, 0.5])),
            float(rng.uniform(-0.1, 0.1)),
        )

    @property
    def fates(self) -> tuple[str, ...]:
        """Names of the ends; none for a course that turns in a circle."""
        ends = {"converging": ("merged", "apart"), "cycling": ()}
        return ends.get(self.kind, ("left", "right"))

    def drift(self, z: Floats) -> Floats:
        """``f`` of cells, shape ``(n, 2)``."""
        s, u = z.T
        if self.kind == "cycling":
            radius, turn = np.hypot(s, u), 0.8
            back = _PULL * (2 / np.maximum(radius, 1e-9) - 1)
            return np.stack([back * s - turn * u, back * u + turn * s], 1)
        opened = 1 / (1 + np.exp(-(s - _FORK) / _WIDTH))
        if self.kind == "converging":
            near = u < _APART / 2 + 1
            side = np.where(near, 2 * (1 - opened) * np.tanh(3 * u) - u, _APART - u)
        else:
            side = 2 * opened * np.tanh(3 * (u + self.bias)) - u
        return np.stack([_SPEED * np.tanh(_END - s), _PULL * side], 1)

    def rate(self, z: Floats) -> Floats:
        """Growth rate of cells, per unit of time, shape ``(n,)``."""
        s, u = z.T
        if self.kind == "cycling":
            return self.growth * (u > 0)
        here = u > _APART / 2 + 1 if self.kind == "converging" else (u > 0) & (s > _FORK)
        return self.growth * here

    def start(self, n: int, rng: np.random.Generator) -> Floats:
        """Cells at the first time."""
        noise = rng.standard_normal((n, 2))
        if self.kind == "cycling":
            angle = 0.5 * noise[:, 0]
            return np.stack([np.cos(angle), np.sin(angle)], 1) * (2 + 0.2 * noise[:, 1:])
        spread = 1.5 if self.kind == "asynchronous" else 0.4
        z = np.stack([spread * noise[:, 0], 0.2 * noise[:, 1]], 1)
        if self.kind == "converging":
            z[:, 1] += rng.choice([-2.0, 2.0, _APART], n, p=[0.4, 0.4, 0.2])
        return z

    def end(self, z: Floats) -> NDArray[np.int64]:
        """Index of the fate that a cell has at the end."""
        limit = _APART / 2 + 1 if self.kind == "converging" else 0.0
        return (z[:, 1] > limit).astype(np.int64)


def make_course(seed: int) -> AnnData:
    """The course of a seed.

    Returns
    -------
    Cells with ``obs["time"]`` and ``obs["type"]`` (the fate at the last time, "none" before), ``obsm["X_pca"]`` of
    shape ``(n, d)``, the true drift in ``obsm["drift"]`` and, where there are fates, ``obsm["fate_true"]`` (shares of
    the descendants); ``uns["design"]`` describes it.
    """
    design, rng = Design.of(seed), np.random.default_rng([19, seed])
    n_each = np.full(len(design.times), design.n_cells // len(design.times))
    z = np.concatenate([_snapshot(design, int(n), t, rng) for n, t in zip(n_each, design.times, strict=True)])
    time = np.repeat(design.times, n_each)
    noise = _spreads(design) * rng.standard_normal((len(z), design.n_dims - 2))
    turned = np.linalg.qr(rng.standard_normal((design.n_dims, design.n_dims)))[0]
    obs = pd.DataFrame({"time": time}, index=[f"cell_{i}" for i in range(len(z))])
    names = np.array([*design.fates, "none"])
    last = time == design.times[-1]
    obs["type"] = pd.Categorical(np.where(last & bool(design.fates), names[design.end(z) * bool(design.fates)], "none"))
    adata = AnnData(obs=obs, uns={"design": {k: str(v) for k, v in vars(design).items()}})
    adata.obsm["X_pca"] = (np.hstack([z, noise]) @ turned).astype(np.float32)
    adata.obsm["drift"] = np.hstack([design.drift(z), -_RETURN * noise]) @ turned
    if design.fates:
        adata.obsm["fate_true"] = _fates(design, z, time, rng)
    return adata


def draw_snapshot(design: Design, n: int, time: float, rng: np.random.Generator) -> Floats:
    """Cells of a time of a design, with its noise components and without turning them; shape ``(n, d)``."""
    z = _snapshot(design, n, time, rng)
    return np.hstack([z, _spreads(design) * rng.standard_normal((n, design.n_dims - 2))])


def _spreads(design: Design) -> Floats:
    """Standard deviation of each noise component."""
    return _NOISE * _FALL ** np.arange(design.n_dims - 2)


def _run(design: Design, z: Floats, length: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Cells after a while, and the logarithm of how many each has become."""
    steps, grown = int(np.ceil(length / _DT - 1e-9)), np.zeros(len(z))
    for _ in range(steps):
        h = length / steps
        grown += h * design.rate(z)
        z = z + h * design.drift(z) + _SIGMA * np.sqrt(h) * rng.standard_normal(z.shape)
    return z, grown


def _snapshot(design: Design, n: int, time: float, rng: np.random.Generator) -> Floats:
    many = n * _MANY if design.growth else n
    z, grown = _run(design, design.start(many, rng), time, rng)
    if not design.growth:
        return z
    weight = np.exp(grown)
    return z[rng.choice(many, n, replace=False, p=weight / weight.sum())]


def _fates(design: Design, z: Floats, time: Floats, rng: np.random.Generator) -> Floats:
    out = np.zeros((len(z), len(design.fates)))
    for t in np.unique(time):
        rows = np.flatnonzero(time == t)
        ends, grown = _run(design, np.repeat(z[rows], _FUTURES, axis=0), LENGTH - t, rng)
        of, weight = design.end(ends), np.exp(grown)
        counts = np.bincount(np.repeat(np.arange(len(rows)), _FUTURES) * 2 + of, weight, 2 * len(rows)).reshape(-1, 2)
        out[rows] = counts / counts.sum(1, keepdims=True)
    return out
