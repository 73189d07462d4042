"""Properties of a fitted flow: identities that hold for any weights of the networks."""

from __future__ import annotations

import io

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import thalweg as tw
from strategies import observed_times, seeds, weights
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError
from thalweg.flows.running import Integrator
from thalweg.flows.store import load_fit
from thalweg.flows.time_axis import make_axis

FEW = settings.get_profile("ci").max_examples // 5  # a fit takes a good part of a second
QUICK = tw.tl.FitConfig(max_steps=8, batch_size=16, width=8, depth=2, validate_every=4)


@pytest.fixture(scope="module")
def flow(fitted):
    return load_fit(fitted.uns["thalweg"], "thalweg", "cpu").flow


def course_of(rng: np.random.Generator, times=(0.0, 1.0, 3.0), n=15, d=2) -> AnnData:
    x = np.concatenate([rng.integers(-64, 64, size=(n, d)) / 32 + t for t in times])
    obs = pd.DataFrame({"time": np.repeat(np.asarray(times, dtype=float), n)}, index=[f"c{i}" for i in range(len(x))])
    return AnnData(obs=obs, obsm={"X_pca": x})


# --- time axes -------------------------------------------------------------------------------------------------------


@given(st.data(), observed_times(), st.floats(-1e3, 1e3), st.sampled_from(["real", "index", "map"]))
def test_the_axis_increases_meets_its_knots_and_has_the_slope_it_states(data, ticks, time, kind):
    times = np.array(ticks)
    steps = np.array(data.draw(st.lists(st.integers(1, 8), min_size=len(times), max_size=len(times)))).cumsum()
    axis = make_axis(times, dict(zip(ticks, steps.tolist(), strict=True)) if kind == "map" else kind)
    tau = axis.tau(times)
    assert tau[0] == 0
    assert tau[-1] == pytest.approx(len(times) - 1, rel=1e-12)
    assert (np.diff(tau) > 0).all()
    wanted = {"real": times, "index": np.arange(len(times)), "map": steps}[kind].astype(float)
    np.testing.assert_allclose(tau, (wanted - wanted[0]) / (wanted[-1] - wanted[0]) * axis.n_intervals, atol=1e-9)
    step = 1e-4
    assume(not ((times >= time - 1e-9) & (times <= time + step)).any())  # no knot between
    slope = (axis.tau(time + step) - axis.tau(time)) / step
    assert axis.slope(time) == pytest.approx(float(slope), rel=1e-4)
    assert axis.slope(time) > 0
    # Exact at knots and linear between: the middle of an interval is the middle in tau.
    np.testing.assert_allclose(axis.tau((times[1:] + times[:-1]) / 2), (tau[1:] + tau[:-1]) / 2, atol=1e-9)


# --- flows -----------------------------------------------------------------------------------------------------------


@given(st.sampled_from([0.0, 1.0, 3.0]), st.sampled_from([True, False, None]))
def test_at_an_observed_time_from_itself_nothing_moves(fitted, time, both_ends):
    cells = (fitted.obs["time"] == time).to_numpy()
    there = tw.tl.interpolate(fitted, time, source_time=time)
    np.testing.assert_array_equal(there.obsm["X_pca"], fitted.obsm["X_pca"][cells])
    assert list(there.obs["source"]) == list(fitted.obs_names[cells])
    np.testing.assert_allclose(there.obs["weight"], 1 / cells.sum(), rtol=1e-12)
    if time == 0:
        first = tw.tl.interpolate(fitted, time, both_ends=both_ends)  # nothing is before the first time
        np.testing.assert_array_equal(first.obsm["X_pca"], there.obsm["X_pca"])


@given(st.floats(0, 3), st.sampled_from([True, False, None]), st.sampled_from(["dopri5", "rk4"]))
def test_weights_sum_to_one_and_cells_keep_their_names(fitted, time, both_ends, solver):
    out = tw.tl.interpolate(fitted, time, both_ends=both_ends, solver=solver, n_steps=4)
    assert out.obs["weight"].sum() == pytest.approx(1, rel=1e-12)
    assert (out.obs["weight"] >= 0).all()
    assert set(out.obs["time"]) == {time}
    sources = fitted.obs["time"][out.obs["source"]].to_numpy()
    before = [t for t in (0.0, 1.0, 3.0) if t < time] or [0.0]
    after = [t for t in (0.0, 1.0, 3.0) if t > time]
    both = (time not in (0.0, 1.0, 3.0) if both_ends is None else both_ends) and after and time > 0
    assert set(sources) == ({before[-1], after[0]} if both else {before[-1]})
    assert np.isfinite(out.obsm["X_pca"]).all()


