"""The test for movement: its level where nothing moves, its power where something does, and conditions."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.flows.moves import PERMUTATIONS, moves


def cells(x: np.ndarray, time: np.ndarray, **columns: object):
    obs = pd.DataFrame({"time": time, **columns}, index=[f"c{i}" for i in range(len(x))])
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    return read_course(adata, Recipe("time", condition_key="arm" if "arm" in columns else None))


def test_the_p_value_has_its_level():
    """40 courses in which nothing moves: p is uniform, so that about 4 lie below .1."""
    rng, time = np.random.default_rng(0), np.repeat([0.0, 1.0, 2.0], 30)
    p = np.array([moves(cells(rng.standard_normal((90, 3)), time), rng).p for _ in range(40)])
    assert (p < 0.1).sum() <= 10
    assert 0.35 < p.mean() < 0.65
    assert p.min() >= 1 / (PERMUTATIONS + 1)


def test_a_shift_and_a_change_of_proportions_are_found():
    rng, time = np.random.default_rng(0), np.repeat([0.0, 1.0], 100)
    x = rng.standard_normal((200, 5))
    assert moves(cells(x + 0.8 * time[:, None], time), rng).p == pytest.approx(1 / (PERMUTATIONS + 1))
    side = rng.random(200) < np.where(time == 0, 0.2, 0.8)
    assert moves(cells(x + 6 * side[:, None], time), rng).p == pytest.approx(1 / (PERMUTATIONS + 1))


def test_what_differs_between_conditions_alone_is_no_movement():
    rng, time, arm = np.random.default_rng(0), np.repeat([0.0, 1.0], 60), np.tile(["a", "b"], 60)
    x = rng.standard_normal((120, 3)) + 9 * (arm == "b")[:, None]
    assert moves(cells(x, time, arm=arm), rng).p > 0.05


def test_few_cells_show_nothing_and_a_fit_says_when_nothing_moves(caplog):
    rng = np.random.default_rng(0)
    assert np.isnan(moves(cells(rng.standard_normal((12, 2)), np.repeat([0.0, 1.0], 6)), rng).p)
    obs = pd.DataFrame({"time": np.repeat([0.0, 1.0], 50)}, index=[f"c{i}" for i in range(100)])
    still = AnnData(obs=obs, obsm={"X_pca": rng.standard_normal((100, 3))})
    config = tw.tl.FitConfig(max_steps=2, width=4)
    for check, said in ((True, True), (False, False)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            tw.tl.fit(still, "time", method="icfm", config=config, check=check, rng=0)
        assert any("nothing moves that could be learned" in r.getMessage() for r in caplog.records) == said
