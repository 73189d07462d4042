"""One growth in all verbs: two clusters at rest, of which one doubles in every unit of time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import thalweg as tw
from thalweg.errors import InputError

QUICK = tw.tl.FitConfig(max_steps=600, width=32, depth=2)
N = 120  # cells of the first time; then 180 and 300


def doubling(seed: int = 0, numbers: tuple[tuple[int, int], ...] = ((60, 60), (120, 60), (240, 60))) -> AnnData:
    """``A`` doubles and ``B`` does not; every cell of the population is observed."""
    rng, clouds, labels, time = np.random.default_rng(seed), [], [], []
    for t, (a, b) in enumerate(numbers):
        x = rng.normal(size=(a + b, 2)) * 0.5
        x[a:, 0] += 12
        clouds.append(x)
        labels += ["A"] * a + ["B"] * b
        time += [float(t)] * (a + b)
    obs = pd.DataFrame({"time": time, "type": pd.Categorical(labels)}, index=[f"c{i}" for i in range(len(time))])
    adata = AnnData(obs=obs, obsm={"X_pca": np.concatenate(clouds)})
    adata.obs["rate"] = np.where(adata.obs["type"] == "A", np.log(2.0), 0.0)
    adata.uns["population_size"] = {f"{t}": a + b for t, (a, b) in enumerate(numbers)}
    return adata


@pytest.fixture(scope="module", params=["usb", "uotcfm", "otcfm, rates given"])
def fitted(request):
    adata, method = doubling(), request.param.split(",")[0]
    options = {"growth_key": "rate"} if "given" in request.param else {"population_size": "population_size"}
    tw.tl.fit(adata, "time", method=method, rng=0, config=QUICK, **options)
    return adata


def share_of_a(cells: AnnData, weight: np.ndarray) -> float:
    return float(weight[cells.obsm["X_pca"][:, 0] < 6].sum() / weight.sum())


@pytest.mark.parametrize("time", [0.5, 1.0, 1.5, 2.0])
def test_a_prediction_has_the_mass_and_the_shares_of_the_population(fitted, time):
    cells = tw.tl.interpolate(fitted, time)
    start = cells.uns["interpolation"]["source_time"][0]
    assert cells.uns["interpolation"]["mass"] == pytest.approx((2**time + 1) / 2, rel=0.02)
    assert cells.uns["interpolation"]["observed"] == (time in (1.0, 2.0))
    assert start == np.ceil(time) - 1
    expected = 2**time / (2**time + 1)
    assert share_of_a(cells, cells.obs["weight"].to_numpy()) == pytest.approx(expected, abs=0.02)


def test_paths_have_the_shares_of_the_population(fitted):
    paths = tw.tl.trajectories(fitted, times=[0.0, 0.5, 1.0, 1.5, 2.0], rng=0)
    for time in (0.5, 1.0, 1.5, 2.0):
        here = paths[paths.obs["time"] == time]
        assert share_of_a(here, here.obs["weight"].to_numpy()) == pytest.approx(2**time / (2**time + 1), abs=0.02)


@pytest.mark.parametrize("kind", ["flow", "plan"])
def test_couplings_descendants_and_ancestors_have_it_too(fitted, kind):
    adata = fitted.copy()
    tw.tl.transition(adata, kind=kind, rng=0)
    whole = tw.get.couplings(adata, normalize="none")
    for (t0, _), block in whole.items():
        kind_of = adata.obs["type"][adata.obs["time"] == t0].to_numpy()
        offspring = np.asarray(block.sum(1)).ravel()
        assert offspring[kind_of == "A"].mean() / offspring[kind_of == "B"].mean() == pytest.approx(2, rel=0.03)
    tw.tl.descendants(adata, (adata.obs["type"] == "A") & (adata.obs["time"] == 0.0))
    np.testing.assert_allclose(adata.uns["descendants"]["mass"], [1 / 2, 2 / 3, 4 / 5], atol=0.02)
    tw.tl.ancestors(adata, adata.obs["time"] == 2.0)
    first = adata.obs["time"] == 0.0
    assert adata.obs["ancestors"][first & (adata.obs["type"] == "A")].sum() == pytest.approx(4 / 5, abs=0.02)


def test_the_rate_is_that_of_the_cells_and_the_masses_come_back(fitted):
    adata = fitted.copy()
    if "turnover" not in adata.uns["thalweg"] or not adata.uns["thalweg"]["turnover"]:
        pytest.skip("a method without births and deaths: the rates are a column already")
    tw.tl.velocity(adata, genes=False)
    np.testing.assert_allclose(adata.obs["growth_rate"], adata.obs["rate"], atol=0.02)
    back = tw.get.reconstruction_df(adata)
    np.testing.assert_allclose(back["counted"], [1.5, 2.5])
    assert back["mass_error"].max() < 0.02
    assert (back["w1"] < back["still"] / 2).all()


def test_densities_are_those_of_the_shares(fitted):
    """Both clusters keep their shape, so that the densities at their middles are as their shares, 4 to 1 at the end."""
    adata = fitted.copy()
    if not adata.uns["thalweg"]["turnover"]:
        pytest.skip("the density of a flow knows no given rates")
    tw.tl.log_likelihood(adata)
    last = (adata.obs["time"] == 2.0).to_numpy()
    mean = adata.obs["log_likelihood"][last].groupby(adata.obs["type"][last], observed=True).median()
    assert mean["A"] - mean["B"] == pytest.approx(np.log(4), abs=0.35)


def test_without_sizes_totals_are_relative():
    adata = doubling()
    tw.tl.fit(adata, "time", method="uotcfm", rng=0, config=QUICK)
    assert tw.tl.interpolate(adata, 1.5).uns["interpolation"]["mass"] == pytest.approx(1, abs=0.02)
    back = tw.get.reconstruction_df(adata)
    assert back["counted"].isna().all()
    np.testing.assert_allclose(back["mass"], 1, atol=0.01)


@pytest.mark.parametrize("arriving", [False, True])
@pytest.mark.parametrize("method", ["usb", "uotcfm"])
def test_arriving_cells_rise_linearly_and_vanishing_ones_fade(arriving, method):
    """A third of the cells lies far away, at one of the two times only."""
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(90, 2)) * 0.5 for _ in range(2)]
    clouds[int(arriving)][60:, 0] += 12
    obs = pd.DataFrame({"time": np.repeat([0.0, 1.0], 90)}, index=[f"c{i}" for i in range(180)])
    adata = AnnData(obs=obs, obsm={"X_pca": np.concatenate(clouds)})
    tw.tl.fit(adata, "time", method=method, rng=0, config=QUICK)
    for time, both in ((0.25, False), (0.25, True), (1.0, False)):
        cells = tw.tl.interpolate(adata, time, both_ends=both)
        far = cells.obsm["X_pca"][:, 0] > 6
        expected = time / 3 if arriving else (1 - time) / 3
        assert cells.obs["weight"][far].sum() == pytest.approx(expected, abs=0.01)
    assert (tw.get.reconstruction_df(adata)["w1"] < 1).all()  # of 4 if the far cells stayed


def test_fates_tell_what_dies_only_if_asked():
    """C vanishes after the first time; A and B stay."""
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(90, 2)) * 0.5 for _ in range(2)]
    for x in clouds:
        x[45:, 0] += 12
    clouds[0][75:, 1] += 12
    obs = pd.DataFrame({"time": np.repeat([0.0, 1.0], 90)}, index=[f"c{i}" for i in range(180)])
    obs["type"] = pd.Categorical(np.where(np.concatenate(clouds)[:, 0] > 6, "B", "A"))
    adata = AnnData(obs=obs, obsm={"X_pca": np.concatenate(clouds)})
    tw.tl.fit(adata, "time", method="usb", rng=0, config=QUICK)
    tw.tl.fate(adata, "type")
    assert list(adata.obsm["fate_type"]) == ["A", "B"]
    tw.tl.fate(adata, "type", include_died=True)
    p = adata.obsm["fate_type"]
    np.testing.assert_allclose(p.sum(1), 1)
    dying = np.arange(75, 90)
    assert (p["died"].to_numpy()[dying] > 0.99).all()
    assert (np.delete(p["died"].to_numpy(), dying) < 0.01).all()


def test_death_rates_beside_birth_rates():
    """Equal births and deaths: no growth, and by the last time a cell has died with the probability 1 - exp(-2 d)."""
    adata = doubling(numbers=((60, 60), (60, 60), (60, 60)))
    adata.obs["birth"], adata.obs["death"] = 0.4, 0.4
    tw.tl.fit(adata, "time", method="otcfm", growth_key="birth", death_key="death", rng=0, config=QUICK)
    assert tw.tl.interpolate(adata, 1.5).uns["interpolation"]["mass"] == pytest.approx(1)
    tw.tl.fate(adata, "type", include_died=True)
    died = adata.obsm["fate_type"]["died"].to_numpy()
    expected = 1 - np.exp(-0.4 * (2 - adata.obs["time"].to_numpy()))
    np.testing.assert_allclose(died, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "otcfm", "population_size": "population_size"}, "needs a method with births and deaths"),
        ({"method": "usb", "population_size": {0: 1, 1: 2}}, r"lacks the times \[2.0\]"),
        ({"method": "usb", "death_key": "rate"}, "needs growth_key, the column of birth rates"),
        ({"method": "usb", "growth_key": "rate", "death_key": "negative"}, "negative rates"),
    ],
)
def test_bad_input_never_trains(options, message):
    adata = doubling()
    adata.obs["negative"] = -1.0
    with pytest.raises(InputError, match=message):
        tw.tl.fit(adata, "time", rng=0, config=QUICK, **options)
    assert "thalweg" not in adata.uns


def test_died_needs_a_fit_that_knows_of_deaths():
    adata = doubling()
    tw.tl.fit(adata, "time", method="otcfm", rng=0, config=QUICK)
    with pytest.raises(InputError, match="include_died=True needs a fit that knows of deaths"):
        tw.tl.fate(adata, "type", include_died=True)


def test_a_fit_that_does_not_return_its_populations_warns(caplog):
    adata = doubling()
    adata.obsm["X_pca"][adata.obs["time"] == 1.0] += 30
    tw.tl.fit(adata, "time", method="icfm", rng=0, config=tw.tl.FitConfig(max_steps=1, affine=False))
    assert "does not return the populations at time" in caplog.text
    assert "tw.pl.reconstruction" in caplog.text


def test_fits_without_a_check_say_so():
    adata = doubling()
    tw.tl.fit(adata, "time", method="otcfm", rng=0, config=QUICK, check=False)
    with pytest.raises(tw.errors.MissingKeyError, match="made with check=False"):
        tw.get.reconstruction_df(adata)


def course(parts, sd: float = 0.3) -> AnnData:
    """Clusters of cells: a time, a middle, a number, and a condition."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.array(middle) + sd * rng.normal(size=(n, 2)) for _, middle, n, _ in parts])
    obs = pd.DataFrame(
        {
            "time": np.repeat([float(t) for t, *_ in parts], [n for *_, n, _ in parts]),
            "group": np.repeat([str(middle) for _, middle, *_ in parts], [n for *_, n, _ in parts]),
            "arm": np.repeat([arm for *_, arm in parts], [n for *_, n, _ in parts]),
        },
        index=[f"c{i}" for i in range(len(x))],
    )
    return AnnData(obs=obs, obsm={"X_pca": x})


