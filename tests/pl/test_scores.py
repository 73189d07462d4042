"""Leave-one-out tables and training histories."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError


def overlaps(ax, texts):
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(t) for t in texts]  # without their lines
    return [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]


def test_every_score_is_drawn_in_the_row_of_its_method(scores):
    ax = tw.pl.leave_one_out(scores)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["otcfm", "copy-previous"]  # best first
    drawn = np.concatenate([c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)])
    for row, name in enumerate(["otcfm", "copy-previous"]):
        in_row = np.sort(drawn[np.abs(drawn[:, 1] - row) < 0.35, 0])
        np.testing.assert_allclose(in_row, np.sort(scores.loc[scores["method"] == name, "w1"]))
    assert {"2.55", "4.00"} <= {t.get_text() for t in ax.texts}  # means


def test_floor_is_a_band_from_its_lowest_to_its_highest(scores):
    ax = tw.pl.leave_one_out(scores)
    (band,) = [p for p in ax.patches if p.get_label() == "floor"]
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((0.5, 1.0))
    assert "floor" in {t.get_text() for t in ax.texts}
    without = tw.pl.leave_one_out(scores[scores["method"] != "floor"])
    assert not without.patches
    assert "floor" not in {t.get_text() for t in without.texts}


def test_shares_are_drawn_with_their_intervals(scores):
    scores = scores[scores["method"] == "otcfm"].copy()
    scores["share"] = np.linspace(-0.1, 0.8, len(scores))
    scores["share_low"], scores["share_high"] = scores["share"] - 0.2, scores["share"] + 0.1
    limits = scores.groupby("time")[["share_low", "share_high"]].mean().to_numpy()
    ax = tw.pl.leave_one_out(scores, metric="share", kind="times")
    (line,) = ax.containers
    drawn = [np.asarray(w, dtype=float)[:, 1] for w in line.lines[2][0].get_segments()]
    np.testing.assert_allclose(drawn, limits)
    ax = tw.pl.leave_one_out(scores, metric="share")
    lines = [c.get_segments()[0] for c in ax.collections if isinstance(c, LineCollection)]
    drawn = np.array([np.sort(s[:, 0]) for s in lines if s[0, 1] == s[1, 1]])
    np.testing.assert_allclose(drawn, limits)
    with pytest.raises(InputError, match="share_low"):
        tw.pl.leave_one_out(scores.drop(columns="share_low"), metric="share")


def test_lines_by_time_are_means_over_seeds(scores):
    ax = tw.pl.leave_one_out(scores, kind="times")
    lines = {c.get_label(): c.lines[0].get_xydata().astype(float) for c in ax.containers}
    np.testing.assert_allclose(lines["otcfm"], [[1, 2.05], [2, 3.05]])
    np.testing.assert_allclose(lines["copy-previous"], [[1, 4], [2, 4]])
    whiskers = {c.get_label(): c.lines[2][0].get_segments() for c in ax.containers}["otcfm"]
    np.testing.assert_allclose([np.asarray(w, dtype=float)[:, 1] for w in whiskers], [[2.0, 2.1], [3.0, 3.1]])
    (floor,) = [c for c in ax.collections if c.get_label() == "floor"]
    assert floor.get_paths()[0].vertices[:, 1].max() == pytest.approx(1.0)


def test_many_methods_and_times_keep_their_labels_apart(scores):
    many = scores[scores["method"] == "otcfm"]
    rows = [many.assign(method=f"method{i}", w1=many["w1"] + 0.01 * i) for i in range(8)]
    ax = tw.pl.leave_one_out(pd.concat(rows), kind="times")
    assert not overlaps(ax, ax.texts)
    wide = pd.concat([many.assign(time=float(t), method=m) for t in range(12) for m in ("a", "b")])
    ax = tw.pl.leave_one_out(wide)
    assert len(ax.figure.axes) == 2  # a colour bar in place of twelve entries
    assert not overlaps(ax, [*ax.texts, *ax.get_yticklabels()])


def test_what_is_absent_is_named(scores):
    with pytest.raises(InputError, match=r"\['energy_distance'\]"):
        tw.pl.leave_one_out(scores, metric="energy_distance")
    with pytest.raises(InputError, match="'methods' or 'times', found 'bars'"):
        tw.pl.leave_one_out(scores, kind="bars")


def test_history_draws_both_losses(fitted):
    ax = tw.pl.history(fitted)
    frame = tw.get.history(fitted)
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["training"].get_ydata(), frame["loss"])
    known = frame.dropna(subset=["validation_loss"])
    np.testing.assert_array_equal(lines["validation"].get_xydata(), known[["step", "validation_loss"]])
    assert lines["kept"].get_xdata()[0] == fitted.uns["thalweg"]["best_step"]
    assert to_hex(lines["training"].get_color()) != to_hex(lines["validation"].get_color())
    with pytest.raises(MissingKeyError, match=r"uns\['no'\]"):
        tw.pl.history(fitted, key="no")


def test_what_is_no_table_of_scores_is_named(scores, course):
    with pytest.raises(InputError, match=r"must be the table of tw\.tl\.leave_one_out, found AnnData"):
        tw.pl.leave_one_out(course)
    with pytest.raises(InputError, match=r"lacks the columns \['energy'\], it has \['method', 'time', 'seed', 'w1'\]"):
        tw.pl.leave_one_out(scores, metric="energy")


def test_shares_that_are_missing_are_left_out_or_named(scores):
    scores = scores.assign(share=0.5, share_low=0.4, share_high=0.6)
    gap = scores[~((scores["method"] == "otcfm") & (scores["time"] == 2))]  # a fit that failed
    for kind in ("methods", "times"):
        tw.pl.leave_one_out(gap, metric="share", kind=kind)
        with pytest.raises(InputError, match="at every time a copy was as good as a fresh sample"):
            tw.pl.leave_one_out(scores.assign(share=np.nan), metric="share", kind=kind)
