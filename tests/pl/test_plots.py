"""Plots: what is drawn is what the tables hold."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [("otcfm", t, s, 1.0 + t + 0.1 * s) for t in (1.0, 2.0) for s in (0, 1)]
    rows += [("copy-previous", t, 0, 4.0) for t in (1.0, 2.0)] + [("floor", t, 0, 0.5) for t in (1.0, 2.0)]
    return pd.DataFrame(rows, columns=["method", "time", "seed", "w1"])


def test_leave_one_out_draws_every_score_and_the_floor(scores):
    ax = tw.pl.leave_one_out(scores)
    drawn = np.concatenate([c.get_offsets()[:, 1] for c in ax.collections if len(c.get_offsets())])
    expected = scores.loc[scores["method"] != "floor", "w1"]
    for value in expected:
        assert np.isclose(drawn, value).any()
    floor = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert floor[0].get_ydata()[0] == 0.5
    assert [t.get_text() for t in ax.get_xticklabels()] == ["copy-previous", "otcfm"]
    assert "2.55" in {t.get_text() for t in ax.texts}  # mean of the four OT-CFM scores


def test_leave_one_out_names_what_is_absent(scores):
    with pytest.raises(InputError, match=r"\['energy_distance'\]"):
        tw.pl.leave_one_out(scores, metric="energy_distance")


def test_interpolation_draws_real_and_predicted_cells(fitted):
    predicted = tw.tl.interpolate(fitted, 1.0, source_time=0.0)
    given = plt.subplots()[1]
    ax = tw.pl.interpolation(fitted, predicted, components=(0, 2), ax=given)
    assert ax is given
    clouds = {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections}
    np.testing.assert_allclose(clouds["predicted, time 1"], predicted.obsm["X_pca"][:, [0, 2]], rtol=1e-6)
    np.testing.assert_allclose(clouds["real, time 1"], fitted.obsm["X_pca"][120:240][:, [0, 2]], rtol=1e-6)
    with pytest.raises(InputError, match="components"):
        tw.pl.interpolation(fitted, predicted, components=(0, 3))
    with pytest.raises(InputError, match=r"tw\.tl\.interpolate"):
        tw.pl.interpolation(fitted, fitted)


def test_history_draws_both_losses(fitted):
    ax = tw.pl.history(fitted)
    frame = tw.get.history(fitted)
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_array_equal(lines["training"], frame["loss"])
    np.testing.assert_array_equal(lines["validation"], frame["validation_loss"])
    with pytest.raises(MissingKeyError, match=r"uns\['no'\]"):
        tw.pl.history(fitted, key="no")


def test_show_is_obeyed(fitted, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    tw.pl.history(fitted)
    assert not shown  # a backend without a screen
    tw.pl.history(fitted, show=True)
    assert len(shown) == 1
