"""Predicted populations: the mean from both ends, the sample, and what contradicts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.errors import InputError
from thalweg.flows import prediction
from thalweg.flows.carry import Cloud


class Plain:
    """Cells without a condition."""

    stratum = np.zeros(10_000, dtype=np.int64)


def narrowed(x, weight=None):
    n = len(x)
    weight = np.full(n, 1 / n) if weight is None else weight
    return prediction.narrowed(Cloud(x, weight, np.arange(n), (0.0,)), Plain()).x


def test_noise_of_many_dimensions_is_left_out_and_few_are_kept():
    rng = np.random.default_rng(0)
    kept = {d: narrowed(x := rng.normal(size=(1000, d))).var() / x.var() for d in (1, 2, 50)}
    assert kept[1] > 0.99
    assert kept[2] > 0.97
    assert 0.2 < kept[50] < 0.5


def test_a_rare_state_is_not_drawn_to_another_one():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(500, 5)), rng.normal(size=(8, 5)) + 30.0])
    moved = narrowed(x)
    assert np.linalg.norm(moved[500:].mean(0) - x[500:].mean(0)) < 0.1
    np.testing.assert_allclose(moved.mean(0), x.mean(0), atol=0.1)


def test_states_of_few_cells_keep_their_places():
    """Sixty neighbours would be all the cells; three states far apart would run together."""
    rng = np.random.default_rng(0)
    places = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], 20, axis=0)
    moved = narrowed(places + rng.normal(size=places.shape))
    assert np.linalg.norm(moved - places, axis=1).max() < 3.5
    for k in range(3):
        here = slice(20 * k, 20 * k + 20)
        np.testing.assert_allclose(moved[here].mean(0), places[here].mean(0), atol=0.5)


def test_cells_without_weight_and_single_cells_stay():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(200, 20)), np.r_[np.full(199, 1 / 199), 0.0]
    moved = narrowed(x, weight)
    np.testing.assert_array_equal(moved[-1], x[-1])
    assert (moved[:-1] != x[:-1]).any()
    np.testing.assert_array_equal(narrowed(x[:1]), x[:1])
    np.testing.assert_array_equal(narrowed(np.ones((5, 3))), np.ones((5, 3)))


@pytest.fixture(scope="module")
def fitted():
    adata = tw.datasets.simulated(300, times=(0.0, 1.0, 2.0), n_futures=0, rng=0)
    config = tw.tl.FitConfig(max_steps=100)
    tw.tl.fit(adata, "time", method="otcfm", spacing="real", config=config, rng=0)
    tw.tl.fit(adata, "time", method="sf2m", config=config, key_added="bridge", rng=0)
    return adata


def test_between_two_times_both_ends_are_the_default(fitted):
    both = tw.tl.interpolate(fitted, 0.5)
    assert both.n_obs == 200
    assert both.uns["interpolation"]["source_time"].tolist() == [0.0, 1.0]
    assert both.uns["interpolation"]["prediction"] == "mean"
    assert tw.tl.interpolate(fitted, 0.5, both_ends=False).n_obs == 100
    assert tw.tl.interpolate(fitted, 0.5, source_time=1.0).n_obs == 100
    assert tw.tl.interpolate(fitted, 1.0).n_obs == 100  # at an observed time, from the one before
    assert tw.tl.interpolate(fitted, 2.5, extrapolate=True).n_obs == 100


def test_a_side_of_few_cells_counts_for_little(fitted):
    few = fitted[np.r_[0:10, 100:300]].copy()
    cells = tw.tl.interpolate(few, 0.5)
    ahead = cells.obs_names.isin(few.obs_names[:10])
    assert cells.obs["weight"][ahead].sum() == pytest.approx(10 / 110, rel=0.15)  # by nearness alone one half


def test_cells_arrive_at_three_stages_and_at_an_observed_time_at_one(fitted):
    """A course on a line at constant speed: where a cell arrives is its stage."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.full(60, 0.0), np.full(60, 10.0), np.full(60, 20.0)])[:, None] + 0.01 * rng.normal(
        size=(180, 1)
    )
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0, 2.0], 60)}, index=[f"c{i}" for i in range(180)])
    line = AnnData(obs=obs, obsm={"X_pca": x})
    tw.tl.fit(line, "day", method="otcfm", rng=0, config=tw.tl.FitConfig(max_steps=200))
    for time, apart in ((0.5, 1.0), (0.1, 0.2), (0.999, 0.002)):
        arrived = tw.tl.interpolate(line, time)
        at = np.sort(arrived.obsm["X_pca"][:, 0])
        for k, group in enumerate(np.split(at, 3)):
            assert np.abs(group - 10 * time - (k - 1) * apart).max() < 0.35
        assert arrived.obs_names.is_unique
        assert sorted(arrived.obs_names) == sorted(line.obs_names[:120])
        assert arrived.obs["weight"].sum() == pytest.approx(1)


def test_a_sample_of_a_bridge_runs_its_sde(fitted):
    one, two = (tw.tl.interpolate(fitted, 0.5, key="bridge", prediction="sample", rng=s) for s in (0, 0))
    np.testing.assert_array_equal(one.obsm["X_pca"], two.obsm["X_pca"])
    assert one.uns["interpolation"]["stochastic"] == 1.0
    same = tw.tl.interpolate(fitted, 0.5, key="bridge", stochastic=True, rng=0)
    np.testing.assert_array_equal(one.obsm["X_pca"], same.obsm["X_pca"])
    mean = tw.tl.interpolate(fitted, 0.5, key="bridge")
    assert mean.uns["interpolation"]["stochastic"] == 0.0
    assert mean.obsm["X_pca"].var(0).sum() < one.obsm["X_pca"].var(0).sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction": "mean", "stochastic": True}, "give prediction='sample'"),
        ({"prediction": "sample", "stochastic": False}, "runs the SDE of this fit"),
        ({"prediction": "median"}, "must be 'mean' or 'sample', found 'median'"),
        ({"both_ends": True, "source_time": 0.0}, "leave source_time out"),
    ],
)
def test_what_contradicts_is_refused(fitted, options, message):
    with pytest.raises(InputError, match=message):
        tw.tl.interpolate(fitted, 0.5, key="bridge", **options)