@pytest.fixture(scope="module")
def vanishing() -> AnnData:
    """Fifteen of fifty-five cells of the first time are gone at the next; sizes are known."""
    adata = course([(t, (0.3 * t, 0), 40, "a") for t in (0, 1, 2)] + [(0, (0, 12), 15, "a")])
    tw.tl.fit(adata, "time", method="uotcfm", population_size={0: 1, 1: 1, 2: 1}, rng=0, config=QUICK)
    return adata


@pytest.mark.parametrize("kind", ["flow", "plan"])
def test_couplings_of_cells_that_die_are_empty_and_the_others_leave_more(vanishing, kind):
    adata = vanishing.copy()
    tw.tl.transition(adata, kind=kind)
    assert np.isfinite(adata.obsp["transition"].data).all()
    offspring = np.asarray(tw.get.couplings(adata, normalize="none")[0.0, 1.0].sum(1)).ravel()
    gone = (adata.obs["group"] == "(0, 12)")[adata.obs["time"] == 0.0].to_numpy()
    np.testing.assert_allclose(offspring[gone], 0, atol=1e-6)
    np.testing.assert_allclose(offspring[~gone], 55 / 40, rtol=0.01)


def test_fates_of_cells_that_die_are_numbers(vanishing):
    adata = vanishing.copy()
    for include in (False, True):
        tw.tl.fate(adata, "arm", include_died=include)
        p = adata.obsm["fate_arm"]
        np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p["died"], adata.obs["group"] == "(0, 12)", atol=0.01)


