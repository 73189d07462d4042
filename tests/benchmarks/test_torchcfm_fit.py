"""The torchcfm peer moves Gaussians where a constant velocity must take them, and keeps model time."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch

from thalweg.errors import InputError

pytest.importorskip("torchcfm")
SHIFT = np.array([2.0, -1.0])
N = 512


@pytest.fixture(scope="module")
def peers() -> Iterator[ModuleType]:
    from benchmarks.single_cell import torchcfm_fit

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small lose more to the threads than they gain
    yield torchcfm_fit
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _global_generators() -> Iterator[None]:
    # torchcfm reads the global generators: seeded for the tests here, and given back as they were.
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        yield
    np.random.set_state(state)  # noqa: NPY002


def _gaussian(seed: int, mean: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * np.random.default_rng(seed).standard_normal((N, 2)) + mean)


def _settings(peers: ModuleType, *, steps: int = 300, sigma: float = 0.1) -> object:
    return peers.PeerSettings(width=32, steps=steps, batch_size=64, sigma=sigma, lr=5e-3)


@pytest.mark.parametrize("method", ["icfm", "otcfm"])
def test_a_batch_lies_on_the_line_between_the_snapshots(peers: ModuleType, method: str) -> None:
    # Snapshots of one repeated point leave no choice of pairs: at model time t the path is on the polygon through the
    # points, displaced by sigma * eps, and the target is the polygon's slope in model time.
    times, points = np.array([0.0, 2.0, 3.0]), np.array([[0.0, 0.0], [4.0, -2.0], [4.0, 1.0]])
    cells = [torch.tensor(p, dtype=torch.float32).repeat(8, 1) for p in points]
    batch = peers._batch(peers._matcher(method, 0.1), cells, times.tolist(), 64)
    t, x = batch.t.double().numpy(), batch.x.double().numpy() - 0.1 * batch.eps.double().numpy()
    np.testing.assert_allclose(x, np.stack([np.interp(t, times, p) for p in points.T], axis=1), atol=1e-5)
    slope = np.diff(points, axis=0) / np.diff(times)[:, None]
    np.testing.assert_allclose(batch.u.numpy(), slope[(t > 2.0).astype(int)], atol=1e-6)
    assert np.all(np.bincount((t > 2.0).astype(int)) == 64)


def test_otcfm_moves_a_cloud_through_the_time_left_out(peers: ModuleType) -> None:
    # Velocity SHIFT per unit of model time, seen at times 0, 2 and 3: the left-out time 1 lies one SHIFT further.
    snapshots = [_gaussian(k, time * SHIFT) for k, time in enumerate((0.0, 2.0, 3.0))]
    model = peers.fit_torchcfm("otcfm", snapshots, (0.0, 2.0, 3.0), 0, _settings(peers))
    new = _gaussian(10, 0 * SHIFT)
    for start, stop in ((0.0, 1.0), (0.0, 2.0), (2.0, 3.0)):
        moved = model.push(new + start * SHIFT, start, stop) - (new + start * SHIFT)
        np.testing.assert_allclose(moved.mean(axis=0), (stop - start) * SHIFT, atol=0.2)
    # The plan between equal Gaussians is a translation: each cell moves by SHIFT, not only the mean.
    moved = model.push(new, 0.0, 1.0) - new
    assert np.sqrt(np.mean((moved - SHIFT) ** 2)) < 0.3


@pytest.mark.parametrize("method", ["icfm", "sbcfm", "sf2m"])
def test_other_methods_reach_the_target_mean(peers: ModuleType, method: str) -> None:
    snapshots = [_gaussian(0, 0 * SHIFT), _gaussian(1, SHIFT)]
    model = peers.fit_torchcfm(method, snapshots, (0.0, 1.0), 0, _settings(peers))
    np.testing.assert_allclose(model.push(snapshots[0], 0.0, 1.0).mean(axis=0), snapshots[1].mean(axis=0), atol=0.15)


def test_the_exact_bridge_between_two_points_has_no_loss(peers: ModuleType) -> None:
    # x_s ~ N(mu_s, sigma^2 s(1-s)) between two points, so that (sigma^2 / 2) grad log p = -(x - mu_s) / (2 s(1-s)) and
    # u = [(1 - 2s) / (2 s(1-s)) (x - mu_s) + x1 - x0] / L, on an interval from model time 1 to 3.
    x0, x1 = torch.tensor([0.0, 0.0]), torch.tensor([4.0, -2.0])

    def bridge(at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = (at[:, 2:].double() - 1.0) / 2.0
        return s, (at[:, :2] - (x0 + s * (x1 - x0))) / (2 * s * (1 - s))

    def flow(at: torch.Tensor) -> torch.Tensor:
        s, pull = bridge(at)
        return ((1 - 2 * s) * pull + x1 - x0) / 2.0

    matcher = peers._matcher("sf2m", 0.5)
    batch = peers._batch(matcher, [x0.repeat(8, 1), x1.repeat(8, 1)], [1.0, 3.0], 256)
    assert peers._loss(matcher, flow, lambda at: -bridge(at)[1], batch) < 1e-3


def test_sf2m_sde_keeps_the_variance_that_its_noise_would_raise(peers: ModuleType) -> None:
    # Diffusion 0.5 for two units of time adds 0.5 to the variance 0.25 of a cloud that does not move, and the score
    # takes it back. A score of the wrong sign or scale shows as a variance far from 0.25.
    snapshots = [_gaussian(0, 0 * SHIFT), _gaussian(1, 0 * SHIFT)]
    model = peers.fit_torchcfm("sf2m", snapshots, (0.0, 2.0), 0, _settings(peers, steps=600, sigma=0.5))
    end = model.push(_gaussian(2, 0 * SHIFT), 0.0, 2.0, stochastic=True)
    np.testing.assert_allclose(end.var(axis=0), 0.25, atol=0.15)


def test_a_seed_repeats_a_run_and_another_one_does_not(peers: ModuleType) -> None:
    snapshots = [_gaussian(0, 0 * SHIFT), _gaussian(1, SHIFT)]
    first, again, other = (
        peers.fit_torchcfm("sf2m", snapshots, (0.0, 1.0), seed, _settings(peers, steps=5)).push(
            snapshots[0], 0.0, 1.0, stochastic=True
        )
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize(
    ("method", "times", "message"),
    [("otfm", (0.0, 1.0), "otfm"), ("otcfm", (0.0, 1.0, 2.0), "3 entries"), ("otcfm", (1.0, 0.0), "does not increase")],
)
def test_wrong_input_is_refused(peers: ModuleType, method: str, times: tuple[float, ...], message: str) -> None:
    snapshots = [_gaussian(0, 0 * SHIFT), _gaussian(1, SHIFT)]
    with pytest.raises(InputError, match=message):
        peers.fit_torchcfm(method, snapshots, times, 0, _settings(peers, steps=1))


def test_the_sde_is_refused_without_a_score(peers: ModuleType) -> None:
    snapshots = [_gaussian(0, 0 * SHIFT), _gaussian(1, SHIFT)]
    model = peers.fit_torchcfm("otcfm", snapshots, (0.0, 1.0), 0, _settings(peers, steps=1))
    with pytest.raises(InputError, match="without score"):
        model.push(snapshots[0], 0.0, 1.0, stochastic=True)
