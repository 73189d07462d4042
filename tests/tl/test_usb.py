"""The unbalanced Schrödinger bridge through the verbs: drift and flow, fates along plans, conditions, resume."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

import thalweg as tw
from courses import forked, make_course
from thalweg.errors import InputError
from thalweg.flows import coupling
from thalweg.tl._fates import plans

SHORT = tw.tl.FitConfig(max_steps=20, width=8, depth=1, validate_every=10)


@pytest.fixture(scope="module")
def fork():
    adata = forked()
    tw.tl.fit(adata, "time", method="usb", rng=0, config=SHORT)
    return adata


def test_drift_is_the_default_where_there_is_a_score(course, quick):
    for method, kind in (("usb", "drift"), ("sf2m", "drift"), ("otcfm", "flow")):
        tw.tl.fit(course, "time", method=method, rng=0, config=quick)
        by_default, asked = (tw.tl.velocity(course, kind=k, copy=True).obsm["velocity_X_pca"] for k in (None, kind))
        np.testing.assert_array_equal(by_default, asked)
        if kind == "drift":
            assert not np.array_equal(by_default, tw.tl.velocity(course, kind="flow", copy=True).obsm["velocity_X_pca"])


def test_a_drift_that_is_unknown_is_refused(course, quick):
    tw.tl.fit(course, "time", method="otcfm", rng=0, config=quick)
    with pytest.raises(InputError, match="kind='drift' needs a score"):
        tw.tl.velocity(course, kind="drift")
    with pytest.raises(InputError, match="kind must be 'drift', 'flow' or None, found 'ode'"):
        tw.tl.velocity(course, kind="ode")
    assert "velocity_X_pca" not in course.obsm


def test_the_prediction_is_that_of_unbalanced_flow_matching(course):
    """The dynamics are learned beside it and do not disturb it."""
    config = tw.tl.FitConfig(max_steps=300)
    predicted = []
    for method in ("usb", "uotcfm"):
        tw.tl.fit(course, "time", method=method, rng=0, config=config)
        predicted.append(tw.tl.interpolate(course, 2.0))
    real = make_course(times=(2.0,), seed=1).obsm["X_pca"]
    scores = [tw.metrics.wasserstein(p.obsm["X_pca"], real, weights_x=p.obs["weight"]) for p in predicted]
    assert scores[0] == pytest.approx(scores[1], rel=0.05)


def test_fates_of_a_fork(fork):
    """Cells that have not parted are undecided in proportion to the shares; cells that have are certain."""
    tw.tl.fate(fork, "type")
    p, time = fork.obsm["fate_type"], fork.obs["time"]
    assert fork.uns["fate_type"]["kind"] == "plan"
    np.testing.assert_allclose(p.sum(1), 1)
    share = (fork.obs["type"][time == 2.0] == "A").mean()
    assert p["A"][time == 0.0].mean() == pytest.approx(share, abs=0.05)
    parted = fork.obs["type"][time == 1.0].astype(str)
    assert (p.idxmax(axis=1)[time == 1.0] == parted).mean() > 0.99
    assert (
        fork.obs["fate_type_confidence"][time == 0.0].mean()
        < 0.5
        < fork.obs["fate_type_confidence"][time == 1.0].mean()
    )


def test_fates_along_a_chain_are_the_products_of_its_plans(fork):
    """One plan at a time written out: the recursion, and the mean over relaxations."""
    tw.tl.fate(fork, "type", terminal=["A", "B"])
    found = fork.obsm["fate_type"].to_numpy()
    x, time = np.asarray(fork.obsm["X_pca"], dtype=float), fork.obs["time"].to_numpy()
    stored = fork.uns["thalweg"]
    y = (x - stored["center"]) / stored["scale"] / (plans.SPREAD * stored["diffusion"])
    import torch

    from thalweg.core.ot import unbalanced
    from thalweg.core.ot.entropic import solve_entropic

    each = []
    for relaxation in plans.RELAXATIONS:
        later = np.stack([fork.obs["type"][time == 2.0] == g for g in ("A", "B")], 1).astype(float)
        for t in (1.0, 0.0):
            z0, z1 = (torch.from_numpy(y[time == s].astype(np.float32).astype(float)) for s in (t, t + 1))
            tau = None if relaxation is None else relaxation * unbalanced.displacement(z0, z1)
            plan = solve_entropic(z0, z1, epsilon=2.0, tau_a=tau, tau_b=tau)
            mass = torch.exp((plan.f[:, None] + plan.g - torch.cdist(z0, z1) ** 2) / 2.0).numpy()
            later = mass / mass.sum(1, keepdims=True) @ later
        each.append(later)
    np.testing.assert_allclose(found[time == 0.0], np.mean(each, 0), atol=5e-3)


def test_growth_weighs_fates_only_where_it_was_given(monkeypatch):
    """A doubles between times 1 and 2, and no plan of this kind leads across: the odds of A double for every cell."""
    import anndata

    monkeypatch.setattr(plans, "RELAXATIONS", (1.0,))
    even, grown = forked(n=300), forked((2 / 3, 1 / 3), n=300, seed=1)
    late = grown[grown.obs["time"] == 2.0].copy()
    late.obs_names = [f"late{i}" for i in range(late.n_obs)]
    adata = anndata.concat([even[even.obs["time"] < 2.0], late])
    adata.obs["rate"] = np.where((adata.obs["time"] == 1.0) & (adata.obs["type"] == "A"), np.log(2.0), 0.0)
    odds, config = {}, replace(SHORT, growth_strength=np.inf)  # the rates as they are, whatever the cells' numbers
    for key in (None, "rate"):
        tw.tl.fit(adata, "time", method="usb", growth_key=key, rng=0, config=config)
        tw.tl.fate(adata, "type")
        p = adata.obsm["fate_type"]["A"][adata.obs["time"] == 0.0].to_numpy()
        odds[key] = p / (1 - p)
    np.testing.assert_allclose(odds["rate"] / odds[None], 2, rtol=0.05)


def test_fates_of_a_simulated_course_beat_the_vote_of_the_nearest_cells():
    """A floor well below what `benchmarks/single_cell/velocity.py` measures on larger courses."""
    adata = tw.datasets.simulated(1200, n_genes=60, rng=5)
    tw.tl.fit(adata, "time", method="usb", rng=0, config=SHORT)
    names = [str(name) for name in adata.uns["simulated"]["fates"]]
    tw.tl.fate(adata, "branch", terminal=names)
    early = (adata.obs["time"] < adata.obs["time"].max()).to_numpy()
    truth, p = np.asarray(adata.obsm["fate_true"])[early], adata.obsm["fate_branch"][names].to_numpy()[early]
    x, labels = np.asarray(adata.obsm["X_pca"]), adata.obs["branch"].astype(str).to_numpy()
    last = np.flatnonzero(~early & np.isin(labels, names))
    near = last[np.argsort(((x[early][:, None] - x[last]) ** 2).sum(2), axis=1)[:, :15]]
    vote = np.stack([(labels[near] == name).mean(1) for name in names], 1)
    correlation, of_vote = (np.corrcoef(q.ravel(), truth.ravel())[0, 1] for q in (p, vote))
    assert correlation > 0.92
    assert correlation > of_vote + 0.02
    assert tw.get.calibration_df(adata[early].copy(), "branch", "fate_true").attrs["ece"] < 0.06


def test_cells_of_no_terminal_group_lead_nowhere(fork):
    """Fates are those of a cell that ends in a terminal group, so others at the last time take no part."""
    adata = fork.copy()
    labels = adata.obs["type"].astype(str).to_numpy()
    late = np.flatnonzero(adata.obs["time"] == 2.0)
    labels[late[:20]] = "other"
    adata.obs["type"] = labels
    tw.tl.fate(adata, "type", terminal=["A", "B"])
    p = adata.obsm["fate_type"]
    assert list(p.columns) == ["A", "B"]
    np.testing.assert_allclose(p.sum(1), 1)
    time, parted = adata.obs["time"], fork.obs["type"].astype(str)
    for name in ("A", "B"):
        assert p[name][(time == 1.0) & (parted == name)].mean() > 0.95
    original = fork.obs["type"].astype(str).to_numpy()[late[:20]]
    assert (p.idxmax(axis=1).to_numpy()[late[:20]] == original).mean() > 0.95  # by its nearest neighbours


def test_half_of_a_type_without_its_name_does_not_halve_its_fate(fork):
    """Relaxed plans to the named cells know that the unnamed half is A too; dropping their mass would give 1 : 2."""
    adata = fork.copy()
    labels = adata.obs["type"].astype(str).to_numpy()
    late = np.flatnonzero((adata.obs["time"] == 2.0) & (labels == "A"))
    labels[late[::2]] = "other"
    adata.obs["type"] = labels
    tw.tl.fate(adata, "type", terminal=["A", "B"])
    tw.tl.fate(fork, "type", terminal=["A", "B"])
    before, after = (a.obsm["fate_type"]["A"][a.obs["time"] == 0.0].mean() for a in (fork, adata))
    dropped = before / 2 / (before / 2 + 1 - before)
    assert after > (before + dropped) / 2


def test_kinds_of_fate(fork, course, quick):
    asked = tw.tl.fate(fork, "type", kind="flow", n_samples=4, rng=0, copy=True)
    assert asked.uns["fate_type"]["kind"] == "flow"
    assert asked.uns["fate_type"]["stochastic"] == 1.0
    assert tw.tl.fate(fork, "type", stochastic=False, copy=True).uns["fate_type"]["kind"] == "flow"
    with pytest.raises(InputError, match="kind must be 'plan', 'flow' or None"):
        tw.tl.fate(fork, "type", kind="vote")
    tw.tl.fit(course, "time", method="otcfm", rng=0, config=quick)
    course.obs["type"] = "a"
    with pytest.raises(
        InputError, match=r"kind='plan' needs method='usb' or FitConfig\(score='learned'\), found 'otcfm'"
    ):
        tw.tl.fate(course, "type", kind="plan")


def test_the_standard_error_holds_what_the_plans_disagree_on(fork):
    """Where the three kinds of plan agree and a cell has many partners it is small; never less than their scatter."""
    tw.tl.fate(fork, "type")
    error, time = fork.obs["fate_type_se"], fork.obs["time"]
    assert (error[time == 2.0] == 0).all()
    assert 0 < error[time == 1.0].median() < error[time == 0.0].median() < 0.3


def test_conditions_are_apart_in_plans_and_fates():
    """Two conditions far apart, of which one ends as A alone and the other as B alone."""
    both = [forked((1.0, 0.0), n=80), forked((0.0, 1.0), n=80, seed=1)]
    for i, adata in enumerate(both):
        adata.obs["arm"] = "xy"[i]
        adata.obs_names = [f"{i}{name}" for name in adata.obs_names]
    import anndata

    adata = anndata.concat(both)
    tw.tl.fit(adata, "time", method="usb", condition_key="arm", rng=0, config=SHORT)
    tw.tl.fate(adata, "type")
    p = adata.obsm["fate_type"]
    assert (p["A"][adata.obs["arm"] == "x"] == 1).all()
    assert (p["B"][adata.obs["arm"] == "y"] == 1).all()
    for verb in (tw.tl.velocity, tw.tl.transition, tw.tl.log_likelihood):
        verb(adata)
    assert np.isfinite(adata.obsm["velocity_X_pca"]).all()
    assert set(tw.tl.interpolate(adata, 0.5).obs["arm"]) == {"x", "y"}


def test_plans_couple_the_cells_and_their_rows_are_those_of_the_bridge(fork):
    tw.tl.transition(fork, kind="plan")
    for matrix in tw.get.couplings(fork).values():
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-4)


def test_large_populations_are_represented_by_a_part(monkeypatch, caplog):
    adata = forked(n=150)
    tw.tl.fit(adata, "time", method="usb", rng=0, config=SHORT)
    tw.tl.fate(adata, "type")
    whole = adata.obsm["fate_type"]["A"]
    monkeypatch.setattr(coupling, "LARGEST", 60)
    tw.tl.fit(adata, "time", method="usb", rng=0, config=SHORT)
    tw.tl.fate(adata, "type")
    assert "60 of 150 cells, drawn at random, represent a population" in caplog.text
    part = adata.obsm["fate_type"]["A"]
    assert np.isfinite(part).all()
    assert np.corrcoef(whole, part)[0, 1] > 0.98


@pytest.mark.parametrize("last", [26, 66])
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path, course, last):
    """Killed while the prediction is trained, and while the dynamics are."""
    config = tw.tl.FitConfig(max_steps=40, width=8, depth=1, validate_every=10)
    tw.tl.fit(course, "time", method="usb", rng=0, config=config, key_added="whole")
    options = {"method": "usb", "rng": 0, "config": config, "checkpoint_dir": tmp_path, "checkpoint_every": 10}
    from thalweg.training import loop

    step, calls = loop._step, []

    def killed(*args):
        calls.append(1)
        if len(calls) == last:
            raise KeyboardInterrupt
        return step(*args)

    loop._step = killed
    try:
        with pytest.raises(KeyboardInterrupt):
            tw.tl.fit(course, "time", key_added="part", **options)
    finally:
        loop._step = step
    tw.tl.fit(course, "time", key_added="part", resume=True, **options)
    np.testing.assert_array_equal(course.uns["part"]["weights"]["0"], course.uns["whole"]["weights"]["0"])


def test_a_diffusion_that_is_not_that_of_the_networks_is_refused(fork):
    adata = fork.copy()
    adata.uns["thalweg"]["diffusion"] = adata.uns["thalweg"]["diffusion"] * 2
    with pytest.raises(InputError, match="diffusion is not that of its networks"):
        tw.tl.velocity(adata)


def test_a_constant_column_is_no_obstacle(course):
    x = np.asarray(course.obsm["X_pca"])
    course.obsm["X_pca"] = np.c_[x, np.ones(len(x), dtype=x.dtype)]
    course.obs["type"] = "a"
    tw.tl.fit(course, "time", method="usb", rng=0, config=SHORT)
    tw.tl.velocity(course)
    tw.tl.fate(course, "type")
    assert np.isfinite(course.obsm["velocity_X_pca"]).all()
    assert (course.obsm["fate_type"] == 1).all(axis=None)


@pytest.mark.parametrize("method", ["otcfm", "uotcfm", "am", "fm"])
def test_a_score_may_be_learned_beside_any_method(course, quick, method, tmp_path):
    """The dynamics are those of usb, to the bit where the draws are the same; predictions stay the method's own."""
    import anndata

    config = dataclasses.replace(quick, score="learned")
    tw.tl.fit(course, "time", method=method, rng=0, config=config)
    course.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert back.uns["thalweg"]["params"]["method"] == method
    for a in (course, back):
        tw.tl.velocity(a)
        tw.tl.trajectories(a, 2, rng=0)
        tw.tl.interpolate(a, 0.5)
    np.testing.assert_array_equal(course.obsm["velocity_X_pca"], back.obsm["velocity_X_pca"])
    own = tw.tl.fit(course, "time", method="usb", rng=0, config=quick, copy=True).uns["thalweg"]["diffusion"]
    np.testing.assert_array_equal(course.uns["thalweg"]["diffusion"], own)