@given(st.data(), seeds(), st.sampled_from([(0.0, 1.0), (1.0, 3.0)]))
def test_pushes_compose_and_return(flow, data, seed, interval):
    """Within an interval, where the field is smooth; there and back, by way of a third time, and with stops."""
    ticks = data.draw(st.lists(st.integers(1, 19), min_size=3, max_size=3, unique=True))
    t0, t1, t2 = (interval[0] + (interval[1] - interval[0]) * tick / 20 for tick in ticks)
    x = np.random.default_rng(seed).normal(size=(5, 3)) * 0.5 + [2 * t0, 0, 0]

    def push(cells, *times):
        return flow.push(cells, times, integrator=Integrator("rk4", 10))

    there = push(x, t0, t1).x
    np.testing.assert_allclose(there[0], x, atol=1e-5)
    np.testing.assert_allclose(push(there[-1], t1, t0).x[-1], x, atol=1e-3)
    np.testing.assert_allclose(push(push(x, t0, t2).x[-1], t2, t1).x[-1], there[-1], atol=1e-3)
    several = push(x, t0, (t0 + t1) / 2, t1)
    assert several.x.shape == (3, 5, 3)
    np.testing.assert_allclose(several.x[1], push(x, t0, (t0 + t1) / 2).x[-1], atol=1e-6)
    np.testing.assert_allclose(several.x[-1], there[-1], atol=1e-3)
    np.testing.assert_array_equal(several.weight, 1.0)
    adaptive = flow.push(x, [t0, t1], integrator=Integrator("dopri5")).x[-1]
    np.testing.assert_allclose(adaptive, there[-1], atol=1e-2)


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 3.0), (3.0, 0.0), (0.25, 2.5), (0.0, 1.0), (1.0, 0.0)])
def test_an_observed_time_on_the_way_or_at_its_end_costs_no_accuracy(flow, t0, t1):
    """The field may jump there; a step across, or an evaluation just beyond, would leave an error of first order."""
    x = np.random.default_rng(0).normal(size=(6, 3)) * 0.5 + [2 * t0, 0, 0]

    def push(method, n_steps, *times):
        return flow.push(x, times, integrator=Integrator(method, n_steps)).x[-1]

    reference = push("rk4", 400, t0, t1)
    assert np.abs(push("rk4", 40, t0, t1) - reference).max() < 2e-4
    assert np.abs(push("dopri5", 1, t0, t1) - reference).max() < 2e-3
    stops = [t for t in (1.0,) if min(t0, t1) < t < max(t0, t1)]
    np.testing.assert_allclose(push("rk4", 400, t0, *stops, t1), reference, atol=2e-5)
    with pytest.raises(InputError, match="strictly monotone"):
        push("rk4", 4, t0, t1, t0)


@given(seeds(), st.floats(0.01, 2.9))
def test_the_velocity_is_the_speed_at_which_cells_are_pushed(flow, seed, time):
    assume(abs(time - 1) > 0.05)  # not across a knot
    x = np.random.default_rng(seed).normal(size=(4, 3)) * 0.5 + [2 * time, 0, 0]
    step = 1e-2
    moved = flow.push(x, [time, time + step], integrator=Integrator("rk4", 4)).x[-1]
    np.testing.assert_allclose((moved - x) / step, flow.velocity(x, time + step / 2), atol=5e-2)


@given(st.data(), seeds())
def test_each_cell_moves_by_itself(flow, data, seed):
    """Order, company and the time of others change nothing."""
    rng = np.random.default_rng(seed)
    x, time = rng.normal(size=(6, 3)), rng.choice([0.0, 0.5, 1.0, 2.0, 3.0], size=6)
    order = data.draw(st.permutations(range(6)))
    v = flow.velocity(x, time)
    np.testing.assert_allclose(flow.velocity(x[order], time[order]), v[order], rtol=1e-5, atol=1e-6)
    for i in range(6):
        np.testing.assert_allclose(flow.velocity(x[i : i + 1], time[i]), v[i : i + 1], rtol=1e-5, atol=1e-6)
    pushed = flow.push(x, [0.0, 1.0], integrator=Integrator("rk4", 4)).x[-1]
    again = flow.push(x[order], [0.0, 1.0], integrator=Integrator("rk4", 4)).x[-1]
    np.testing.assert_allclose(again, pushed[order], rtol=1e-5, atol=1e-5)


# --- fits ------------------------------------------------------------------------------------------------------------


