"""Sizes of populations are read in every form that is offered, and whatever is wrong with them is named."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.data.sizes import read_sizes
from thalweg.errors import InputError, MissingKeyError


def course(labels=(0.0, 1.0, 3.0), arms=None):
    time = np.repeat(np.array(labels, dtype=object), 4)
    obs = pd.DataFrame({"t": list(time)}, index=[f"c{i}" for i in range(len(time))])
    if arms:
        obs["arm"] = np.tile(arms, len(time) // len(arms))
    return AnnData(obs=obs, obsm={"X_pca": np.random.default_rng(0).normal(size=(len(time), 2))})


def read(adata, given, condition_key=None, time_map=None):
    cells = read_course(adata, Recipe("t", condition_key=condition_key, time_map=time_map))
    return read_sizes(adata, given, cells, time_map)


@pytest.mark.parametrize("given", [{0: 10, 1: 20, 3: 5}, {"0.0": 10, "1": 20.0, "3": "5"}, "counts"])
def test_numbers_text_and_a_key_of_uns(given):
    adata = course()
    adata.uns["counts"] = {"0": 10.0, "1": 20.0, "3": 5.0}
    np.testing.assert_array_equal(read(adata, given), [[10, 20, 5]])
    assert read(adata, None) is None


def test_labels_of_a_time_map():
    adata = course(["d0", "d2", "d5"])
    time_map = {"d0": 0, "d2": 2, "d5": 5}
    np.testing.assert_array_equal(read(adata, {"d0": 1, "d2": 2, "d5": 4}, time_map=time_map), [[1, 2, 4]])
    np.testing.assert_array_equal(read(adata, {0: 1, 2: 2, 5: 4}, time_map=time_map), [[1, 2, 4]])


def test_conditions_have_sizes_of_their_own_and_nan_where_they_were_not_observed():
    adata = course(arms=["a", "b"])
    adata = adata[~((adata.obs["t"] == 1.0) & (adata.obs["arm"] == "b"))].copy()
    given = {"a": {0: 1, 1: 2, 3: 4}, "b": {0: 5, 3: 6}}
    np.testing.assert_array_equal(read(adata, given, "arm"), [[1, 2, 4], [5, np.nan, 6]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({0: 10, 3: 5}, r"lacks the times \[1.0\].*Give one size"),
        ({0: 10, 1: 1, 2: 3, 3: 5}, r"has the times \[2.0\], at which there are no cells"),
        ({0: 10, 1: 0, 3: 5}, "at time 1 must be a positive number, found 0"),
        ({0: 10, 1: -2, 3: 5}, "at time 1 must be a positive number, found -2"),
        ({0: 10, 1: np.nan, 3: 5}, "at time 1 must be a positive number, found nan"),
        ({0: 10, 1: "many", 3: 5}, "at time 1 must be a positive number, found 'many'"),
        ({0: 10, 1: True, 3: 5}, "at time 1 must be a positive number, found True"),
        ({"start": 10, 1: 1, 3: 5}, "has the key 'start', which is not a time"),
        ([10, 20, 5], "must be a dict of sizes by time"),
    ],
)
def test_what_is_wrong_is_named(given, message):
    with pytest.raises(InputError, match=message):
        read(course(), given)


def test_a_key_that_is_not_there_lists_those_that_are():
    adata = course()
    adata.uns["other"] = 1
    with pytest.raises(MissingKeyError, match=r"population_size='counts'.*'other'"):
        read(adata, "counts")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({0: 10, 1: 20, 3: 5}, r"needs one dict of sizes by time for each condition \['a', 'b'\]"),
        ({"a": {0: 1, 1: 2, 3: 4}}, r"needs one dict.*found the keys \['a'\]"),
        ({"a": {0: 1, 1: 2, 3: 4}, "b": {0: 1, 3: 4}}, r"of condition 'b' lacks the times \[1.0\]"),
    ],
)
def test_conditions_that_lack_something_are_named(given, message):
    with pytest.raises(InputError, match=message):
        read(course(arms=["a", "b"]), given, "arm")
