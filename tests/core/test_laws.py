"""Laws of the modules of `core`, `data` and `flows`: records cannot be changed, and names are found when asked."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import numpy as np
import pytest
import torch

import thalweg.core
import thalweg.data
import thalweg.flows
from thalweg.core.couplings import unbalanced
from thalweg.core.ot import entropic as entropic_ot
from thalweg.core.ot.exact import solver as exact_ot
from thalweg.core.ot.unbalanced import log_ratio
from thalweg.errors import InputError

MODULES = [
    importlib.import_module(info.name)
    for package in (thalweg.core, thalweg.data, thalweg.flows)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]
RECORDS = [
    item
    for module in MODULES
    for item in vars(module).values()
    if isinstance(item, type) and dataclasses.is_dataclass(item) and item.__module__ == module.__name__
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__qualname__)
def test_records_are_frozen(record):
    assert record.__dataclass_params__.frozen == (record.__name__ != "Inspection")  # counts what a reader has met


def test_modules_of_the_core_are_found_by_attribute_and_others_are_not():
    for name in thalweg.core.__all__:
        assert thalweg.core.__getattr__(name).__name__ == f"thalweg.core.{name}"
    with pytest.raises(AttributeError, match=r"'thalweg.core' has no attribute 'nothing'"):
        _ = thalweg.core.nothing


# --- names in messages -----------------------------------------------------------------------------------------------

X, W = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.ones(4)


@pytest.mark.parametrize("name", ["epsilon", "tau_a", "tau_b", "tol", "max_iterations", "a", "b", "x", "y"])
def test_entropic_transport_names_the_argument_it_refuses(name):
    bad = {"tol": 1.0, "max_iterations": 0, "a": -W, "b": W[:2], "x": X / 0, "y": X * torch.nan}.get(name, 0.0)
    arguments = {"x": X, "y": X + 1, "a": W, "b": W, "epsilon": 1.0} | {name: bad}
    with pytest.raises(InputError, match=rf"^{name}: "):
        entropic_ot.solve_entropic(**arguments)
    if name.startswith("tau"):
        with pytest.raises(InputError, match="None makes the marginal exact"):
            entropic_ot.solve_entropic(**arguments)


def test_options_of_plans_are_bounded():
    plan = entropic_ot.solve_entropic(X, X + 1, epsilon=1.0)
    for drop in (1.0, -1e-9):
        with pytest.raises(InputError, match=r"drop: expected a number in \[0, 1\)"):
            entropic_ot.plan_entries(X, X + 1, plan, drop=drop)
    assert len(entropic_ot.plan_entries(X, X + 1, plan, drop=0.0).rows) == 16
    for fraction in (0.0, -1.0, float("inf")):
        with pytest.raises(InputError, match="fraction: expected a positive number"):
            entropic_ot.relative_epsilon(X, X, fraction)
    with pytest.raises(InputError, match="x, y: expected shapes"):
        entropic_ot.solve_entropic(X, X[:, :1], epsilon=1.0)
    assert exact_ot.solve_exact(X, X + 1).gap <= 1e-9


# --- unbalanced plans ------------------------------------------------------------------------------------------------


def clouds(seed: int, n: int = 30, m: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=g, dtype=torch.float64), torch.randn(m, 2, generator=g, dtype=torch.float64) + 1


def dense(plan) -> np.ndarray:
    out = np.zeros(plan.shape)
    np.add.at(out, (plan.rows.numpy(), plan.cols.numpy()), plan.mass.numpy())
    return out


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_unbalanced_plans_know_no_unit_offset_or_rotation(scale):
    x, y = clouds(0)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    reference = dense(unbalanced(x, y, 0.5))
    np.testing.assert_allclose(dense(unbalanced(scale * x, scale * y, 0.5)), reference, atol=1e-6)
    np.testing.assert_allclose(dense(unbalanced(x @ turn + 1e3, y @ turn + 1e3, 0.5)), reference, atol=2e-5)


def test_a_strong_relaxation_balances_and_a_weak_one_loses_what_is_far():
    x, y = clouds(1)
    y[0] = 8.0  # one cell far from every other
    masses = [float(unbalanced(x, y, r).marginals()[1][0]) for r in (1e-2, 1.0, 1e6)]
    assert masses[0] < 1e-3 / len(y)
    assert masses[0] < masses[1] < masses[2]
    assert masses[2] == pytest.approx(1 / len(y), rel=2e-3)


def test_the_relaxation_is_in_units_of_the_mean_squared_displacement():
    """By hand: the cost of the exact plan, for weights drawn as the function states, sets both scales."""
    x, y = clouds(2, 40, 40)
    displacement = exact_ot.solve_exact(x.numpy(), y.numpy()).cost
    from thalweg.core import couplings

    expected = couplings.entropic(x, y, reg_relative=0.01, tau=0.7 * displacement)
    np.testing.assert_allclose(dense(unbalanced(x, y, 0.7)), dense(expected), rtol=1e-6, atol=1e-12)
    equal = torch.full((40,), 1 / 40, dtype=torch.float64)  # uniform weights are no weights
    np.testing.assert_allclose(dense(unbalanced(x, y, 0.7, a=equal, b=equal)), dense(expected), rtol=1e-6, atol=1e-12)
    weights = torch.ones(40, dtype=torch.float64)
    weights[:5] = 30
    heavy = unbalanced(x, y, 1e6, a=weights / weights.sum())
    np.testing.assert_allclose(heavy.marginals()[0], weights / weights.sum(), atol=1e-4)


def test_identical_points_stay_where_they_are():
    """No scale can be told from them, and none is needed: every pair is as good as any other."""
    x = torch.zeros(5, 2, dtype=torch.float64)
    np.testing.assert_allclose(dense(unbalanced(x, x, 0.5)), np.full((5, 5), 1 / 25), rtol=1e-3)


def test_log_ratio_compares_shares_and_is_zero_without_mass():
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    mass = torch.tensor([0.2, 0.2, 0.0], dtype=torch.float64)
    expected = torch.tensor([0.0, np.log(0.5), 0.0], dtype=torch.float32)
    torch.testing.assert_close(log_ratio(weights, mass), expected)
