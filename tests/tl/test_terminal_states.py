"""Terminal states without labels: stability in closed form, courses with known ends, and courses without any."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import thalweg as tw
from courses import forked, make_course
from thalweg.data.cells import Cells
from thalweg.errors import InputError, MissingKeyError
from thalweg.tl._fates.regions import Regions, Step, find_regions, find_stability, moves_on

SHORT = tw.tl.FitConfig(max_steps=20, width=8, depth=1, validate_every=10)


def as_cells(x, time, **columns):
    n = len(x)
    return Cells(
        np.asarray(x, dtype=float), np.asarray(time, dtype=float), np.ones(n), np.zeros(n, np.int64), **columns
    )


def purity(adata, column):
    """Share of the most frequent label in each terminal state."""
    table = pd.crosstab(adata.obs["terminal_state"], adata.obs[column], normalize="index")
    return table.max(1).to_numpy(), set(table.idxmax(1))


# Stability


def test_stability_and_inflow_of_a_matrix_written_out():
    """Of ten cells of region 0 one dies in place and the others stay with .5; those of region 1 stay."""
    rng = np.random.default_rng(0)
    lost = np.r_[1.0, np.zeros(21)]
    cells = as_cells(rng.normal(size=(22, 2)), [0.0] * 20 + [1.0] * 2, lost=lost)
    regions = Regions(np.array([0] * 10 + [1] * 10 + [0, 1]), np.zeros(2))
    matrix = np.zeros((20, 22))
    matrix[:10, 20:] = [3.0, 3.0]  # rows are masses, whatever their sum
    matrix[10:, 21] = 1.0
    found = find_stability(cells, regions, [Step(np.arange(20), sparse.csr_matrix(matrix))], 20, rng)
    np.testing.assert_allclose(found.stay, [(1 + 9 * 0.5) / 10, 1.0])
    np.testing.assert_allclose(found.inflow, [0.0, 4.5 / 14.5])
    assert found.error[0] > 0
    assert found.error[1] == pytest.approx(0, abs=1e-12)


def test_the_standard_error_is_that_of_a_share():
    """Each cell stays or leaves: sqrt(p (1 - p) / (n + 1)) by the Bayesian bootstrap."""
    n, p = 200, 0.8
    cells = as_cells(np.zeros((n + 2, 1)), [0.0] * n + [1.0] * 2)
    regions = Regions(np.array([0] * n + [0, 1]), np.zeros(2))
    to = np.where(np.arange(n) < p * n, n, n + 1)
    step = Step(np.arange(n), sparse.csr_matrix((np.ones(n), (np.arange(n), to)), shape=(n, n + 2)))
    found = find_stability(cells, regions, [step], 1500, np.random.default_rng(0))
    assert found.stay[0] == pytest.approx(p)
    assert found.error[0] == pytest.approx(np.sqrt(p * (1 - p) / (n + 1)), rel=0.1)
    assert np.isnan(found.stay[1])  # nobody was seen in it before the last time


# Regions, and courses that move on


@pytest.mark.parametrize(("distance", "n"), [(1.5, 1), (6.0, 2)])
def test_regions_are_humps(distance, n):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    x[300:, 0] += distance
    regions = find_regions(as_cells(x, [1.0] * 600))
    assert len(regions.apart) == n
    if n == 2:
        np.testing.assert_allclose(regions.apart, distance, rtol=0.1)
        assert (regions.of == regions.of[0])[:300].mean() > 0.98
    assert (regions.of >= 0).mean() == pytest.approx(0.99, abs=0.01)


def test_cells_that_are_typical_of_no_state_are_in_no_region():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(100, 2)) + 30, rng.normal(size=(300, 2))])
    regions = find_regions(as_cells(x, [0.0] * 100 + [1.0] * 300))
    assert (regions.of[:100] == -1).all()


@pytest.mark.parametrize(
    ("places", "moving"),
    [
        ([0, 0, 0, 0], False),
        ([0, 1, 2, 3], True),
        ([0, 0.1, 0.2, 0.3], True),
        ([0, 3, 3.5, 3.6], False),
        ([0, 1], True),
    ],
)
def test_a_course_moves_on_unless_it_slows_down_or_rests(places, moving):
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=(400, 3)) * 0.5 + [p, -p, 0] for p in places])
    cells = as_cells(x, np.repeat(np.arange(len(places)), 400))
    assert moves_on(cells) is moving
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert moves_on(as_cells(x @ turned + 7, cells.time)) is moving


# Courses with known ends


def test_ends_that_nobody_was_seen_at_before_are_not_known_to_hold():
    """The fork still opens at the last time."""
    adata = forked()
    tw.tl.fit(adata, "time", method="usb", rng=0, config=SHORT)
    tw.tl.terminal_states(adata, rng=0)
    assert adata.obs["terminal_state"].isna().all()
    assert set(tw.get.terminal_states_df(adata)["verdict"]) == {"seen once"}


def resting_fork(n=150, seed=0):
    """A fork whose ends are reached at time 2 and kept at time 3."""
    adata = forked(n=n, seed=seed)
    rng = np.random.default_rng(seed + 100)
    last = adata[adata.obs["time"] == 2.0].copy()
    last.obs["time"] = 3.0
    last.obsm["X_pca"] = last.obsm["X_pca"] + rng.normal(0, 0.05, last.obsm["X_pca"].shape)
    last.obs_names = [f"last{i}" for i in range(last.n_obs)]
    return ad.concat([adata, last])


@pytest.mark.parametrize("method", ["usb", "otcfm"])
def test_ends_that_cells_reach_and_keep_are_found_named_and_used(method, tmp_path):
    adata = resting_fork()
    config = SHORT if method == "usb" else tw.tl.FitConfig(max_steps=500, width=32, validate_every=100)
    tw.tl.fit(adata, "time", method=method, rng=0, config=config)
    tw.tl.terminal_states(adata, rng=0)
    table = tw.get.terminal_states_df(adata)
    assert table["state"].tolist() == ["1", "2"]
    assert (table["stability"] > 0.9).all()
    assert (table["se"] < 0.05).all()
    assert table["stability"].is_monotonic_decreasing
    assert table["first_time"].tolist() == [2.0, 2.0]
    share, names = purity(adata, "type")
    assert (share > 0.99).all()
    assert names == {"A", "B"}
    known = adata.obs["terminal_state"].notna()
    np.testing.assert_array_equal(adata.obs["terminal_state_stability"].notna(), known)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(tw.get.terminal_states_df(back), table)
    first = adata.obs["type"][adata.obs["terminal_state"] == "1"].iloc[0]
    other = "B" if first == "A" else "A"
    adata.obs["terminal_state"] = adata.obs["terminal_state"].cat.rename_categories(
        {"1": f"end {first}", "2": f"end {other}"}
    )
    tw.tl.fate(adata, "terminal_state", absorbing=True, rng=0)
    fates, parted = adata.obsm["fate_terminal_state"], adata.obs["time"] == 1.0
    right = (
        fates["end A"][parted & (adata.obs["type"] == "A")].mean(),
        fates["end B"][parted & (adata.obs["type"] == "B")].mean(),
    )
    assert min(right) > 0.95


def test_the_branches_of_a_simulated_course_are_its_terminal_states():
    adata = tw.datasets.simulated(1500, n_genes=60, n_futures=0, rng=0)
    tw.tl.fit(adata, "time", method="usb", rng=0, config=SHORT)
    tw.tl.terminal_states(adata, rng=0)
    share, names = purity(adata, "branch")
    assert names == {"A", "B", "C"}
    assert len(share) == 3
    assert (share > 0.97).all()


def test_a_state_that_nobody_enters_is_one_if_its_cells_stay():
    """The toggle switch: one half moves to its end, the other rests from the start."""
    adata = tw.datasets.toggle_switch(200, rng=0)
    tw.tl.fit(adata, "time", method="usb", population_size="population_size", rng=0, config=SHORT)
    tw.tl.terminal_states(adata, rng=0)
    table = tw.get.terminal_states_df(adata).set_index("state")
    share, names = purity(adata, "state")
    assert names == {"switching", "quiescent"}
    assert (share > 0.99).all()
    quiet = adata.obs["terminal_state"][adata.obs["state"] == "quiescent"].dropna().iloc[0]
    moving = next(state for state in table.index if state != quiet)
    assert table.loc[quiet, "inflow"] < 0.1 < 0.3 < table.loc[moving, "inflow"]
    assert table.loc[quiet, "first_time"] == 0.0


def test_a_state_that_dies_out_is_terminal():
    """Two clouds far apart that rest; one of them is gone after time 1."""
    rng = np.random.default_rng(0)
    points = {t: rng.normal(size=(100, 2)) * 0.3 for t in (0.0, 1.0, 2.0, 3.0)}
    for t in (0.0, 1.0):
        points[t] = np.concatenate([points[t], rng.normal(size=(60, 2)) * 0.3 + 20])
    x = np.concatenate(list(points.values()))
    obs = pd.DataFrame({"time": np.repeat(list(points), [len(p) for p in points.values()])})
    obs.index = [f"c{i}" for i in range(len(x))]
    adata = ad.AnnData(obs=obs, obsm={"X_pca": x})
    tw.tl.fit(adata, "time", method="usb", rng=0, config=SHORT)
    tw.tl.terminal_states(adata, rng=0)
    gone = tw.get.terminal_states_df(adata).set_index("last_time").loc[1.0]
    assert gone["verdict"] == "terminal"
    assert gone["stability"] > 0.95
    assert gone["n_cells"] == pytest.approx(120, abs=6)
    tw.tl.fate(adata, "terminal_state", absorbing=True)
    far = x[:, 0] > 10
    assert (adata.obsm["fate_terminal_state"][gone["state"]].to_numpy()[far] > 0.99).all()


def test_conditions_are_carried_over_their_own_intervals():
    """One condition lacks time 2, so its cells are followed from time 1 to time 3; without labels of its own."""
    both = [resting_fork(n=100, seed=seed) for seed in (0, 1)]
    both[1] = both[1][both[1].obs["time"] != 2.0].copy()
    for name, one in zip("uv", both, strict=True):
        one.obs["arm"] = name
        one.obs_names = [f"{name}{cell}" for cell in one.obs_names]
    adata = ad.concat(both)
    tw.tl.fit(adata, "time", method="usb", condition_key="arm", rng=0, config=SHORT)
    tw.tl.terminal_states(adata, rng=0)
    share, names = purity(adata, "type")
    assert names == {"A", "B"}
    assert (share > 0.99).all()
    assert adata.obs["arm"][adata.obs["terminal_state"].notna()].nunique() == 2


# Courses without ends


@pytest.mark.parametrize("speed", [0.3, 2.0])
@pytest.mark.parametrize("method", ["usb", "otcfm"])
def test_a_population_that_moves_along_has_no_terminal_state(speed, method, caplog, tmp_path):
    adata = make_course(times=(0.0, 1.0, 2.0, 3.0), n=200, speed=speed)
    tw.tl.fit(adata, "time", method=method, rng=0, config=SHORT)
    with caplog.at_level("WARNING", logger="thalweg"):
        tw.tl.terminal_states(adata, rng=0)
    assert adata.obs["terminal_state"].isna().all()
    assert (tw.get.terminal_states_df(adata)["verdict"] != "terminal").all()
    assert "the course shows no terminal state" in caplog.text
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert ad.read_h5ad(tmp_path / "a.h5ad").obs["terminal_state"].isna().all()


def test_a_region_that_cells_leave_is_none(known, cells):
    """Two clouds at all times, and a flow that carries the left one to the right one."""
    rng = np.random.default_rng(0)
    cloud = np.concatenate([rng.normal(-5, 0.5, (100, 1)), rng.normal(5, 0.5, (100, 1))])
    adata = known(cells({0.0: cloud, 1.0: cloud, 2.0: cloud}), lambda t, x, c: torch.full_like(x, 10.0))
    tw.tl.terminal_states(adata, rng=0)
    table = tw.get.terminal_states_df(adata)
    assert table["verdict"].tolist() == ["terminal", "cells leave"]
    assert table["stability"].tolist() == pytest.approx([1.0, 0.0], abs=0.02)
    assert table["inflow"].iloc[0] == pytest.approx(0.5, abs=0.02)
    assert (adata.obsm["X_pca"][adata.obs["terminal_state"] == "1"] > 0).all()


# Options


def test_as_many_states_as_are_asked_for(known, cells):
    rng = np.random.default_rng(0)
    cloud = np.concatenate([rng.normal(-5, 0.5, (100, 1)), rng.normal(5, 0.5, (100, 1))])
    adata = known(cells({0.0: cloud, 1.0: cloud + 0.01}), lambda t, x, c: torch.zeros_like(x))
    tw.tl.terminal_states(adata, n_states=1, key_added="one", rng=0)
    assert adata.obs["one"].cat.categories.tolist() == ["1"]
    assert tw.get.terminal_states_df(adata, key="one")["verdict"].tolist() == ["terminal", "not asked for"]
    with pytest.raises(InputError, match="n_states=3, but only 2 candidates"):
        tw.tl.terminal_states(adata, n_states=3)
    again = [tw.tl.terminal_states(adata, rng=s, copy=True).uns["terminal_state"]["states"]["se"] for s in (0, 0)]
    np.testing.assert_array_equal(*again)
    assert "terminal_state" not in adata.uns


def test_what_cannot_be_used_is_refused(known, cells):
    adata = cells({0.0: np.zeros((20, 1)), 1.0: np.zeros((20, 1))})
    with pytest.raises(MissingKeyError, match="thalweg"):
        tw.tl.terminal_states(adata)
    known(adata, lambda t, x, c: torch.zeros_like(x))
    for options, found in (
        ({"n_states": 0}, "n_states must be a whole number from 1 on, found 0"),
        ({"n_draws": 1}, "n_draws must be a whole number from 2 on, found 1"),
        ({"min_stability": 1.5}, "min_stability must be a probability"),
        ({"kind": "both"}, "kind must be 'plan', 'flow' or None"),
    ):
        with pytest.raises(InputError, match=found):
            tw.tl.terminal_states(adata, **options)
    with pytest.raises(MissingKeyError, match=r"tw\.tl\.terminal_states"):
        tw.get.terminal_states_df(adata)
