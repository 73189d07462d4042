"""The verdict on a course: true ones, courses in which nothing moves, and what can still be said of little."""

from __future__ import annotations

import re

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import thalweg as tw
from thalweg.cli import main
from thalweg.cli._report import page
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError, MissingKeyError
from thalweg.tl._trust.data import replicates
from thalweg.tl._trust.verdict import RULE, Evidence, Way, conclude

CONFIG = tw.tl.FitConfig(max_steps=150, width=32, depth=2)


@pytest.fixture(scope="module")
def assessed():
    adata = tw.datasets.simulated(400, times=(0.0, 1.0, 2.0, 3.5), n_futures=0, rng=0)
    adata.obs["arm"] = np.where(np.arange(400) % 2, "one", "two")
    tw.tl.assess(adata, "time", config=CONFIG)
    return adata


def level(adata, check: str) -> str:
    table = tw.get.assessment_df(adata).set_index("check")
    return str(table.loc[check, "level"])


def test_a_true_course_is_no_nothing_and_the_reasons_are_there(assessed):
    entry = assessed.uns["assessment"]
    assert entry["verdict"] in ("weak", "good")
    assert entry["rule"] == RULE
    assert 0.3 < entry["share_low"] < entry["share"] < entry["share_high"] < 1.2
    table = tw.get.assessment_df(assessed)
    assert table.attrs["verdict"] == entry["verdict"]
    assert {"data", "movement", "prediction", "reconstruction", "methods", "models"} <= set(table["check"])
    assert level(assessed, "movement") == "good"
    assert level(assessed, "RNA velocity") == "missing"
    assert set(entry["scores"]["method"]) >= {"usb", "otcfm", "floor-corrected"}
    assert "X_part" not in assessed.obsm


def test_exchanged_times_give_none(assessed):
    still = assessed[:, :].copy()
    still.obs["time"] = np.random.default_rng(0).permutation(still.obs["time"].to_numpy())
    tw.tl.assess(still, "time", config=CONFIG, key_added="exchanged")
    assert still.uns["exchanged"]["verdict"] == "none"
    table = tw.get.assessment_df(still, key="exchanged").set_index("check")
    assert table.loc["movement", "level"] == "bad"
    assert "time labels" in table.loc["movement", "advice"]


def test_it_is_stored_and_seeds_repeat(assessed, tmp_path):
    assessed.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        tw.get.assessment_df(again), tw.get.assessment_df(assessed), check_dtype=False, check_index_type=False
    )
    other = tw.tl.assess(assessed[:, :].copy(), "time", config=CONFIG, copy=True)
    assert other.uns["assessment"]["share"] == assessed.uns["assessment"]["share"]


def test_of_two_times_what_can_be_said_is_said(assessed):
    two = assessed[assessed.obs["time"] < 1.5].copy()
    tw.tl.assess(two, "time", config=CONFIG, n_models=1, n_cells=60)
    entry = two.uns["assessment"]
    assert entry["verdict"] == "weak"
    assert np.isnan(entry["share"])
    assert level(two, "prediction") == "missing"
    assert level(two, "models") == "missing"
    assert "Measure a time in between" in "".join(tw.get.assessment_df(two)["advice"])
    for adata in (two, assessed):
        axes = tw.pl.assess(adata, show=False)
        assert axes[1].get_title(loc="left").startswith(f"verdict: {adata.uns['assessment']['verdict']}")
        plt.close("all")


def test_what_cannot_be_looked_at_is_named_and_the_rest_is_said(assessed):
    """One replicate, one model, and counts of spliced RNA without a velocity."""
    little = assessed[::2].copy()
    little.obs["mouse"] = "m1"
    little.layers["spliced"] = little.layers["unspliced"] = np.ones(little.shape)
    tw.tl.assess(little, "time", n_models=1, replicate_key="mouse", config=CONFIG)
    table = tw.get.assessment_df(little).set_index("check")
    assert table.loc[["replicates", "models", "RNA velocity"], "level"].tolist() == ["missing"] * 3
    assert "second replicate" in table.loc["replicates", "advice"]
    assert "one model says nothing" in table.loc["models", "says"]
    assert "spliced and unspliced counts are there" in table.loc["RNA velocity", "says"]
    assert "scvelo" in table.loc["RNA velocity", "advice"]
    assert table.loc["movement", "level"] == "good"
    assert little.uns["assessment"]["verdict"] in ("weak", "good")


@pytest.mark.parametrize(("shift", "expected"), [(0.0, "good"), (30.0, "bad")])
def test_replicates_that_part_more_than_times_are_bad(assessed, shift, expected):
    other = np.arange(assessed.n_obs) % 4 < 2
    x = assessed.obsm["X_pca"].copy()
    x[other, -1] += shift
    apart = anndata.AnnData(obs=assessed.obs.assign(mouse=np.where(other, "a", "b")), obsm={"X_pca": x})
    cells = read_course(apart, Recipe("time", replicate_key="mouse"))
    assert replicates(cells, np.random.default_rng(0)).level == expected


def test_the_verdict_follows_the_rule():
    moved = Evidence("movement", "good", 0.005, "")
    agree, differ = (Evidence("methods", "good", c, "") for c in (0.8, 0.2))
    bad = Evidence("data", "bad", np.nan, "counts")
    good = Way(0.7, 0.6, 0.8)
    assert conclude([moved, agree], good) == "good"
    assert conclude([moved, differ], good) == "weak"
    assert conclude([moved, agree, bad], good) == "weak"
    assert conclude([moved, agree], Way(0.7, 0.2, 0.9)) == "weak"
    assert conclude([moved, agree], Way(0.4, 0.35, 0.5)) == "weak"
    assert conclude([moved, agree], Way(0.1, -0.1, 0.3)) == "none"
    assert conclude([moved, agree], Way(np.nan, np.nan, np.nan)) == "none"
    assert conclude([Evidence("movement", "bad", 0.3, ""), agree], good) == "none"
    assert conclude([moved, agree], None) == "weak"


def test_the_page_escapes_names_and_needs_no_network(assessed):
    adata = assessed[:, :].copy()
    evil = "<script>alert(1)</script>"
    adata.uns["assessment"] = dict(adata.uns["assessment"]) | {"use_rep": evil, "time_key": evil}
    html = page(adata, evil)
    assert evil not in html
    assert html.count("&lt;script&gt;") >= 3
    assert not re.search(r'(src|href)="(?!data:)|@import|url\(', html)
    assert html.count("data:image/png;base64,") == 2


def test_the_command_writes_the_page(assessed, tmp_path, capsys):
    source, page_file = tmp_path / "course.h5ad", tmp_path / "report.html"
    assessed[::2].copy().write_h5ad(source)
    command = ["report", str(source), "--time-key", "time", "--output", str(page_file), "--config", "max_steps=20"]
    assert main([*command, "--n-cells", "40"]) == 0
    assert "verdict: " in capsys.readouterr().out
    assert "Can these trajectories be trusted? course.h5ad" in page_file.read_text()


def test_bad_requests(assessed):
    with pytest.raises(InputError, match="two different names"):
        tw.tl.assess(assessed, "time", methods=("usb", "usb"))
    with pytest.raises(InputError, match="n_cells must be at least 1"):
        tw.tl.assess(assessed, "time", n_cells=0)
    with pytest.raises(MissingKeyError, match=r"tw\.tl\.assess"):
        tw.get.assessment_df(assessed, key="nothing")
