"""What differs between arms, on simulated experiments of known effect and onset."""

from __future__ import annotations

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import thalweg as tw
from thalweg.data.cells import read_cells
from thalweg.data.recipe import Recipe
from thalweg.errors import InputError, MissingKeyError
from thalweg.tl._comparison.tables import holm, onset
from thalweg.tl._comparison.units import make_arms

mpl.use("agg")
QUICK = tw.tl.FitConfig(max_steps=5)
FIT = {"condition_key": "condition", "baseline": "baseline", "use_rep": "X_latent", "check": False, "rng": 0}


def logged(adata):
    """The counts normalised and log-transformed."""
    counts = adata.X.toarray()
    adata.X = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    return adata


@pytest.fixture(scope="module")
def compared():
    adata = logged(tw.datasets.experiment(n_cells=120, n_genes=150, rng=1))
    tw.tl.fit(adata, "time", config=QUICK, **FIT)
    tw.tl.compare(adata, "condition", "cell_type", replicate_key="replicate", rng=0)
    return adata


@pytest.fixture
def small():
    adata = tw.datasets.experiment(n_cells=20, n_days=4, onset=1, counts=False, rng=0)
    tw.tl.fit(adata, "time", method="otcfm", config=QUICK, **FIT)
    return adata


def test_the_fate_that_was_moved_is_found(compared):
    truth, table = compared.uns["truth"], tw.get.compare_df(compared).set_index("group")
    drawn = truth["shares"].groupby("condition", observed=True)[truth["fate"]].mean()
    row = table.loc[truth["fate"]]
    assert row["share_reference"] == pytest.approx(drawn["control"], abs=0.08)
    assert row["share"] == pytest.approx(drawn["knock-out"], abs=0.08)
    assert row["low"] < -0.15 < row["high"]
    assert truth["fate"] in set(table.index[table["q"] < 0.05]) <= {truth["fate"], truth["sister"]}
    np.testing.assert_allclose(table[["share_reference", "share"]].sum(), 1, atol=1e-6)
    np.testing.assert_allclose(table["difference"], table["share"] - table["share_reference"], atol=1e-9)


def test_the_arms_part_at_the_onset(compared):
    assert compared.uns["compare"]["onset"]["time"].tolist() == [compared.uns["truth"]["onset"]]
    table = tw.get.compare_df(compared, "divergence").set_index("time")
    assert table.loc[0.0, ["separation", "energy"]].tolist() == pytest.approx([0, 0], abs=1e-6)  # the same start cells
    assert set(table.index[table["p"].notna()]) == {1.0, 2.0, 3.0, 4.0, 5.0}  # the baseline is one population


def test_the_genes_that_answer_come_first(compared):
    truth, table = compared.uns["truth"], tw.get.compare_df(compared, "genes")
    answering = set(truth["response_genes"])
    assert len(answering & set(table["gene"][: len(answering)])) >= 0.9 * len(answering)
    assert set(table["gene"]) == set(compared.var_names)
    between = table["low"].le(table["difference"]) & table["difference"].le(table["high"])
    assert between.all()


def test_sparse_expression_and_weights_of_cells_count(compared):
    """Gene by gene, the difference of weighted means over replicates less those of the first day, by hand."""
    adata = compared.copy()
    adata.X = csr_matrix(adata.X)
    adata.obs["w"] = np.random.default_rng(0).uniform(0.5, 2, adata.n_obs)
    recipe = Recipe("time", use_rep="X_latent", condition_key="condition", baseline="baseline",
                    weight_key="w", replicate_key="replicate")  # fmt: skip
    cells = read_cells(adata, recipe)
    y, arm = make_arms(cells, 0, 1).moved(lambda rows: adata.X[cells.sources[rows]], np.array([4.0]))

    def mean(condition, replicate, time):
        own = adata[
            (adata.obs[["condition", "replicate"]] == [condition, replicate]).all(axis=1) & (adata.obs["time"] == time)
        ]
        return np.average(own.X.toarray(), axis=0, weights=own.obs["w"])

    by_hand = [mean(c, r, 4) - mean("baseline", r, 0) for c in ("control", "knock-out") for r in ("r1", "r2", "r3")]
    np.testing.assert_allclose(y, by_hand, atol=1e-5)
    assert arm.tolist() == [0, 0, 0, 1, 1, 1]


