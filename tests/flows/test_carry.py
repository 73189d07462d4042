"""Carrying cells: what they weigh on arrival, and from where each condition starts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import thalweg as tw
from courses import make_course
from thalweg.errors import InputError
from thalweg.flows.flow import Flow
from thalweg.flows.running import Integrator, Noise
from thalweg.flows.time_axis import TimeAxis


def moving(times: dict[str, list[float]], n: int = 60) -> AnnData:
    """Conditions far apart along the third axis, each sampled at its own times; all move along the first."""
    rng, parts, rows = np.random.default_rng(0), [], []
    for k, (name, own) in enumerate(times.items()):
        for t in own:
            parts.append(rng.normal(size=(n, 3)) * 0.5 + [2 * t, 0, 20 * k])
            rows += [(name, t)] * n
    obs = pd.DataFrame(rows, columns=["cond", "day"], index=[f"c{i}" for i in range(len(rows))])
    return AnnData(obs=obs, obsm={"X_pca": np.concatenate(parts)})


@pytest.fixture
def gaps(quick) -> AnnData:
    """B was not sampled at day 1, C at the last day only."""
    adata = moving({"A": [0, 1, 2, 3], "B": [0, 2, 3], "C": [3]})
    config = tw.tl.FitConfig(max_steps=400, width=32)
    tw.tl.fit(adata, "day", method="otcfm", spacing="real", condition_key="cond", rng=0, config=config)
    return adata


def test_each_condition_starts_from_its_own_last_time(gaps, caplog):
    cells = tw.tl.interpolate(gaps, 1.5, both_ends=False)
    assert cells.obs["cond"].value_counts().to_dict() == {"A": 60, "B": 60}
    assert gaps.obs.loc[cells.obs["source"], "day"].groupby(cells.obs["cond"].to_numpy()).unique().to_dict() == {
        "A": [1.0], "B": [0.0],
    }  # fmt: skip
    assert cells.obs["weight"].sum() == pytest.approx(1)
    assert cells.uns["interpolation"]["source_time"].tolist() == [0.0, 1.0]
    mean = pd.DataFrame(cells.obsm["X_pca"]).groupby(cells.obs["cond"].to_numpy()).mean()
    np.testing.assert_allclose(mean.loc["A"], [3, 0, 0], atol=0.4)
    np.testing.assert_allclose(mean.loc["B"], [3, 0, 20], atol=0.4)
    assert "condition 'C' was trained at no time; it is not predicted at time 1.5" in caplog.text


def test_both_ends_are_joined_within_each_condition(gaps):
    cells = tw.tl.interpolate(gaps, 1.5)
    share = cells.obs.groupby([cells.obs["cond"].to_numpy(), gaps.obs.loc[cells.obs["source"], "day"].to_numpy()])
    found = share["weight"].sum()
    assert found["A", 1.0] / found["A"].sum() == pytest.approx(0.5)  # half-way from 1 to 2
    assert found["B", 0.0] / found["B"].sum() == pytest.approx(0.25)  # three quarters of the way from 0 to 2
    assert found["A"].sum() == pytest.approx(found["B"].sum())


def test_paths_start_where_their_condition_does_and_end_where_it_was_trained(gaps, caplog):
    forward = tw.tl.trajectories(gaps, n_times=4)
    first = forward.obs.groupby("cond")["day"].agg(["min", "max"])
    assert first.loc["A"].tolist() == [0, 3]
    assert first.loc["B"].tolist() == [0, 3]
    assert first.loc["C"].tolist() == [3, 3]
    assert "of condition 'C' were trained at no time; their paths end there" in caplog.text
    late = moving({"A": [0, 1, 2], "B": [1, 2]})
    config = tw.tl.FitConfig(max_steps=20, width=8)
    tw.tl.fit(late, "day", method="otcfm", condition_key="cond", rng=0, config=config)
    for direction, span in (("forward", [1, 2]), ("backward", [1, 2])):
        paths = tw.tl.trajectories(late, n_times=5, direction=direction)
        assert paths.obs.groupby("cond")["day"].agg(["min", "max"]).loc["B"].tolist() == span


def test_an_untrained_condition_gets_nan_and_a_warning(gaps, caplog):
    tw.tl.velocity(gaps)
    untrained = (gaps.obs["cond"] == "C").to_numpy()
    assert np.isnan(gaps.obsm["velocity_X_pca"][untrained]).all()
    assert np.isfinite(gaps.obsm["velocity_X_pca"][~untrained]).all()
    assert "condition 'C' was observed at one time only and not trained; its cells get NaN" in caplog.text
    tw.tl.log_likelihood(gaps)
    np.testing.assert_array_equal(np.isnan(gaps.obs["log_likelihood"]), untrained)
    back = tw.tl.interpolate(gaps, 2.5, source_time=3.0)  # a quarter of the cells there are of no use
    assert set(back.obs["cond"]) == {"A", "B"}
    assert np.isfinite(back.obs["weight"]).all()
    only = gaps[untrained].copy()
    with pytest.raises(InputError, match=r"no condition was trained around time 1\.5"):
        tw.tl.interpolate(only, 1.5)


def test_a_condition_that_starts_later_has_a_likelihood_from_there():
    late = moving({"A": [0, 1, 2], "B": [1, 2]})
    config = tw.tl.FitConfig(max_steps=300, width=32)
    tw.tl.fit(late, "day", method="otcfm", condition_key="cond", rng=0, config=config)
    tw.tl.log_likelihood(late)
    by = late.obs.groupby(["cond", "day"])["log_likelihood"].mean()
    exact = -1.5 * np.log(2 * np.pi * 0.25) - 1.5  # entropy of the Gaussian, which both are
    assert np.isfinite(late.obs["log_likelihood"]).all()
    assert by["B", 1.0] == pytest.approx(exact, abs=0.4)
    assert by["B", 2.0] == pytest.approx(exact, abs=0.6)


class Field(torch.nn.Module):
    """OU: dX = -X dt + sigma dW, whose score at rest is -2 X / sigma^2; growth at a constant rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.where, self.grows, self.rate = torch.nn.Parameter(torch.zeros(())), True, rate

    def velocity(self, s, z, c):
        return torch.zeros_like(z)  # at rest the probability flow stands still

    def score(self, s, z, c):
        return -z  # (sigma^2 / 2) grad log p for the stationary N(0, sigma^2 / 2)

    def growth_rate(self, s, z, c):
        return torch.full_like(s, self.rate)


