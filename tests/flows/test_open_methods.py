"""A method of the user's own, and predictors: fitted, stored, read back and scored like those of the package."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
import torch

import last_bits
import thalweg as tw
from courses import make_course
from thalweg.core import couplings, paths
from thalweg.errors import InputError
from thalweg.flows.methods import METHODS


def mirrored(x0, x1, a, b):
    """Each cell is paired with the one that has its rank along the first axis, from the other end."""
    rows, cols = x0[:, 0].argsort(), x1[:, 0].argsort(descending=True)
    return couplings.Plan(rows, cols, torch.full((len(rows),), 1 / len(rows), dtype=torch.float64), (len(x0), len(x1)))


OWN = tw.tl.Method("mirrored", mirrored, paths.Linear, sigma=0.01)


@pytest.fixture
def own(quick):
    adata = make_course()
    tw.tl.fit(adata, "time", method=OWN, rng=0, config=quick)
    return adata


def test_the_pairs_are_those_of_the_own_coupling(own):
    """Ranks are reversed: cells that start ahead are carried backwards, so their velocities fall with their place."""
    start = own.obs["time"] == 0
    tw.tl.velocity(own)
    place, v = (own[start].obsm[key][:, 0] for key in ("X_pca", "velocity_X_pca"))
    assert np.corrcoef(place, v)[0, 1] < -0.9
    assert own.uns["thalweg"]["intervals"]["coupling"].tolist() == ["mirrored", "mirrored"]
    assert own.uns["thalweg"]["params"]["method"] == "mirrored"


def test_it_is_stored_and_read_back_where_its_code_is_not(own, tmp_path):
    own.write_h5ad(tmp_path / "own.h5ad")
    expected = tw.tl.interpolate(own, 2.0).obsm["X_pca"]
    np.save(tmp_path / "expected.npy", expected)
    code = (
        "import anndata, numpy as np, thalweg as tw; tw.settings.verbosity = 'error'\n"
        f"adata = anndata.read_h5ad({str(tmp_path / 'own.h5ad')!r})\n"
        f"expected = np.load({str(tmp_path / 'expected.npy')!r})\n"
        f"np.testing.assert_allclose(tw.tl.interpolate(adata, 2.0).obsm['X_pca'], expected, **{last_bits.SOLVED})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    again = ad.read_h5ad(tmp_path / "own.h5ad")
    with pytest.raises(InputError, match=r"coupling of this fit is a function of your own.*kind='flow'"):
        tw.tl.transition(again, kind="plan")
    tw.tl.transition(again)  # by the flow it can


def test_an_own_method_with_growth_learns_the_marginals_of_its_plan():
    """A front cell leaves two units of mass where one arrives, a back cell a tenth where 1.1 arrive."""

    def favours_the_front(x0, x1, a, b):
        (back, front), (low, high) = (x[:, 1].argsort().chunk(2) for x in (x0, x1))
        rows, cols = torch.cat([front, front, back]), torch.cat([high, low, low])
        mass = torch.cat([torch.ones(2 * len(front)), torch.full((len(back),), 0.1)]).double() / len(x0)
        return couplings.Plan(rows, cols, mass, (len(x0), len(x1)))

    adata = make_course()
    method = tw.tl.Method("front", favours_the_front, paths.Linear, growth=True)
    tw.tl.fit(adata, "time", method=method, rng=0, config=tw.tl.FitConfig(max_steps=300, width=32))
    cells = tw.tl.interpolate(adata, 0.9, source_time=0.0)
    place = adata[cells.obs["source"]].obsm["X_pca"][:, 1]
    front = cells.obs["weight"][place > np.median(place)].sum()
    assert front > 0.65  # by hand .94, were the rates a step; half without growth


def test_methods_of_ones_own_take_no_name_of_the_package_and_check_what_they_are():
    with pytest.raises(InputError, match="the name 'otcfm' is taken"):
        tw.tl.fit(make_course(), "time", method=tw.tl.Method("otcfm", mirrored, paths.Linear))
    with pytest.raises(InputError, match="coupling must be a function or one of 'independent'"):
        tw.tl.Method("x", "nearest", paths.Linear)
    with pytest.raises(InputError, match="field must be one of velocity, potential, noise"):
        tw.tl.Method("x", "exact", paths.Linear, field="map")
    with pytest.raises(InputError, match="needs a name"):
        tw.tl.Method("", "exact", paths.Linear)
    with pytest.raises(InputError, match=r"or give a tw\.tl\.Method"):
        tw.tl.fit(make_course(), "time", method="mirrored")
    assert tw.tl.Method("y", "exact", paths.Linear).name not in METHODS


def test_a_coupling_that_returns_none_is_named(quick):
    method = tw.tl.Method("pairs", lambda x0, x1, a, b: (x0, x1), paths.Linear)
    with pytest.raises(InputError, match=r"coupling '<lambda>' of method 'pairs' must return .*Coupling, found tuple"):
        tw.tl.fit(make_course(), "time", method=method, config=quick)


# --- predictors ------------------------------------------------------------------------------------------------------


def straight(cells, time):
    """Every cell of the time before moves with the mean of its population."""
    before, after = cells.times[cells.times < time][-1], cells.times[cells.times > time][0]
    speed = (cells.at(after).mean(0) - cells.at(before).mean(0)) / (after - before)
    return cells.at(before) + speed * (time - before)


def test_a_predictor_is_scored_beside_methods_and_sees_no_held_out_cell(quick):
    seen = []

    def spy(cells, time):
        seen.append((time, cells.times.tolist()))
        return straight(cells, time)

    adata = make_course(times=(0.0, 1.0, 3.0, 4.0))
    table = tw.tl.leave_one_out(adata, "time", methods=["otcfm", OWN, spy], n_seeds=2, config=quick)
    assert seen == [(1.0, [0.0, 3.0, 4.0]), (3.0, [0.0, 1.0, 4.0])]
    assert table.groupby("method").size().to_dict() == {
        "copy-previous": 2, "floor": 4, "floor-corrected": 2, "mirrored": 4, "ot-midpoint": 2, "otcfm": 4, "spy": 2,
    }  # fmt: skip
    mean = table.groupby("method")["w1"].mean()
    assert mean["spy"] < 1.3 * mean["floor"]  # clouds that move without a change of shape
    assert mean["spy"] < 0.3 * mean["copy-previous"]


def test_weights_and_random_numbers_of_a_predictor_count(quick):
    def sampled(cells, time, rng):
        return straight(cells, time) + 0.01 * rng.normal(size=cells.at(cells.times[0]).shape)

    def weighted(cells, time):
        x = np.concatenate([straight(cells, time), np.full((5, 3), 100.0)])
        return x, np.r_[np.ones(len(x) - 5), np.full(5, 1e-12)]

    table = tw.tl.leave_one_out(make_course(), "time", methods=(sampled, weighted), n_seeds=3, config=quick, rng=7)
    assert table[table["method"] == "sampled"]["seed"].tolist() == [7, 8, 9]
    assert table[table["method"] == "sampled"]["w1"].nunique() == 3
    assert table[table["method"] == "weighted"]["w1"].item() < 1.0  # five cells far away that weigh nothing


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (np.zeros((5, 2)), r"coordinates of shape \(n, 3\), found shape \(5, 2\)"),
        (np.full((5, 3), np.nan), "15 NaN or infinite"),
        (np.zeros((0, 3)), r"found shape \(0, 3\)"),
        ((np.zeros((5, 3)), np.ones(4)), r"must be 5 non-negative numbers .*found shape \(4,\)"),
        ((np.zeros((5, 3)), -np.ones(5)), "must be 5 non-negative numbers"),
        ((np.zeros((5, 3)), np.zeros(5)), "with a positive sum"),
        ((np.zeros((5, 3)), np.full(5, np.nan)), "must be 5 non-negative numbers"),
    ],
)
def test_an_answer_that_is_no_population_is_named(quick, answer, match):
    with pytest.raises(InputError, match=match):
        tw.tl.leave_one_out(make_course(), "time", methods=lambda cells, time: answer, config=quick)


def test_what_cannot_be_scored_is_refused_before_any_work(course):
    with pytest.raises(InputError, match="two rows of the table would be named '<lambda>'"):
        tw.tl.leave_one_out(course, "time", methods=[lambda c, t: 0, lambda c, t: 1])
    with pytest.raises(InputError, match=r"names, tw\.tl\.Method objects or functions, found 3"):
        tw.tl.leave_one_out(course, "time", methods=[3])

    def floor(cells, time):
        return cells.x

    with pytest.raises(InputError, match="named 'floor'"):
        tw.tl.leave_one_out(course, "time", methods=floor)
