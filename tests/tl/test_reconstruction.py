"""What a fit says of the populations it was trained on, its plot, and births and deaths in a stored fit."""

from __future__ import annotations

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.errors import InputError

mpl.use("Agg")
QUICK = tw.tl.FitConfig(max_steps=300, width=16, depth=2)


@pytest.fixture(scope="module")
def grown() -> AnnData:
    adata = tw.datasets.toggle_switch(60, rng=0)
    tw.tl.fit(adata, "time", method="uotcfm", population_size="population_size", rng=0, config=QUICK)
    return adata


def test_the_table_holds_every_time_after_the_first(grown):
    frame = tw.get.reconstruction_df(grown)
    assert frame["time"].tolist() == [1.0, 2.0, 3.0, 4.0]
    sizes = np.array(list(grown.uns["population_size"].values()))
    np.testing.assert_allclose(frame["counted"], sizes[1:] / sizes[0])
    np.testing.assert_allclose(frame["mass_error"], abs(frame["mass"] / frame["counted"] - 1))
    first, last = (grown.obsm["X_pca"][grown.obs["time"] == t] for t in (0.0, 4.0))
    assert frame["still"].iloc[-1] == pytest.approx(tw.metrics.wasserstein(first, last), rel=1e-5)
    assert (frame["w1"] < frame["still"] / 2).all()


def test_conditions_have_rows_of_their_own():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"t": np.repeat([0.0, 1.0, 2.0], 40), "arm": np.tile(["a", "b"], 60)})
    obs.index = obs.index.astype(str)
    adata = AnnData(obs=obs, obsm={"X_pca": rng.normal(size=(120, 2)) + obs["t"].to_numpy()[:, None]})
    sizes = {"a": {0: 1, 1: 2, 2: 4}, "b": {0: 1, 1: 1, 2: 1}}
    tw.tl.fit(adata, "t", method="usb", condition_key="arm", population_size=sizes, rng=0, config=QUICK)
    frame = tw.get.reconstruction_df(adata)
    assert list(zip(frame["condition"], frame["time"], strict=True)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    np.testing.assert_allclose(frame["mass"], [2, 4, 1, 1], rtol=0.02)
    axes = tw.pl.reconstruction(adata, show=False)
    assert len(axes[1].lines) == 4  # the masses of two arms, and their sizes


def test_the_plot_draws_the_table_and_writes_nothing(grown):
    before = tw.get.reconstruction_df(grown)
    left, right = tw.pl.reconstruction(grown, show=False)
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    np.testing.assert_allclose(drawn["rolled out"], before["w1"])
    np.testing.assert_allclose(drawn["half against half"], before["floor"])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [1, *before["mass"]])
    pd.testing.assert_frame_equal(tw.get.reconstruction_df(grown), before)


def test_a_file_holds_births_and_deaths(grown, tmp_path):
    grown.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    for adata in (grown, again):
        tw.tl.velocity(adata, genes=False)
    np.testing.assert_array_equal(again.obs["growth_rate"], grown.obs["growth_rate"])
    a, b = (tw.tl.interpolate(adata, 1.5) for adata in (grown, again))
    np.testing.assert_array_equal(a.obs["weight"], b.obs["weight"])
    assert a.uns["interpolation"]["mass"] == b.uns["interpolation"]["mass"]
    pd.testing.assert_frame_equal(
        tw.get.reconstruction_df(again), tw.get.reconstruction_df(grown), check_index_type=False
    )


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rate", lambda v: v * np.nan, "rate"),
        ("lost", lambda v: v + 0.5, "lost must be 0 or 1"),
        ("time", lambda v: v + 0.25, "times that the fit has not"),
        ("condition", lambda v: v + 7, "conditions that the fit has not"),
        ("covariance", lambda v: -v, "covariance that is not positive"),
        ("weight", lambda v: v * 0, "no cells"),
        ("columns", lambda v: v + 5, "in some of the 2 coordinates"),
        ("mean", lambda v: v[:, :1], "mean"),
    ],
)
def test_a_damaged_turnover_is_refused(grown, name, change, message):
    adata = grown.copy()
    turnover = dict(adata.uns["thalweg"]["turnover"])
    turnover[name] = change(np.asarray(turnover[name]))
    adata.uns["thalweg"]["turnover"] = turnover
    with pytest.raises(InputError, match=message):
        tw.tl.velocity(adata, genes=False)


def test_sizes_that_are_damaged_are_refused(grown):
    adata = grown.copy()
    adata.uns["thalweg"]["population_sizes"] = {"sizes": -np.ones((1, 5))}
    with pytest.raises(InputError, match="population_sizes must be positive"):
        tw.tl.velocity(adata, genes=False)


def test_a_condition_that_is_observed_once_has_no_growth():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"t": [0.0] * 30 + [1.0] * 30 + [0.0] * 60, "arm": ["a"] * 60 + ["b"] * 60})
    obs.index = obs.index.astype(str)
    x = rng.normal(size=(120, 2))
    x[90:, 0] += 15
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    tw.tl.fit(adata, "t", method="uotcfm", condition_key="arm", rng=0, config=QUICK)
    assert set(tw.get.reconstruction_df(adata)["condition"]) == {"a"}
    tw.tl.velocity(adata, genes=False)
    np.testing.assert_allclose(adata.obs["growth_rate"][60:], 0)
