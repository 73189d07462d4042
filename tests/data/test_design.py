"""Arms, strata and shared baselines, read from columns of obs."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from thalweg.data.arms import arms
from thalweg.data.cells import read_cells, read_course
from thalweg.data.recipe import Recipe, read_recipe
from thalweg.errors import InputError, MissingKeyError

NAN = float("nan")


def course(times, labels, **columns):
    """A cell for each entry, its row number as its only coordinate."""
    obs = pd.DataFrame({"day": np.array(times, float), "arm": labels, **columns})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    return anndata.AnnData(obs=obs, obsm={"X_pca": np.arange(len(obs), dtype=float)[:, None]})


def read(adata, **options):
    return read_course(adata, Recipe("day", **{"condition_key": "arm"} | options))


def members(cells):
    """Rows of each time and arm."""
    return {
        (cells.stratum_names[s], t): cells.sources[cells.rows(t, s)].tolist()
        for s in cells.strata
        for t in cells.times_of(s).tolist()
    }


@pytest.mark.parametrize(("label", "baseline"), [("untreated", "untreated"), (NAN, NAN), (None, NAN)])
def test_a_baseline_is_in_every_arm(label, baseline):
    adata = course([0, 0, 1, 1, 2, 2], [label, label, "a", "b", "a", "b"])
    cells = read(adata, baseline=baseline)
    assert cells.conditions == ("a", "b")
    assert members(cells) == {
        ("a", 0.0): [0, 1], ("a", 1.0): [2], ("a", 2.0): [4], ("b", 0.0): [0, 1], ("b", 1.0): [3], ("b", 2.0): [5],
    }  # fmt: skip
    np.testing.assert_array_equal(cells.sources[:6], np.arange(6))  # the rows of the AnnData first, in their order
    np.testing.assert_array_equal(cells.x[:, 0], cells.sources)


def test_an_arm_takes_the_baseline_until_it_has_cells_of_its_own():
    adata = course([0, 1, 2, 2, 3, 3, 4], ["base", "base", "a", "base", "a", "b", "b"])
    found = members(read(adata, baseline="base"))
    assert found["a", 0.0] == [0]
    assert found["a", 1.0] == [1]
    assert found["a", 2.0] == [2]  # its own
    assert [found["b", t] for t in (0.0, 1.0, 2.0, 3.0)] == [[0], [1], [3], [5]]
    assert ("base", 0.0) not in found


def test_a_baseline_with_later_days_is_an_arm_itself(caplog):
    """A knock-out from day 2 on; the control goes on beside it."""
    adata = course([0, 1, 2, 2, 3, 3], ["wt", "wt", "wt", "ko", "wt", "ko"])
    with caplog.at_level("INFO", "thalweg"):
        found = members(read(adata, baseline="wt"))
    assert {key: rows for key, rows in found.items() if key[0] == "wt"} == {
        ("wt", 0.0): [0], ("wt", 1.0): [1], ("wt", 2.0): [2], ("wt", 3.0): [4],
    }  # fmt: skip
    assert [found["ko", t] for t in (0.0, 1.0, 2.0, 3.0)] == [[0], [1], [3], [5]]
    assert "baseline 'wt' also has cells of the times [2.0, 3.0]" in caplog.text


def test_cells_without_a_label_that_no_arm_can_take_are_refused():
    adata = course([0, 1, 1, 2, 2], [NAN, "a", NAN, "a", "a"])
    with pytest.raises(InputError, match=r"1 cells without a label in obs\['arm'\].*times \[1.0\].*Give them a label"):
        read(adata, baseline=NAN)


def test_of_several_columns_the_baseline_agrees_in_the_others():
    adata = course(
        [0, 0, 1, 1, 1, 2, 2], ["wt", "ko", "wt", "ko", "ko", "wt", "ko"],
        drug=["none", "none", "x", "x", "y", "x", "y"],
    )  # fmt: skip
    cells = read(adata, condition_key=["arm", "drug"], baseline="none")
    assert cells.conditions == ("ko & x", "ko & y", "wt & x")
    found = members(cells)
    assert (found["ko & x", 0.0], found["ko & y", 0.0], found["wt & x", 0.0]) == ([1], [1], [0])


def test_strata_are_parts_of_arms():
    adata = course(
        [0, 0, 1, 1, 1, 1], ["base", "base", "a", "a", "b", "b"], donor=["p", "q", "p", "q", "p", "q"]
    )  # fmt: skip
    cells = read(adata, baseline="base", couple_within=["donor"])
    assert cells.conditions == ("a", "b")
    assert cells.stratum_names == ("a & p", "a & q", "b & p", "b & q")
    found = members(cells)
    assert found["a & p", 0.0] == found["b & p", 0.0] == [0]  # a donor's baseline stays with the donor
    assert [cells.conditions[cells.condition_of(s)] for s in cells.strata] == ["a", "a", "b", "b"]
    alone = read(adata, condition_key=None, couple_within="donor")
    assert alone.conditions == ()
    assert alone.stratum_names == ("p", "q")
    assert alone.labels(np.arange(2)) is None


def test_a_baseline_of_other_donors_is_refused():
    adata = course([0, 1, 1], ["base", "a", "b"], donor=["pool", "p", "p"])
    with pytest.raises(
        InputError, match=r"couple_within=\['donor'\]: 1 cells of the baseline have the labels \['pool'\]"
    ):
        read(adata, baseline="base", couple_within="donor")


def test_naming_a_condition_among_the_strata_changes_nothing():
    adata = course([0, 0, 1, 1], ["a", "b", "a", "b"])
    assert read(adata, couple_within="arm").within is None


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"baseline": "none"}, InputError, r"baseline='none' is no label.*obs\['arm'\] has \['a', 'b'\]"),
        ({"baseline": "a", "condition_key": None}, InputError, "baseline='a' needs condition_key"),
        ({"condition_key": ["arm", "drug"]}, MissingKeyError, "condition_key='drug' is not a column"),
        ({"couple_within": "donor"}, MissingKeyError, "couple_within='donor' is not a column"),
    ],
)
def test_what_cannot_be_read_is_named(options, error, says):
    with pytest.raises(error, match=says):
        read(course([0, 0, 1, 1], ["a", "b", "a", "b"]), **options)


def test_missing_labels_point_to_the_baseline():
    with pytest.raises(InputError, match=r"1 missing values.*baseline=float\('nan'\)"):
        read(course([0, 1, 1, 2], [NAN, "a", "a", "a"]))


def test_arms_seen_once_point_to_the_baseline():
    with pytest.raises(InputError, match=r"occurs at one time.*name it: baseline="):
        read(course([0, 1], ["untreated", "a"]))


def test_labels_that_hold_the_joint_are_refused():
    adata = course([0, 1], ["a & b", "a & b"], drug=["x", "x"])
    with pytest.raises(InputError, match=r"joins labels of columns; rename it"):
        read(adata, condition_key=["arm", "drug"])


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("day"),
        Recipe("day", condition_key="arm", baseline="base"),
        Recipe("day", condition_key=("arm", "drug"), couple_within=("donor",), strata=("a & p",), starts=(1.0,)),
    ],
)
def test_a_recipe_survives_its_entry(recipe):
    assert read_recipe(recipe.entry()) == recipe


def test_a_missing_label_as_baseline_survives_its_entry():
    found = read_recipe(Recipe("day", condition_key="arm", baseline=NAN).entry())
    assert np.isnan(found.baseline)


def test_part_of_the_cells_keeps_the_arms_of_the_fit():
    """Baseline cells alone are in all arms that the fit knows, an arm's own among them."""
    adata = course([0, 1, 2, 2, 3, 3], ["wt", "wt", "wt", "ko", "wt", "ko"])
    known = Recipe("day", condition_key="arm", baseline="wt", conditions=("ko", "wt"), starts=(2.0, 0.0))
    assert members(read_cells(adata[:2].copy(), known)) == {
        ("ko", 0.0): [0], ("ko", 1.0): [1], ("wt", 0.0): [0], ("wt", 1.0): [1],
    }  # fmt: skip
    assert members(read_cells(adata[[4]].copy(), known)) == {("wt", 3.0): [0]}  # and not of the knock-out


