"""Fates of groups of cells, with intervals over replicates: closed forms, coverage, and draws of replicates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats
from scipy.special import expit, logit

import thalweg as tw
from courses import forked
from thalweg.data.fates import draws_frame, read_draws
from thalweg.errors import InputError, MissingKeyError


def with_fates(p, draws=None, n=10) -> AnnData:
    """Cells of one time, ``n`` of each replicate, with these probabilities of ``A``, shape ``(n_replicates,)``."""
    p = np.repeat(np.asarray(p, dtype=float), n)
    obs = pd.DataFrame({"day": 2.0, "mouse": np.repeat([f"m{r}" for r in range(len(p) // n)], n)})
    adata = AnnData(obs=obs.set_axis(map(str, range(len(p)))))
    adata.obsm["fate_type"] = pd.DataFrame({"A": p, "B": 1 - p}, index=adata.obs_names)
    adata.uns["fate_type"] = {"time_key": "day"}
    if draws is not None:
        d = np.broadcast_to(np.asarray(draws, dtype=float), (len(p), len(draws)))
        adata.obsm["fate_type_draws"] = draws_frame(np.stack([d, 1 - d], 2), ["A", "B"], adata.obs_names)
    return adata


def test_a_share_has_the_errors_of_replicates_and_of_draws():
    p, draws = np.array([0.2, 0.3, 0.4]), np.array([0.25, 0.3, 0.35, 0.3])
    found = tw.get.fate_shares_df(with_fates(p, draws), "type", replicate_key="mouse", level=0.9).set_index("group")
    parts, freedom = np.array([p.var(ddof=1) / 3, draws.var(ddof=1)]), np.array([2, 1 / (1 / 3 + 1 / 2)])
    half = stats.t.ppf(0.95, parts.sum() ** 2 / (parts**2 / freedom).sum()) * np.sqrt(parts.sum()) / (0.3 * 0.7)
    row = found.loc["A"]
    assert (row["share"], row["se"]) == pytest.approx((0.3, np.sqrt(parts.sum())), rel=1e-5)
    assert (row["lower"], row["upper"]) == pytest.approx((expit(logit(0.3) - half), expit(logit(0.3) + half)), rel=1e-5)
    assert (row["n"], row["n_replicates"], row["time"]) == (30, 3, 2.0)
    assert found.loc["B", "lower"] == pytest.approx(1 - row["upper"], rel=1e-5)


def test_without_replicates_cells_are_the_units_and_without_draws_it_is_said(caplog):
    p = np.random.default_rng(0).uniform(size=30)
    found = tw.get.fate_shares_df(with_fates(p, n=1), "type").set_index("group").loc["A"]
    assert found["se"] == pytest.approx(p.std(ddof=1) / np.sqrt(30))
    assert "n_replicates" not in found
    assert "the fates have no draws, so that intervals lack their error" in caplog.text


def test_groups_weights_and_conditions():
    adata = with_fates([0.1, 0.5, 0.9, 0.5], [0.5, 0.6])
    adata.obs["kind"] = pd.Categorical(np.repeat(["x", "x", "y", "y"], 10), categories=["y", "x", "never"])
    adata.obs["heavy"] = np.repeat([3.0, 1.0, 1.0, 1.0], 10)
    adata.obs["arm"] = np.repeat(["p", "q", "p", "q"], 10)
    found = tw.get.fate_shares_df(adata, "type", by="kind", weight_key="heavy").set_index(["kind", "group"])["share"]
    assert found.index.tolist() == [("y", "A"), ("y", "B"), ("x", "A"), ("x", "B")]
    assert found["x", "A"] == pytest.approx((3 * 0.1 + 0.5) / 4)
    arms = tw.get.fate_shares_df(adata, "type", condition_key="arm").set_index(["condition", "group"])["share"]
    assert arms["p", "A"] == pytest.approx(0.5)
    assert arms["q", "A"] == pytest.approx(0.5)


def test_one_replicate_has_no_interval(caplog):
    found = tw.get.fate_shares_df(with_fates([0.3], [0.3, 0.4]), "type", replicate_key="mouse")
    assert found[["se", "lower", "upper"]].isna().all(axis=None)
    assert "one replicate only at the times [2.0]" in caplog.text
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        tw.get.fate_shares_df(with_fates([0.3]), "type", level=95)
    with pytest.raises(MissingKeyError, match="'rat'"):
        tw.get.fate_shares_df(with_fates([0.3]), "type", replicate_key="rat")
    with pytest.raises(MissingKeyError, match="fate_other"):
        tw.get.fate_shares_df(with_fates([0.3]), "other")


def test_draws_of_replicates_differ_as_replicates_do():
    """A third of the cells of one mouse end in A and two thirds of another: the first cells know no better than that.

    Draws of single cells are far too sure.
    """
    shares = (0.35, 0.5, 0.65)
    parts = [forked((a, 1 - a), n=40, noise=0.2, seed=seed) for seed, a in enumerate(shares)]
    obs = pd.concat([one.obs.assign(mouse=f"m{r}") for r, one in enumerate(parts)])
    obs["type"] = pd.Categorical(obs["type"])
    x = np.concatenate([one.obsm["X_pca"] for one in parts])
    adata = AnnData(obs=obs.set_axis(map(str, range(len(obs)))), obsm={"X_pca": x})
    config = tw.tl.FitConfig(max_steps=5, width=8, depth=1)
    tw.tl.fit(adata, "time", rng=0, config=config, check=False)
    spread = {}
    for key in ("mouse", None):
        tw.tl.fate(adata, "type", n_draws=12, replicate_key=key, rng=0)
        first = (adata.obs["time"] == 0).to_numpy()
        spread[key] = read_draws(adata, "type", ["A", "B"])[first, :, 0].mean(0).std(ddof=1)
    measured = [(one.obs["type"][80:] == "A").mean() for one in parts]
    assert spread["mouse"] == pytest.approx(np.std(measured, ddof=1) / np.sqrt(3), rel=0.5)
    assert spread["mouse"] > 1.5 * spread[None]
    table = tw.get.fate_shares_df(adata, "type", replicate_key="mouse").set_index(["time", "group"])
    assert table.loc[(0.0, "A"), "lower"] < 0.4 < 0.6 < table.loc[(0.0, "A"), "upper"]
    with pytest.raises(InputError, match="replicate_key='mouse' needs draws of the plans"):
        tw.tl.fate(adata, "type", replicate_key="mouse")
    with pytest.raises(InputError, match="needs draws of the plans"):
        tw.tl.fate(adata, "type", kind="flow", replicate_key="mouse")
