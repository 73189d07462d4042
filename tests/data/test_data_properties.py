"""Properties of reading: what is in the cells comes out, whatever holds it, and nothing in the AnnData changes."""

from __future__ import annotations

import copy

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import LAYOUTS, courses, generators, layouts, matrices, observed_times, time_columns
from thalweg.core import couplings, paths
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.data.representation import read_representation
from thalweg.data.times import parse_times
from thalweg.errors import InputError
from thalweg.flows.samplers import IntervalSampler


def holding(x, names=None) -> AnnData:
    names = [f"c{i}" for i in range(x.shape[0])] if names is None else names
    return AnnData(obs=pd.DataFrame(index=names), obsm={"rep": x})


def dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


@given(st.data(), matrices())
def test_a_matrix_is_read_by_value_whatever_its_type_and_layout(data, x):
    stored = LAYOUTS[data.draw(layouts(str(x.dtype)))](x)
    before = copy.deepcopy(stored)
    read = read_representation(holding(stored), "rep")
    np.testing.assert_array_equal(read, x.astype(np.float64))
    assert read.dtype == np.float64
    assert read.flags.c_contiguous
    read[:] = 7.0
    np.testing.assert_array_equal(dense(stored), dense(before))
    assert stored.dtype == before.dtype


@given(st.data(), matrices())
def test_rows_of_a_view_and_leading_columns_are_those_of_the_whole(data, x):
    stored = LAYOUTS[data.draw(layouts(str(x.dtype)))](x)
    order = data.draw(st.permutations(range(len(x))))
    order = order[: data.draw(st.integers(1, len(order)))]
    width = data.draw(st.integers(1, x.shape[1]))
    read = read_representation(holding(stored)[order], "rep", width)
    np.testing.assert_array_equal(read, x.astype(np.float64)[order, :width])


@given(st.data(), matrices())
def test_one_bad_value_is_found_wherever_it_is(data, x):
    x = x.astype(np.float64)
    row, column = data.draw(st.integers(0, len(x) - 1)), data.draw(st.integers(0, x.shape[1] - 1))
    x[row, column] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    with pytest.raises(InputError, match=rf"1 NaN or infinite .*first at row {row} 'c{row}', column {column}; 1 rows"):
        read_representation(holding(LAYOUTS[data.draw(layouts())](x)), "rep")


def course_of(column) -> AnnData:
    names = [f"c{i}" for i in range(len(column))]
    return AnnData(obs=pd.DataFrame({"day": pd.Series(column, index=names)}, index=names))


@given(time_columns())
def test_times_are_the_numbers_that_were_written(times):
    adata = course_of(times.column)
    before = adata.obs.copy()
    read = parse_times(adata, "day", times.time_map)
    assert read.dtype == np.float64
    np.testing.assert_array_equal(read, times.values)
    pd.testing.assert_frame_equal(adata.obs, before)


@given(time_columns(), st.randoms(use_true_random=False))
def test_times_move_with_their_cells(times, random):
    adata = course_of(times.column)
    order = list(range(adata.n_obs))
    random.shuffle(order)
    np.testing.assert_array_equal(parse_times(adata[order], "day", times.time_map), times.values[order])


@given(time_columns(), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_a_map_decides_the_times_of_any_labels(times, slope, offset):
    """An increasing map keeps the order, and the text of a label has no say in it."""
    adata = course_of(times.column)
    labels = adata.obs["day"].unique()
    known = dict(zip(labels, parse_times(adata, "day", times.time_map)[~adata.obs["day"].duplicated()], strict=True))
    read = parse_times(adata, "day", {label: slope * value + offset for label, value in known.items()})
    np.testing.assert_array_equal(read, slope * times.values + offset)
    some = list(labels)[:-1]
    with pytest.raises(InputError, match="no entry for"):
        parse_times(adata, "day", dict.fromkeys(some, 0.0))


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6, unique=True), st.sampled_from(["d", "day ", "E", "t="]))
def test_labels_are_refused_and_the_suggested_map_is_right(ticks, prefix):
    """The message offers a map; taken as it stands, it sorts d10 after d2."""
    adata = course_of([f"{prefix}{t}" for t in ticks])
    with pytest.raises(InputError, match="time_map=") as caught:
        parse_times(adata, "day")
    text = str(caught.value).split("time_map=")[1].strip(" .").replace(", ...}", "}")
    pairs = (entry.rsplit(": ", 1) for entry in text.strip("{}").split(", "))
    offered = {label.strip("'"): float(value) for label, value in pairs}
    assert offered == {f"{prefix}{t}": float(t) for t in ticks}


