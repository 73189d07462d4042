"""Exact transport against closed forms, invariances and the dense network simplex."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import ot
import pytest
import torch

from thalweg.core.ot.exact import ExactPlan, certify, solve_exact
from thalweg.core.ot.exact import arcs as exact_arcs
from thalweg.core.ot.exact import solver as exact_ot
from thalweg.errors import InputError, NotConvergedError

Array = npt.NDArray[np.float64]
COSTS = ("euclidean", "sqeuclidean")


def clouds(n: int, m: int, d: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), 1.3 * rng.standard_normal((m, d)) + 0.5


def ground(x: Array, y: Array, cost: str) -> Array:
    square = ((x[:, None] - y[None]) ** 2).sum(-1)
    return square if cost == "sqeuclidean" else np.sqrt(square)


def reference(x: Array, y: Array, a: Array | None, b: Array | None, cost: str) -> float:
    n, m = len(x), len(y)
    a = np.full(n, 1 / n) if a is None else a / a.sum()
    b = np.full(m, 1 / m) if b is None else b / b.sum()
    return float(ot.emd2(a, b, ground(x, y, cost), numItermax=10**7))


def assert_proved(plan: ExactPlan, x: Array, y: Array, a: Array, b: Array, cost: str) -> None:
    """Marginals, feasibility of the potentials and equality of both sides, in dense float64."""
    c = ground(x, y, cost)
    np.testing.assert_allclose(np.bincount(plan.rows, plan.mass, len(x)), a, atol=1e-15)
    np.testing.assert_allclose(np.bincount(plan.cols, plan.mass, len(y)), b, atol=1e-15)
    assert plan.mass.min() > 0
    assert (c - plan.u[:, None] - plan.v).min() >= -1e-12 * c.max()
    assert plan.mass @ c[plan.rows, plan.cols] == pytest.approx(plan.cost, rel=1e-12)
    assert a @ plan.u + b @ plan.v == pytest.approx(plan.cost, rel=2e-9)
    assert plan.gap <= 1e-9


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("d", [3, 30])
@pytest.mark.parametrize("weighted", [False, True])
def test_column_generation_agrees_with_dense_simplex(
    cost: Any, d: int, weighted: bool, proof: Callable[..., None]
) -> None:
    x, y = clouds(800, 1000, d)
    rng = np.random.default_rng(1)
    a, b = (rng.gamma(0.5, size=k) + 1e-3 if weighted else np.ones(k) for k in (800, 1000))
    a, b = a / a.sum(), b / b.sum()
    plan = solve_exact(x, y, a=a if weighted else None, b=b if weighted else None, cost=cost, small=0)
    proof("exact_plan", abs(plan.cost / reference(x, y, a, b, cost) - 1), 1e-9)
    proof("exact_plan", certify(plan, x, y, a=a, b=b, cost=cost), 1e-9)
    assert_proved(plan, x, y, a, b, cost)


@pytest.mark.parametrize("cost", COSTS)
def test_missing_arcs_are_found_by_the_test_of_all_pairs(cost: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_arcs, "POOL_PER_POINT", 1)
    x, y = clouds(400, 300, 4)
    plan = solve_exact(x, y, cost=cost, small=0)
    assert plan.cost == pytest.approx(reference(x, y, None, None, cost), rel=1e-9)


@pytest.mark.parametrize("cost", COSTS)
def test_small_problem_goes_to_the_dense_simplex(cost: Any) -> None:
    x, y = clouds(40, 60, 4)
    dense, generated = solve_exact(x, y, cost=cost), solve_exact(x, y, cost=cost, small=0)
    assert dense.cost == pytest.approx(generated.cost, rel=1e-12)
    assert_proved(dense, x, y, np.full(40, 1 / 40), np.full(60, 1 / 60), cost)


@pytest.mark.parametrize("cost", COSTS)
def test_one_dimension_sorts(cost: Any) -> None:
    x, y = clouds(300, 300, 1)
    gap = np.abs(np.sort(x[:, 0]) - np.sort(y[:, 0]))
    expected = gap.mean() if cost == "euclidean" else (gap**2).mean()
    assert solve_exact(x, y, cost=cost).cost == pytest.approx(expected, rel=1e-12)
    flat = np.column_stack([x, x]), np.column_stack([y, y])  # the same line in the plane: many optimal plans
    factor = np.sqrt(2) if cost == "euclidean" else 2
    assert solve_exact(*flat, cost=cost, small=0).cost == pytest.approx(factor * expected, rel=1e-9)


@pytest.mark.parametrize("cost", COSTS)
def test_one_dimension_with_weights_and_ties(cost: Any) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 9, (70, 1)).astype(float), rng.integers(2, 12, (50, 1)).astype(float)
    a, b = rng.random(70), rng.random(50)
    a, b = a / a.sum(), b / b.sum()
    plan = solve_exact(x, y, a=a, b=b, cost=cost)
    assert plan.cost == pytest.approx(reference(x, y, a, b, cost), rel=1e-9)


def test_translation_is_the_optimal_map(proof: Callable[..., None]) -> None:
    x, _ = clouds(500, 1, 6)
    order = np.random.default_rng(0).permutation(500)
    shift = np.array([3.0, -1, 0, 2, 0, 0.5])
    plan = solve_exact(x, (x + shift)[order], small=0)
    proof("exact_plan", abs(plan.cost / (shift @ shift) - 1), 1e-10)
    np.testing.assert_array_equal(order[plan.cols], plan.rows)
    assert solve_exact(x, (x + shift)[order], cost="euclidean", small=0).cost == pytest.approx(
        np.linalg.norm(shift), rel=1e-9
    )


def pairs(plan: ExactPlan) -> set[tuple[int, int]]:
    return set(zip(plan.rows.tolist(), plan.cols.tolist(), strict=True))


def test_permutation_offset_and_scale() -> None:
    x, y = clouds(300, 400, 5)
    plan = solve_exact(x, y, small=0)
    px, py = np.random.default_rng(1).permutation(300), np.random.default_rng(2).permutation(400)
    permuted = solve_exact(x[px], y[py], small=0)
    assert permuted.cost == pytest.approx(plan.cost, rel=1e-12)
    assert {(px[i], py[j]) for i, j in pairs(permuted)} == pairs(plan)
    for factor in (1e-4, 1e4):
        scaled = solve_exact(x * factor, y * factor, small=0)
        assert scaled.cost == pytest.approx(plan.cost * factor**2, rel=1e-9)
        assert pairs(scaled) == pairs(plan)
    moved = solve_exact(x + 1e4, y + 1e4, small=0)
    assert moved.cost == pytest.approx(plan.cost, rel=1e-9)
    assert len(pairs(moved) & pairs(plan)) >= 0.99 * len(pairs(plan))


@pytest.mark.parametrize("cost", COSTS)
def test_duplicates_and_identical_points(cost: Any) -> None:
    x, y = clouds(200, 250, 4)
    once = solve_exact(x, y, cost=cost, small=0)
    twice = solve_exact(np.repeat(x, 2, 0), np.tile(y, (2, 1)), cost=cost, small=0)
    assert twice.cost == pytest.approx(once.cost, rel=1e-9)
    for small in (0, 10**6):
        same = solve_exact(np.full((60, 3), 7.1), np.full((50, 3), 7.1), cost=cost, small=small)
        assert same.cost == 0
        itself = solve_exact(x, x[::-1], cost=cost, small=small)
        assert itself.cost == 0
        np.testing.assert_array_equal(itself.cols, 199 - itself.rows)


@pytest.mark.parametrize("cost", COSTS)
def test_one_point_against_many(cost: Any) -> None:
    x, y = clouds(1, 30, 3)
    b = np.linspace(1, 2, 30)
    expected = ground(x, y, cost)[0] @ b / b.sum()
    assert solve_exact(x, y, a=[b.sum()], b=b, cost=cost).cost == pytest.approx(expected, rel=1e-12)
    assert solve_exact(y, x, a=b, b=[b.sum()], cost=cost).cost == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("small", [0, 10**6])
def test_zero_weights_are_left_out_and_keep_feasible_potentials(small: int) -> None:
    x, y = clouds(90, 80, 3)
    a, b = np.ones(90), np.ones(80)
    a[::3], b[::4] = 0, 0
    b *= a.sum() / b.sum()
    plan = solve_exact(x, y, a=a, b=b, small=small)
    assert plan.cost == pytest.approx(solve_exact(x[a > 0], y[b > 0]).cost, rel=1e-9)
    assert_proved(plan, x, y, a / a.sum(), b / b.sum(), "sqeuclidean")


def test_certificate_detects_corruption() -> None:
    x, y = clouds(120, 150, 4)
    plan = solve_exact(x, y)
    assert certify(plan, x, y) <= 1e-9
    for node in (0, 77):
        for step in (0.3, -0.3):  # raised: infeasible, lowered: not maximal
            u = plan.u.copy()
            u[node] += step
            gap = certify(replace(plan, u=u), x, y)
            assert gap > 1e-4
    worse = ot.emd(np.full(120, 1 / 120), np.full(150, 1 / 150), ground(x, y, "euclidean"))
    rows, cols = np.nonzero(worse)
    suboptimal = replace(plan, rows=rows, cols=cols, mass=worse[rows, cols])
    excess = (worse * ground(x, y, "sqeuclidean")).sum() / plan.cost - 1
    assert certify(suboptimal, x, y) == pytest.approx(excess / (1 + excess), rel=1e-6)
    with pytest.raises(InputError, match="marginals"):
        certify(replace(plan, cols=np.roll(plan.cols, 1)), x, y)


def test_tensors_and_float32_give_the_same_plan() -> None:
    x, y = (z.astype(np.float32) for z in clouds(50, 70, 3))
    first = solve_exact(torch.from_numpy(x), torch.from_numpy(y))
    assert first.cost == solve_exact(x.astype(float), y.astype(float)).cost


def test_an_early_stop_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(50, 70, 3)
    monkeypatch.setattr(exact_ot, "MAX_PIVOTS", 10)
    for small in (0, 10**6):
        with pytest.raises(NotConvergedError, match="stopped early"):
            solve_exact(x, y, small=small)


def test_an_unreachable_gap_is_an_error() -> None:
    x, y = clouds(50, 70, 3)
    for small in (0, 10**6):
        with pytest.raises(NotConvergedError, match="rtol"):
            solve_exact(x, y, rtol=1e-18, small=small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.array([[np.nan, 0.0]])}, "NaN"),
        ({"x": np.zeros(3)}, "shape"),
        ({"x": np.zeros((0, 2))}, "shape"),
        ({"x": np.zeros((4, 3))}, "dimensions"),
        ({"a": np.ones(3)}, "one weight per point"),
        ({"a": np.array([1.0, -1, 1, 1])}, "finite weights"),
        ({"a": np.array([1.0, np.nan, 1, 1])}, "finite weights"),
        ({"a": np.zeros(4)}, "positive sum"),
        ({"a": np.ones(4), "b": np.ones(5)}, "total mass"),
        ({"cost": "cosine"}, "cost must be"),
        ({"rtol": 0.0}, "rtol"),
    ],
)
def test_unusable_input_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"x": np.zeros((4, 2)), "y": np.ones((5, 2)), **change}
    with pytest.raises(InputError, match=message):
        solve_exact(arguments.pop("x"), arguments.pop("y"), **arguments)
