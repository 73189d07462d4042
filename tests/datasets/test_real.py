"""The real files, where a local folder has them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from thalweg.datasets import boolode, cite, fetch, larry, mef_reprogramming
from thalweg.datasets._registry import DATA_DIR, FILES
from thalweg.errors import InputError

pytestmark = pytest.mark.skipif(not os.environ.get(DATA_DIR), reason=f"{DATA_DIR} is not set: no real data here")


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_local_folder_holds_every_file_of_the_table(name: str) -> None:
    assert fetch(name) == Path(os.environ[DATA_DIR]) / name


def test_cite_holds_centred_uncorrelated_components_of_both_fits() -> None:
    small, large = cite(), cite(100)
    assert small.obs["day"].value_counts().sort_index().to_dict() == {2: 6071, 3: 7643, 4: 8485, 7: 7195}
    assert small.obs_names.is_unique
    assert small.obs_names.equals(large.obs_names)
    for course in (small, large):
        x = course.obsm["X_pca"].astype(np.float64)
        np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-3)
        correlation = np.corrcoef(x.T)
        np.testing.assert_allclose(correlation, np.eye(len(correlation)), atol=0.02)
    np.testing.assert_array_equal(cite(5).obsm["X_pca"], small.obsm["X_pca"][:, :5])
    np.testing.assert_array_equal(cite(60).obsm["X_pca"], large.obsm["X_pca"][:, :60])
    agreement = [abs(np.corrcoef(small.obsm["X_pca"][:, j], large.obsm["X_pca"][:, j])[0, 1]) for j in range(50)]
    assert min(agreement[:20]) > 0.99
    assert min(agreement) < 0.9


def test_larry_is_read_as_it_is() -> None:
    course = larry()
    assert course.shape == (781, 2481)
    assert course.obs["time_info"].astype(str).value_counts().to_dict() == {"2": 34, "4": 316, "6": 431}
    assert course.obs["time_info"].dtype == "category"
    assert course.obsm["X_pca"].shape == (781, 40)
    np.testing.assert_array_equal(np.asarray(course.obsm["X_clone"].sum(axis=1)).ravel(), 1)


def test_boolode_is_read_by_the_names_of_its_cells() -> None:
    """Its tables order cells differently: rightly joined, the drift of an mRNA falls with its own level."""
    course = boolode()
    assert course.shape == (1000, 8)
    assert course.obs["branch"].value_counts().sum() == 1000
    times = np.unique(course.obs["time"])
    assert len(times) == 6
    assert times[0] == pytest.approx(course.obs["step"][course.obs["time"] == times[0]].mean() / 100)
    x, v = (np.asarray(course.obsm[k], dtype=float) for k in ("X_genes", "velocity_genes_true"))
    on = x[:, 0] > 1
    slope = np.polyfit(x[on, 0], v[on, 0], 1)[0]
    assert -9 < slope < -4
    assert len(np.unique(boolode(2, n_times=4).obs["time"])) == 4


@pytest.mark.parametrize(("options", "message"), [
    ({"knockout": 1}, "knockout must be a gene from 2 to 8"), ({"n_times": 1}, "n_times must be an integer from 2"),
])  # fmt: skip
def test_boolode_refuses_what_it_has_not(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        boolode(**options)


def test_mef_reprogramming_is_read_as_it_is() -> None:
    course = mef_reprogramming()
    assert course.shape == (1000, 1479)
    assert course.obs["day"].astype(float).value_counts().to_dict() == {10.0: 318, 10.5: 316, 11.0: 366}
    assert {"cell_type", "batch"} <= set(course.obs)
    assert len(course.obsm) == 0
