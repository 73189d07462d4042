"""Several models in one fit: their mean is what every verb runs, their spread what is said of it."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import thalweg as tw
from thalweg.errors import InputError

SHORT = tw.tl.FitConfig(max_steps=30, width=8, depth=1, validate_every=10)


def members_of(adata, n=3):
    """The same course with each model of a fit alone."""
    out = []
    for i in range(n):
        one = adata.copy()
        entry = dict(one.uns["thalweg"])
        entry["params"] = dict(entry["params"]) | {"n_models": 1}
        entry["weights"] = {"0": entry["weights"][str(i)]}
        one.uns["thalweg"] = entry
        out.append(one)
    return out


@pytest.fixture(params=["otcfm", "usb", "uotcfm", "uam"])
def several(request, course):
    tw.tl.fit(course, "time", method=request.param, n_models=3, rng=0, config=SHORT)
    return course


def test_velocity_is_the_mean_and_its_spread_that_of_the_models(several):
    tw.tl.velocity(several)
    each = [tw.tl.velocity(one, copy=True).obsm["velocity_X_pca"] for one in members_of(several)]
    np.testing.assert_allclose(several.obsm["velocity_X_pca"], np.mean(each, 0), atol=1e-4)
    np.testing.assert_allclose(several.obsm["velocity_X_pca_sd"], np.std(each, 0, ddof=1), atol=1e-4)
    assert (several.obsm["velocity_X_pca_sd"] > 0).all()


def test_the_first_model_is_that_of_a_single_fit(several):
    method = several.uns["thalweg"]["params"]["method"]
    alone = tw.tl.fit(several, "time", method=method, rng=0, config=SHORT, copy=True)
    weights = several.uns["thalweg"]["weights"]
    np.testing.assert_array_equal(weights["0"], alone.uns["thalweg"]["weights"]["0"])
    assert not np.array_equal(weights["0"], weights["1"])


def test_predictions_carry_the_spread_of_the_models(several):
    for options in ({"both_ends": False}, {}):
        predicted = tw.tl.interpolate(several, 2.0, **options)
        each = [tw.tl.interpolate(one, 2.0, **options).obsm["X_pca"] for one in members_of(several)]
        expected = np.linalg.norm(np.std(each, 0, ddof=1), axis=1)
        np.testing.assert_allclose(predicted.obs["spread"], expected, atol=2e-3)
    assert "spread" not in tw.tl.interpolate(members_of(several)[0], 2.0).obs


def test_files_and_records(several, tmp_path):
    several.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    here, there = (tw.tl.velocity(a, copy=True).obsm["velocity_X_pca"] for a in (several, back))
    np.testing.assert_array_equal(here, there)
    history = tw.get.history(several)
    assert sorted(history["model"].unique()) == [0, 1, 2]
    assert several.uns["thalweg"]["params"]["n_models"] == 3


def test_the_error_of_a_fate_holds_the_spread_of_the_models(course):
    course.obs["type"] = pd.Categorical(np.where(course.obsm["X_pca"][:, 1] > 0, "up", "down"))
    tw.tl.fit(course, "time", method="otcfm", n_models=3, rng=0, config=SHORT)
    tw.tl.fate(course, "type")
    each = [tw.tl.fate(one, "type", copy=True) for one in members_of(course)]
    p = np.stack([one.obsm["fate_type"] for one in each])
    np.testing.assert_allclose(course.obsm["fate_type"], p.mean(0), atol=1e-6)
    best = course.obsm["fate_type"].to_numpy().argmax(1)
    between = p.std(0)[np.arange(len(best)), best]
    assert (course.obs["fate_type_se"] >= between - 1e-9).all()
    assert between[course.obs["time"] == 0].max() > 0


def test_models_of_a_flow_from_noise_with_learned_dynamics_are_stored(course):
    """Its record has a row for each population, and its bridges one less."""
    config = tw.tl.FitConfig(max_steps=10, width=8, depth=1, validate_every=10, score="learned")
    tw.tl.fit(course, "time", method="fm", n_models=2, rng=0, config=config)
    assert course.uns["thalweg"]["seconds"] > 0
    tw.tl.velocity(course)
    assert np.isfinite(course.obsm["velocity_X_pca"]).all()


def test_a_killed_ensemble_goes_on(course, tmp_path):
    options = {"method": "otcfm", "n_models": 2, "rng": 0, "config": SHORT}
    options |= {"checkpoint_dir": tmp_path, "checkpoint_every": 10}
    whole = tw.tl.fit(course, "time", copy=True, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model0", "model1"]
    again = tw.tl.fit(course, "time", resume=True, copy=True, **options)
    for i in "01":
        np.testing.assert_array_equal(again.uns["thalweg"]["weights"][i], whole.uns["thalweg"]["weights"][i])


@pytest.mark.parametrize("n_models", [0, -1, 1.5, True, "2"])
def test_numbers_of_models_that_are_none(course, n_models):
    with pytest.raises(InputError, match="n_models must be a positive integer"):
        tw.tl.fit(course, "time", n_models=n_models)


def test_weights_that_are_not_as_many_as_the_models(course):
    tw.tl.fit(course, "time", method="otcfm", n_models=2, rng=0, config=SHORT)
    del course.uns["thalweg"]["weights"]["1"]
    with pytest.raises(InputError, match="damaged"):
        tw.tl.velocity(course)
    course.uns["thalweg"]["params"]["n_models"] = 1
    course.uns["thalweg"]["weights"]["1"] = course.uns["thalweg"]["weights"]["0"]
    with pytest.raises(InputError, match="says it has 1 models, and holds the weights of 2"):
        tw.tl.velocity(course)


def test_bootstrap_samples_differ_by_more_than_seeds(course):
    """Seeds alone know nothing of the error that few cells leave."""
    config = tw.tl.FitConfig(max_steps=200, width=16, depth=2, validation_fraction=0.0)
    sd = {}
    for resample in (False, True):
        adata = course.copy()
        tw.tl.fit(adata, "time", method="otcfm", n_models=3, resample=resample, rng=0, config=config)
        tw.tl.velocity(adata)
        sd[resample] = float(np.median(np.linalg.norm(adata.obsm["velocity_X_pca_sd"], axis=1)))
    assert sd[True] > 1.5 * sd[False]
    again = course.copy()
    tw.tl.fit(again, "time", method="otcfm", n_models=3, resample=True, rng=0, config=config)
    tw.tl.velocity(again)
    np.testing.assert_array_equal(again.obsm["velocity_X_pca"], adata.obsm["velocity_X_pca"])
    with pytest.raises(InputError, match="resample=True needs two models"):
        tw.tl.fit(again, "time", resample=True, config=config)


def test_arrows_that_the_models_do_not_share_are_not_drawn(course):
    adata = course.copy()
    tw.tl.fit(adata, "time", method="otcfm", n_models=2, rng=0, config=SHORT)
    tw.tl.velocity(adata)
    agree = adata.obs["velocity_agreement"]
    size, error = (np.square(adata.obsm[k]).sum(1) for k in ("velocity_X_pca", "velocity_X_pca_sd"))
    np.testing.assert_allclose(agree, size / (size + error), rtol=1e-4)
    grid = tw.get.velocity_grid(adata, n_grid=10)
    assert grid["agreement"].dropna().between(0, 1).all()
    for kind in ("grid", "arrows"):
        drawn = []
        for least in (0.0, 1.1):
            found = tw.pl.velocity(adata, kind=kind, min_agreement=least, show=False).collections
            drawn.append(sum(len(c.U) for c in found if hasattr(c, "U")))
        assert drawn[0] > 0
        assert drawn[1] == 0
    tw.tl.fit(adata, "time", method="otcfm", rng=0, config=SHORT)
    tw.tl.velocity(adata)
    assert "velocity_agreement" not in adata.obs


def test_a_single_fit_leaves_no_spread_of_an_ensemble_before_it(course):
    tw.tl.fit(course, "time", method="otcfm", n_models=2, rng=0, config=SHORT)
    tw.tl.velocity(course)
    assert "velocity_X_pca_sd" in course.obsm
    tw.tl.fit(course, "time", method="otcfm", rng=0, config=SHORT)
    tw.tl.velocity(course)
    assert "velocity_X_pca_sd" not in course.obsm
    assert "velocity_agreement" not in course.obs
