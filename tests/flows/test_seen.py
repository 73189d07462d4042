"""A fit remembers some of its cells, and says so when they lie elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

import thalweg as tw

WARNING = "have other coordinates in X_pca now than when it was fitted"


@pytest.fixture
def fitted(course, quick):
    tw.tl.fit(course, "time", method="otcfm", rng=0, config=quick, check=False)
    return course


def said(caplog, adata) -> str:
    caplog.clear()
    tw.tl.velocity(adata)
    return caplog.text


def test_the_same_cells_draw_no_remark_in_any_order_or_part(fitted, caplog):
    assert WARNING not in said(caplog, fitted)
    assert WARNING not in said(caplog, fitted[::-1].copy())
    assert WARNING not in said(caplog, fitted[: fitted.n_obs // 2].copy())
    float32 = fitted.copy()
    float32.obsm["X_pca"] = float32.obsm["X_pca"].astype(np.float32)
    assert WARNING not in said(caplog, float32)
    rounded = fitted.copy()
    rounded.obsm["X_pca"] = rounded.obsm["X_pca"].astype(np.float16).astype(np.float64)
    assert WARNING not in said(caplog, rounded)


def test_a_component_that_turned_round_is_remarked_on(fitted, caplog):
    fitted.obsm["X_pca"] = fitted.obsm["X_pca"] * np.array([1.0, -1.0, 1.0])
    n = 3 * fitted.obs["time"].nunique()
    assert f"{n} of {n} cells that the fit remembers {WARNING}" in said(caplog, fitted)
    tw.tl.interpolate(fitted, 0.5)
    assert caplog.text.count(WARNING) == 2


def test_of_other_cells_and_of_names_that_repeat_nothing_is_known(fitted, caplog):
    fitted.obsm["X_pca"] = fitted.obsm["X_pca"] + 1.0
    fitted.obs_names = [f"other {name}" for name in fitted.obs_names]
    assert WARNING not in said(caplog, fitted)
    fitted.obs_names = ["one"] * fitted.n_obs
    assert WARNING not in said(caplog, fitted)
