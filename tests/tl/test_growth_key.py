"""Growth rates in a fit: who is coupled with whom, and what the predicted cells weigh."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.data.cells import read_course
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError, MissingKeyError
from thalweg.flows.resume import identify_cells

RATE = 0.5


def birth_and_death(n: int = 200, seed: int = 0) -> AnnData:
    """Two clusters that move up; the left one grows at 0.5, the right one shrinks at it."""
    rng = np.random.default_rng(seed)
    parts, time, left = [], [], []
    for t in (0.0, 1.0, 2.0):
        is_left = np.arange(n) < round(n / (1 + np.exp(-2 * RATE * t)))
        parts.append(np.where(is_left, 0.0, 12.0)[:, None] * [1, 0] + [0, 2 * t] + 0.5 * rng.standard_normal((n, 2)))
        time += [t] * n
        left.append(is_left)
    obs = pd.DataFrame({"time": time, "left": np.concatenate(left)}, index=[f"c{i}" for i in range(3 * n)])
    obs["growth"] = np.where(obs["left"], RATE, -RATE)
    obs.loc[obs["time"] == 2.0, "growth"] = np.nan
    weight = np.exp(obs["growth"].fillna(0))
    obs["weight_only"] = weight / weight.groupby(obs["time"]).transform("mean")
    return AnnData(obs=obs, obsm={"X_pca": np.concatenate(parts)})


def crossing(adata: AnnData, config: tw.tl.FitConfig, **keys) -> float:
    """Largest share of a plan's mass that goes from one cluster to the other."""
    tw.tl.fit(adata, "time", method="otcfm", rng=0, config=config, **keys)
    tw.tl.transition(adata, kind="plan")
    left, shares = adata.obs["left"].to_numpy(), []
    for (t0, t1), block in tw.get.couplings(adata, normalize="total").items():
        rows, cols = (left[(adata.obs["time"] == t).to_numpy()] for t in (t0, t1))
        mass = block.toarray()
        shares.append(mass[rows[:, None] != cols].sum() / mass.sum())
    return max(shares)


def test_with_its_growth_no_cell_has_to_cross(quick):
    """Balanced plans move a quarter of the shrinking cluster; weights on both ends of a plan do not mend it."""
    assert crossing(birth_and_death(), quick, growth_key="growth") < 0.01
    assert crossing(birth_and_death(), quick) > 0.1
    assert crossing(birth_and_death(), quick, weight_key="weight_only") > 0.05


def test_predicted_cells_weigh_their_descendants(quick, tmp_path):
    adata = birth_and_death(n=40)
    adata.obs["w"] = np.linspace(1, 2, 120)
    tw.tl.fit(adata, "time", method="otcfm", weight_key="w", growth_key="growth", rng=0, config=quick)
    adata.write_h5ad(tmp_path / "a.h5ad")
    for source in (adata, ad.read_h5ad(tmp_path / "a.h5ad")):
        found = tw.tl.interpolate(source, 1.7, both_ends=False).obs["weight"]
        cells = adata.obs[adata.obs["time"] == 1.0]
        expected = cells["w"] * np.exp(0.7 * cells["growth"])
        np.testing.assert_allclose(found, expected / expected.sum())
    back = tw.tl.interpolate(adata, 0.5, source_time=1.0).obs["weight"]
    expected = cells["w"] * np.exp(np.where(cells["left"], -0.5, 0.5) * RATE)  # it shrinks to its ancestor
    np.testing.assert_allclose(back, expected / expected.sum(), rtol=1e-6)
    paths = tw.tl.trajectories(adata, times=[0.0, 0.5, 2.0]).obs
    for t in (0.5, 2.0):
        cells = adata.obs[adata.obs["time"] == 0.0]
        expected = cells["w"] * np.exp(t * cells["growth"])
        np.testing.assert_allclose(paths.loc[paths["time"] == t, "weight"], expected / expected.sum())


