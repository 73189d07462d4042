"""Colours of categories: scanpy's where they are, else told apart by colour-blind readers too."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb

import thalweg as tw
from thalweg.errors import MissingKeyError
from thalweg.get._colors import OKABE_ITO, TOL, palette

# Machado, Oliveira & Fernandes (2009), severity 1: how linear light looks without long- or middle-wave cones
BLIND = {
    "nobody": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color, eye):
    """CIE L*a*b* (D65) of a colour as an eye sees it."""
    rgb = np.array(to_rgb(color))
    light = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(BLIND[eye] @ light, 0, 1) / (XYZ @ np.ones(3))
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", BLIND)
@pytest.mark.parametrize(("chosen", "least"), [(OKABE_ITO, 13.0), (TOL, 5.0)], ids=["seven", "twelve"])
def test_palette_is_told_apart(chosen, least, eye):
    distances = [np.linalg.norm(lab(a, eye) - lab(b, eye)) for a, b in combinations(chosen, 2)]
    assert min(distances) > least, min(distances)


def cells(values, **uns):
    return AnnData(obs=pd.DataFrame({"kind": values}, index=[f"c{i}" for i in range(len(values))]), uns=uns)


def test_colours_of_scanpy_are_kept_in_the_order_of_categories():
    kind = pd.Categorical(["b", "a", "b"], categories=["b", "a"])
    adata = cells(kind, kind_colors=np.array(["#010101", "#020202"]))
    assert tw.get.colors(adata, "kind") == {"b": "#010101", "a": "#020202"}
    assert list(adata.uns["kind_colors"]) == ["#010101", "#020202"]


def test_default_colours_and_plain_text():
    assert tw.get.colors(cells(["y", "x", None]), "kind") == {"x": OKABE_ITO[0], "y": OKABE_ITO[1]}
    assert len(set(palette(12))) == 12
    assert palette(13)[12] == palette(13)[0]


def test_too_few_colours_are_not_used_and_said(caplog):
    adata = cells(pd.Categorical(["a", "b", "c"]), kind_colors=np.array(["#010101"]))
    tw.settings.verbosity = "info"
    import logging

    logging.getLogger("thalweg").propagate = True
    assert tw.get.colors(adata, "kind") == dict(zip("abc", OKABE_ITO, strict=False))
    assert "1 colours for 3 categories" in caplog.text
    with pytest.raises(MissingKeyError, match=r"obs\['no'\]"):
        tw.get.colors(adata, "no")
