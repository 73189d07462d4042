"""Growth: the formula, the lists, planted birth and death recovered, units, and weights that reach the fits."""

from __future__ import annotations

import logging
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix

import thalweg as tw
from thalweg.data import gene_scores
from thalweg.errors import InputError, MissingKeyError

# --- rates from genes ------------------------------------------------------------------------------------------------


def expression(organism: str = "human", n: int = 120, seed: int = 0) -> AnnData:
    """Every third cell divides (cell-cycle genes up), every third dies (apoptosis genes up), the rest do neither."""
    rng = np.random.default_rng(seed)
    birth, death = (
        {synonyms[0] for synonyms in gene_scores.gene_set(name, organism)} for name in ("proliferation", "apoptosis")
    )
    birth, death = sorted(birth - death), sorted(death - birth)
    genes = [*birth, *death, *(f"other{j}" for j in range(300))]
    x = rng.gamma(2.0, 0.4, (n, len(genes)))
    kind = np.arange(n) % 3
    x[np.ix_(kind == 0, np.arange(len(birth)))] += 1.5
    x[np.ix_(kind == 1, len(birth) + np.arange(len(death)))] += 1.5
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0, 3.0], n // 3), "kind": kind}, index=[f"c{i}" for i in range(n)])
    return AnnData(x, obs=obs, var=pd.DataFrame(index=genes))


def test_the_rates_are_the_logistic_functions_of_the_paper():
    rates = tw.pp.BirthDeath()
    low, zero = np.full(1, -50.0), np.zeros(1)
    assert rates.growth(np.array([0.25]), low)[0] == pytest.approx(1.0 - 0.3)  # half-way birth, least death
    assert rates.growth(low, np.array([0.1]))[0] == pytest.approx(0.3 - 1.0)
    assert rates.growth(-low, low)[0] == pytest.approx(1.7 - 0.3)
    h = 1e-6  # at the centre a tangent crosses the range within the width
    slope = (rates.growth(np.array([0.25 + h]), zero) - rates.growth(np.array([0.25 - h]), zero)) / (2 * h)
    assert slope[0] == pytest.approx((1.7 - 0.3) / 0.5, rel=1e-6)
    p, a = np.random.default_rng(0).normal(size=(2, 50))
    expected = 1.4 / (1 + np.exp(-(4 / 0.5) * (p - 0.25))) - 1.4 / (1 + np.exp(-(4 / 0.2) * (a - 0.1)))
    np.testing.assert_allclose(rates.growth(p, a), expected, atol=1e-12)
    with pytest.raises(InputError, match="death_width > 0"):
        tw.pp.BirthDeath(death_width=0.0)


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_dividing_cells_grow_dying_ones_shrink_and_the_organism_is_told(organism, caplog):
    adata = expression(organism)
    with caplog.at_level(logging.INFO, logger="thalweg"):
        tw.pp.growth(adata)
    assert f"organism '{organism}'" in caplog.text
    mean = adata.obs.groupby("kind")["growth"].mean()
    assert mean[0] > 1.2
    assert mean[1] < -1.0
    genes = list(adata.uns["growth"]["apoptosis_genes"])
    scored = sc.tl.score_genes(adata, genes, score_name="again", copy=True).obs["again"]
    np.testing.assert_allclose(adata.obs["apoptosis_score"], scored)
    rate = tw.pp.BirthDeath().growth(*(adata.obs[f"{s}_score"].to_numpy() for s in ("proliferation", "apoptosis")))
    np.testing.assert_allclose(adata.obs["growth"], rate)
    assert "growth_weight" not in adata.obs


def test_the_lists_are_those_of_the_sources():
    for organism in ("human", "mouse"):
        sizes = [len(gene_scores.gene_set(s, organism)) for s in ("proliferation", "apoptosis")]
        assert sizes == [43 + 54, 161]
    both = {s: [g[0] for g in gene_scores.gene_set(s, "human")] for s in ("proliferation", "apoptosis")}
    assert all(len(set(genes)) == len(genes) for genes in both.values())
    assert {"PCNA", "MKI67", "TOP2A"} < set(both["proliferation"])
    assert {"CASP3", "BAX", "FAS"} < set(both["apoptosis"])
    mouse = [g for s in both for names in gene_scores.gene_set(s, "mouse") for g in names]
    assert not [g for g in mouse if g.isupper() and len(g) > 2 and g != "H1-0"]
    adata = AnnData(np.zeros((1, 2)), var=pd.DataFrame(index=["MLF1IP", "JPT1"]))
    with pytest.raises(InputError, match=re.escape("proliferation=['MLF1IP', 'JPT1']")):
        gene_scores.chosen_genes(adata, "proliferation", None, "human")


