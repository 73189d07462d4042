"""Couplings: which source cell is paired with which target cell.

A coupling is a joint distribution ``pi`` on (row of ``x0``, row of ``x1``) from which index pairs are drawn with a
generator. A `Plan` holds the whole of ``pi`` sparsely: it is computed once for two whole populations and sampled at
every step, which costs a binary search. `Minibatch` solves a fresh plan for random blocks instead, for populations
whose plan would not fit the memory budget. `Independent` is ``a x b``.

Every ground cost is the squared Euclidean distance, computed on centred coordinates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from thalweg._memory import DEFAULT
from thalweg.core.ot import entropic as entropic_ot
from thalweg.core.ot import unbalanced as unbalanced_ot
from thalweg.core.ot.exact.pairing import optimal_entries
from thalweg.core.sampling import draw
from thalweg.core.sampling import uniform as uniform  # weights for `Independent`, found here
from thalweg.errors import InputError, MemoryBudgetError

Pairs = tuple[Tensor, Tensor]

_DROPPED = 1e-4  # a tenth of the marginal error that entropic plans are solved to; 1e-6 keeps several times as many


class Coupling(ABC):
    """A joint distribution on index pairs."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Pairs:
        """Draw ``n`` pairs: row indices of ``x0`` and of ``x1``, each int64 of shape ``(n,)``."""

    @abstractmethod
    def restrict(self, keep: Tensor) -> Coupling:
        """The coupling given that the source row lies in ``keep`` (bool, one per row of ``x0``).

        Raises
        ------
        InputError
            If no mass remains.
        """

    @abstractmethod
    def to(self, device: torch.device) -> Coupling:
        """The same coupling with its tensors on ``device``."""


def _masked(mass: Tensor, keep: Tensor) -> Tensor:
    out = mass * keep
    if not bool(out.sum() > 0):
        raise InputError("keep selects no source row with positive mass; keep at least one.")
    return out


@dataclass(frozen=True)
class Independent(Coupling):
    """Independent pairs, ``pi = a x b``.

    Attributes
    ----------
    a, b
        Weights of the source and target rows, float64 of shape ``(n0,)`` and ``(n1,)``.
    """

    a: Tensor
    b: Tensor

    @cached_property
    def _cdfs(self) -> Pairs:
        return self.a.cumsum(0), self.b.cumsum(0)

    def sample(self, n: int, generator: torch.Generator) -> Pairs:
        return draw(self._cdfs[0], n, generator), draw(self._cdfs[1], n, generator)

    def restrict(self, keep: Tensor) -> Independent:
        return Independent(_masked(self.a, keep), self.b)

    def to(self, device: torch.device) -> Independent:
        return Independent(self.a.to(device), self.b.to(device))


@dataclass(frozen=True)
class Plan(Coupling):
    """A sparse transport plan between two whole populations.

    Attributes
    ----------
    rows, cols
        Support, int64 of shape ``(k,)``.
    mass
        Mass of each entry, float64 of shape ``(k,)``.
    shape
        Number of source and target rows.
    thinned
        Whether entries were drawn to stand for others.
    """

    rows: Tensor
    cols: Tensor
    mass: Tensor
    shape: tuple[int, int]
    thinned: bool = False

    def marginals(self) -> Pairs:
        """Mass leaving each source row and arriving at each target row, float64 of shape ``(n0,)`` and ``(n1,)``."""
        n0, n1 = self.shape
        leaving = torch.zeros(n0, dtype=self.mass.dtype, device=self.mass.device).index_add_(0, self.rows, self.mass)
        arriving = torch.zeros(n1, dtype=self.mass.dtype, device=self.mass.device).index_add_(0, self.cols, self.mass)
        return leaving, arriving

    @cached_property
    def _cdf(self) -> Tensor:
        return self.mass.cumsum(0)

    def sample(self, n: int, generator: torch.Generator) -> Pairs:
        k = draw(self._cdf, n, generator)
        return self.rows[k], self.cols[k]

    def restrict(self, keep: Tensor) -> Plan:
        _masked(self.mass, keep[self.rows])
        k = keep[self.rows]
        return replace(self, rows=self.rows[k], cols=self.cols[k], mass=self.mass[k])

    def to(self, device: torch.device) -> Plan:
        return replace(self, rows=self.rows.to(device), cols=self.cols.to(device), mass=self.mass.to(device))


