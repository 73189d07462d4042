"""Plots on an embedding: predicted cells, velocities, trajectories, fates, growth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.quiver import Quiver

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError
from thalweg.pl._canvas import CONTEXT
from thalweg.pl._fate import mix


def clouds(ax):
    return {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections}


def coloured(ax):
    """The dots over the grey ones."""
    return next(c for c in ax.collections if c.get_zorder() == 0.6)


def test_interpolation_draws_real_and_predicted_cells(fitted):
    predicted = tw.tl.interpolate(fitted, 1.0, source_time=0.0)
    ax = tw.pl.interpolation(fitted, predicted, components=(0, 2))
    drawn = clouds(ax)
    np.testing.assert_allclose(drawn["predicted, time 1"], predicted.obsm["X_pca"][:, [0, 2]], rtol=1e-6)
    np.testing.assert_allclose(drawn["real, time 1"], fitted.obsm["X_pca"][120:240][:, [0, 2]], rtol=1e-6)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["all cells", "real, time 1", "predicted, time 1"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("PC 1", "PC 3")
    with pytest.raises(InputError, match="components"):
        tw.pl.interpolation(fitted, predicted, components=(0, 3))
    with pytest.raises(InputError, match=r"tw\.tl\.interpolate"):
        tw.pl.interpolation(fitted, fitted)


def test_predicted_cells_have_areas_by_weight_and_panels_by_condition(fitted):
    predicted = tw.tl.interpolate(fitted, 0.5)
    weight = np.arange(1.0, predicted.n_obs + 1)
    predicted.obs["weight"] = weight
    (cells,) = [c for c in tw.pl.interpolation(fitted, predicted).collections if "predicted" in c.get_label()]
    np.testing.assert_allclose(cells.get_sizes() / cells.get_sizes()[0], weight)
    fitted = fitted.copy()
    fitted.obs["batch"] = pd.Categorical(np.where(np.arange(fitted.n_obs) % 3, "b", "a"))
    predicted.obs["batch"] = fitted.obs["batch"].loc[predicted.obs["source"]].to_numpy()
    first, second = tw.pl.interpolation(fitted, predicted, condition_key="batch")
    assert (first.get_title(), second.get_title()) == ("a", "b")
    of_a = (predicted.obs["batch"] == "a").to_numpy()
    np.testing.assert_allclose(clouds(first)["predicted, time 0.5"], predicted.obsm["X_pca"][of_a, :2], rtol=1e-6)
    assert first.get_xlim() == second.get_xlim()


def test_cells_are_placed_on_another_embedding_by_their_neighbours(cells, paths):
    at_cells = paths[:5].copy()
    at_cells.obsm["X_pca"] = cells.obsm["X_pca"][:5]  # on top of real cells: their own places
    drawn = tw.pl.trajectories(cells, at_cells, basis="umap").collections
    lines = next(c for c in drawn if isinstance(c, LineCollection))
    ends = np.concatenate(lines.get_segments())
    real = cells.obsm["X_umap"]
    assert np.abs(ends[:, None] - real[None]).sum(2).min(1).max() < 1e-9


def test_arrows_are_the_velocities_of_the_cells(cells):
    ax = tw.pl.velocity(cells, kind="arrows", n_grid=10)
    (quiver,) = [c for c in ax.collections if isinstance(c, Quiver)]
    np.testing.assert_allclose(np.stack([quiver.U, quiver.V]), np.stack([-quiver.Y, quiver.X]), atol=1e-12)
    at = np.stack([quiver.X, quiver.Y], axis=1)
    assert all((np.abs(cells.obsm["X_pca"][:, :2] - xy).sum(1) < 1e-9).any() for xy in at)
    low, high = cells.obsm["X_pca"][:, :2].min(0), cells.obsm["X_pca"][:, :2].max(0)
    squares = np.floor((at - low) / (high - low) * 10).clip(max=9)
    assert len(np.unique(squares, axis=0)) == len(at) > 60  # one in each square of the grid


def test_an_arrow_is_the_way_of_a_duration_the_same_in_all_panels(cells):
    axes = tw.pl.velocity(cells, kind="grid", condition_key="condition", duration=0.25)
    for ax in axes:
        (quiver,) = [c for c in ax.collections if isinstance(c, Quiver)]
        assert quiver.scale == pytest.approx(4)
        assert (quiver.angles, quiver.scale_units) == ("xy", "xy")
    assert [t.get_text() for t in axes[-1].texts][-1] == "arrows: the way in 0.25 of time"
    scales = {
        c.scale
        for ax in tw.pl.velocity(cells, kind="grid", condition_key="condition")
        for c in ax.collections
        if isinstance(c, Quiver)
    }
    assert len(scales) == 1
    slow = cells.copy()
    slow.obsm["velocity_X_pca"] = slow.obsm["velocity_X_pca"] / 10
    (quiver,) = [c for c in tw.pl.velocity(slow, kind="grid").collections if isinstance(c, Quiver)]
    assert 1 / quiver.scale == pytest.approx(10 / scales.pop(), rel=0.01)
    for duration in (0, -1, np.nan, np.inf):
        with pytest.raises(InputError, match="duration must be a positive time"):
            tw.pl.velocity(cells, duration=duration)


def test_grid_arrows_turn_with_the_field_and_stay_among_the_cells(cells):
    ax = tw.pl.velocity(cells, kind="grid")
    (quiver,) = [c for c in ax.collections if isinstance(c, Quiver)]
    table = tw.get.velocity_grid(cells, n_grid=22).dropna()
    np.testing.assert_array_equal(quiver.U, table["u"])
    u, v, x, y = quiver.U, quiver.V, quiver.X, quiver.Y
    cosine = (-y * u + x * v) / np.hypot(u, v) / np.hypot(x, y)
    assert np.quantile(cosine, 0.05) > 0.9
    assert np.hypot(x, y).max() < 1.15


def test_the_log_names_the_embedding_once(cells, caplog):
    with caplog.at_level("INFO", logger="thalweg"):
        tw.pl.velocity(cells)
    assert [r.getMessage() for r in caplog.records] == ["using obsm['X_pca']"]


def test_streamlines_run_along_the_field(cells):
    ax = tw.pl.velocity(cells)
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    segments = np.array([s[:2] for s in lines.get_segments()])
    middle, step = segments.mean(1), segments[:, 1] - segments[:, 0]
    good = (np.hypot(*step.T) > 1e-9) & (np.hypot(*middle.T) > 0.2)
    along = (-middle[:, 1] * step[:, 0] + middle[:, 0] * step[:, 1])[good]
    cosine = along / np.hypot(*step[good].T) / np.hypot(*middle[good].T)
    assert len(cosine) > 100
    assert cosine.mean() > 0.95
    assert max(lines.get_linewidths()) > 1.5 * min(lines.get_linewidths())  # faster at the rim


def test_velocities_of_other_embeddings_and_keys_are_found(cells):
    with pytest.raises(MissingKeyError, match=r"obsm\['velocity_X_umap'\].*tw\.tl\.velocity"):
        tw.pl.velocity(cells, "umap")
    cells.obsm["velocity_umap"] = np.ones((cells.n_obs, 2))
    (quiver,) = [c for c in tw.pl.velocity(cells, "umap", kind="arrows").collections if isinstance(c, Quiver)]
    assert (quiver.U == 1).all()
    cells.obsm["truth"] = np.full((cells.n_obs, 2), 2.0)
    ax = tw.pl.velocity(cells, "umap", kind="arrows", velocity_key="truth")
    (quiver,) = [c for c in ax.collections if isinstance(c, Quiver)]
    assert (quiver.V == 2).all()
    with pytest.raises(InputError, match="kind must be one of"):
        tw.pl.velocity(cells, kind="spiral")


def test_velocities_of_a_condition_are_its_own(cells):
    drug = (cells.obs["condition"] == "drug").to_numpy()
    cells.obsm["velocity_X_pca"][drug] *= -1
    for ax, sign in zip(tw.pl.velocity(cells, kind="grid", condition_key="condition"), (1, -1), strict=True):
        (quiver,) = [c for c in ax.collections if isinstance(c, Quiver)]
        turn = sign * (quiver.X * quiver.V - quiver.Y * quiver.U)
        assert np.mean(turn > 0) > 0.98


def test_categories_have_scanpys_colours(cells):
    ax = tw.pl.velocity(cells, kind="arrows", color="kind")
    known = dict(zip(cells.obs["kind"].cat.categories, cells.uns["kind_colors"], strict=True))
    dots = coloured(ax)
    assert [to_hex(c) for c in dots.get_facecolors()] == [known[k] for k in cells.obs["kind"]]
    entries = {t.get_text(): to_hex(h.get_color()) for t, h in zip(*_legend(ax), strict=True)}
    assert entries == known


def _legend(ax):
    return ax.get_legend().get_texts(), ax.get_legend().legend_handles


def test_numbers_have_one_scale_and_the_largest_lie_on_top(cells):
    cells.obs["score"] = np.linspace(-1, 2, cells.n_obs)
    cells.obs.loc[cells.obs_names[5], "score"] = np.nan
    axes = tw.pl.velocity(cells, kind="arrows", color="score", condition_key="condition")
    for ax in axes:
        values = coloured(ax).get_array()
        assert coloured(ax).get_clim() == (-1, 2)
        assert (np.diff(values) >= 0).all()
    assert sum(len(coloured(ax).get_array()) for ax in axes) == cells.n_obs - 1


def test_trajectories_are_drawn_as_they_are(cells, paths):
    ax = tw.pl.trajectories(cells, paths)
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    ordered = paths[np.lexsort((paths.obs["time"], paths.obs["trajectory"].astype(str)))]
    xy, time = ordered.obsm["X_pca"][:, :2].reshape(3, 7, 2), ordered.obs["time"].to_numpy().reshape(3, 7)
    segments = np.array(lines.get_segments()).reshape(3, 6, 2, 2)
    np.testing.assert_allclose(segments[:, :, 0], xy[:, :-1])
    np.testing.assert_allclose(segments[:, :, 1], xy[:, 1:])
    np.testing.assert_allclose(lines.get_array(), ((time[:, 1:] + time[:, :-1]) / 2).ravel())
    np.testing.assert_allclose(clouds(ax)["start"], xy[:, 0])
    np.testing.assert_allclose(clouds(ax)["end"], xy[:, -1])
    assert ax.figure.axes[1].get_ylabel() == "time"


def test_trajectories_take_the_colour_of_the_cell_they_start_from(cells, paths):
    cells.obs["kind"] = cells.obs["kind"].cat.remove_unused_categories()
    cells.obs.loc[["cell0", "cell1", "cell2"], "kind"] = ["left", "stem", "right"]
    ax = tw.pl.trajectories(cells, paths, color="kind")
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    expected = ["#aa0000"] * 6 + ["#112233"] * 6 + ["#00bb00"] * 6
    assert [to_hex(c) for c in lines.get_colors()] == expected
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["stem", "left", "right"]
    with pytest.raises(MissingKeyError, match="color='no' is a column of neither"):
        tw.pl.trajectories(cells, paths, color="no")
    with pytest.raises(InputError, match=r"tw\.tl\.trajectories"):
        tw.pl.trajectories(cells, cells)


def test_trajectories_split_by_condition(cells, paths):
    control, drug = tw.pl.trajectories(cells, paths, condition_key="condition")
    assert [len(clouds(ax)["end"]) for ax in (control, drug)] == [2, 1]


def test_fates_have_a_panel_each_on_one_scale(cells):
    panels = tw.pl.fate(cells, "kind")
    assert [ax.get_title() for ax in panels] == ["left", "right"]
    for ax, name in zip(panels, ["left", "right"], strict=True):
        dots, p = coloured(ax), cells.obsm["fate_kind"][name].to_numpy()
        np.testing.assert_array_equal(dots.get_array(), np.sort(p))
        np.testing.assert_array_equal(dots.get_offsets(), cells.obsm["X_pca"][np.argsort(p, kind="stable"), :2])
        assert dots.get_clim() == (0, 1)
    only = tw.pl.fate(cells, "kind", fates=["right"])
    np.testing.assert_array_equal(coloured(only).get_array(), np.sort(cells.obsm["fate_kind"]["right"]))
    by_condition = tw.pl.fate(cells, "kind", condition_key="condition")
    assert [ax.get_title() for ax in by_condition][:2] == ["left · control", "right · control"]
    assert len(coloured(by_condition[0]).get_array()) == 300
    with pytest.raises(InputError, match=r"fates=\['up'\] are unknown"):
        tw.pl.fate(cells, "kind", fates=["up"])
    with pytest.raises(MissingKeyError, match=r"tw\.tl\.fate"):
        tw.pl.fate(cells, "condition")


def test_five_fates_fill_two_rows_beside_one_colour_bar(cells):
    names = list("abcde")
    cells.obsm["fate_five"] = pd.DataFrame(np.full((cells.n_obs, 5), 0.2), cells.obs_names, names)
    for part in ("", "_confidence", "_se"):
        cells.obs[f"fate_five{part}"] = cells.obs[f"fate_kind{part}"]
    cells.uns["fate_five"] = cells.uns["fate_kind"]
    panels = tw.pl.fate(cells, "five")
    (bar,) = [ax for ax in panels[0].figure.axes if ax not in panels]
    panels[0].figure.canvas.draw()
    boxes = [ax.get_position() for ax in panels]
    assert bar.get_position().x0 > max(box.x1 for box in boxes)
    np.testing.assert_allclose([box.x0 for box in boxes[3:]], [box.x0 for box in boxes[:2]])
    np.testing.assert_allclose(np.diff([box.x0 for box in boxes[:3]]), boxes[1].x0 - boxes[0].x0, rtol=0.1)


def test_mixed_fates_are_pure_where_decided_and_grey_where_not(cells):
    dots = coloured(tw.pl.fate(cells, "kind", kind="mixed")).get_facecolors()[:, :3]
    for row, expected in ((0, "#aa0000"), (1, "#00bb00"), (2, CONTEXT)):
        np.testing.assert_allclose(dots[row], to_rgb(expected), atol=1e-6)


def test_mixing_is_of_light():
    p = 0.9
    grey = -(p * np.log(p) + (1 - p) * np.log(1 - p)) / np.log(2)
    light = (1 - grey) * np.array([p, 1 - p, 0]) + grey * np.array(to_rgb(CONTEXT)) ** 2.2
    np.testing.assert_allclose(mix(np.array([[p, 1 - p]]), ["#ff0000", "#00ff00"])[0], light ** (1 / 2.2))


def test_growth_is_coloured_about_zero_and_unknown_cells_are_grey(cells):
    ax = tw.pl.growth(cells)
    rate = cells.obs["growth"].dropna()
    dots = coloured(ax)
    np.testing.assert_array_equal(dots.get_array(), np.sort(rate))
    low, high = dots.get_clim()
    assert low == -high == -np.quantile(np.abs(rate), 0.98)
    zero = np.array(to_rgb(dots.cmap(dots.norm(0.0))))  # neither lost on white paper nor taken for unknown
    assert all(np.abs(zero - to_rgb(other)).max() > 0.15 for other in ("white", CONTEXT))


def quartile_lines(ax):
    """Place and height of the lines in the violins."""
    flat = [line.get_xydata() for line in ax.lines if len(line.get_xydata()) == 2]
    return [(xy[:, 0].mean(), xy[0, 1]) for xy in flat if xy[0, 1] == xy[1, 1] and xy[0, 0] > -1e6 and xy[0, 1] != 0]


def test_growth_by_time_draws_a_violin_with_the_quartiles(cells):
    ax = tw.pl.growth(cells, kind="time")
    known = cells.obs.dropna(subset="growth")
    assert set(known["time"]) == {0.0, 1.0}  # the last time has no growth
    for t, rates in known.groupby("time")["growth"]:
        drawn = sorted(y for x, y in quartile_lines(ax) if abs(x - t) < 0.01)
        np.testing.assert_allclose(drawn, rates.quantile([0.25, 0.5, 0.75]), atol=1e-9)
    bodies = [c.get_paths()[0].get_extents() for c in ax.collections]
    low, high = known.groupby("time")["growth"].agg(["min", "max"]).loc[0.0]
    assert bodies[0].ymin == pytest.approx(low)  # nothing is drawn beyond the cells
    assert bodies[0].ymax == pytest.approx(high)
    split = tw.pl.growth(cells, kind="time", condition_key="condition")
    for condition, of in known.groupby("condition", observed=True):
        for rates in (r for _, r in of.groupby("time")["growth"]):
            middle = rates.median()
            assert any(abs(y - middle) < 1e-9 for _, y in quartile_lines(split)), condition


def test_growth_says_what_is_missing(cells):
    with pytest.raises(MissingKeyError, match=r"tw\.pp\.growth"):
        tw.pl.growth(cells, key="no")
    with pytest.raises(InputError, match="kind must be"):
        tw.pl.growth(cells, kind="violin")
    cells.uns["growth"]["time_key"] = ""
    with pytest.raises(InputError, match="time_key="):
        tw.pl.growth(cells, kind="time")
    assert tw.pl.growth(cells, kind="time", time_key="time").get_xlabel() == "time"


def test_cells_whose_fate_is_uncertain_have_a_ring(cells):
    se = np.zeros(cells.n_obs)
    se[:7] = 0.2
    cells.obs["fate_kind_se"] = se
    ax = tw.pl.fate(cells, "kind", "umap", kind="mixed", show=False)
    (rings,) = [c for c in ax.collections if c.get_label() == "unsure"]
    known = np.isfinite(cells.obsm["fate_kind"].to_numpy()).all(1)[:7].sum()
    assert len(rings.get_offsets()) == known
    assert "unsure" in {t.get_text() for t in ax.get_legend().get_texts()}
    cells.obs["fate_kind_se"] = 0.0
    ax = tw.pl.fate(cells, "kind", "umap", kind="mixed", show=False)
    assert "unsure" not in {t.get_text() for t in ax.get_legend().get_texts()}


def test_a_single_cell_has_an_arrow_of_some_duration(cells):
    one = cells[:1].copy()
    ax = tw.pl.velocity(one, kind="arrows")
    assert [t.get_text() for t in ax.texts][-1] == "arrows: the way in 1 of time"
    tw.pl.velocity(one, kind="stream", min_cells=0.1)
