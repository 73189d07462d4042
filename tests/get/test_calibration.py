"""Reliability of fates against outcomes that are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError


def with_fates(p, **obs):
    """Cells with the fates A and B, A of probability ``p``."""
    n = len(p)
    adata = AnnData(obs=pd.DataFrame({"time": np.zeros(n)} | obs, index=[f"c{i}" for i in range(n)]))
    adata.obsm["fate_type"] = pd.DataFrame({"A": p, "B": 1 - np.asarray(p)}, index=adata.obs_names)
    adata.obs["fate_type"] = pd.Categorical(np.where(np.asarray(p) > 0.5, "A", "B"))
    adata.obs["fate_type_confidence"] = adata.obs["fate_type_se"] = 0.0
    adata.uns["fate_type"] = {"time_key": "time"}
    return adata


def test_outcomes_by_name():
    """Of ten cells with .85 for A, six become A: .85 predicted, .6 observed, and the mirror image for B."""
    adata = with_fates([0.85] * 10, end=["A"] * 6 + ["B"] * 4)
    frame = tw.get.calibration_df(adata, "type", "end")
    assert frame[["low", "high", "n", "predicted", "observed"]].to_numpy() == pytest.approx(
        np.array([[0.1, 0.2, 10, 0.15, 0.4], [0.8, 0.9, 10, 0.85, 0.6]])
    )
    assert frame.attrs["ece"] == pytest.approx(0.25)


def test_shares_and_bins():
    p = np.array([0.05, 0.95, 1.0, 0.0])
    adata = with_fates(p)
    adata.obsm["shares"] = np.c_[p, 1 - p]
    frame = tw.get.calibration_df(adata, "type", "shares", n_bins=2)
    assert frame["n"].tolist() == [4, 4]
    assert frame.attrs["ece"] == pytest.approx(0)
    adata.obsm["shares"] = pd.DataFrame({"B": 1 - p, "other": 0.0, "A": p}, index=adata.obs_names)
    assert tw.get.calibration_df(adata, "type", "shares").attrs["ece"] == pytest.approx(0)


def test_cells_without_an_outcome_are_left_out():
    adata = with_fates([0.85, 0.85, 0.85], end=["A", "C", None])
    assert tw.get.calibration_df(adata, "type", "end")["n"].tolist() == [1, 1]


@pytest.mark.parametrize(("truth", "error", "message"), [
    ("nowhere", MissingKeyError, "truth='nowhere' is neither in obs nor in obsm"),
    ("narrow", InputError, "must have a column for each of the fates"),
    ("named", InputError, r"has no columns \['B'\]"),
    ("strange", InputError, "holds no outcome among the fates"),
])  # fmt: skip
def test_bad_truth(truth, error, message):
    adata = with_fates([0.5, 0.5], strange=["x", "y"])
    adata.obsm["narrow"] = np.ones((2, 1))
    adata.obsm["named"] = pd.DataFrame({"A": [1.0, 0.0]}, index=adata.obs_names)
    with pytest.raises(error, match=message):
        tw.get.calibration_df(adata, "type", truth)


def test_bad_options():
    with pytest.raises(MissingKeyError, match=r"Run tw\.tl\.fate"):
        tw.get.calibration_df(AnnData(obs=pd.DataFrame(index=["a"])), "type", "end")
    with pytest.raises(InputError, match="n_bins must be a positive integer"):
        tw.get.calibration_df(with_fates([0.5], end=["A"]), "type", "end", n_bins=0)


def test_the_plot_shows_the_table():
    adata = with_fates([0.85] * 10, end=["A"] * 6 + ["B"] * 4)
    axes = tw.pl.fate_calibration(adata, "type", "end", show=False)
    np.testing.assert_allclose(axes.lines[1].get_xydata(), [[0.15, 0.4], [0.85, 0.6]])
    assert "0.250" in axes.get_title()
