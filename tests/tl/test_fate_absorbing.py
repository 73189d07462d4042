"""Groups that hold cells at any time: chains and diffusions in closed form, mass that dies out, refusals."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch
from scipy.stats import norm

import thalweg as tw
from courses import forked
from thalweg.errors import InputError
from thalweg.flows import store
from thalweg.tl._fates import plans

SHORT = tw.tl.FitConfig(max_steps=20, width=8, depth=1, validate_every=10)


def still(t, x, c):
    return torch.zeros_like(x)


@pytest.fixture
def chain(cells):
    """All cells in one place: one of four is held at time 1 and one of two at time 2, where none is left at time 3."""
    points = {0.0: [[0.0]], 1.0: [[0.0]] * 4, 2.0: [[0.0]] * 2, 3.0: [[0.0]]}
    return cells(points, kind=["start", "gone", "mid", "mid", "mid", "gone", "mid", "end"])


def test_a_chain_has_the_absorption_probabilities_of_its_shares(known, chain):
    known(chain, still)
    tw.tl.fate(chain, "kind", terminal=["gone", "end"], absorbing=["gone"])
    gone = chain.obsm["fate_kind"]["gone"].to_numpy()
    np.testing.assert_allclose(gone, [1 / 4 + 3 / 4 / 2, 1, 0.5, 0.5, 0.5, 1, 0, 0], atol=1e-12)
    np.testing.assert_array_equal(chain.obs["fate_kind_se"].to_numpy()[[1, 5, 7]], 0)
    assert list(chain.uns["fate_kind"]["absorbing"]) == ["gone"]


def test_descendants_count_as_they_enter_the_group(known, chain):
    """Mass doubles in a unit of time: 1/4 is held with 2, 3/8 with 4, and 3/8 goes on to 8."""
    known(chain, still, growth=lambda t, x, c: np.log(2) + 0 * x[:, 0])
    tw.tl.fate(chain, "kind", terminal=["gone", "end"], absorbing=["gone"])
    held, rest = 1 / 4 * 2 + 3 / 8 * 4, 3 / 8 * 8
    assert chain.obsm["fate_kind"]["gone"].iloc[0] == pytest.approx(held / (held + rest), rel=1e-4)


@pytest.mark.parametrize("start", [0.0, 0.6])
def test_a_diffusion_that_is_held_on_one_side_at_one_time(known, cells, start):
    """Held on the right at time 1: Phi(x / s), whatever happens later; the rest ends in the only other group."""
    s, n, line = 0.9, 3000, np.linspace(-8, 8, 400)[:, None]
    adata = cells(
        {0.0: [[start]], 1.0: line, 2.0: line}, kind=["start", *np.where(line[:, 0] > 0, "held", "mid"), *["end"] * 400]
    )
    known(adata, still, score=still, sigma=s, method="sf2m")
    tw.tl.fate(adata, "kind", absorbing=["held"], n_samples=n, n_neighbors=1, rng=0)
    truth = norm.cdf(start / s)
    error = np.sqrt(truth * (1 - truth) / n)
    assert adata.obsm["fate_kind"]["held"].iloc[0] == pytest.approx(truth, abs=4 * error)
    assert adata.obs["fate_kind_se"].iloc[0] == pytest.approx(error, rel=0.1)


def test_a_cell_that_is_not_held_takes_no_part_in_the_fates_of_cells_that_are(known, cells):
    """Its neighbour is held, and it is not: its fate is that of its own future."""
    adata = cells({0.0: [[0.0], [0.0]], 1.0: [[0.0]]}, kind=["held", "start", "end"])
    known(adata, still)
    tw.tl.fate(adata, "kind", absorbing=["held"], n_neighbors=2)
    np.testing.assert_allclose(adata.obsm["fate_kind"]["held"], [1, 0, 0], atol=1e-12)


def test_groups_of_one_condition(known, cells):
    """Arm u is held at time 1, arm v never."""
    adata = cells(
        {0.0: np.zeros((2, 1)), 1.0: np.zeros((4, 1)), 2.0: np.zeros((2, 1))},
        kind=["s", "s", "gone", "m", "m", "m", "end", "end"],
        arm=["u", "v", "u", "u", "v", "v", "u", "v"],
    )
    known(adata, still, condition_key="arm")
    tw.tl.fate(adata, "kind", absorbing=["gone"])
    np.testing.assert_allclose(adata.obsm["fate_kind"]["gone"], [0.5, 0, 1, 0, 0, 0, 0, 0], atol=1e-12)


@pytest.fixture(scope="module")
def fork():
    """A fork whose upper cells are named E at time 1."""
    adata = forked()
    early = (adata.obs["time"] == 1.0) & (adata.obs["type"] == "A")
    adata.obs["end"] = np.where(early, "E", np.where(adata.obs["time"] == 2.0, adata.obs["type"].astype(str), "mid"))
    tw.tl.fit(adata, "time", method="usb", rng=0, config=SHORT)
    return adata


def test_along_plans_the_rows_of_held_cells_are_their_group(fork):
    """One plan at a time written out, the mean over relaxations."""
    from thalweg.core.ot import unbalanced
    from thalweg.core.ot.entropic import solve_entropic

    names = ["A", "B", "E"]
    tw.tl.fate(fork, "end", terminal=["A", "B"], absorbing=["E"])
    assert list(fork.obsm["fate_end"].columns) == names
    x, time = np.asarray(fork.obsm["X_pca"], dtype=float), fork.obs["time"].to_numpy()
    of = np.stack([fork.obs["end"] == g for g in names], 1).astype(float)
    stored, each = fork.uns["thalweg"], []
    y = (x - stored["center"]) / stored["scale"] / (plans.SPREAD * stored["diffusion"])
    for relaxation in plans.RELAXATIONS:
        later = of[time == 2.0]
        for t in (1.0, 0.0):
            z0, z1 = (torch.from_numpy(y[time == s].astype(np.float32).astype(float)) for s in (t, t + 1))
            tau = None if relaxation is None else relaxation * unbalanced.displacement(z0, z1)
            plan = solve_entropic(z0, z1, epsilon=2.0, tau_a=tau, tau_b=tau)
            mass = torch.exp((plan.f[:, None] + plan.g - torch.cdist(z0, z1) ** 2) / 2.0).numpy()
            own = of[time == t]
            later = np.where(own.any(1, keepdims=True), own, mass / mass.sum(1, keepdims=True) @ later)
        each.append(later)
    found = fork.obsm["fate_end"].to_numpy()
    np.testing.assert_allclose(found[time == 0.0], np.mean(each, 0), atol=5e-3)
    held = (fork.obs["end"] == "E").to_numpy()
    np.testing.assert_array_equal(found[held], of[held])
    assert (fork.obs["fate_end_se"][held] == 0).all()


@pytest.mark.parametrize("kind", ["plan", "flow"])
def test_mass_that_dies_out_keeps_its_share(fork, kind):
    """The upper branch ends at time 1. Held there it has its share; else every cell seems to end in B."""
    adata = fork[~((fork.obs["time"] == 2.0) & (fork.obs["type"] == "A"))].copy()
    share = (adata.obs["end"][adata.obs["time"] == 1.0] == "E").mean()
    first = (adata.obs["time"] == 0.0).to_numpy()
    tw.tl.fit(adata, "time", method="usb", rng=0, config=tw.tl.FitConfig(max_steps=400, width=32, validate_every=100))
    tw.tl.fate(adata, "end", terminal=["E", "B"], absorbing=["E"], kind=kind, n_samples=10, rng=0)
    assert adata.obsm["fate_end"]["E"][first].mean() == pytest.approx(share, abs=0.07)
    tw.tl.fate(adata, "end", terminal=["B"], kind=kind, n_samples=2, rng=0)
    np.testing.assert_allclose(adata.obsm["fate_end"], 1)
    with pytest.raises(InputError, match=r"terminal=\['E'\] have no cells at the last time.*absorbing=\['E'\]"):
        tw.tl.fate(adata, "end", terminal=["E", "B"], kind=kind)


def test_groups_of_the_last_time_alone_are_as_before(fork):
    plain, asked = (tw.tl.fate(fork, "end", absorbing=a, copy=True).obsm["fate_end"] for a in (False, ["A", "B"]))
    np.testing.assert_array_equal(plain, asked)


def test_cells_that_have_arrived_do_not_die(known, cells):
    adata = cells(
        {0.0: [[0.0]], 1.0: [[0.0]] * 2, 2.0: [[0.0]]},
        kind=["s", "held", "m", "end"],
        birth=[0.0] * 4,
        death=[0, 9, 1, 0],
    )
    known(adata, still, growth_key="birth")
    stored = store._unpack(None, "cpu")
    object.__setattr__(stored, "recipe", replace(stored.recipe, death_key="death"))
    tw.tl.fate(adata, "kind", absorbing=["held"], include_died=True)
    died = adata.obsm["fate_kind"]["died"].to_numpy()
    np.testing.assert_allclose(died, [(1 - np.exp(-1)) / 2, 0, 1 - np.exp(-1), 0], atol=1e-9)


def test_all_groups_of_the_column_with_and_without_terminal(known, chain, tmp_path):
    known(chain, still)
    chain.obs["kind"] = chain.obs["kind"].where(chain.obs["kind"].isin(["gone", "end"]))
    by_name = tw.tl.fate(chain, "kind", absorbing=["gone", "end"], copy=True).obsm["fate_kind"]
    for options in ({}, {"terminal": ["gone", "end"]}):
        found = tw.tl.fate(chain, "kind", absorbing=True, copy=True, **options)
        np.testing.assert_array_equal(found.obsm["fate_kind"], by_name)
    found.write_h5ad(tmp_path / "a.h5ad")
    assert set(ad.read_h5ad(tmp_path / "a.h5ad").uns["fate_kind"]["absorbing"]) == {"gone", "end"}


def test_what_cannot_hold_is_refused(known, chain):
    known(chain, still)
    with pytest.raises(InputError, match=r"found 'gone'; use \['gone'\]"):
        tw.tl.fate(chain, "kind", absorbing="gone")
    with pytest.raises(InputError, match=r"absorbing=\['nowhere'\] have no cells; groups of obs\['kind'\]: \['end'"):
        tw.tl.fate(chain, "kind", absorbing=["nowhere"])
    with pytest.raises(InputError, match="every cell of obs"):
        tw.tl.fate(chain, "kind", absorbing=True)
    chain.obs.loc["c7", "kind"] = None
    with pytest.raises(InputError, match="no cell of a terminal group is left at time 3"):
        tw.tl.fate(chain, "kind", terminal=["gone"], absorbing=["gone"])
    assert "fate_kind" not in chain.obsm
