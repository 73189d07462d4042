"""Figures, legends and labels: sizes, style, and nothing on top of anything else."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

import thalweg as tw
from thalweg.errors import InputError
from thalweg.pl._canvas import canvas, dot, legend, spread, time_colors


@pytest.mark.parametrize(
    ("positions", "expected"),
    [([0.0, 5.0], [0.0, 5.0]), ([0.0, 0.0], [-0.5, 0.5]), ([5.0, 0.2, 0.0], [5.0, 0.6, -0.4]), ([], [])],
)
def test_spread_moves_as_little_as_possible(positions, expected):
    np.testing.assert_allclose(spread(positions, 1.0), expected)


def test_spread_keeps_the_gap_and_the_order():
    p = np.random.default_rng(0).normal(size=40)
    out = spread(p, 0.3)
    assert (np.diff(np.sort(out)) >= 0.3 - 1e-12).all()
    assert (np.argsort(out) == np.argsort(p)).all()


@pytest.mark.parametrize(
    ("n", "width", "columns"), [(1, 3.5, 1), (2, 3.5, 2), (3, 7.2, 3), (4, 7.2, 4), (5, 7.2, 3), (10, 7.2, 4)]
)
def test_figures_are_a_column_or_a_page_wide(n, width, columns):
    with canvas(None, None, n=n, height=2.0) as axes:
        assert len(axes) == n
    assert axes[0].figure.get_size_inches() == pytest.approx((width, 2.0 * -(-n // columns)))
    assert len(axes[0].figure.axes) == n
    assert axes[0].get_gridspec().ncols == columns


def test_style_is_that_of_paper_and_does_not_leak():
    with mpl.rc_context({"font.size": 11.0, "axes.linewidth": 3.0}):
        before = dict(mpl.rcParams)
        with canvas(None, None) as (ax,):
            ax.set_xlabel("x")
        assert dict(mpl.rcParams) == before
    ax.set_xlim(0, 1e6)  # ticks made after the plot
    ax.figure.canvas.draw()
    assert {label.get_fontsize() for label in ax.get_xticklabels()} == {6.0}
    assert {round(tick.tick1line.get_markersize(), 9) for tick in ax.xaxis.get_major_ticks()} == {2.4}
    assert ax.xaxis.label.get_fontsize() == 7.0


def test_given_axes_are_used_and_counted(cells):
    given = plt.subplots(1, 2)[1]
    assert tw.pl.fate(cells, "kind", ax=given) == list(given)
    with pytest.raises(InputError, match="ax holds 1 axes and the plot has 2 panels"):
        tw.pl.fate(cells, "kind", ax=given[0])
    one = plt.subplots()[1]
    assert tw.pl.velocity(cells, kind="arrows", ax=one) is one


def test_a_plot_that_fails_leaves_no_figure(cells):
    with pytest.raises(KeyError, match="color='no'"):
        tw.pl.velocity(cells, color="no")
    assert not plt.get_fignums()


def test_show_is_obeyed(scores, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    tw.pl.leave_one_out(scores)
    assert not shown  # a backend without a screen
    tw.pl.leave_one_out(scores, show=True)
    assert len(shown) == 1
    tw.pl.leave_one_out(scores, show=True, ax=plt.subplots()[1])
    assert len(shown) == 2
    monkeypatch.setattr(mpl, "get_backend", lambda: "qtagg")
    tw.pl.leave_one_out(scores)
    assert len(shown) == 3
    tw.pl.leave_one_out(scores, show=False)
    assert len(shown) == 3


def test_legends_lie_beside_one_panel_and_below_several():
    entries = [dot("#000000", name) for name in "abc"]
    with canvas(None, None) as (ax,):
        legend(ax, handles=entries)
    ax.figure.draw_without_rendering()
    assert ax.get_legend().get_window_extent().x0 > ax.get_window_extent().x1
    with canvas(None, None, n=2) as axes:
        legend(axes, handles=entries)
    axes[0].figure.draw_without_rendering()
    (below,) = axes[0].figure.legends
    assert below.get_window_extent().y1 < axes[0].get_window_extent().y0


def test_colours_of_times_follow_their_spacing():
    shown = time_colors([0.0, 1.0, 4.0])
    palette = mpl.colormaps["viridis"](np.linspace(0, 0.92, 256))
    for time, row in ((0.0, 0), (1.0, 64), (4.0, 255)):
        np.testing.assert_allclose(mpl.colors.to_rgb(shown[time]), palette[row, :3], atol=1 / 255)