def test_nothing_is_guessed():
    adata = expression()
    renamed = adata.copy()
    renamed.var_names = [f"ENSG{j:011d}" for j in range(adata.n_vars)]
    with pytest.raises(InputError, match=r"organism=None could not tell .* gene symbols"):
        tw.pp.growth(renamed)
    with pytest.raises(InputError, match="none of the 97 proliferation genes"):
        tw.pp.growth(adata, organism="mouse")
    with pytest.raises(InputError, match="must be 'human'"):
        tw.pp.growth(adata, organism="yeast")
    with pytest.raises(InputError, match="method must be"):
        tw.pp.growth(adata, method="moscot")
    with pytest.raises(MissingKeyError, match="'hour'"):
        tw.pp.growth(adata, time_key="hour")
    assert "growth" not in adata.obs


def test_own_genes_serve_and_few_of_a_list_are_refused():
    adata = expression()
    tw.pp.growth(adata, proliferation=["PCNA", "MKI67"], apoptosis=["CASP3"], key_added="own")
    assert list(adata.uns["own"]["proliferation_genes"]) == ["PCNA", "MKI67"]
    few = adata[:, ["PCNA", "CASP3", *(f"other{j}" for j in range(300))]].copy()
    with pytest.raises(InputError, match=r"1 of the 97 proliferation genes .* fewer than a quarter"):
        tw.pp.growth(few)


def test_counts_and_rates_that_cannot_be_are_refused(caplog):
    adata = expression()
    for x, found in ((np.random.default_rng(0).poisson(2.0, adata.shape), "whole numbers"), (100 * adata.X, "up to")):
        raw = adata.copy()
        raw.X = x
        with pytest.raises(InputError, match=f"log-transformed, found .*{found}"):
            tw.pp.growth(raw)
        assert "growth" not in raw.obs
    dying = tw.pp.BirthDeath(birth_min=0.0, birth_max=0.0, death_min=3.0, death_max=3.0)
    with pytest.raises(InputError, match=r"multiply the population by 0\.000123 from time 0 to 3, which cannot be"):
        tw.pp.growth(adata, time_key="day", rates=dying)
    with caplog.at_level(logging.INFO, logger="thalweg"):
        tw.pp.growth(adata, time_key="day")
    assert "these rates multiply the population by" in caplog.text


def test_units_of_time():
    """In hours, with a day of 24, rates are 24 times smaller and weights the same."""
    adata, hours = expression(), expression()
    hours.obs["day"] *= 24
    tw.pp.growth(adata, time_key="day")
    tw.pp.growth(hours, time_key="day", day=24)
    np.testing.assert_allclose(hours.obs["growth"] * 24, adata.obs["growth"])
    np.testing.assert_allclose(hours.obs["growth_weight"], adata.obs["growth_weight"])
    hours.obs["day"] *= 1000
    with pytest.raises(InputError, match="day=24 for hours"):
        tw.pp.growth(hours, time_key="day")


def test_weights_are_relative_descendants_at_the_next_time():
    adata = expression()
    tw.pp.growth(adata, time_key="day")
    for day, dt in ((0.0, 1.0), (1.0, 2.0)):
        rows = adata.obs["day"] == day
        descendants = np.exp(adata.obs["growth"][rows] * dt)
        np.testing.assert_allclose(adata.obs["growth_weight"][rows], descendants / descendants.mean())
    assert (adata.obs["growth_weight"][adata.obs["day"] == 3.0] == 1).all()
    frame = tw.get.growth_df(adata)
    assert list(frame) == ["cell", "growth", "time", "weight", "proliferation_score", "apoptosis_score"]
    with pytest.raises(MissingKeyError, match=r"run tw\.pp\.growth"):
        tw.get.growth_df(adata, key="other")


def test_the_data_and_the_global_generator_are_left_alone(tmp_path, monkeypatch):
    """Not even seeded and put back, which another thread could see."""
    for name in ("seed", "shuffle", "choice", "permutation", "set_state"):
        original = getattr(np.random, name)
        used = lambda *a, name=name, **k: pytest.fail(f"np.random.{name} was called")  # noqa: E731
        monkeypatch.setattr(np.random, name, original if name == "set_state" else used)
    adata = expression()
    np.random.set_state(np.random.RandomState(123).get_state())  # noqa: NPY002 - unlike the seed that scanpy sets
    before, state = adata.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    out = tw.pp.growth(adata, time_key="day", copy=True)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    np.testing.assert_array_equal(adata.X, before.X)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns
    out.write_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(tw.get.growth_df(ad.read_h5ad(tmp_path / "a.h5ad")), tw.get.growth_df(out))
    out.write_zarr(tmp_path / "a.zarr")
    pd.testing.assert_frame_equal(tw.get.growth_df(ad.read_zarr(tmp_path / "a.zarr")), tw.get.growth_df(out))
    for kind in (np.asarray, csr_matrix):
        adata.X = kind(before.X)
        adata.write_h5ad(tmp_path / f"{kind.__name__}.h5ad")
        backed = ad.read_h5ad(tmp_path / f"{kind.__name__}.h5ad", backed="r")
        tw.pp.growth(backed, time_key="day")
        pd.testing.assert_frame_equal(tw.get.growth_df(backed), tw.get.growth_df(out))


