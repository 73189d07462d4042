"""Where to measure next: where predictions disagree, which is in the gap that holds the change."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.errors import InputError

CONFIG = tw.tl.FitConfig(max_steps=60, width=16, depth=2)


@pytest.fixture(scope="module")
def turning():
    """Cells that stand still, and turn a quarter of a circle in the last interval."""
    rng, time = np.random.default_rng(0), np.repeat([0.0, 1.0, 2.0, 4.0], 40)
    angle = np.where(time < 3, 0.0, np.pi / 2) + 0.5 * rng.standard_normal(160)
    x = 5 * np.c_[np.cos(angle), np.sin(angle)] + 0.2 * rng.standard_normal((160, 2))
    return AnnData(obs=pd.DataFrame({"day": time}, index=[f"c{i}" for i in range(160)]), obsm={"X_pca": x})


def test_it_is_in_the_interval_of_the_change(turning):
    table = tw.tl.next_time(turning, "day", n_models=1, n_between=3, config=CONFIG)
    assert list(table.columns) == ["time", "disagreement", "start", "end"]
    assert table["time"].tolist() == [0.25, 0.5, 0.75, 1.25, 1.5, 1.75, 2.5, 3.0, 3.5]
    assert table["disagreement"].idxmax() >= 6
    assert table.attrs["time"] == 3.0  # the middle of the interval
    assert (table["disagreement"] > 0).all()
    assert not turning.uns
    again = tw.tl.next_time(turning, "day", n_models=1, n_between=3, config=CONFIG)
    pd.testing.assert_frame_equal(table, again)
    ax = tw.pl.next_time(table, show=False)
    assert ax.get_xlabel() == "day"
    assert any("measure at" in t.get_text() for t in ax.texts)
    plt.close("all")


def test_bad_requests(turning):
    with pytest.raises(InputError, match="two models at least"):
        tw.tl.next_time(turning, "day", methods=("usb",), n_models=1)
    with pytest.raises(InputError, match="lacks the columns"):
        tw.pl.next_time(pd.DataFrame({"time": [1.0]}))