def test_values_are_averaged_over_the_arms_of_a_cell():
    cells = read(course([0, 1, 1], ["base", "a", "b"]), baseline="base")
    values = np.array([[1.0], [5.0], [7.0], [3.0]])  # of the baseline in a, the cells of a and b, the baseline in b
    np.testing.assert_array_equal(cells.merged(values), [[2.0], [5.0], [7.0]])
    np.testing.assert_array_equal(cells.merged(values, 0), [[1.0], [5.0], [7.0]])
    np.testing.assert_array_equal(cells.merged(values, 1), [[3.0], [5.0], [7.0]])
    values[0] = NAN
    np.testing.assert_array_equal(cells.merged(values), [[3.0], [5.0], [7.0]])
    np.testing.assert_array_equal(cells.standing_for(np.array([0, 2])), [0, 2, 3])


def test_the_bootstrap_draws_a_cell_in_all_its_arms():
    adata = course([0] * 40 + [1] * 80, ["base"] * 40 + ["a", "b"] * 40)
    cells = read(adata, baseline="base")
    drawn = cells.resampled(np.random.default_rng(0))
    a, b = (np.sort(drawn.x[drawn.rows(0.0, c), 0]) for c in (0, 1))
    np.testing.assert_array_equal(a, b)
    assert len(a) == 40
    assert len(np.unique(a)) < 40  # with replacement
    again = cells.reweighted(np.random.default_rng(0))
    np.testing.assert_array_equal(*(again.weights[again.rows(0.0, c)] for c in (0, 1)))
    assert len(np.unique(again.weights)) == 120


def test_tables_and_figures_have_the_baseline_in_every_arm():
    adata = course([0, 1, 1, 2, 2], ["base", "b", "a", "b", "a"])
    adata.obs["arm"] = pd.Categorical(adata.obs["arm"], ["base", "b", "a"])
    assert {name: np.flatnonzero(m).tolist() for name, m in arms(adata, "arm").items()} == {
        "base": [0], "b": [1, 3], "a": [2, 4],
    }  # fmt: skip
    adata.uns["thalweg"] = {
        "recipe": Recipe("day", condition_key="arm", baseline="base", conditions=("a", "b"), starts=(1, 1)).entry()
    }
    found = arms(adata, "arm")
    assert list(found) == ["b", "a"]  # in the order of the categories
    assert {name: np.flatnonzero(m).tolist() for name, m in found.items()} == {"b": [0, 1, 3], "a": [0, 2, 4]}
    assert list(arms(adata, None)) == [""]
