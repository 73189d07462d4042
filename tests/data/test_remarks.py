"""What is readable and odd is said, once each, and silent on a sound course."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

import thalweg as tw
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError


def warnings_of(caplog, adata, **options) -> list[str]:
    caplog.clear()
    read_course(adata, Recipe("time", **options))
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_sound_course_is_silent(course, caplog):
    assert warnings_of(caplog, course) == []


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_matrix])
def test_raw_counts_are_recognised_and_their_logarithms_are_not(course, caplog, layout):
    counts = np.random.default_rng(0).poisson(1.0, (360, 30))
    adata = AnnData(layout(counts.astype(np.float32)), obs=course.obs)
    (message,) = warnings_of(caplog, adata, use_rep="X")
    assert "looks like raw counts" in message
    assert "sc.pp.pca" in message
    adata.X = layout(np.log1p(counts).astype(np.float32))
    assert warnings_of(caplog, adata, use_rep="X") == []
    adata.obsm["signed"] = counts - 1  # whole numbers, and no counts
    assert warnings_of(caplog, adata, use_rep="signed") == []
    adata.obsm["genes"] = np.random.default_rng(0).standard_normal((360, 501))
    assert "looks like genes" in warnings_of(caplog, adata, use_rep="genes")[0]


@pytest.mark.parametrize(("n", "said"), [(1, "single cell"), (3, "3 cells only"), (9, "9 cells only"), (10, None)])
def test_few_cells_at_a_time(course, caplog, n, said):
    few = course[np.r_[0:n, 120:360]].copy()
    found = warnings_of(caplog, few)
    assert len(found) == (said is not None)
    assert said is None or (said in found[0] and "time 0" in found[0])


def test_weights_by_which_a_few_cells_decide(course, caplog):
    course.obs["weight"] = 1.0
    assert warnings_of(caplog, course, weight_key="weight") == []
    course.obs.iloc[:3, course.obs.columns.get_loc("weight")] = 1e300  # three of the 120 cells of time 0
    (message,) = warnings_of(caplog, course, weight_key="weight")
    assert "by their weights the 120 cells of time 0 count as 3" in message
    course.obs["weight"] = np.random.default_rng(0).uniform(0.5, 1.5, 360)
    assert warnings_of(caplog, course, weight_key="weight") == []


def test_repeated_names(course, caplog):
    names = course.obs_names.to_numpy().copy()
    names[[5, 6]] = names[4]
    course.obs_names = names
    (message,) = warnings_of(caplog, course)
    assert "2 of the obs_names repeat" in message
    assert "obs_names_make_unique" in message


def test_a_batch_for_each_time(course, caplog):
    course.obs["seq_batch"] = course.obs["time"].map({0.0: "a", 1.0: "b", 3.0: "b"})
    assert warnings_of(caplog, course) == []  # times 1 and 3 share a batch
    course.obs["stage"] = course.obs["time"].map({0.0: "a", 1.0: "b", 3.0: "c"})
    assert warnings_of(caplog, course) == []  # a name for each time is no batch
    course.obs["seq_batch"] = course.obs["stage"]
    (message,) = warnings_of(caplog, course)
    assert "every batch in obs['seq_batch'] was taken at a single time" in message
    with pytest.raises(InputError, match=r"each of the 3 conditions in obs\['seq_batch'\] occurs at one time"):
        read_course(course, Recipe("time", condition_key="seq_batch"))


def test_dropping_is_asked_for_and_counted(course, caplog):
    course.obs.loc[course.obs_names[[0, 1]], "time"] = np.nan
    course.obs.loc[course.obs_names[2], "time"] = np.inf
    course.obsm["X_pca"][3, 0] = np.nan
    before = course.copy()
    with pytest.raises(InputError, match=r"2 missing values .*tw\.pp\.drop_missing\(adata, 'time'\)"):
        read_course(course, Recipe("time"))
    out = tw.pp.drop_missing(course, "time", use_rep="X_pca", copy=True)
    assert "dropped 4 of 360 cells: 3 without a finite time, 1 with NaN or infinite" in caplog.text
    assert list(out.obs_names) == list(before.obs_names[4:])
    assert course.n_obs == 360
    read_course(out, Recipe("time"))
    tw.pp.drop_missing(course, "time")
    assert course.n_obs == 357
    course.obs["time"] = "nan"
    with pytest.raises(InputError, match="nothing is dropped"):
        tw.pp.drop_missing(course, "time")
    assert course.n_obs == 357


def test_populations_are_those_of_a_condition(course, caplog):
    course.obs["arm"] = np.where(np.arange(360) % 120 < 4, "rare", "common")
    found = warnings_of(caplog, course, condition_key="arm")
    assert len(found) == 3
    assert "time 0 of condition 'rare' has 4 cells only" in found[0]