def test_shares_are_those_of_the_cells(compared):
    table = tw.get.compare_df(compared, "composition")
    cells = compared.obs[compared.obs["time"] == 4]
    by_hand = pd.crosstab(cells["condition"], cells["cell_type"], normalize="index")
    found = table[table["time"] == 4].set_index("group")
    for name, row in found.iterrows():  # units have as many cells each
        assert row["share_reference"] == pytest.approx(by_hand.loc["control", name], abs=1e-9)
        assert row["share"] == pytest.approx(by_hand.loc["knock-out", name], abs=1e-9)
    assert 0.0 not in set(table["time"])


def test_it_survives_a_file_and_is_drawn(compared, tmp_path):
    compared.write_h5ad(tmp_path / "compared.h5ad")
    again = anndata.read_h5ad(tmp_path / "compared.h5ad")
    for name in ("fates", "composition", "divergence", "genes"):
        pd.testing.assert_frame_equal(
            tw.get.compare_df(again, name), tw.get.compare_df(compared, name), check_dtype=False
        )
    axes = tw.pl.compare(again, show=False)
    assert len(axes) == 4
    assert len(axes[0].get_yticklabels()) == len(tw.get.compare_df(again))
    assert tw.pl.compare(again, panels="divergence", show=False).get_xlabel() == "time"


def test_a_batch_effect_moves_no_mean(compared):
    """What a replicate has at all times cancels, whatever its size."""
    recipe = Recipe(
        "time", use_rep="X_latent", condition_key="condition", baseline="baseline", replicate_key="replicate"
    )
    cells = read_cells(compared, recipe)
    shifted = compared.copy()
    shifted.obsm["X_latent"] += 9.0 * shifted.obs["replicate"].cat.codes.to_numpy()[:, None]
    moved = [
        make_arms(one, 0, 1).moved(lambda rows, one=one: one.x[rows], np.array([4.0]))[0]
        for one in (cells, read_cells(shifted, recipe))
    ]
    np.testing.assert_allclose(*moved, atol=1e-5)


def test_the_onset_is_the_first_time_that_holds_for_all():
    table = pd.DataFrame({"time": [0.0, 1.0, 2.0], "p_adjusted": [np.nan, 0.06, 0.01]})
    assert onset(table) == 2.0
    assert np.isnan(onset(table.assign(p_adjusted=0.5)))


def test_p_values_of_all_times_are_those_of_holm():
    """By hand: sorted .01, .02, .03 times 3, 2, 1, and never falling."""
    np.testing.assert_allclose(holm(np.array([0.02, np.nan, 0.01, 0.03])), [0.04, np.nan, 0.03, 0.04])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1, 1])


def test_methods_without_bridges_train_anew(small, caplog):
    with caplog.at_level("INFO", "thalweg"):
        tw.tl.compare(small, "condition", "cell_type", replicate_key="replicate", rng=0)
    assert caplog.text.count("otcfm: 5 steps") == 6  # of each replicate of each arm
    assert len(tw.get.compare_df(small)) == 5
    assert not len(tw.get.compare_df(small, "genes"))


def test_without_replicates_there_are_no_p_values(small, caplog):
    tw.tl.compare(small, "condition", "cell_type", rng=0)
    assert "without replicate_key nothing tells" in caplog.text
    table = tw.get.compare_df(small)
    assert table["p"].isna().all()
    assert table["difference"].notna().all()
    assert np.isnan(small.uns["compare"]["onset"]["time"]).all()