def test_growth_is_integrated_along_the_path_without_noise():
    """OU at rest with constant growth: the spread stays, and every weight is exp(rate t) to rounding."""
    sigma, rate = 1.2, 0.7
    times = np.array([0.0, 1.0])
    flow = Flow(Field(rate), TimeAxis(times, times, times), np.zeros(2), 1.0, sigma)
    x = np.random.default_rng(0).normal(size=(4000, 2)) * sigma / 2**0.5
    noise = Noise(torch.Generator().manual_seed(0))
    out = flow.push(x, [0.0, 1.0], noise=noise, integrator=Integrator(n_steps=200))
    np.testing.assert_allclose(out.weight[-1], np.exp(rate), rtol=1e-5)
    np.testing.assert_allclose(out.x[-1].std(0), sigma / 2**0.5, rtol=0.04)
    assert np.corrcoef(out.x[-1][:, 0], x[:, 0])[0, 1] == pytest.approx(np.exp(-1), abs=0.05)


def birth_and_death(n: int = 200) -> AnnData:
    """Two resting clusters, one growing at .5 and the other shrinking at it: shares 1/(1 + e^-t) of the left one."""
    rng, x, rows = np.random.default_rng(1), [], []
    for t in (0.0, 2.0):
        left = np.arange(n) < round(n / (1 + np.exp(-t)))
        x.append(np.where(left, 0.0, 12.0)[:, None] * [1, 0] + 0.3 * rng.standard_normal((n, 2)))
        rows += [(t, 0.5 if is_left else -0.5) for is_left in left]
    obs = pd.DataFrame(rows, columns=["t", "rate"], index=[f"c{i}" for i in range(2 * n)])
    obs.loc[obs["t"] == 2.0, "rate"] = np.nan  # nothing shows the growth of the last cells
    return AnnData(obs=obs, obsm={"X_pca": np.concatenate(x)})


@pytest.mark.parametrize("time", [0.5, 1.0, 1.5])
def test_both_halves_of_a_prediction_grow_and_shrink_alike(quick, time):
    adata = birth_and_death()
    tw.tl.fit(adata, "t", method="otcfm", growth_key="rate", rng=0, config=quick)
    truth = 1 / (1 + np.exp(-time))
    for options in ({"both_ends": False}, {"source_time": 2.0}, {}):
        cells = tw.tl.interpolate(adata, time, **options)
        left = cells.obs["weight"][cells.obsm["X_pca"][:, 0] < 6].sum()
        assert left == pytest.approx(truth, abs=0.01), options


def test_a_cell_carried_there_and_back_weighs_what_it_did(quick):
    adata = birth_and_death()
    adata.obs["rate"] = np.where(adata.obsm["X_pca"][:, 0] < 6, 0.5, -0.5)
    tw.tl.fit(adata, "t", method="otcfm", growth_key="rate", rng=0, config=quick)
    paths = tw.tl.trajectories(adata, {"t": 2.0}, times=[0.0, 1.0], direction="backward")
    weight = paths.obs.pivot_table(index="trajectory", columns="t", values="weight", observed=True)
    left = adata[weight.index].obsm["X_pca"][:, 0] < 6
    for t in (0.0, 1.0):
        ratio = weight.loc[left, t].mean() / weight.loc[~left, t].mean()
        assert np.log(ratio) == pytest.approx(-(2.0 - t), abs=0.02)


def test_paths_meet_the_times_of_their_cells_whatever_the_grid():
    adata = make_course(times=(0.0, 3.0, 7.0, 14.0), n=20)
    tw.tl.fit(adata, "time", method="otcfm", rng=0, config=tw.tl.FitConfig(max_steps=10, width=8))
    for n_times in (2, 3, 4, 5, 6, 15, 29, 43, 51, 101):
        paths = tw.tl.trajectories(adata, {"time": 7.0}, n_times=n_times, direction="both")
        assert (paths.obs["time"] == 7.0).sum() == 20
        assert (np.diff(np.unique(paths.obs["time"])) > 1e-6).all()


def test_cells_that_cannot_be_coupled_are_named_with_the_call_that_couples_them(caplog):
    adata = moving({"A": [0, 1, 2, 3], "B": [0, 2, 3]})
    config = tw.tl.FitConfig(max_steps=20, width=8)
    tw.tl.fit(adata, "day", method="otcfm", condition_key="cond", rng=0, config=config)
    tw.tl.transition(adata)
    assert "condition 'B' has no cells at time 1: its 60 cells of time 0 are not coupled with it" in caplog.text
    assert "couple them with tw.tl.transition(adata, 0, 2)" in caplog.text
    tw.tl.transition(adata, 0, 2, key_added="across")
    coupled = np.diff(tw.get.couplings(adata, key="across")[0.0, 2.0].indptr) > 0
    assert coupled.all()
