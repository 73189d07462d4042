"""The entries of an entropic plan that carry its mass, read off its potentials block by block.

An entry is ``P_ij = a_i b_j exp((f_i + g_j - |x_i - y_j|^2) / eps)``. Either all entries above a share of their row's
mass are kept, or a fixed number of each row: its largest, and others drawn to stand for the rest.

Not guaranteed: sums of rows and columns where entries are dropped; the same bits on another number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg._memory import DEFAULT, check_memory
from thalweg.core.ot.entropic.passes import blocks, factors
from thalweg.core.ot.entropic.problem import check_points
from thalweg.core.ot.entropic.solver import EntropicPlan
from thalweg.core.ot.thinning import thin
from thalweg.errors import InputError, MemoryBudgetError

SAMPLE = 128  # rows from which the number of entries is foreseen
ENTRY = 48  # bytes of an entry of a plan: three numbers of eight, twice while blocks are joined


class PlanEntries(NamedTuple):
    """The entries of a plan that carry its mass, sorted by row.

    Attributes
    ----------
    rows, cols
        Indices, int64, shape ``(k,)``.
    mass
        ``P[rows, cols]``, float64, shape ``(k,)``.
    dropped
        Share of the plan's mass in the entries left out.
    """

    rows: Tensor
    cols: Tensor
    mass: Tensor
    dropped: float


def plan_entries(
    x: Tensor,
    y: Tensor,
    plan: EntropicPlan,
    *,
    drop: float = 1e-6,
    per_row: int | None = None,
    max_memory: int | None = None,
) -> PlanEntries:
    """Return a plan without its small entries: those below ``drop / m`` of their row's mass, together at most ``drop``.

    Parameters
    ----------
    x, y
        The points that the plan was solved for, shapes ``(n, d)`` and ``(m, d)``.
    plan
        The result of `solve_entropic`.
    drop
        Largest share of each row's mass left out; 0 keeps every entry that is not zero in float64.
    per_row
        Entries of each row to keep at most, in place of ``drop``: its largest, and others drawn to stand for the rest
        (`thalweg.core.ot.thinning`), from a generator with a fixed seed.
    max_memory
        Bytes allowed for the entries; default 4 GiB.

    Returns
    -------
    PlanEntries
        Rows, columns, masses and the dropped share.

    Raises
    ------
    InputError
        The points do not fit the plan, or ``drop`` is outside ``[0, 1)``.
    MemoryBudgetError
        The entries do not fit ``max_memory``.
    """
    if not 0 <= drop < 1:
        raise InputError(f"drop: expected a number in [0, 1), found {drop!r}.")
    x, y, _, _ = check_points(x, y, plan.a, plan.b)  # refuses points whose number or device differs from the plan's
    limit, m = DEFAULT if max_memory is None else max_memory, len(y)
    if per_row is not None:
        check_memory("thinned plan", len(x), min(per_row, m), ENTRY, limit, "use fewer points or entries of each row")
        return _thinned(_masses(x, y, plan), len(x), min(per_row, m))
    some = slice(None, None, max(1, len(x) // SAMPLE))
    sampled = [_kept(block, drop) for _, block in _masses(x[some], y, replace(plan, f=plan.f[some], a=plan.a[some]))]
    if (expected := ENTRY * len(x) * float(torch.cat(sampled).double().sum(1).mean())) > 1.25 * limit:
        raise _too_large(f"about {expected / ENTRY:.2g}", len(x), m, limit)  # before the memory is filled with them
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    count, total = 0, 0.0
    for start, block in _masses(x, y, plan):
        flat = _kept(block, drop).view(-1).nonzero()[:, 0]
        total += float(block.sum())
        count += len(flat)
        if ENTRY * count > limit:
            raise _too_large(f"{count} by row {start + len(block)}", len(x), m, limit)
        parts.append((flat // m + start, flat % m, block.view(-1)[flat]))
    rows, cols, masses = (torch.cat(part) for part in zip(*parts, strict=True))
    dropped = max(0.0, 1 - float(masses.sum()) / total) if total > 0 else 0.0
    return PlanEntries(rows, cols, masses, dropped)


def _kept(block: Tensor, drop: float) -> Tensor:
    return (block > 0) & (block >= block.sum(1, keepdim=True) * (drop / block.shape[1]))


def _too_large(found: str, n: int, m: int, limit: int) -> MemoryBudgetError:
    return MemoryBudgetError(
        f"plan entries: {found} of {n} rows x {m} columns, x {ENTRY} bytes, max_memory={limit}. Raise drop or "
        "max_memory, lower epsilon, or use fewer points."
    )


def _masses(x: Tensor, y: Tensor, plan: EntropicPlan) -> Iterator[tuple[int, Tensor]]:
    """The plan in blocks of rows, each with its first row."""
    centre, scale = x.mean(0), plan.epsilon**0.5
    log_a, log_b = plan.a.log() + plan.f / plan.epsilon, plan.b.log() + plan.g / plan.epsilon
    left, right = factors((x - centre) / scale, (y - centre) / scale, log_a, log_b)
    return ((start, block.exp_()) for start, block in blocks(left, right))


def _thinned(masses: Iterator[tuple[int, Tensor]], n: int, k: int) -> PlanEntries:
    """At most ``k`` entries of each row; written in place, as many small arrays would be scattered over the memory."""
    first, block = next(masses)
    mass, cols = block.new_empty(n, k), torch.empty(n, k, dtype=torch.int64, device=block.device)
    generator = torch.Generator(block.device).manual_seed(0)
    for start, part in chain([(first, block)], masses):
        mass[start : start + len(part)], cols[start : start + len(part)] = thin(part, k, generator).topk(k, 1)
    there = (mass > 0).nonzero(as_tuple=True)
    return PlanEntries(there[0], cols[there], mass[there], 0.0)