def test_couplings_of_the_flow_grow_as_the_cells(quick):
    adata = birth_and_death(n=60)
    tw.tl.fit(adata, "time", method="otcfm", growth_key="growth", rng=0, config=quick)
    for kind in ("flow", "plan"):
        tw.tl.transition(adata, kind=kind)
        mass = tw.get.couplings(adata, normalize="none")[0.0, 1.0].sum(1)
        cells = adata.obs[adata.obs["time"] == 0.0]
        expected = np.exp(cells["growth"].to_numpy())
        np.testing.assert_allclose(np.ravel(mass), expected / expected.sum() * np.sum(mass), rtol=1e-4)


def test_a_held_out_time_is_predicted_with_its_growth():
    adata = birth_and_death(n=120)
    config = tw.tl.FitConfig(max_steps=400, batch_size=256, width=32)
    with_growth, without = (
        tw.tl.leave_one_out(adata, "time", methods=("otcfm",), n_seeds=1, config=config, growth_key=key).query(
            "method == 'otcfm'"
        )
        for key in ("growth", None)
    )
    for column in ("w1", "w1_both_ends"):
        assert with_growth[column].item() < 0.6 * without[column].item()


def test_a_flow_that_learns_growth_counts_it_once():
    adata = birth_and_death(n=100)
    config = tw.tl.FitConfig(max_steps=600, batch_size=256, width=32, relaxation=4.0)
    tw.tl.fit(adata, "time", method="uotcfm", growth_key="growth", rng=0, config=config)
    predicted = tw.tl.interpolate(adata, 1.0, source_time=0.0)
    left = adata.obs["left"][adata.obs["time"] == 0.0].to_numpy()
    weight = predicted.obs["weight"].to_numpy()
    ratio = np.log(weight[left].mean() / weight[~left].mean())
    assert ratio == pytest.approx(2 * RATE, abs=0.15)


def test_rates_are_checked_and_older_fits_still_read(quick):
    adata = birth_and_death(n=30)
    with pytest.raises(MissingKeyError, match="growth_key='rate'"):
        tw.tl.fit(adata, "time", growth_key="rate")
    broken = adata.copy()
    broken.obs.loc["c3", "growth"] = np.nan
    with pytest.raises(InputError, match="1 of 90 have none"):
        tw.tl.fit(broken, "time", growth_key="growth")
    broken.obs["growth"] = 1e6
    with pytest.raises(InputError, match="per unit of obs"):
        tw.tl.fit(broken, "time", growth_key="growth", config=quick)
    tw.tl.fit(adata, "time", method="otcfm", spacing="real", rng=0, config=quick)
    reference = tw.tl.interpolate(adata, 0.5)
    adata.uns["thalweg"] = first_format(adata.uns["thalweg"])
    assert "growth_key" not in adata.uns["thalweg"]["params"]
    np.testing.assert_array_equal(tw.tl.interpolate(adata, 0.5).obsm["X_pca"], reference.obsm["X_pca"])


def first_format(entry):
    """A fit as 0.1.0.dev0 stored it, before rates of cells were known."""
    recipe = entry["recipe"]
    params = {k: recipe[k] for k in ("time_key", "use_rep", "n_dims", "condition_key", "weight_key")}
    labels = {k: recipe[k] for k in ("map_labels", "map_values")}
    return entry | {
        "format": 1,
        "params": params | {k: entry["params"][k] for k in ("method", "sigma")},
        "time": {k: entry["time"][k] for k in ("times", "knots", "values")} | labels,
        "conditions": recipe["conditions"],
        "weights": entry["weights"]["0"],
    }


def test_another_growth_is_another_fit():
    adata = birth_and_death(n=10)
    first = identify_cells(read_course(adata, Recipe("time", growth_key="growth")))
    adata.obs["growth"] *= 2
    assert identify_cells(read_course(adata, Recipe("time", growth_key="growth"))) != first
    assert (
        read_course(adata, Recipe("time", growth_key="growth")).without(0.0).rates.tolist()
        == [1.0] * 7 + [-1.0] * 3 + [0.0] * 10
    )
