"""Bent paths of a course: what bends is the movement of the populations, condition by condition."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.core.couplings import Coupling
from thalweg.data.cells import Cells
from thalweg.flows.bending import find_bend
from thalweg.flows.coupling import couple
from thalweg.flows.draws import prediction_sampler
from thalweg.flows.methods import METHODS, Method
from thalweg.flows.store import load_fit
from thalweg.flows.time_axis import make_axis

TIMES = np.array([0.0, 1.0, 1.5, 3.0, 4.0])


def on_a_circle(t):
    return 5 * np.stack([np.cos(t / 2), np.sin(t / 2)], -1)


def course(curve=on_a_circle, n=60, seed=0, conditions=()):
    rng = np.random.default_rng(seed)
    parts, labels = [], []
    for k in range(max(1, len(conditions))):
        sign = 1 - 2 * k
        parts.append([sign * curve(t) + 0.1 * rng.normal(size=(n, 2)) for t in TIMES])
        labels.append(np.full(n * len(TIMES), k))
    x = np.concatenate([np.concatenate(p) for p in parts])
    time = np.tile(np.repeat(TIMES, n), max(1, len(conditions)))
    return Cells(x, time, np.ones(len(x)), np.concatenate(labels), conditions)


def bend_of(cells, method, **options):
    axis, z = make_axis(cells.times, "real"), torch.from_numpy(cells.x).float()
    method = METHODS[method] if isinstance(method, str) else method
    coupled = couple(cells, z, axis, method, tw.tl.FitConfig(**options), 0.1, {})
    return find_bend(cells, z, axis, coupled), coupled, axis, z


@pytest.mark.parametrize("method", ["otcfm", "uotcfm", "icfm", "sf2m", "am"])
def test_paths_follow_a_circle(method):
    cells = course()
    bend, coupled, axis, z = bend_of(cells, method)
    off = []
    for with_bend in (bend, None):
        sampler = prediction_sampler(cells, z, axis, METHODS[method], 0.01, coupled, with_bend)
        drawn = sampler.batch(4000, torch.Generator().manual_seed(0))
        s = drawn.batch.t * 4  # of the whole course, in units of time
        inner = (s > 1) & (s < 3)
        true = torch.from_numpy(on_a_circle(s[inner].numpy())).float()
        # the mean over the cells, in slices of time
        slices = torch.bucketize(s[inner], torch.linspace(1, 3, 11))
        away = [(drawn.batch.x_t[inner] - true)[slices == k].mean(0).norm() for k in range(1, 11)]
        off.append(float(torch.stack(away).max()))
    assert off[0] < 0.4 * off[1]  # three inner times: four fifths of the bend


def test_conditions_bend_by_themselves_and_time_runs_by_the_axis():
    cells = course(conditions=("a", "b"))
    bend, *_ = bend_of(cells, "otcfm")
    (e0, e1), n = (bend.e0, bend.e1), len(TIMES)
    torch.testing.assert_close(e0[:n], -e0[n : 2 * n], rtol=0.3, atol=0.1)  # mirrored
    assert not e0[[0, n]].any()  # nothing comes before the first time
    assert not e1[[n - 1, 2 * n - 1]].any()
    assert float(e0[2].norm()) > 0.2


def test_what_does_not_turn_does_not_bend():
    straight = course(lambda t: np.stack([2 * np.asarray(t), -np.asarray(t)], -1), n=400)
    bend, *_ = bend_of(straight, "otcfm")
    assert float(bend.e0.abs().max()) < 0.1
    two = straight.take(np.flatnonzero(straight.time < 1.2))
    assert bend_of(two, "otcfm")[0] is None


def test_growth_is_no_movement():
    """Two clusters at rest, of which one grows and shrinks: the mean of all cells turns, that of the pairs does not."""
    rng = np.random.default_rng(0)
    share = {0.0: 0.5, 1.0: 0.8, 1.5: 0.6, 3.0: 0.3, 4.0: 0.5}
    x, time = [], []
    for t, p in share.items():
        at = np.where(np.arange(200) < 200 * p, 0.0, 30.0)
        x.append(np.stack([at, np.zeros(200)], 1) + rng.normal(size=(200, 2)))
        time.append(np.full(200, t))
    cells = Cells(np.concatenate(x), np.concatenate(time), np.ones(1000), np.zeros(1000, dtype=np.int64))
    with_growth, balanced = (bend_of(cells, m)[0].e0.norm(dim=1).max() for m in ("uotcfm", "otcfm"))
    assert float(with_growth) < 0.2 * float(balanced)


def test_a_coupling_that_says_nothing_of_its_pairs_stays_straight():
    class Mine(Coupling):
        def sample(self, n, generator):
            i = torch.zeros(n, dtype=torch.int64)
            return i, i

        def restrict(self, keep):
            return self

        def to(self, device):
            return self

    def mine(x0, x1, a, b):
        return Mine()

    method = Method("mine", mine, METHODS["otcfm"].path)
    assert bend_of(course(), method)[0] is None


def test_the_option_is_checked():
    with pytest.raises(tw.errors.InputError, match="path must be 'cubic' or 'straight', found 'curved'"):
        tw.tl.FitConfig(path="curved")
    with pytest.raises(tw.errors.InputError, match=r"one number or several; found \(\)"):
        tw.tl.FitConfig(relaxation=())
    with pytest.raises(tw.errors.InputError, match="relaxation must be positive"):
        tw.tl.FitConfig(relaxation=(0.5, -1.0))


@pytest.mark.parametrize("given", [0.5, (0.25, 1.0), [0.3, 2.0]])
def test_one_relaxation_or_several_survive_a_file(given, tmp_path):
    adata = tw.datasets.simulated(90, times=(0.0, 1.0, 2.0), n_futures=0, rng=0)
    tw.tl.fit(adata, "time", method="uotcfm", rng=0, config=tw.tl.FitConfig(max_steps=5, relaxation=given), check=False)
    before = tw.tl.interpolate(adata, 0.5).obsm["X_pca"]
    adata.write_h5ad(tmp_path / "fitted.h5ad")
    back = anndata.read_h5ad(tmp_path / "fitted.h5ad")
    assert load_fit(back.uns["thalweg"], "thalweg").config.relaxations == tuple(np.atleast_1d(given))
    np.testing.assert_array_equal(tw.tl.interpolate(back, 0.5).obsm["X_pca"], before)
