"""Populations by time, and the flow between them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError


def parts(ax, gid):
    """Vertices and label of the ribbons, or of the bars, of a flow."""
    return {p.get_label(): p for p in ax.patches if p.get_gid() == gid}


def ribbon_ends(patch):
    """Heights on the left and on the right side."""
    v = patch.get_path().vertices
    left, right = v[v[:, 0] == v[:, 0].min(), 1], v[v[:, 0] == v[:, 0].max(), 1]
    return np.ptp(left), np.ptp(right)


def test_bars_are_the_shares_at_their_times(cells):
    ax = tw.pl.time_course(cells, "time", "kind")
    table = tw.get.populations(cells, "time", "kind")
    for bars, color in zip(ax.containers, cells.uns["kind_colors"], strict=True):
        share = table[table["group"] == bars.get_label()].sort_values("time")
        np.testing.assert_allclose([b.get_height() for b in bars], share["share"])
        np.testing.assert_allclose([b.get_x() + b.get_width() / 2 for b in bars], [0, 1, 3])
        assert {to_hex(b.get_facecolor()) for b in bars} == {color}
    heights = np.array([[b.get_height() for b in bars] for bars in ax.containers])
    np.testing.assert_allclose(heights.sum(0), 1)
    bottoms = [[b.get_y() for b in bars] for bars in ax.containers]
    np.testing.assert_allclose(bottoms, heights.cumsum(0) - heights, atol=1e-12)
    assert [t.get_text() for t in ax.texts] == ["200", "200", "200"]


def test_time_course_of_two_and_of_many_times(cells):
    two = cells[cells.obs["time"] < 2].copy()
    assert [len(c) for c in tw.pl.time_course(two, "time", "kind").containers] == [2] * 3
    cells.obs["age"] = np.arange(cells.n_obs) % 37 / 2
    ax = tw.pl.time_course(cells, "age", "kind")
    bands = {c.get_label(): c for c in ax.collections}
    table = tw.get.populations(cells, "age", "kind")
    stem = bands["stem"].get_paths()[0].vertices
    np.testing.assert_allclose(stem[:, 1].max(), table.loc[table["group"] == "stem", "share"].max())
    ax.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.texts]
    assert len(boxes) > 3
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_time_course_over_replicates_has_whiskers_that_are_their_intervals(cells):
    cells.obs["mouse"] = np.where((cells.obs["time"] == 3) | (np.arange(cells.n_obs) % 2 > 0), "a", "b")
    ax = tw.pl.time_course(cells, "time", "kind", replicate_key="mouse")
    table = tw.get.populations(cells, "time", "kind", replicate_key="mouse")
    found = table[table["group"].isin(table.loc[table["n"] > 0, "group"])]
    assert len(ax.containers) == found["group"].nunique()
    for bars, (name, own) in zip(ax.containers, found.groupby("group", sort=False), strict=True):
        assert bars.get_label() == name
        line, _, (whiskers,) = bars
        np.testing.assert_allclose(line.get_ydata(orig=False), own["share"])
        ends = [segment[:, 1].tolist() for segment in whiskers.get_segments()[:2]]
        np.testing.assert_allclose(
            np.array(ends, dtype=float), own[["lower", "upper"]].to_numpy()[:2]
        )  # one mouse at time 3: no whisker
    assert [t.get_text() for t in ax.texts] == ["200", "200", "200"]


def test_time_course_by_condition(cells):
    axes = tw.pl.time_course(cells, "time", "kind", condition_key="condition")
    table = tw.get.populations(cells, "time", "kind", condition_key="condition")
    for ax, name in zip(axes, ["control", "drug"], strict=True):
        left = next(c for c in ax.containers if c.get_label() == "left")
        expected = table[(table["condition"] == name) & (table["group"] == "left")]["share"]
        np.testing.assert_allclose([b.get_height() for b in left], expected)


def test_ribbons_are_the_flow_and_sum_to_one(cells):
    ax = tw.pl.fate_flow(cells, "kind")
    table = tw.get.flow_df(cells, "kind")
    drawn = [(p.get_label(), *ribbon_ends(p)) for p in ax.patches if p.get_gid() == "ribbon"]
    assert len(drawn) == len(table)
    for (label, left, right), row in zip(drawn, table.itertuples(), strict=True):
        assert label == f"{row.source} → {row.target}"
        assert left == pytest.approx(right) == pytest.approx(row.share)
    steps = np.array([np.floor(p.get_path().vertices[:, 0].min()) for p in ax.patches if p.get_gid() == "ribbon"])
    for step in (0, 1):
        assert sum(d[1] for d, s in zip(drawn, steps, strict=True) if s == step) == pytest.approx(1)


def test_bars_of_the_flow_hold_their_ribbons_and_show_growth(cells):
    ax = tw.pl.fate_flow(cells, "kind")
    bars, known = parts(ax, "bar"), dict(zip(cells.obs["kind"].cat.categories, cells.uns["kind_colors"], strict=True))
    table = tw.get.flow_df(cells, "kind")
    kinds = cells.obs["kind"][cells.obs["time"] == 1]
    for name in ("left", "right"):
        v = bars[f"{name}, 1"].get_xy()[:4]
        arriving, leaving = v[3, 1] - v[0, 1], v[2, 1] - v[1, 1]
        assert arriving == pytest.approx((kinds == name).mean())
        assert leaving == pytest.approx(table[(table["t0"] == 1) & (table["source"] == name)]["share"].sum())
        assert to_hex(bars[f"{name}, 1"].get_facecolor()) == known[name]
    n = kinds.value_counts()
    assert leaving == pytest.approx(3 * n["right"] / (3 * n["right"] + n["left"]))  # three descendants each
    first = next(p for p in ax.patches if p.get_gid() == "ribbon")
    assert to_hex(first.get_facecolor()) == known["stem"]


def test_names_of_the_flow_do_not_overlap(cells):
    cells.obs["skewed"] = [f"rare {i % 200}" if i % 200 < 6 else "common" for i in range(cells.n_obs)]
    for key in ("skewed", "kind"):
        ax = tw.pl.fate_flow(cells, key)
        ax.figure.draw_without_rendering()
        boxes = [Text.get_window_extent(t) for t in ax.texts]  # without their lines
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_groups_between_the_ends_are_named_too(cells):
    cells.obs["stage"] = cells.obs["time"].map({0.0: "early", 1.0: "middle", 3.0: "late"})
    ax = tw.pl.fate_flow(cells, "stage")
    assert sorted(t.get_text() for t in ax.texts) == ["early", "late", "middle"]


def test_small_ribbons_can_be_left_out(cells):
    table = tw.get.flow_df(cells, "kind")
    kept = table[table["share"] >= 0.3]
    assert 0 < len(kept) < len(table)
    ax = tw.pl.fate_flow(cells, "kind", min_share=0.3)
    assert sum(p.get_gid() == "ribbon" for p in ax.patches) == len(kept)


def test_flow_by_condition_and_what_is_missing(cells):
    control, drug = tw.pl.fate_flow(cells, "kind", condition_key="condition")
    assert (control.get_title(), drug.get_title()) == ("control", "drug")
    with pytest.raises(MissingKeyError, match=r"obsp\['no'\]"):
        tw.pl.fate_flow(cells, "kind", key="no")
    with pytest.raises(MissingKeyError, match="groupby='no'"):
        tw.pl.fate_flow(cells, "no")
    cells.obs["void"] = np.nan
    with pytest.raises(InputError, match="no mass passes"):
        tw.pl.fate_flow(cells, "void")