@dataclass(frozen=True)
class Minibatch(Coupling):
    """A fresh plan between random blocks at every draw (Fatras et al. 2021; Tong et al. 2024).

    Attributes
    ----------
    x0, x1
        The populations, shape ``(n0, d)`` and ``(n1, d)``.
    a, b
        Weights, float64 of shape ``(n0,)`` and ``(n1,)``.
    solve
        Function ``(block of x0, block of x1) -> Plan``.
    block
        Rows in a block; a larger one is closer to the plan of the whole populations.
    """

    x0: Tensor
    x1: Tensor
    a: Tensor
    b: Tensor
    solve: Callable[[Tensor, Tensor], Plan]
    block: int = 256

    def sample(self, n: int, generator: torch.Generator) -> Pairs:
        ends = Independent(self.a, self.b)
        rows, cols = [], []
        for start in range(0, n, self.block):
            i, j = ends.sample(self.block, generator)
            k, m = self.solve(self.x0[i], self.x1[j]).to(i.device).sample(min(self.block, n - start), generator)
            rows.append(i[k])
            cols.append(j[m])
        return torch.cat(rows), torch.cat(cols)

    def restrict(self, keep: Tensor) -> Minibatch:
        return Minibatch(self.x0, self.x1, _masked(self.a, keep), self.b, self.solve, self.block)

    def to(self, device: torch.device) -> Minibatch:
        x0, x1, a, b = (v.to(device) for v in (self.x0, self.x1, self.a, self.b))
        return Minibatch(x0, x1, a, b, self.solve, self.block)