def test_a_replicate_of_one_day_has_no_fate(small, caplog):
    alone = (small.obs["replicate"] == "r3") & (small.obs["condition"] == "control") & (small.obs["time"] > 1)
    only = (small.obs["replicate"] == "r3") & (small.obs["condition"] == "baseline")
    some = small[~alone].copy()
    tw.tl.compare(some, "condition", "cell_type", replicate_key="replicate", rng=0)  # it shares the baseline
    assert "replicate 'r3' of condition 'control' has cells of the times [0.0, 1.0] only" in caplog.text
    assert caplog.text.count("does not count") == 1
    cells = small[~(alone | only) & (small.obs["condition"] != "baseline")].copy()
    tw.tl.fit(cells, "time", method="otcfm", config=QUICK, **(FIT | {"baseline": None}))
    tw.tl.compare(cells, "condition", "cell_type", replicate_key="replicate", rng=0)
    assert "replicate 'r3' of condition 'control' has cells of the times [1.0] only" in caplog.text


def test_samples_of_one_day_each_have_shares_but_no_fates(small, caplog):
    small.obs["sample"] = small.obs["day"].astype(str) + small.obs["replicate"].astype(str)
    cells = small[small.obs["condition"] != "baseline"].copy()
    tw.tl.fit(cells, "time", method="otcfm", config=QUICK, **(FIT | {"baseline": None}))
    tw.tl.compare(cells, "condition", "cell_type", replicate_key="sample", rng=0)
    assert "number them alike at each time" in caplog.text
    table = tw.get.compare_df(cells)
    assert table["p"].isna().all()
    assert table[["share", "share_reference"]].sum().tolist() == pytest.approx([1, 1])
    assert tw.get.compare_df(cells, "composition")["p"].notna().any()


def test_the_reference_is_fitted_once_for_all_arms(small, caplog):
    third = small[small.obs["condition"] == "knock-out"].copy()
    third.obs["condition"] = "rescue"
    third.obs_names = [f"{name}-rescue" for name in third.obs_names]
    several = anndata.concat([small, third])
    tw.tl.fit(several, "time", method="otcfm", config=QUICK, **FIT)
    caplog.clear()
    with caplog.at_level("INFO", "thalweg"):
        tw.tl.compare(several, "condition", "cell_type", replicate_key="replicate", reference="control", rng=0)
    assert caplog.text.count("otcfm: 5 steps") == 9  # of three arms
    assert set(tw.get.compare_df(several)["arm"]) == {"knock-out", "rescue"}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"condition_key": "replicate"}, InputError, "condition_key='replicate' is not that of the fit"),
        ({"reference": "wild type"}, InputError, r"reference='wild type' is none of the conditions \['control'"),
        ({"groupby": "cluster"}, MissingKeyError, "groupby='cluster' is not a column"),
        ({"replicate_key": "mouse"}, MissingKeyError, "replicate_key='mouse' is not a column"),
        ({"key": "other"}, MissingKeyError, "other"),
        ({"genes": True}, InputError, r"adata.X is None"),
    ],
)
def test_what_cannot_be_compared_is_named(small, options, error, says):
    given = {"condition_key": "condition", "groupby": "cell_type", "replicate_key": "replicate"} | options
    before = set(small.uns)
    with pytest.raises(error, match=says):
        tw.tl.compare(small, **given)
    assert set(small.uns) == before


def test_arms_that_never_meet_are_refused(small):
    apart = small[(small.obs["condition"] != "control") | (small.obs["time"] < 2)]
    apart = apart[(apart.obs["condition"] != "knock-out") | (apart.obs["time"] >= 2)].copy()
    with pytest.raises(InputError, match=r"'control' and 'knock-out' were never observed at the same time"):
        tw.tl.compare(apart, "condition", "cell_type", replicate_key="replicate")


def test_tables_are_asked_for_by_name(compared):
    with pytest.raises(InputError, match="table must be one of"):
        tw.get.compare_df(compared, "fate")
    with pytest.raises(MissingKeyError, match="holds no comparison"):
        tw.get.compare_df(compared, key="other")
    with pytest.raises(InputError, match="arm must be one of"):
        tw.pl.compare(compared, arm="control")
