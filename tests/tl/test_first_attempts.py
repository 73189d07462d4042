"""What a first attempt gets wrong is understood, or answered by what to do."""

from __future__ import annotations

import numpy as np
import pytest

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError


@pytest.fixture
def fitted(course, quick):
    tw.tl.fit(course, "time", method="otcfm", config=quick, rng=0)
    return course


@pytest.mark.parametrize("time", [[1.5, 2.5], np.array([1.5, 2.5]), "day 2", None])
def test_interpolate_asks_for_one_number(fitted, time):
    with pytest.raises(InputError, match=r"time must be one number, found .*tw\.tl\.trajectories"):
        tw.tl.interpolate(fitted, time)


def test_interpolate_reads_text_as_the_time_column_is_read(fitted):
    as_text, as_number = (tw.tl.interpolate(fitted, t).obsm["X_pca"] for t in ("2", 2.0))
    np.testing.assert_array_equal(as_text, as_number)


def test_leave_one_out_takes_one_method_by_its_name(course, quick):
    scores = tw.tl.leave_one_out(course, "time", methods="icfm", n_seeds=1, config=quick)
    assert set(scores["method"]) == {"icfm", "copy-previous", "ot-midpoint", "floor", "floor-corrected"}


@pytest.mark.parametrize(("basis", "call"), [(None, "velocity(adata)"), ("umap", "velocity(adata, basis='umap')")])
def test_the_velocity_plot_names_the_call_that_it_needs(fitted, basis, call):
    fitted.obsm["X_umap"] = fitted.obsm["X_pca"][:, :2].copy()
    with pytest.raises(MissingKeyError) as error:
        tw.pl.velocity(fitted, basis)
    assert str(error.value).endswith(f"Run tw.tl.{call}.")
    tw.tl.velocity(fitted, basis=basis)
    tw.pl.velocity(fitted, basis)


@pytest.mark.parametrize("level", [0, 3, "loud", True])
def test_verbosity_is_a_name(level):
    before = tw.settings.verbosity
    with pytest.raises(InputError, match="verbosity must be one of critical, error, warning, info, debug, found"):
        tw.settings.verbosity = level
    assert tw.settings.verbosity == before