def test_a_part_of_the_cells_has_numbers_for_weights_and_a_numpy_time_is_a_time(vanishing):
    some = vanishing[vanishing.obs["group"] == "(0, 12)"].copy()
    np.testing.assert_allclose(tw.tl.interpolate(some, 0.5).obs["weight"].sum(), 1)
    tw.tl.interpolate(vanishing, 1.0, source_time=vanishing.obs["time"].min())
    assert tw.tl.interpolate(vanishing, 1.5, source_time=0.0).obs["weight"].min() >= 0


def test_conditions_may_be_observed_at_different_times():
    adata = course([(t, (0.3 * t, 0), 20, "a") for t in (0, 1, 3)] + [(t, (0.3 * t, 0), 20, "b") for t in (0, 2, 3)])
    tw.tl.fit(adata, "time", method="uotcfm", condition_key="arm", rng=0, config=QUICK)
    both = tw.tl.interpolate(adata, 2.0, both_ends=True)
    assert both.obs["weight"].groupby(both.obs["arm"]).sum().tolist() == pytest.approx([0.5, 0.5])
    paths = tw.tl.trajectories(adata, direction="backward", times=[0.0, 1.5, 3.0])
    assert np.isfinite(paths.obs["weight"]).all()


@pytest.mark.parametrize("vanishes", [False, True])
def test_conditions_count_by_their_sizes(vanishes):
    """The cells of one arm double in each interval, those of the other do not; as many of both are measured."""
    parts = [(t, (0.3 * t, 0), 40, arm) for t in (0, 1, 2) for arm in "ab"]
    sizes = {"a": {0: 1, 1: 2, 2: 4}, "b": {0: 1, 1: 1, 2: 1}}
    adata = course(parts + ([(0, (0, 12), 4, "a")] if vanishes else []))
    tw.tl.fit(adata, "time", method="uotcfm", condition_key="arm", population_size=sizes, rng=0, config=QUICK)
    for time in (0.5, 1.0, 1.5, 2.0):
        for both in (False, True):
            cells = tw.tl.interpolate(adata, time, both_ends=both)
            share = cells.obs["weight"][cells.obs["arm"] == "a"].sum()
            assert share == pytest.approx(2**time / (2**time + 1), abs=0.02)
            assert cells.uns["interpolation"]["mass"] == pytest.approx((2**time + 1) / 2, rel=0.03)


def test_clusters_that_lie_apart_come_back_and_do_not_mix_by_noise():
    """The spread of a day is that of three clusters; the noise of a cell is limited by that of its own."""
    parts = [(t, (0.5 * i, 0), 60, "a") for i, t in enumerate((-3, 0, 1))]
    parts += [(t, (-12, 0), 30, "a") for t in (-3, 0, 1)] + [(t, (0, 12), 20, "a") for t in (-3, 0)]
    adata = course(parts)
    tw.tl.fit(adata, "time", method="usb", rng=0, config=QUICK)
    sigma = adata.uns["thalweg"]["diffusion"] * adata.uns["thalweg"]["scale"]
    assert (sigma < 0.7).all()  # twice the spread of a cluster
    back = tw.get.reconstruction_df(adata)
    assert (back["w1"] < 0.4).all()
    np.testing.assert_allclose(back["mass"], 1, atol=0.01)
