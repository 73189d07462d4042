"""Growth rates and weights of cells, and the number of descendants they stand for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from thalweg.data.cells import read_course
from thalweg.data.rates import offspring, read_rates, read_weights
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError, MissingKeyError

TIME = np.array([0.0, 0.0, 1.0, 1.0, 3.0, 3.0])


def course(rates, arm=None) -> AnnData:
    obs = pd.DataFrame({"day": TIME, "rate": rates}, index=list("abcdef"))
    if arm is not None:
        obs["arm"] = arm
    return AnnData(obs=obs, obsm={"X_pca": np.arange(12.0).reshape(6, 2) - 5})


def test_rates_of_the_last_time_may_be_missing_and_count_as_none():
    rates = [0.1, -0.2, 0.0, 3.0, np.nan, np.nan]
    np.testing.assert_array_equal(read_rates(course(rates), "rate", TIME), [0.1, -0.2, 0.0, 3.0, 0.0, 0.0])
    as_text = [str(v) for v in rates[:4]] + [None, None]
    np.testing.assert_array_equal(read_rates(course(as_text), "rate", TIME), [0.1, -0.2, 0.0, 3.0, 0.0, 0.0])
    s = read_course(course(rates), Recipe("day", growth_key="rate"))
    np.testing.assert_array_equal(s.rates, [0.1, -0.2, 0.0, 3.0, 0.0, 0.0])
    np.testing.assert_array_equal(s.without(1.0).rates, [0.1, -0.2, 0.0, 0.0])
    assert read_course(course(rates), Recipe("day")).rates is None
    assert read_course(course(rates), Recipe("day")).without(1.0).rates is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_rate_before_the_last_time_is_needed(bad):
    with pytest.raises(InputError, match=r"obs\['rate'\] must hold .* 1 of 6 have none"):
        read_rates(course([0.1, 0.1, bad, 0.1, 0.1, 0.1]), "rate", TIME)
    with pytest.raises(MissingKeyError, match="growth_key='speed'"):
        read_rates(course(0.0), "speed", TIME)


def test_an_infinite_rate_is_refused_at_the_last_time_too():
    with pytest.raises(InputError, match="1 of 6 have none"):
        read_rates(course([0.1, 0.1, 0.1, 0.1, 0.1, np.inf]), "rate", TIME)


def test_the_last_time_is_that_of_the_condition():
    """Arm 1 ends at time 1: its cell there may lack a rate, that of arm 0 may not."""
    condition = np.array([0, 1, 0, 1, 0, 0])
    rates = [0.1, 0.2, 0.3, np.nan, np.nan, np.nan]
    np.testing.assert_array_equal(read_rates(course(rates), "rate", TIME, condition), [0.1, 0.2, 0.3, 0, 0, 0])
    with pytest.raises(InputError, match="1 of 6"):
        read_rates(course(rates), "rate", TIME)
    s = read_course(
        course(rates, ["x", "y", "x", "y", "x", "x"]), Recipe("day", growth_key="rate", condition_key="arm")
    )
    np.testing.assert_array_equal(s.rates, [0.1, 0.2, 0.3, 0, 0, 0])


def test_weights_grow_by_the_descendants_of_each_cell():
    s = read_course(course([np.log(2), -np.log(3), 0.0, 0.0, 0.0, 0.0]), Recipe("day", growth_key="rate"))
    np.testing.assert_allclose(s.grown(np.array([1, 0]), 2.0) / s.weights[0], [1 / 9, 4], rtol=1e-12)


def test_descendants_are_exponential_and_bounded_by_the_numbers_there_are():
    np.testing.assert_allclose(offspring(np.array([0.0, np.log(2), -1.0]), 2.0), [1, 4, np.exp(-2)], rtol=1e-12)
    np.testing.assert_allclose(offspring(np.array([1.0, 1.0]), np.array([0.5, 3.0])), np.exp([0.5, 3.0]))
    for rate in (800.0, -800.0):
        with pytest.raises(InputError, match=r"exp\(800\) within an interval"):
            offspring(np.array([0.0, 2 * rate]), 0.5)


def test_weights_of_any_type_are_positive_numbers():
    adata = course(0.0)
    adata.obs["w"] = pd.Categorical(["1", "2", "3", "0.5", "1e3", "1"])
    np.testing.assert_array_equal(read_weights(adata, "w"), [1, 2, 3, 0.5, 1e3, 1])
    for bad in ("0", "-1", "inf", "nan", "many"):
        adata.obs["w"] = ["1", bad, "1", "1", "1", "1"]
        with pytest.raises(InputError, match=r"obs\['w'\] must hold positive finite weights; 1 of 6 are not"):
            read_weights(adata, "w")
    with pytest.raises(MissingKeyError, match="weight_key='v'"):
        read_weights(adata, "v")


def test_conditions_without_a_value_are_counted():
    adata = course(0.0, ["x", None, "x", "y", None, "y"])
    with pytest.raises(InputError, match=r"obs\['arm'\] has 2 missing values"):
        read_course(adata, Recipe("day", condition_key="arm"))
    adata = course(0.0, ["a", "a", "b", "b", "c", "c"])
    with pytest.raises(InputError, match=r"each of the 3 conditions in obs\['arm'\] occurs at one time"):
        read_course(adata, Recipe("day", condition_key="arm"))
    one_shared = course(0.0, ["a", "a", "b", "b", "c", "a"])
    assert read_course(one_shared, Recipe("day", condition_key="arm")).conditions == ("a", "b", "c")


def test_a_cell_of_no_time_leaves_no_course():
    with pytest.raises(InputError, match="found no cells"):
        read_course(course(0.0)[:0].copy(), Recipe("day"))
    with pytest.raises(InputError, match="found only the time 3"):
        read_course(course(0.0)[4:].copy(), Recipe("day"))
