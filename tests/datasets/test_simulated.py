"""What `simulated` writes, against the process it was drawn from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from thalweg.datasets import simulated, simulated_drift
from thalweg.errors import InputError, MissingKeyError


@pytest.fixture(scope="module")
def course() -> anndata.AnnData:
    return simulated()


def test_pca_is_exact_and_inverts_to_expression_up_to_the_gene_noise(course: anndata.AnnData) -> None:
    x, pcs, scores = course.X.astype(np.float64), course.varm["PCs"], course.obsm["X_pca"]
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(scores, centred @ pcs, atol=1e-4)
    np.testing.assert_allclose(pcs.T @ pcs, np.eye(10), atol=1e-6)
    singular = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(course.uns["pca"]["variance"], singular[:10] ** 2 / (len(x) - 1), rtol=1e-6)
    np.testing.assert_allclose(course.uns["pca"]["variance_ratio"], singular[:10] ** 2 / (singular**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(np.cov(scores.T), np.diag(course.uns["pca"]["variance"]), atol=1e-3)
    progress = course.obs["pseudotime"].to_numpy()
    assert all(np.corrcoef(scores[:, j], progress)[0, 1] > 0.1 for j in (0, 1))  # the sign of the axes
    left = centred - scores @ pcs.T
    assert left.std() == pytest.approx(course.uns["simulated"]["gene_noise"], rel=0.05)
    assert course.uns["pca"]["variance"][4] > 20 * course.uns["pca"]["variance"][5]  # five dimensions, then noise


def test_the_stored_map_is_the_regression_of_scores_on_latents(course: anndata.AnnData) -> None:
    design = np.column_stack([course.obsm["X_latent"], np.ones(course.n_obs)])
    fitted = np.linalg.lstsq(design, course.obsm["X_pca"], rcond=None)[0]
    stored = course.uns["simulated"]
    np.testing.assert_allclose(fitted[:5], stored["latent_to_pca"], atol=0.05)
    np.testing.assert_allclose(fitted[5], stored["latent_origin_pca"], atol=0.05)
    gram = stored["latent_to_pca"] @ stored["latent_to_pca"].T
    np.testing.assert_allclose(gram, stored["loading_scale"] ** 2 * np.eye(5), atol=0.02)


def test_true_velocity_is_the_drift_at_the_cells(course: anndata.AnnData) -> None:
    stored, velocity = course.uns["simulated"], course.obsm["velocity_pca_true"]
    noiseless = course.obsm["X_latent"] @ stored["latent_to_pca"] + stored["latent_origin_pca"]
    np.testing.assert_allclose(simulated_drift(course, noiseless, course.obs["time"]), velocity, atol=1e-4)
    drift = simulated_drift(course, course.obsm["X_pca"])
    assert np.linalg.norm(drift - velocity) < 0.1 * np.linalg.norm(velocity)  # the gene noise in the scores


def test_drift_moves_real_snapshots(course: anndata.AnnData) -> None:
    # d/dt E[x] = E[f] for the law at t, by two independent snapshots at t -+ h and one at t, in one PCA
    h = 0.2
    three = simulated(30_000, times=(1.5 - h, 1.5, 1.5 + h), n_genes=20, n_pcs=5, n_futures=0, rng=3)
    time, x = three.obs["time"].to_numpy(), three.obsm["X_pca"].astype(np.float64)
    before, now, after = (time == t for t in (1.5 - h, 1.5, 1.5 + h))
    rate = (x[after].mean(axis=0) - x[before].mean(axis=0)) / (2 * h)
    error = np.sqrt((x[after].var(axis=0) + x[before].var(axis=0)) / 10_000) / (2 * h)
    mean_drift = three.obsm["velocity_pca_true"][now].mean(axis=0)
    np.testing.assert_array_less(np.abs(rate - mean_drift), 4 * error + 0.1)
    assert np.linalg.norm(mean_drift) > 2


def test_fate_probabilities_are_the_frequencies_of_the_branches(course: anndata.AnnData) -> None:
    fates = list(course.uns["simulated"]["fates"])
    late = simulated(8000, times=(0.0, 14.0), n_genes=20, n_pcs=5, n_futures=0, rng=5)
    ended = late.obs["branch"][late.obs["time"] == 14.0]
    assert set(ended) <= {*fates}
    frequency = np.array([(ended == fate).mean() for fate in fates])
    assert frequency.min() > 0.1
    assert np.ptp(frequency) > 0.1
    np.testing.assert_allclose(course.obsm["fate_true"].sum(axis=1), 1.0)
    np.testing.assert_allclose(course.obsm["fate_true"].mean(axis=0), frequency, atol=0.05)
    for time, cells in course.obs.groupby("time").indices.items():  # the mean fate of a population does not change
        np.testing.assert_allclose(course.obsm["fate_true"][cells].mean(axis=0), frequency, atol=0.1, err_msg=str(time))
    for column, fate in enumerate(fates):
        named = course.obsm["fate_true"][(course.obs["branch"] == fate).to_numpy(), column]
        assert named.mean() > 0.97
    undecided = course.obsm["fate_true"][(course.obs["time"] == 0.0).to_numpy()].max(axis=1)
    assert (undecided < 0.9).mean() > 0.98


def w1(x: np.ndarray, y: np.ndarray) -> float:
    """Exact 1-Wasserstein distance of two samples of equal size."""
    cost = cdist(x, y)
    return float(cost[linear_sum_assignment(cost)].mean())


def test_held_out_time_can_be_interpolated_but_not_by_a_straight_line(course: anndata.AnnData) -> None:
    times = np.unique(course.obs["time"])
    other = simulated(rng=1, n_futures=0)
    cloud = [course.obsm["X_latent"][course.obs["time"] == t] for t in times]
    again = [other.obsm["X_latent"][other.obs["time"] == t] for t in times]
    for i in (1, 2, 3):
        share = (times[i] - times[i - 1]) / (times[i + 1] - times[i - 1])
        _, partner = linear_sum_assignment(cdist(cloud[i - 1], cloud[i + 1], "sqeuclidean"))
        middle = (1 - share) * cloud[i - 1] + share * cloud[i + 1][partner]
        floor, copy, straight = (w1(x, cloud[i]) for x in (again[i], cloud[i - 1], middle))
        assert 1.5 * floor < straight < 0.65 * copy


def test_the_population_does_not_depend_on_the_other_times() -> None:
    first = simulated(4000, times=(1.0, 3.0), n_genes=30, n_futures=0, rng=7)
    second = simulated(8000, times=(0.5, 1.0, 2.2, 3.0), n_genes=30, n_futures=0, rng=7)
    a, b = (x.obsm["X_latent"][x.obs["time"] == 3.0] for x in (first, second))
    assert len(a) == len(b) == 2000
    np.testing.assert_array_less(np.abs(a.mean(axis=0) - b.mean(axis=0)), 4.5 * a.std(axis=0) * np.sqrt(2 / 2000))
    np.testing.assert_allclose(a.std(axis=0), b.std(axis=0), rtol=0.12)
    assert not np.isin(a[:, 0], b[:, 0]).any()
    start = simulated(
        4000, times=(1.0, 3.5), n_genes=30, n_futures=0, rng=7
    )  # the time of the first snapshot alone is the same
    assert abs(np.corrcoef(start.obsm["X_latent"][:2000, 1], first.obsm["X_latent"][:2000, 1])[0, 1]) < 0.1
    # and the genes are the same: the second course in the PCA of the first is its latent state there, and noise
    stored = first.uns["simulated"]
    projected = (second.X - first.X.mean(axis=0)) @ first.varm["PCs"]
    left = projected - (second.obsm["X_latent"] @ stored["latent_to_pca"] + stored["latent_origin_pca"])
    assert left.std() == pytest.approx(stored["gene_noise"], rel=0.05)


def test_one_seed_gives_the_same_bits_and_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    small: dict[str, Any] = {"n_cells": 300, "n_genes": 40, "n_futures": 8}
    first, second, named = simulated(**small, rng=11), simulated(**small, rng=11), simulated(**small, random_state=11)
    other, generator = simulated(**small, rng=12), simulated(**small, rng=np.random.default_rng(11))
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    assert before["pos"] == after["pos"]
    np.testing.assert_array_equal(before["key"], after["key"])
    for same in (second, named, generator):
        np.testing.assert_array_equal(first.X, same.X)
        for key in first.obsm:
            np.testing.assert_array_equal(first.obsm[key], same.obsm[key])
    assert np.abs(first.X - other.X).max() > 0.1


def test_branches_counts_and_types() -> None:
    two = simulated(103, times=(0.0, 2.0), n_branches=2, n_genes=30, n_pcs=6, n_futures=8)
    assert list(two.obs["branch"].cat.categories) == ["progenitor", "A", "B"]
    assert two.obsm["fate_true"].shape == (103, 2)
    assert two.obs["time"].value_counts().to_dict() == {0.0: 52, 2.0: 51}
    assert two.X.dtype == two.obsm["X_pca"].dtype == two.obsm["velocity_pca_true"].dtype == np.float32
    assert (two.X < 0).mean() < 0.01
    assert "fate_true" not in simulated(50, n_futures=0).obsm


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    written = simulated(200, n_futures=4)
    path = tmp_path / f"course.{suffix}"
    getattr(written, f"write_{suffix}")(path)
    read = getattr(anndata, f"read_{suffix}")(path)
    np.testing.assert_array_equal(written.X, read.X)
    for key in written.obsm:
        np.testing.assert_array_equal(written.obsm[key], read.obsm[key])
    assert written.obs.equals(read.obs)
    assert list(read.uns["simulated"]["fates"]) == ["A", "B", "C"]
    x = written.obsm["X_pca"] + 0.3
    np.testing.assert_array_equal(simulated_drift(written, x), simulated_drift(read, x))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n_cells": 9}, "n_cells"),
        ({"n_cells": 2500.0}, "n_cells"),
        ({"n_cells": True}, "n_cells"),
        ({"n_cells": 12, "n_pcs": 12}, "n_pcs=12"),
        ({"times": ()}, "times"),
        ({"times": (0.0, -1.0)}, "times"),
        ({"times": (-1.0, 1.0)}, "times"),
        ({"times": (0.0, 2.0, 2.0)}, "times"),
        ({"times": (0.0, float("nan"))}, "times"),
        ({"n_pcs": 4}, "n_pcs"),
        ({"n_pcs": 30, "n_genes": 20}, "n_pcs"),
        ({"n_genes": 3}, "n_genes"),
        ({"n_branches": 4}, "n_branches"),
        ({"n_futures": -1}, "n_futures"),
        ({"rng": -1}, "rng"),
        ({"rng": "0"}, "rng"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        simulated(**arguments)


def test_two_seeds_are_refused() -> None:
    with pytest.raises(TypeError, match="random_state"):
        simulated(rng=3, random_state=3)


def test_drift_refuses_what_it_cannot_read() -> None:
    course = simulated(50, n_futures=0)
    x = course.obsm["X_pca"]
    with pytest.raises(InputError, match=r"\(n, 10\).*\(50, 5\)"):
        simulated_drift(course, x[:, :5])
    with pytest.raises(InputError, match="finite"):
        simulated_drift(course, np.full((1, 10), np.nan))
    with pytest.raises(InputError, match="time"):
        simulated_drift(course, x, np.zeros(3))
    with pytest.raises(MissingKeyError, match=r"uns\['simulated'\].*\['other'\]"):
        simulated_drift(anndata.AnnData(uns={"other": 1}), x)


def test_import_is_light() -> None:
    code = "import sys, thalweg.datasets; print(*{'torch', 'scanpy', 'anndata', 'pandas', 'pooch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