@settings(max_examples=FEW)
@given(seeds(), st.sampled_from([2.0**-10, 2.0, 2.0**12]), st.sampled_from(["otcfm", "sf2m", "uotcfm", "icfm"]))
def test_a_binary_unit_changes_no_bit_of_a_fit(seed, scale, method):
    """Scaling by a power of two rounds nothing: the normalised cells, the plans and the weights are the same bits."""
    one = course_of(np.random.default_rng(seed))
    other = one.copy()
    other.obsm["X_pca"] = one.obsm["X_pca"] * scale
    for adata in (one, other):
        tw.tl.fit(adata, "time", method=method, rng=seed, config=QUICK)
        tw.tl.velocity(adata)
    np.testing.assert_array_equal(other.uns["thalweg"]["weights"]["0"], one.uns["thalweg"]["weights"]["0"])
    np.testing.assert_array_equal(other.obsm["velocity_X_pca"], one.obsm["velocity_X_pca"] * np.float32(scale))
    here, there = (tw.tl.interpolate(adata, 2.0).obsm["X_pca"] for adata in (one, other))
    np.testing.assert_array_equal(there, here * np.float32(scale))


@settings(max_examples=FEW)
@given(seeds(), st.integers(-8, 64), st.sampled_from([0.5, 2.0, 16.0]), st.sampled_from(["int", "text", "category"]))
def test_a_shift_of_time_changes_nothing_and_its_unit_only_the_velocity(seed, shift, unit, written):
    one = course_of(np.random.default_rng(seed))
    other = one.copy()
    time = one.obs["time"] * unit + shift
    other.obs["time"] = {
        "int": time.astype(int) if (time % 1 == 0).all() else time,
        "text": time.map(str),
        "category": time.map(str).astype("category"),
    }[written]
    before = other.obs.copy()
    for adata in (one, other):
        tw.tl.fit(adata, "time", method="otcfm", rng=seed, config=QUICK)
        tw.tl.velocity(adata)
    pd.testing.assert_frame_equal(other.obs, before)
    np.testing.assert_array_equal(other.uns["thalweg"]["weights"]["0"], one.uns["thalweg"]["weights"]["0"])
    np.testing.assert_array_equal(other.obsm["velocity_X_pca"] * np.float32(unit), one.obsm["velocity_X_pca"])
    here = tw.tl.interpolate(one, 2.0)
    there = tw.tl.interpolate(other, 2.0 * unit + shift)
    np.testing.assert_allclose(there.obsm["X_pca"], here.obsm["X_pca"], atol=1e-5)


@settings(max_examples=FEW)
@given(st.data(), seeds(), st.sampled_from(["otcfm", "sf2m", "uotcfm", "fm", "am"]), st.booleans(), st.booleans())
def test_a_written_fit_is_the_fit_and_nothing_else_was_touched(data, seed, method, conditions, weighted):
    adata = course_of(np.random.default_rng(seed))
    if conditions:
        adata.obs["arm"] = np.tile(["b", "a", "c"], len(adata) // 3)
    if weighted:
        adata.obs["w"] = data.draw(weights(adata.n_obs)) * 100
    before = adata.copy()
    keys = {"condition_key": "arm" if conditions else None, "weight_key": "w" if weighted else None}
    tw.tl.fit(adata, "time", method=method, rng=seed, config=QUICK, key_added="fit", **keys)
    assert set(adata.uns) == {"fit"}
    assert set(adata.obsm) == {"X_pca"}
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    np.testing.assert_array_equal(adata.obsm["X_pca"], before.obsm["X_pca"])
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        ad.io.write_elem(file, "adata", adata)
    with h5py.File(buffer, "r") as file:
        back = ad.io.read_elem(file["adata"])
    for a in (adata, back):
        tw.tl.velocity(a, key="fit")
    np.testing.assert_array_equal(back.obsm["velocity_X_pca"], adata.obsm["velocity_X_pca"])
    here, there = (tw.tl.interpolate(a, 2.0, key="fit", rng=0) for a in (adata, back))
    np.testing.assert_array_equal(here.obsm["X_pca"], there.obsm["X_pca"])
    np.testing.assert_array_equal(here.obs["weight"], there.obs["weight"])
    assert torch.equal(*(torch.from_numpy(np.asarray(a.uns["fit"]["weights"]["0"])) for a in (adata, back)))


@settings(max_examples=FEW)
@given(seeds(), st.integers(2, 6), st.sampled_from(["otcfm", "usb"]))
def test_courses_with_few_cells_fit(seed, n, method):
    """Fewer cells than a batch, down to two a time; the fit ends with finite weights and a finite prediction."""
    adata = course_of(np.random.default_rng(seed), n=n)
    assume(np.ptp(adata.obsm["X_pca"], axis=0).all())
    tw.tl.fit(adata, "time", method=method, rng=seed, config=QUICK)
    out = tw.tl.interpolate(adata, 0.5)
    cells = read_course(adata, Recipe("time"))
    assert out.n_obs == len(cells.rows(0.0)) + len(cells.rows(1.0)) == 2 * n
    low, high = adata.obsm["X_pca"].min(), adata.obsm["X_pca"].max()
    reach = high - low + 1
    assert (out.obsm["X_pca"] > low - reach).all()
    assert (out.obsm["X_pca"] < high + reach).all()