@dataclass(frozen=True)
class Mixture:
    """Several couplings over one array of points, each between two groups of its rows.

    Draws are systematic: component ``k`` receives ``n weights[k]`` pairs up to rounding.

    Attributes
    ----------
    parts
        Couplings.
    sources, targets
        For each part, the rows of the common array that its indices stand for, int64.
    weights, tags
        Share of each part, float64 summing to one, and a number to tell it by, int64, or None; of shape ``(k,)``.
    """

    parts: Sequence[Coupling]
    sources: Sequence[Tensor]
    targets: Sequence[Tensor]
    weights: Tensor
    tags: Tensor | None = None

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw ``n`` pairs of rows of the common array, and the part each came from, int64 of shape ``(n,)``."""
        u = torch.rand(1, generator=generator, device=self.weights.device, dtype=self.weights.dtype)
        grid = (torch.arange(n, device=u.device, dtype=u.dtype) + u) / n
        part = torch.searchsorted(self.weights.cumsum(0), grid).clamp_max(len(self.parts) - 1)
        counts = torch.bincount(part, minlength=len(self.parts)).tolist()
        rows, cols = [], []
        for k, count in enumerate(counts):
            if count:
                i, j = self.parts[k].sample(count, generator)
                rows.append(self.sources[k][i])
                cols.append(self.targets[k][j])
        return torch.cat(rows), torch.cat(cols), part

    def restrict(self, keep: Tensor) -> Mixture:
        """The mixture given that the source row of the common array lies in ``keep``; parts without such rows go."""
        there = [k for k, rows in enumerate(self.sources) if bool(keep[rows].any())]
        if not there:
            raise InputError("keep selects no source row of any part; keep at least one.")
        weights = self.weights if len(there) == len(self.parts) else self.weights[there] / self.weights[there].sum()
        parts = [self.parts[k].restrict(keep[self.sources[k]]) for k in there]
        sources, targets = ([rows[k] for k in there] for rows in (self.sources, self.targets))
        return Mixture(parts, sources, targets, weights, None if self.tags is None else self.tags[there])

    def to(self, device: torch.device) -> Mixture:
        """The same mixture with its tensors on ``device``."""
        sources, targets = ([rows.to(device) for rows in side] for side in (self.sources, self.targets))
        parts, tags = [p.to(device) for p in self.parts], self.tags
        return Mixture(parts, sources, targets, self.weights.to(device), None if tags is None else tags.to(device))


def exact(
    x0: Tensor, x1: Tensor, *, a: Tensor | None = None, b: Tensor | None = None, max_memory: int | None = None
) -> Plan:
    """Optimal transport plan for the squared Euclidean cost.

    Certified by its dual; up to 512 points against as many, without weights, it is the optimal assignment for costs in
    the precision of the points, which is not certified.

    Parameters
    ----------
    x0, x1, a, b
        Points, shape ``(n0, d)`` and ``(n1, d)``, and weights, ``(n0,)`` and ``(n1,)``; uniform by default.
    max_memory
        Bytes allowed for the solver; 4 GiB by default.

    Returns
    -------
    The plan, on the device of ``x0``; at most ``n0 + n1 - 1`` entries.

    Raises
    ------
    InputError
        If shapes or weights are not usable.
    NotConvergedError
        If optimality could not be proven.
    MemoryBudgetError
        If the solver does not fit ``max_memory``.
    """
    rows, cols, mass = optimal_entries(x0, x1, a=a, b=b, max_memory=max_memory)
    return Plan(rows, cols, mass, (len(x0), len(x1)))


def entropic(
    x0: Tensor,
    x1: Tensor,
    *,
    reg: float | None = None,
    reg_relative: float | None = None,
    tau: float | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    max_memory: int | None = None,
    per_row: int | None = None,
) -> Plan:
    """Entropic transport plan, balanced or unbalanced; entries carrying together less than 1e-4 of it are left out.

    Parameters
    ----------
    x0, x1
        Points, shape ``(n0, d)`` and ``(n1, d)``.
    reg
        Regularisation in squared units of the coordinates; ``2 sigma^2`` for a Schrödinger bridge of diffusion
        ``sigma`` (Tong et al. 2024, prop. 3.4).
    reg_relative
        Regularisation as a fraction of the mean squared distance: unchanged when the data are rescaled.
    tau
        None for exact marginals. Otherwise the weight of ``KL(marginal | weights)`` on both sides, in squared units of
        the coordinates (Chizat et al. 2018): mass that is dear to move may vanish on one side and appear on the other.
        The plan's total mass is then free, too.
    a, b
        Weights; uniform by default.
    max_memory
        Bytes allowed for the plan; 4 GiB by default.
    per_row
        A plan that does not fit ``max_memory`` keeps this many entries of each row, or as many as fit: the largest, and
        others drawn to stand for the rest (`thalweg.core.ot.thinning`). None makes it an error.

    Returns
    -------
    The plan, on the device of ``x0``.

    Raises
    ------
    InputError
        Unless exactly one of ``reg`` and ``reg_relative`` is given, positive; for a ``tau`` that is not.
    NotConvergedError
        If the marginals do not reach their tolerance; no other plan is put in its place.
    MemoryBudgetError
        If the plan does not fit ``max_memory``, and ``per_row`` is None or not one entry of each row fits.
    """
    if (reg is None) == (reg_relative is None):
        raise InputError(f"give exactly one of reg and reg_relative, found reg={reg} and reg_relative={reg_relative}.")
    if reg is None:
        reg = entropic_ot.relative_epsilon(x0, x1, reg_relative, a=a, b=b)  # type: ignore[arg-type]
    potentials = entropic_ot.solve_entropic(x0, x1, a=a, b=b, epsilon=reg, tau_a=tau, tau_b=tau, max_memory=max_memory)
    entries, fitting = None, (max_memory or DEFAULT) // (entropic_ot.ENTRY * len(x0))
    try:
        entries = entropic_ot.plan_entries(x0, x1, potentials, drop=_DROPPED, max_memory=max_memory)
    except MemoryBudgetError:
        if per_row is None or not fitting:
            raise
    thinned = entries is None
    if entries is None:  # out of the handler, which holds on to the entries found so far
        per_row = min(per_row or fitting, fitting)
        entries = entropic_ot.plan_entries(x0, x1, potentials, per_row=per_row, max_memory=max_memory)
    return Plan(entries.rows, entries.cols, entries.mass, (len(x0), len(x1)), thinned)


def unbalanced(
    x0: Tensor,
    x1: Tensor,
    relaxation: float,
    *,
    a: Tensor | None = None,
    b: Tensor | None = None,
    max_memory: int | None = None,
) -> Plan:
    """Unbalanced plan on the scale of `thalweg.core.ot.unbalanced`, thinned where it does not fit the memory.

    Parameters
    ----------
    x0, x1, a, b, max_memory
        As in `entropic`, whose errors it raises.
    relaxation
        Weight of the populations' sizes, in mean squared displacements of balanced transport; a pure number.
    """
    tau = relaxation * unbalanced_ot.displacement(x0, x1, a, b) or None
    reg, few = unbalanced_ot.regularisation(x0, x1, a, b), unbalanced_ot.PER_ROW
    return entropic(x0, x1, reg=reg, tau=tau, a=a, b=b, max_memory=max_memory, per_row=few)