# --- rates from plans ------------------------------------------------------------------------------------------------


def birth_and_death(times=(0.0, 2.0), rate: float = 0.3, n: int = 300, move: float = 1.0, seed: int = 0) -> AnnData:
    """Two clusters far apart, equal at first; one grows at ``rate`` and one shrinks at it while both move."""
    rng = np.random.default_rng(seed)
    x, time, grows = [], [], []
    for t in times:
        share = 1 / (1 + np.exp(-2 * rate * t))
        up = np.arange(n) < round(n * share)
        x.append(np.where(up, 0.0, 12.0)[:, None] * [1, 0] + [0, move * t] + 0.5 * rng.standard_normal((n, 2)))
        time += [t] * n
        grows.append(up)
    columns = {"time": time, "grows": np.concatenate(grows)}
    obs = pd.DataFrame(columns, index=[f"c{i}" for i in range(len(time))])
    return AnnData(obs=obs, obsm={"X_pca": np.concatenate(x)})


def test_planted_birth_and_death_are_recovered():
    """Relative to the population's mean, n = 2 share and 2 (1 - share)."""
    adata = birth_and_death()
    tw.pp.growth(adata, method="unbalanced", time_key="time")
    first = adata.obs[adata.obs["time"] == 0.0]
    share = (adata.obs.loc[adata.obs["time"] == 2.0, "grows"]).mean()
    found = first.groupby("grows")["growth_weight"].mean()
    assert found[True] == pytest.approx(2 * share, rel=0.02)
    assert found[False] == pytest.approx(2 * (1 - share), rel=0.02)
    assert np.log(found[True] / found[False]) / 2.0 == pytest.approx(2 * 0.3, abs=0.02)
    assert np.exp(2 * first["growth"]).mean() == pytest.approx(1, abs=1e-6)  # nothing of the next time is left out
    assert adata.obs.loc[adata.obs["time"] == 2.0, "growth"].isna().all()
    assert (adata.obs.loc[adata.obs["time"] == 2.0, "growth_weight"] == 1).all()


def test_no_growth_and_dear_growth_give_even_weights():
    still = birth_and_death(rate=0.0)
    tw.pp.growth(still, method="unbalanced", time_key="time", relaxation=1e3)
    first = still.obs["time"] == 0.0
    np.testing.assert_allclose(still.obs["growth_weight"][first], 1, atol=0.05)


def test_units_of_the_representation_do_not_matter():
    adata, other = birth_and_death(n=100), birth_and_death(n=100)
    other.obsm["X_pca"] = other.obsm["X_pca"][:, ::-1] * 1e3 + 1e5
    for a in (adata, other):
        tw.pp.growth(a, method="unbalanced", time_key="time")
    np.testing.assert_allclose(other.obs["growth"], adata.obs["growth"], atol=0.02)


def test_conditions_grow_by_themselves():
    """Together two mirrored courses show no growth; within each there is."""
    one, two = birth_and_death(n=100), birth_and_death(n=100, seed=1)
    two.obsm["X_pca"][:, 0] = 12 - two.obsm["X_pca"][:, 0]
    both = ad.concat({"a": one, "b": two}, label="lab", index_unique="-")
    tw.pp.growth(both, method="unbalanced", time_key="time", condition_key="lab")
    early = both.obs[both.obs["time"] == 0.0]
    found = early.groupby(["lab", "grows"], observed=True)["growth_weight"].mean()
    alone = tw.pp.growth(one, method="unbalanced", time_key="time", copy=True).obs
    for up in (True, False):
        expected = alone[(alone["time"] == 0.0) & (alone["grows"] == up)]["growth_weight"].mean()
        assert found["a", up] == pytest.approx(expected, rel=1e-3)
    assert found["b", True] > 1.3


def test_unbalanced_growth_checks_its_arguments():
    adata = birth_and_death(n=20)
    with pytest.raises(InputError, match="needs time_key"):
        tw.pp.growth(adata, method="unbalanced")
    with pytest.raises(InputError, match="relaxation"):
        tw.pp.growth(adata, method="unbalanced", time_key="time", relaxation=-1.0)


def test_a_view_is_made_actual_without_a_warning():
    """Warnings are errors in the tests: anndata's ImplicitModificationWarning would fail this."""
    adata = expression()
    view = adata[: adata.n_obs // 2]
    tw.pp.growth(view, time_key="day")
    assert not view.is_view
    assert "growth" in view.obs
    assert "growth" not in adata.obs
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(adata.n_obs, 3))
    other = adata[: adata.n_obs // 2]
    tw.pp.standardize(other)
    assert not other.is_view
    np.testing.assert_allclose(other.obsm["X_standardized"].mean(0), 0, atol=1e-6)