@given(courses())
def test_snapshots_hold_every_cell_once(course):
    adata, times, x = course
    before = adata.copy()
    s = read_course(adata, Recipe("day", time_map=times.time_map))
    np.testing.assert_array_equal(s.times, np.unique(times.values))
    np.testing.assert_array_equal(s.x, x.astype(np.float64))
    assert s.conditions == ()
    assert not s.condition.any()
    np.testing.assert_array_equal(s.weights, 1.0)
    assert s.n_dims == x.shape[1]
    rows = [s.rows(t) for t in s.times]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(x)))
    for t, own in zip(s.times, rows, strict=True):
        np.testing.assert_array_equal(s.at(t), x.astype(np.float64)[times.values == t])
        np.testing.assert_array_equal(own, np.flatnonzero(times.values == t))
        rest = s.without(t)
        assert t not in rest.times
        np.testing.assert_array_equal(rest.x, np.delete(s.x, own, axis=0))
        np.testing.assert_array_equal(rest.time, np.delete(s.time, own))
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    np.testing.assert_array_equal(dense(adata.obsm["X_pca"]), dense(before.obsm["X_pca"]))
    assert dict(adata.uns) == {}


@given(st.data(), courses())
def test_conditions_and_weights_stay_with_their_cells(data, course):
    adata, times, x = course
    arms = data.draw(st.lists(st.sampled_from(["b", "a", "c"]), min_size=len(x), max_size=len(x)))
    w = data.draw(st.lists(st.integers(1, 9), min_size=len(x), max_size=len(x)))
    adata.obs["arm"], adata.obs["w"] = arms, [str(v) for v in w]
    if not any(len(set(times.values[np.array(arms) == arm])) > 1 for arm in set(arms)):
        with pytest.raises(InputError, match="no cells can be coupled"):
            read_course(adata, Recipe("day", time_map=times.time_map, condition_key="arm"))
        return
    s = read_course(adata, Recipe("day", time_map=times.time_map, condition_key="arm", weight_key="w"))
    assert s.conditions == tuple(sorted(set(arms)))
    assert [s.conditions[k] for k in s.condition] == arms
    np.testing.assert_array_equal(s.weights, w)
    t = s.times[0]
    kept = times.values != t
    rest = s.without(t)
    np.testing.assert_array_equal(rest.weights, np.array(w)[kept])
    np.testing.assert_array_equal(rest.condition, s.condition[kept])
    for k in range(len(s.conditions)):
        np.testing.assert_array_equal(s.rows(t, k), np.flatnonzero(~kept & (s.condition == k)))


@given(courses(max_cells=8))
def test_a_file_gives_what_memory_gives(tmp_path_factory, course):
    adata, times, x = course
    path = tmp_path_factory.mktemp("file") / "x.h5ad"
    assume(times.kind not in ("mixed", "nullable"))  # h5ad holds no such column
    adata.write_h5ad(path)
    back = read_course(ad.read_h5ad(path), Recipe("day", time_map=times.time_map))
    np.testing.assert_array_equal(back.x, x.astype(np.float64))
    np.testing.assert_array_equal(back.time, times.values)


def chain(ticks: list[float]) -> tuple[IntervalSampler, torch.Tensor]:
    """One cell for each time, so that the pairs of each interval are known; z is the square of the number."""
    k = len(ticks) - 1
    tau = torch.tensor([(t - ticks[0]) / (ticks[-1] - ticks[0]) * k for t in ticks], dtype=torch.float64)
    z = torch.arange(k + 1, dtype=torch.float64).square()[:, None]
    one = couplings.uniform(1)
    mixture = couplings.Mixture(
        [couplings.Independent(one, one)] * k,
        [torch.tensor([i]) for i in range(k)],
        [torch.tensor([i + 1]) for i in range(k)],
        couplings.uniform(k),
    )
    return IntervalSampler(z, tau, torch.arange(k + 1), mixture, lambda length: paths.Linear(), k), tau


@given(observed_times(), generators(), st.integers(1, 64))
def test_batches_lie_on_the_polygon_of_the_course(ticks, generator, n):
    sampler, tau = chain(ticks)
    drawn = sampler.batch(n, generator)
    first = drawn.batch.condition  # the source cell
    np.testing.assert_allclose(drawn.start, tau[first], rtol=0, atol=1e-12)
    np.testing.assert_allclose(drawn.length, tau[first + 1] - tau[first], rtol=0, atol=1e-12)
    here = drawn.batch.t.double().numpy() * sampler.n_intervals
    np.testing.assert_allclose(here, (drawn.start + drawn.unit_t * drawn.length).numpy(), atol=1e-9)
    expected = np.interp(here, tau.numpy(), sampler.z[:, 0].numpy())
    np.testing.assert_allclose(drawn.batch.x_t[:, 0], expected, atol=1e-5 * expected.max())
    rise = (2 * first + 1).double()
    np.testing.assert_allclose(drawn.batch.u_t[:, 0], rise / drawn.length, rtol=1e-6)
    np.testing.assert_allclose(drawn.weight, drawn.length.square(), rtol=1e-12)
    assert drawn.mass == 1.0
    counts = torch.bincount(first, minlength=sampler.n_intervals)
    assert int(counts.max() - counts.min()) <= 1  # systematic: every interval its share
    np.testing.assert_array_equal(drawn.unit_batch.t, drawn.unit_t)
    np.testing.assert_array_equal(drawn.unit_batch.u_t, drawn.batch.u_t)
