"""Time columns: every type a biologist uses is read right or refused by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from thalweg.data.times import parse_times
from thalweg.errors import InputError, MissingKeyError


def cells(values, dtype=None) -> AnnData:
    column = pd.Series(values, index=[f"c{i}" for i in range(len(values))], dtype=dtype)
    return AnnData(obs=pd.DataFrame({"day": column}))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 2, 10, 2], None),
        ([0.0, 2.0, 10.0, 2.0], "float32"),
        (["0", "2", "10", "2"], None),
        (["0", "2", "10", "2"], "category"),
        ([0, 2, 10, 2], "category"),
        ([0, 2, 10, 2], "Int64"),
        (["0", 2, "10.0", 2.0], object),
    ],
)
def test_numbers_are_read_by_value_and_obs_is_not_changed(values, dtype):
    adata = cells(values, dtype)
    before = adata.obs.copy()
    np.testing.assert_array_equal(parse_times(adata, "day"), [0.0, 2.0, 10.0, 2.0])
    pd.testing.assert_frame_equal(adata.obs, before)


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=20))
def test_text_and_numbers_agree(values):
    np.testing.assert_array_equal(parse_times(cells([repr(v) for v in values]), "day"), np.asarray(values))


def test_an_ordered_category_is_read_by_value_not_by_its_order():
    adata = cells(pd.Categorical(["10", "2", "0"], categories=["10", "2", "0"], ordered=True))
    np.testing.assert_array_equal(parse_times(adata, "day"), [10.0, 2.0, 0.0])


def test_labels_need_a_map_and_the_message_offers_one():
    adata = cells(["d0", "d10", "d2"])
    with pytest.raises(InputError, match=r"'d0', which is not a number.*time_map=\{'d0': 0, 'd2': 2, 'd10': 10\}"):
        parse_times(adata, "day")
    for unclear in (["12h", "2d"], ["early", "late"], ["d1 rep2", "d2 rep1"]):
        with pytest.raises(InputError, match=rf"time_map=\{{'{unclear[0]}': \.\.\., '{unclear[1]}': \.\.\.\}}"):
            parse_times(cells(unclear), "day")
    np.testing.assert_array_equal(parse_times(adata, "day", {"d0": 0, "d2": 2, "d10": 10}), [0.0, 10.0, 2.0])
    with pytest.raises(InputError, match="no entry for 'd10'"):
        parse_times(adata, "day", {"d0": 0, "d2": 2})


def test_missing_times_are_counted_and_named():
    with pytest.raises(InputError, match=r"2 missing values \(first cells: 'c1', 'c3'\)"):
        parse_times(cells([0.0, np.nan, 1.0, np.nan]), "day")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([0.0, np.inf], "finite"),
        (["0", "nan"], "finite"),
        (["0", "1e999"], "finite"),
        (["1_0", "2_0"], "'1_0', which is not a number"),  # float("1_0") is 10
        ([0j, 1j], "booleans or dates"),
        (pd.array([True, False], dtype="boolean"), "booleans or dates"),
        ([True, False], "booleans or dates"),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), "booleans or dates"),
        (pd.to_timedelta([1, 2], unit="D"), "booleans or dates"),
    ],
)
def test_what_is_not_a_time_is_refused(values, match):
    with pytest.raises(InputError, match=match):
        parse_times(cells(values), "day")


def test_a_missing_column_lists_those_that_exist():
    with pytest.raises(
        MissingKeyError, match=r"time_key='time' is not a column of adata.obs; columns that exist: 'day'"
    ):
        parse_times(cells([0, 1]), "time")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_narrow_floats_mean_the_number_that_is_printed(dtype):
    np.testing.assert_array_equal(parse_times(cells([0.1, 0.7, 3], dtype), "day"), [0.1, 0.7, 3.0])
    np.testing.assert_array_equal(parse_times(cells([0.1, 0.7], dtype), "day", {0.1: 1, 0.7: 2}), [1.0, 2.0])


def test_two_columns_of_one_name_are_refused():
    adata = cells([0, 1])
    adata.obs = pd.DataFrame([[0, 1], [1, 2]], columns=["day", "day"], index=adata.obs_names)
    with pytest.raises(InputError, match="2 columns named 'day'"):
        parse_times(adata, "day")