def test_a_learned_score_is_refused_where_it_would_change_nothing(course, quick):
    with pytest.raises(InputError, match=r"config\.score='learned' changes no prediction"):
        tw.tl.leave_one_out(course, "time", config=dataclasses.replace(quick, score="learned"))


def test_a_score_is_not_learned_twice(course, quick):
    with pytest.raises(InputError, match="method='sf2m' is a bridge of its own"):
        tw.tl.fit(course, "time", method="sf2m", config=dataclasses.replace(quick, score="learned"))
    with pytest.raises(InputError, match="score must be 'learned' or None, found 'kde'"):
        tw.tl.FitConfig(score="kde")


def test_the_diffusion_of_sf2m_may_be_learned(course, quick):
    tw.tl.fit(course, "time", method="sf2m", rng=0, config=dataclasses.replace(quick, sigma="auto"))
    entry = course.uns["thalweg"]
    assert (entry["diffusion"] == entry["params"]["sigma"]).all()
    assert entry["params"]["sigma"] != 0.25
    assert tw.tl.trajectories(course, 2, stochastic=True, rng=0).n_obs


def test_held_out_times_are_scored_with_the_prediction(course):
    table = tw.tl.leave_one_out(course, "time", methods=("usb",), rng=0, n_seeds=1, config=SHORT)
    assert np.isfinite(table.set_index("method").loc["usb", "w1"])
