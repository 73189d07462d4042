"""Trajectories against linear flows in closed form, against `interpolate`, and under every way to choose cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import expm

import thalweg as tw
from thalweg.errors import InputError, MemoryBudgetError, MissingKeyError

A = np.array([[0.1, -0.8], [0.8, -0.3]])


def linear(t, x, c):
    return x @ torch.as_tensor(A.T, dtype=x.dtype)


def cloud(n=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 2))


@pytest.fixture
def course(known, cells):
    adata = cells({0.0: cloud(6, 0), 1.0: cloud(5, 1), 3.0: cloud(4, 2)})
    return known(adata, linear)


def by_path(paths):
    return {name: (g["time"].to_numpy(), paths[g.index].obsm["X_pca"]) for name, g in paths.obs.groupby("trajectory", observed=True)}  # fmt: skip  # noqa: E501


def test_paths_are_those_of_the_linear_flow_both_ways(course):
    """x(t) = expm(A (t - t0)) x(t0), from cells of every time, over the uneven times 0, 1, 3."""
    paths = tw.tl.trajectories(course, np.ones(15, dtype=bool), direction="both", n_times=7)
    found = by_path(paths)
    assert len(found) == 15
    for name, (time, x) in found.items():
        start = course.obs.loc[name, "time"]
        origin = course[name].obsm["X_pca"][0]
        np.testing.assert_array_equal(time, np.unique([*np.linspace(0, 3, 7), start]))
        truth = np.stack([expm(A * (t - start)) @ origin for t in time])
        np.testing.assert_allclose(x, truth, atol=2e-3)


@pytest.mark.parametrize(("direction", "ahead"), [("forward", np.greater_equal), ("backward", np.less_equal)])
def test_a_cell_runs_from_its_own_time_over_the_times_ahead(course, direction, ahead):
    paths = tw.tl.trajectories(course, ["c7", "c0"], direction=direction, times=[0.5, 1.0, 2.0, 3.0])
    for name, start in (("c0", 0.0), ("c7", 1.0)):
        expected = [t for t in np.unique([start, 0.5, 1.0, 2.0, 3.0]) if ahead(t, start)]
        rows = paths.obs["source"] == name
        assert paths.obs.loc[rows, "time"].tolist() == expected
        own = rows & (paths.obs["time"] == start)
        np.testing.assert_array_equal(
            paths[own.to_numpy()].obsm["X_pca"], course[name].obsm["X_pca"].astype(np.float32)
        )


def test_each_time_is_what_interpolate_says(known, course):
    """The same places, sources and weights, with growth on the way."""
    known(course, linear, growth=lambda t, x, c: x[:, 0] - 0.2 * t)
    paths = tw.tl.trajectories(course, times=[0.7, 1.8, 3.0])
    for t in (0.7, 1.8, 3.0):
        there = paths[(paths.obs["time"] == t).to_numpy()]
        other = tw.tl.interpolate(course, t, source_time=0.0)
        np.testing.assert_allclose(there.obsm["X_pca"], other.obsm["X_pca"], atol=1e-3)
        np.testing.assert_allclose(there.obs["weight"], other.obs["weight"], rtol=1e-3)
        assert list(there.obs["source"]) == list(other.obs["source"])
        assert there.obs["weight"].std() > 0.01


def test_backward_undoes_forward(course):
    ends = tw.tl.trajectories(course, times=[3.0])
    course.obsm["X_pca"][:6] = ends[(ends.obs["time"] == 3.0).to_numpy()].obsm["X_pca"]
    course.obs["time"] = [3.0] * 6 + [1.0] * 5 + [3.0] * 4
    back = tw.tl.trajectories(course, [f"c{i}" for i in range(6)], direction="backward", times=[0.0])
    np.testing.assert_allclose(back[(back.obs["time"] == 0).to_numpy()].obsm["X_pca"], cloud(6, 0), atol=2e-3)


def test_the_sde_has_the_mean_and_variance_of_an_ornstein_uhlenbeck_process(known, cells):
    """dz = -k z dt + s dW from 2: mean 2 exp(-k t), variance s^2 (1 - exp(-2 k t)) / (2 k); 4,000 paths."""
    k, s, n = 0.7, 0.6, 4000
    adata = cells({0.0: [[2.0]], 2.0: [[0.0]]})
    known(adata, lambda t, x, c: torch.zeros_like(x), score=lambda t, x, c: -k * x, sigma=s, method="sf2m")
    paths = tw.tl.trajectories(adata, ["c0"], times=[1.0, 2.0], stochastic=True, n_samples=n, n_steps=60, rng=0)
    for t in (1.0, 2.0):
        x = paths[(paths.obs["time"] == t).to_numpy()].obsm["X_pca"][:, 0]
        variance = s**2 * (1 - np.exp(-2 * k * t)) / (2 * k)
        assert x.mean() == pytest.approx(2 * np.exp(-k * t), abs=4 * np.sqrt(variance / n) + 0.01)
        assert x.var() == pytest.approx(variance, rel=0.1)
    assert paths.obs["trajectory"].nunique() == n
    assert (paths.obs["source"] == "c0").all()


def test_a_seed_fixes_the_noise_and_the_draw_of_cells(known, course):
    known(course, linear, score=lambda t, x, c: -x, sigma=0.5)
    options = {"stochastic": True, "n_samples": 2, "n_times": 4}
    a, b = (tw.tl.trajectories(course, 3, rng=5, **options) for _ in range(2))
    np.testing.assert_array_equal(a.obsm["X_pca"], b.obsm["X_pca"])
    pd.testing.assert_frame_equal(a.obs, b.obs)
    other = tw.tl.trajectories(course, ["c0"], rng=6, **options).obsm["X_pca"]
    assert np.abs(other - tw.tl.trajectories(course, ["c0"], rng=7, **options).obsm["X_pca"]).max() > 0.01
    np.testing.assert_array_equal(other, tw.tl.trajectories(course, ["c0"], random_state=6, **options).obsm["X_pca"])


def test_names_masks_columns_and_numbers_choose_the_same_cells(course):
    course.obs["kind"] = ["a", "b", "a"] * 5
    mask = ((course.obs["kind"] == "a") & (course.obs["time"] == 1.0)).to_numpy()
    chosen = [
        course.obs_names[mask], list(course.obs_names[mask]), mask, pd.Series(mask, course.obs_names),
        {"kind": "a", "time": 1.0}, {"kind": ["a", "c"], "time": [1.0]},
    ]  # fmt: skip
    results = [tw.tl.trajectories(course, c, n_times=3) for c in chosen]
    for other in results[1:]:
        pd.testing.assert_frame_equal(results[0].obs, other.obs)
    assert set(results[0].obs["source"]) == set(course.obs_names[mask])
    assert set(tw.tl.trajectories(course, n_times=2).obs["source"]) == {f"c{i}" for i in range(6)}
    assert set(tw.tl.trajectories(course, direction="backward", n_times=2).obs["source"]) == {f"c{i}" for i in range(11, 15)}  # fmt: skip  # noqa: E501
    few = set(tw.tl.trajectories(course, 4, n_times=2, rng=0).obs["source"])
    assert len(few) == 4
    assert few < {f"c{i}" for i in range(6)}


def test_each_condition_follows_its_own_flow(known, cells):
    adata = cells({0.0: [[0.0], [0.0]], 1.0: [[1.0], [-1.0]]}, donor=pd.Categorical(["u", "v"] * 2))
    known(adata, lambda t, x, c: torch.where(c == 0, 1.0, -1.0)[:, None].to(x.dtype), condition_key="donor")
    paths = tw.tl.trajectories(adata, n_times=3)
    sign = np.where(paths.obs["donor"] == "u", 1.0, -1.0)
    np.testing.assert_allclose(paths.obsm["X_pca"][:, 0], sign * paths.obs["time"], atol=1e-5)
    assert paths.obs["donor"].dtype == adata.obs["donor"].dtype


def test_files_hold_the_paths(course, tmp_path):
    paths = tw.tl.trajectories(course, direction="both", n_times=3)
    assert paths.obs_names.is_unique
    paths.write_h5ad(tmp_path / "a.h5ad")
    paths.write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_array_equal(back.obsm["X_pca"], paths.obsm["X_pca"])
        pd.testing.assert_frame_equal(back.obs, paths.obs, check_names=False)
        np.testing.assert_array_equal(back.uns["trajectories"]["times"], [0, 1.5, 3])


def test_a_fitted_course_moves_at_its_speed(fitted):
    """A trained flow: clouds move by 2 per unit of time along the first axis."""
    paths = tw.tl.trajectories(fitted, n_times=4)
    mean = paths.obs.assign(x=paths.obsm["X_pca"][:, 0]).groupby("time")["x"].mean()
    np.testing.assert_allclose(mean, 2 * mean.index, atol=0.3)


def test_what_cannot_be_followed_is_refused(course):
    with pytest.raises(MissingKeyError, match="not in obs_names"):
        tw.tl.trajectories(course, ["nobody"])
    for cells, text in (
        (np.zeros(15, dtype=bool), "none of the 15 cells"),
        (np.ones(4, dtype=bool), r"shape \(15,\)"),
        (np.array([1.5]), "must be names"),
        (7, "between 1 and the 6 cells"),
    ):
        with pytest.raises(InputError, match=text):
            tw.tl.trajectories(course, cells)
    for options, text in (
        ({"times": [9.0]}, "outside the observed range"),
        ({"times": []}, "times is empty"),
        ({"n_times": 1}, "n_times"),
        ({"direction": "up"}, "direction"),
        ({"n_samples": 2}, "n_samples=2"),
        ({"stochastic": True}, "learns a score"),
    ):
        with pytest.raises(InputError, match=text):
            tw.tl.trajectories(course, **options)
    tw.tl.trajectories(course, times=[9.0], extrapolate=True)
    tw.settings.max_memory = 1000
    with pytest.raises(MemoryBudgetError, match="6 rows x 104 columns x 4 bytes"):
        tw.tl.trajectories(course)
