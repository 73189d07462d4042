"""Fit, interpolate, velocity: right answers, the same bits, a self-contained AnnData, nothing written on failure."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import thalweg as tw
from courses import make_course
from thalweg.data.cells import read_cells
from thalweg.errors import InputError, MissingKeyError
from thalweg.flows import methods, prediction
from thalweg.flows.carry import Carrier
from thalweg.flows.store import load_fit

METHODS = tuple(methods.METHODS)
# A translation is no trigonometric interpolant, and no potential that is velocity and growth rate at once.
MOVES = tuple(m for m in METHODS if m not in ("vpcfm", "uam"))


def shifted(adata, **columns):
    out = adata.copy()
    for name, values in columns.items():
        out.obs[name] = values
    return out


# --- what is learned -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", MOVES)
def test_a_translation_is_recovered(course, method):
    """Clouds move by 2 per unit of time; day 2 was never seen."""
    # Nearly balanced: with less weight on sizes, growth at the front explains a part of any movement.
    config = tw.tl.FitConfig(max_steps=600, batch_size=256, width=32, relaxation=4.0)
    tw.tl.fit(course, "time", method=method, rng=0, config=config)
    for options, started in (({"both_ends": False}, slice(120, 240)), ({}, slice(120, 360))):
        predicted = tw.tl.interpolate(course, 2.0, **options)
        np.testing.assert_allclose(np.average(predicted.obsm["X_pca"], 0, predicted.obs["weight"]), [4, 0, 0], atol=0.3)
        assert list(predicted.obs["source"]) == list(course.obs_names[started])
        assert predicted.obs["weight"].sum() == pytest.approx(1)
        assert (predicted.obs["time"] == 2.0).all()
    tw.tl.velocity(course)
    np.testing.assert_allclose(course.obsm["velocity_X_pca"].mean(0), [2, 0, 0], atol=0.3)


def test_optimal_transport_keeps_the_spread_and_independent_pairs_do_not(course):
    spread = {}
    for method in ("icfm", "otcfm"):
        tw.tl.fit(
            course,
            "time",
            method=method,
            rng=0,
            config=tw.tl.FitConfig(max_steps=1500, batch_size=256, width=128, learning_rate=2e-3),
        )
        spread[method] = tw.tl.interpolate(course, 2.0, both_ends=False).obsm["X_pca"].var(0).mean() / 0.25
    assert spread["otcfm"] == pytest.approx(1, abs=0.2)
    assert spread["icfm"] < 0.75  # half-way between independent ends the variance is half


def test_velocity_has_units_of_the_time_column(course):
    """The same course in hours: velocities are 24 times smaller, predictions the same."""
    hours = shifted(course, time=course.obs["time"] * 24)
    config = tw.tl.FitConfig(max_steps=100, batch_size=64, width=16)
    for a in (course, hours):
        tw.tl.fit(a, "time", method="otcfm", rng=0, config=config)
        tw.tl.velocity(a)
    np.testing.assert_allclose(hours.obsm["velocity_X_pca"] * 24, course.obsm["velocity_X_pca"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        tw.tl.interpolate(hours, 48.0).obsm["X_pca"], tw.tl.interpolate(course, 2.0).obsm["X_pca"], atol=1e-4
    )


def test_both_ends_meet(fitted):
    """At 2.5 between 1 and 3 the later cells weigh three quarters; each side arrives at the same place.

    The clouds move at one speed, so that the clock of the cells is the calendar up to the noise of 120 cells.
    """
    predicted = tw.tl.interpolate(fitted, 2.5)
    assert predicted.n_obs == 240
    assert list(predicted.uns["interpolation"]["source_time"]) == [1.0, 3.0]
    early = predicted.obs["source"].isin(fitted.obs_names[fitted.obs["time"] == 1.0]).to_numpy()
    stored = load_fit(fitted.uns["thalweg"], "thalweg")
    assert predicted.obs["weight"][early].sum() == pytest.approx(0.25, abs=0.02)
    assert predicted.obs["weight"].sum() == pytest.approx(1)
    for side in (early, ~early):
        np.testing.assert_allclose(predicted.obsm["X_pca"][side].mean(0), [5, 0, 0], atol=0.3)
    sides = [tw.tl.interpolate(fitted, 2.5, both_ends=False), tw.tl.interpolate(fitted, 2.5, source_time=3.0)]
    cells = read_cells(fitted, stored.recipe)
    carrier = Carrier(stored.flow, cells)
    cloud = carrier.predict(2.5, both_ends=True)
    assert cloud.weight[early].sum() == pytest.approx(1 - stored.flow.axis.share(1.0, 2.5, 3.0))
    for alone, side in zip(sides, (early, ~early), strict=True):
        np.testing.assert_array_equal(cloud.x[side].astype(np.float32), alone.obsm["X_pca"])
    np.testing.assert_array_equal(predicted.obsm["X_pca"], prediction.mean(carrier, 2.5).x.astype(np.float32))
    again = tw.tl.interpolate(fitted, 2.5, both_ends=True, prediction="mean")
    np.testing.assert_array_equal(predicted.obsm["X_pca"], again.obsm["X_pca"])
    with pytest.raises(InputError, match="leave source_time out"):
        tw.tl.interpolate(fitted, 2.5, both_ends=True, source_time=1.0)


def test_the_flow_runs_backwards_and_from_a_chosen_time(fitted):
    there = fitted.obsm["X_pca"][fitted.obs["time"] == 3.0]
    back = tw.tl.interpolate(fitted, 0.0, source_time=3.0)
    np.testing.assert_allclose(back.obsm["X_pca"].mean(0) - there.mean(0), [-6, 0, 0], atol=0.5)
    with pytest.raises(InputError, match=r"source_time=2.0 is not observed .* \[0.0, 1.0, 3.0\]"):
        tw.tl.interpolate(fitted, 1.0, source_time=2.0)


@pytest.mark.parametrize("solver", ["tsit5", "euler", "midpoint", "rk4"])
def test_solvers_agree(fitted, solver):
    reference = tw.tl.interpolate(fitted, 2.0).obsm["X_pca"]
    np.testing.assert_allclose(tw.tl.interpolate(fitted, 2.0, solver=solver).obsm["X_pca"], reference, atol=0.02)


def test_shift_and_scale_of_the_data_do_not_matter(course):
    config = tw.tl.FitConfig(max_steps=100, batch_size=64, width=16)
    tw.tl.fit(course, "time", method="otcfm", rng=0, config=config)
    reference = tw.tl.interpolate(course, 2.0).obsm["X_pca"]
    for scale, shift in ((1e-4, 0.0), (1e4, 0.0), (1.0, 1e4)):
        moved = course.copy()
        moved.obsm["X_pca"] = moved.obsm["X_pca"].astype(np.float64) * scale + shift
        tw.tl.fit(moved, "time", method="otcfm", rng=0, config=config)
        back = (tw.tl.interpolate(moved, 2.0).obsm["X_pca"].astype(np.float64) - shift) / scale
        np.testing.assert_allclose(back, reference, atol=2e-2)


def test_identical_cells_stand_still():
    adata = AnnData(
        obs=pd.DataFrame({"t": [0] * 20 + [1] * 20}, index=map(str, range(40))), obsm={"X_pca": np.full((40, 2), 7.0)}
    )
    config = tw.tl.FitConfig(max_steps=300, batch_size=64, width=16, sigma=0.0)
    tw.tl.fit(adata, "t", method="otcfm", rng=0, config=config)
    np.testing.assert_allclose(tw.tl.interpolate(adata, 0.5).obsm["X_pca"], 7.0, atol=0.05)


def test_minibatch_coupling_learns_too_and_is_used_when_plans_are_too_large(course, caplog):
    tw.settings.max_memory = 100_000  # 120 x 120 x 8 bytes is more
    config = tw.tl.FitConfig(max_steps=600, batch_size=128, width=64, block=64)
    tw.tl.fit(course, "time", method="otcfm", rng=0, config=config)
    assert set(tw.get.intervals(course)["coupling"]) == {"minibatch exact"}
    assert "minibatch exact coupling of 120 x 120 cells" in caplog.text
    np.testing.assert_allclose(tw.tl.interpolate(course, 2.0).obsm["X_pca"].mean(0), [4, 0, 0], atol=0.3)


def test_conditions_are_not_mixed(quick):
    """Two conditions move in opposite directions; pairs across them would cancel."""
    rng = np.random.default_rng(0)
    sign = np.tile([-1.0, 1.0], 200)
    time = np.repeat([0.0, 1.0], 200)
    x = 0.1 * rng.standard_normal((400, 2)) + np.c_[sign * time * 3, np.zeros(400)]
    obs = pd.DataFrame({"t": time, "arm": np.where(sign < 0, "left", "right")}, index=map(str, range(400)))
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    config = tw.tl.FitConfig(max_steps=500, batch_size=128, width=32)
    tw.tl.fit(adata, "t", method="otcfm", condition_key="arm", rng=0, config=config)
    predicted = tw.tl.interpolate(adata, 1.0)
    for name, end in (("left", -3.0), ("right", 3.0)):
        arm = predicted[(predicted.obs["arm"] == name).to_numpy()]
        np.testing.assert_allclose(arm.obsm["X_pca"].mean(0), [end, 0], atol=0.25)


def test_weights_move_the_couplings(quick):
    """All weight on one of two targets: everything goes there."""
    x = np.r_[np.zeros((50, 2)), np.full((50, 2), -4.0), np.full((50, 2), 4.0)] + 0.1 * np.random.default_rng(
        0
    ).standard_normal((150, 2))
    obs = pd.DataFrame(
        {"t": [0] * 50 + [1] * 100, "w": [1.0] * 50 + [1e-6] * 50 + [1.0] * 50}, index=map(str, range(150))
    )
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    config = tw.tl.FitConfig(max_steps=400, batch_size=128, width=32)
    tw.tl.fit(adata, "t", method="otcfm", weight_key="w", rng=0, config=config)
    np.testing.assert_allclose(tw.tl.interpolate(adata, 1.0).obsm["X_pca"].mean(0), [4, 4], atol=0.3)


def test_the_sde_of_a_bridge_spreads_and_the_ode_does_not(course):
    tw.tl.fit(
        course, "time", method="sf2m", rng=0, config=tw.tl.FitConfig(max_steps=400, batch_size=256, width=32, sigma=0.3)
    )
    a, b = (tw.tl.interpolate(course, 2.0, stochastic=True, rng=s).obsm["X_pca"] for s in (0, 1))
    assert not np.allclose(a, b, atol=0.1)
    np.testing.assert_array_equal(a, tw.tl.interpolate(course, 2.0, stochastic=True, rng=0).obsm["X_pca"])
    np.testing.assert_allclose(a.mean(0), [4, 0, 0], atol=0.3)
    np.testing.assert_array_equal(a, tw.tl.interpolate(course, 2.0, prediction="sample", rng=0).obsm["X_pca"])
    c, d = (tw.tl.interpolate(course, 2.0, rng=s).obsm["X_pca"] for s in (0, 1))
    np.testing.assert_array_equal(c, d)


# --- determinism -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_bits_and_global_generators_untouched(course, quick, method):
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    runs = []
    for seed in (0, 0, 1):
        adata = course.copy()
        tw.tl.fit(adata, "time", method=method, rng=seed, config=quick)
        runs.append((adata.uns["thalweg"]["weights"]["0"], tw.tl.interpolate(adata, 2.0).obsm["X_pca"]))
    np.testing.assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    for first, second in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(runs[0][0], runs[2][0])


def test_two_names_of_the_seed(course, quick):
    a, b = course.copy(), course.copy()
    tw.tl.fit(a, "time", method="otcfm", rng=3, config=quick)
    tw.tl.fit(b, "time", method="otcfm", random_state=3, config=quick)
    np.testing.assert_array_equal(a.uns["thalweg"]["weights"]["0"], b.uns["thalweg"]["weights"]["0"])
    with pytest.raises(TypeError, match="only rng"):
        tw.tl.fit(course, "time", rng=1, random_state=1)


# --- the AnnData carries the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.parametrize(("method", "spacing"), [("otcfm", "index"), ("sf2m", "index"), ("usb", "clock")])
def test_round_trip_to_the_bit(tmp_path, course, quick, kind, method, spacing):
    labels = course.obs["time"].map({0.0: "start", 1.0: "day 1", 3.0: "end"}).astype("category")
    adata = shifted(course, label=labels, arm=np.tile(["a", "b"], 180))
    time_map = {"start": 0, "day 1": 1, "end": 3}
    tw.tl.fit(
        adata, "label", method=method, time_map=time_map, condition_key="arm", rng=0, config=quick, spacing=spacing
    )
    tw.tl.velocity(adata)
    path = tmp_path / f"a.{kind}"
    getattr(adata, f"write_{kind}")(path)
    back = getattr(ad, f"read_{kind}")(path)
    expected, found = tw.tl.interpolate(adata, 2.0), tw.tl.interpolate(back, 2.0)
    np.testing.assert_array_equal(found.obsm["X_pca"], expected.obsm["X_pca"])
    np.testing.assert_array_equal(back.obsm["velocity_X_pca"], adata.obsm["velocity_X_pca"])
    tw.tl.velocity(back)
    np.testing.assert_array_equal(back.obsm["velocity_X_pca"], adata.obsm["velocity_X_pca"])
    pd.testing.assert_frame_equal(tw.get.history(back), tw.get.history(adata))
    getattr(found, f"write_{kind}")(tmp_path / f"predicted.{kind}")


def test_only_documented_keys_are_added(course, quick):
    before = course.copy()
    tw.tl.fit(course, "time", rng=0, config=quick, key_added="mine")
    assert set(course.uns) == {"mine"}
    assert set(course.obsm) == {"X_pca"}
    pd.testing.assert_frame_equal(course.obs, before.obs)
    np.testing.assert_array_equal(course.obsm["X_pca"], before.obsm["X_pca"])
    tw.tl.velocity(course, key="mine")
    assert set(course.obsm) == {"X_pca", "velocity_X_pca"}


def test_copy_and_views_leave_the_input_alone(course, quick):
    out = tw.tl.fit(course, "time", method="otcfm", rng=0, config=quick, copy=True)
    assert "thalweg" in out.uns
    assert "thalweg" not in course.uns
    view = course[::2]
    tw.tl.fit(view, "time", method="otcfm", rng=0, config=quick)
    assert "thalweg" in view.uns
    assert "thalweg" not in course.uns
    assert not view.is_view


def test_a_damaged_or_newer_model_is_refused(fitted):
    adata = fitted.copy()
    adata.uns["thalweg"]["weights"]["0"] = adata.uns["thalweg"]["weights"]["0"][:-40]
    with pytest.raises(InputError, match=r"uns\['thalweg'\] is damaged"):
        tw.tl.interpolate(adata, 1.0)
    adata = fitted.copy()
    adata.uns["thalweg"]["format"] = 99
    with pytest.raises(InputError, match=r"format 99.*upgrade"):
        tw.tl.interpolate(adata, 1.0)
    adata.uns["thalweg"] = 3
    with pytest.raises(InputError, match="not a fit"):
        tw.tl.velocity(adata)


# --- bad input: a clear error before any training, nothing written ---------------------------------------------------

BAD = {
    "key": ({"time_key": "day"}, MissingKeyError, "columns that exist: 'time'"),
    "rep": ({"use_rep": "X_umap"}, MissingKeyError, "obsm keys that exist: 'X_pca'"),
    "dims": ({"n_dims": 9}, InputError, "3 columns"),
    "method": ({"method": "ot-cfm"}, InputError, "choose one of fm, icfm"),
    "device": ({"device": "gpu"}, InputError, "device='gpu'"),
    "spacing": ({"spacing": "even"}, InputError, "spacing"),
    "rng": ({"rng": "zero"}, InputError, "rng must be"),
    "weight": ({"weight_key": "no"}, MissingKeyError, "weight_key"),
    "bridge": ({"method": "sf2m", "config": tw.tl.FitConfig(sigma=0.0)}, InputError, "sigma=0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(course, monkeypatch, case):
    from thalweg.flows import trainers

    monkeypatch.setattr(trainers, "train", lambda *a, **k: pytest.fail("training began"))
    kwargs, error, match = BAD[case]
    with pytest.raises(error, match=match):
        tw.tl.fit(course, **({"time_key": "time"} | kwargs))
    assert not course.uns


@pytest.mark.parametrize(
    ("column", "match"),
    [
        (["d0"] * 180 + ["d1"] * 180, "time_map"),
        ([0.0] * 360, "two or more times"),
        ([np.nan] + [0.0] * 180 + [1.0] * 179, "1 missing"),
        ([True] * 180 + [False] * 180, "booleans"),
    ],
)
def test_bad_times(course, column, match):
    adata = shifted(course, time=column)
    with pytest.raises(InputError, match=match):
        tw.tl.fit(adata, "time")
    assert not adata.uns


def test_nan_coordinates_never_train(course):
    course.obsm["X_pca"][5, 1] = np.nan
    with pytest.raises(InputError, match=r"obsm\['X_pca'\] holds 1 NaN"):
        tw.tl.fit(course, "time")
    assert not course.uns


def test_a_failing_training_writes_nothing(course, monkeypatch):
    from thalweg.core import objectives
    from thalweg.errors import NonFiniteLossError

    monkeypatch.setattr(objectives, "velocity", lambda model, batch: batch.t * float("nan"))
    with pytest.raises(NonFiniteLossError, match="'velocity' is nan at step 1"):
        tw.tl.fit(course, "time", rng=0, config=tw.tl.FitConfig(max_steps=5, validation_fraction=0.0))
    assert not course.uns


@pytest.mark.parametrize("time", [-1.0, 3.5, np.nan, np.inf])
def test_times_outside_the_range_need_asking(fitted, time):
    with pytest.raises(InputError, match="time"):
        tw.tl.interpolate(fitted, time)


def test_extrapolation_continues_the_motion(fitted):
    out = tw.tl.interpolate(fitted, 3.5, extrapolate=True)
    np.testing.assert_allclose(out.obsm["X_pca"].mean(0), [7, 0, 0], atol=0.5)


def test_what_a_fit_cannot_do_is_said(fitted, course):
    with pytest.raises(InputError, match="sf2m"):
        tw.tl.interpolate(fitted, 2.0, stochastic=True)
    with pytest.raises(MissingKeyError, match=r"uns\['thalweg'\] does not exist.*tw.tl.fit"):
        tw.tl.interpolate(course, 2.0)


@pytest.mark.parametrize("field", ["width", "depth", "block", "sigma", "coupling"])
def test_configuration_is_checked(field):
    with pytest.raises(InputError, match=field):
        tw.tl.FitConfig(**{field: "x" if field == "coupling" else -1})


def test_a_time_with_few_cells_does_not_switch_validation_off_for_the_others(caplog):
    """Five cells cannot spare one; the sixty of the next time can."""
    adata = shifted(make_course(n=60), time=np.repeat([0.0, 1.0, 3.0], 60))
    few = adata[[*range(5), *range(60, 180)]].copy()
    caplog.set_level("INFO", logger="thalweg")
    config = tw.tl.FitConfig(max_steps=40, width=8, validate_every=10)
    tw.tl.fit(few, "time", method="otcfm", rng=0, config=config)
    assert "1 of 2 couplings have too few cells to spare one; the others validate" in caplog.text
    assert few.uns["thalweg"]["history"]["validation_loss"].notna().all()
    tiny = adata[[*range(5), *range(60, 65), *range(120, 125)]].copy()
    tw.tl.fit(tiny, "time", method="otcfm", rng=0, config=config)
    assert "no coupling has cells to spare for validation" in caplog.text
    assert "validation_loss" not in tiny.uns["thalweg"]["history"]
