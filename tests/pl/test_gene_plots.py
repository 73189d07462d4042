"""Gene trends and drivers."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError
from thalweg.pl._canvas import BLUE, CONTEXT, ORANGE


def test_lines_and_bands_are_the_table(trends):
    shown = {"left": "#aa0000", "right": "#00bb00"}
    panels = tw.pl.gene_trends(trends.sample(frac=1, random_state=0), colors=shown, genes=["Mpo", "Gata1"])
    assert [ax.get_title() for ax in panels] == ["Mpo", "Gata1"]
    for ax, gene in zip(panels, ["Mpo", "Gata1"], strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        bands = {band.get_label(): band for band in ax.collections}
        for group, color in shown.items():
            part = trends[(trends["gene"] == gene) & (trends["group"] == group)]
            np.testing.assert_allclose(lines[group].get_xydata(), part[["time", "mean"]])
            vertices = bands[group].get_paths()[0].vertices
            for row in part.itertuples():
                edges = vertices[np.isclose(vertices[:, 0], row.time), 1]
                assert (edges.min(), edges.max()) == pytest.approx((row.lower, row.upper))
            assert to_hex(lines[group].get_color()) == color


def test_one_gene_and_one_group_need_no_legend(trends):
    ax = tw.pl.gene_trends(trends, genes=["Mpo"], groups=["left"])
    assert ax.get_legend() is None
    assert len(ax.lines) == 1


def test_heat_map_has_z_scores_in_the_order_of_their_peaks(trends):
    left, right = tw.pl.gene_trends(trends, kind="heatmap")
    table = trends.pivot(index="gene", columns=["group", "time"], values="mean")
    x = table.to_numpy()
    z = pd.DataFrame((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True), table.index, table.columns)
    order = [t.get_text() for t in left.get_yticklabels()]
    peaks = z["left"].idxmax(axis=1)
    assert list(peaks[order]) == sorted(peaks)
    for ax, group in ((left, "left"), (right, "right")):
        (mesh,) = ax.collections
        np.testing.assert_allclose(mesh.get_array().reshape(3, 3), z.loc[order, group].to_numpy())
    np.testing.assert_allclose(left.collections[0].get_coordinates()[0, :, 0], [-0.5, 0.5, 2.0, 4.0])


def test_trends_say_what_is_wrong(trends):
    with pytest.raises(InputError, match=r"trends lacks the columns \['lower'\]"):
        tw.pl.gene_trends(trends.drop(columns="lower"))
    with pytest.raises(InputError, match=r"genes=\['No'\]"):
        tw.pl.gene_trends(trends, genes=["No"])
    with pytest.raises(InputError, match=r"colors has no entry for \['right'\]"):
        tw.pl.gene_trends(trends, colors={"left": "red"})
    with pytest.raises(InputError, match="kind must be"):
        tw.pl.gene_trends(trends, kind="bars")


def test_lollipops_are_correlations_with_their_intervals(cells):
    ax = tw.pl.drivers(cells, "kind", n_genes=2)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["Gene0", "Gene1", "Gene3", "Gene4"]
    table = tw.get.drivers_df(cells, "kind").set_index("gene").loc[names]
    sticks, bands, dots = ax.collections
    np.testing.assert_allclose(dots.get_offsets()[:, 0], table["correlation"])
    np.testing.assert_allclose([s[:, 0] for s in bands.get_segments()], table[["lower", "upper"]])
    np.testing.assert_allclose([s[1, 0] for s in sticks.get_segments()], table["correlation"])
    assert [to_hex(c).upper() for c in dots.get_facecolors()] == [ORANGE, ORANGE, BLUE, BLUE]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the largest on top


def test_genes_above_the_rate_are_grey(cells):
    dots = tw.pl.drivers(cells, "kind", n_genes=5).collections[2]
    grey = [to_hex(c) == CONTEXT for c in dots.get_facecolors()]
    assert grey == [False, False, True, False, False]  # Gene2, q = 0.4


def test_volcano_has_every_tested_gene_and_names_apart(cells):
    ax = tw.pl.drivers(cells, "kind", kind="volcano", n_genes=2)
    table = tw.get.drivers_df(cells, "kind").dropna()
    drawn = ax.collections[0].get_offsets()
    np.testing.assert_allclose(drawn, np.stack([table["correlation"], -np.log10(table["q_value"])], axis=1))
    assert ax.lines[0].get_ydata()[0] == pytest.approx(-np.log10(0.05))
    assert {t.get_text() for t in ax.texts} == {"Gene0", "Gene1", "Gene3", "Gene4"}
    cells.uns["drivers_kind"]["table"]["q_value"] = 1e-5  # all at one height
    ax = tw.pl.drivers(cells, "kind", kind="volcano")
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(t) for t in ax.texts]  # without their lines
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_drivers_say_what_is_missing(cells):
    with pytest.raises(MissingKeyError, match=r"tw\.tl\.drivers"):
        tw.pl.drivers(cells, "condition")
    with pytest.raises(InputError, match="kind must be"):
        tw.pl.drivers(cells, "kind", kind="bars")
    with pytest.raises(InputError, match="n_genes must be"):
        tw.pl.drivers(cells, "kind", n_genes=0)
    cells.uns["drivers_kind"]["table"]["correlation"] = np.nan
    with pytest.raises(InputError, match="no gene"):
        tw.pl.drivers(cells, "kind")
