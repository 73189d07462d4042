"""The diffusion of a course, recovered from the days between two others where it is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.data.cells import Cells
from thalweg.errors import InputError
from thalweg.flows import diffusion, normalisation
from thalweg.flows.config import FitConfig
from thalweg.flows.methods import METHODS
from thalweg.flows.time_axis import make_axis


def cells_of(x, time, condition=None):
    names = () if condition is None else tuple("abc"[: int(np.max(condition)) + 1])
    codes = np.zeros(len(x), dtype=np.int64) if condition is None else condition
    return Cells(np.asarray(x, dtype=float), np.asarray(time, dtype=float), np.ones(len(x)), codes, names)


def expanding(sigma, times=(0.0, 1.0, 2.0, 4.0), n=400, seed=0):
    """Cells that start at a point and diffuse freely, each observed once: N(0, .2^2 + sigma^2 t)."""
    rng = np.random.default_rng(seed)
    time = np.repeat(times, n)
    return rng.normal(size=(len(time), 2)) * np.sqrt(0.04 + sigma**2 * time)[:, None], time


def found(x, time, *, limited=True, default=0.8, condition=None):
    cells = cells_of(x, time, condition)
    z = normalisation.normalise(cells.x, *normalisation.measure(cells.x))
    return diffusion.estimate(cells, z, make_axis(cells.times, "real"), default, limited=limited), cells


@pytest.mark.parametrize("sigma", [0.5, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_free_diffusion_is_recovered(sigma, seed):
    x, time = expanding(sigma, seed=seed)
    result, cells = found(x, time, limited=False, default=1.0)
    unit = np.ptp(time) / (len(np.unique(time)) - 1)
    true = sigma * np.sqrt(unit) / normalisation.measure(cells.x)[1]
    assert result.n_days == 2
    np.testing.assert_allclose(result.sigma, true, rtol=0.15)


@pytest.mark.parametrize("n_pcs", [5, 10])
def test_simulated_courses(n_pcs):
    """Within 15 % where components diffuse, at most .1 where they hold noise."""
    adata = tw.datasets.simulated(1500, rng=3, n_pcs=n_pcs)
    result, _ = found(adata.obsm["X_pca"], adata.obs["time"].to_numpy())
    scale = normalisation.measure(np.asarray(adata.obsm["X_pca"], dtype=float))[1]
    true = 0.5 * 3 * np.sqrt(1.25) / scale  # sigma of the landscape, loadings of norm 3, a mean interval of 1.25
    np.testing.assert_allclose(result.sigma[:5], true, rtol=0.15)
    assert (result.sigma[5:] <= 0.1).all()


def test_an_estimate_has_no_unit():
    x, time = expanding(1.0)
    one, other = found(x, time)[0], found(x * 1e3 + 5e3, time * 60)[0]
    np.testing.assert_allclose(one.sigma, other.sigma, rtol=0.02)


def test_a_component_is_limited_by_its_spread():
    x, time = expanding(1.0)
    x = np.c_[x, 0.01 * np.random.default_rng(1).normal(size=len(x))]
    result, cells = found(x, time)
    z = normalisation.normalise(cells.x, *normalisation.measure(cells.x))
    widths = diffusion.spreads(cells, z)
    assert result.sigma[2] == pytest.approx(2 * widths[2], rel=1e-6)
    assert result.sigma[0] == result.scale


def test_constant_components_and_identical_cells_have_a_small_one():
    x, time = expanding(1.0)
    result, _ = found(np.c_[x, np.full(len(x), 7.0)], time)
    assert result.sigma[2] == diffusion.FLOOR
    still, _ = found(np.zeros((90, 2)), np.repeat([0.0, 1, 2], 30))
    assert (still.sigma == diffusion.FLOOR).all()


def test_spreads_are_those_within_a_time_and_condition_with_weights():
    x = np.array([[0.0], [2.0], [10.0], [12.0], [50.0], [54.0]])
    cells = Cells(x, np.array([0.0, 0, 0, 0, 1, 1]), np.array([1.0, 3, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 0, 0]), ("a", "b"))  # fmt: skip  # noqa: E501
    expected = np.sqrt((0.75 + 1 + 4) / 3)
    assert diffusion.spreads(cells, torch.from_numpy(x))[0] == pytest.approx(expected)


def test_two_times_take_the_default_and_say_so(caplog):
    x, time = expanding(1.0, times=(0.0, 2.0))
    result, _ = found(x, time, limited=False)
    assert result == (pytest.approx([0.8, 0.8]), 0.8, 0)
    assert "no inner day" in caplog.text


def test_few_days_are_drawn_to_the_default():
    x, time = expanding(2.0)
    far, near = (found(x, time, limited=False, default=d)[0].scale for d in (0.1, 10.0))
    free = (far**2.5 / 0.1**0.5) ** 0.5  # log s = (2 log free + .5 log default) / 2.5
    assert near == pytest.approx((free**2 * 10**0.5) ** 0.4, rel=1e-6)


def test_days_are_those_of_a_condition():
    """A condition seen at the ends only has no inner day, and is not compared with the days of others."""
    x, time = expanding(1.0)
    other = np.isin(time, [0.0, 4.0])
    both = found(
        np.r_[x, x[other] + 50], np.r_[time, time[other]], condition=np.r_[time * 0, time[other] * 0 + 1].astype(int)
    )
    assert both[0].n_days == 2


@pytest.mark.parametrize("method", ["usb", "sf2m"])
def test_numbers_and_auto(method):
    x, time = expanding(1.0)
    cells = cells_of(x, time)
    z, axis = normalisation.normalise(cells.x, *normalisation.measure(cells.x)), make_axis(cells.times, "real")
    given = diffusion.find_diffusion(cells, z, axis, METHODS[method], FitConfig(sigma=0.3))
    np.testing.assert_array_equal(given.sigma, 0.3)
    learned = diffusion.find_diffusion(cells, z, axis, METHODS[method], FitConfig(sigma="auto"))
    assert learned.n_days == 2
    own = diffusion.find_diffusion(cells, z, axis, METHODS[method], FitConfig())
    assert own.scale == (learned.scale if method == "usb" else 0.25)


@pytest.mark.parametrize(("sigma", "method", "message"), [
    ("learned", "usb", "'auto', None or a number"),
    (-1.0, "usb", "'auto', None or a number"),
    (0.0, "usb", "sigma=0 leaves no bridge"),
    ("auto", "otcfm", "method='otcfm' has none"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused_before_training(course, sigma, method, message):
    with pytest.raises(InputError, match=message):
        tw.tl.fit(course, "time", method=method, config=tw.tl.FitConfig(sigma=sigma))
    assert "thalweg" not in course.uns
