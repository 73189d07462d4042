"""Properties of probability paths: their ends, their velocities, and how they move with the pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from strategies import generators, rotations
from thalweg.core.paths import BrownianBridge, GaussianOT, Linear, Path, Trigonometric, VPDiffusion, expand

COORDINATE = st.floats(-100, 100).map(lambda v: round(v, 3))
PINNED = (Linear, Trigonometric, BrownianBridge)


@st.composite
def paths(draw: st.DrawFn, kinds=(*PINNED, GaussianOT, VPDiffusion)) -> Path:
    kind = draw(st.sampled_from(kinds))
    if kind is Linear:
        return Linear(draw(st.floats(0, 2)))
    if kind is BrownianBridge:
        return BrownianBridge(draw(st.floats(0.01, 3)), clip=draw(st.sampled_from([1e-3, 0.01, 0.1])))
    if kind is GaussianOT:
        return GaussianOT(draw(st.floats(1e-6, 0.5)))
    if kind is VPDiffusion:
        return VPDiffusion(draw(st.floats(0.05, 1)), draw(st.floats(2, 25)), clip=draw(st.sampled_from([1e-3, 0.05])))
    return kind()


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Ends and noise, float64 of shape (n, d)."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    x0, x1 = (torch.from_numpy(draw(hnp.arrays(np.float64, shape, elements=COORDINATE))) for _ in range(2))
    return x0, x1, torch.randn(shape, generator=draw(generators()), dtype=torch.float64)


def inside(path: Path, share: float, n: int) -> Tensor:
    lo, hi = path.t_range
    return torch.full((n,), lo + (hi - lo) * share, dtype=torch.float64)


@given(paths(), pairs(), st.floats(0, 1))
def test_the_velocity_is_the_derivative_of_the_position(path, pair, share):
    """Backward mode through the position at fixed noise, float64; the size of the terms sets the rounding."""
    x0, x1, eps = pair
    t = inside(path, share, len(x0)).requires_grad_()
    columns = path.at(x0, x1, t, eps).x_t.unbind(1)
    # A position that does not depend on time has no gradient.
    wanted = torch.stack([torch.autograd.grad(c.sum() + 0 * t.sum(), t, retain_graph=True)[0] for c in columns], 1)
    batch = path.at(x0, x1, t.detach(), eps)
    torch.testing.assert_close(batch.u_t, wanted, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(batch.x0, x0)
    torch.testing.assert_close(batch.x1, x1)
    assert len(batch) == len(x0)


@given(paths(PINNED), pairs())
def test_the_ends_are_the_pair_up_to_the_noise_of_the_path(path, pair):
    x0, x1, eps = pair
    for t, end in ((0.0, x0), (1.0, x1)):
        batch = path.at(x0, x1, torch.full((len(x0),), t, dtype=torch.float64), eps)
        noise = path.sigma * eps if isinstance(path, Linear) else torch.zeros_like(eps)
        torch.testing.assert_close(batch.x_t, end + noise, rtol=1e-13, atol=1e-12)
        assert bool(batch.u_t.isfinite().all())


@given(paths((GaussianOT, VPDiffusion)), pairs(), st.floats(0, 1))
def test_paths_from_noise_ignore_the_source(path, pair, share):
    x0, x1, eps = pair
    t = inside(path, share, len(x0))
    here, elsewhere = path.at(x0, x1, t, eps), path.at(x0 + 17, x1, t, eps)
    assert torch.equal(here.x_t, elsewhere.x_t)
    assert torch.equal(here.u_t, elsewhere.u_t)
    assert torch.equal(here.sigma_t, elsewhere.sigma_t)


@given(st.data(), paths((Linear, BrownianBridge)), pairs(), st.floats(0, 1), st.sampled_from([1e-3, 2.0, 1e3]))
def test_straight_paths_move_with_their_pair(data, path, pair, share, scale):
    """Shift, unit and rotation of both ends are those of the position; swapping the ends reverses time."""
    x0, x1, eps = pair
    t = inside(path, share, len(x0))
    q, shift = torch.from_numpy(data.draw(rotations(x0.shape[1]))), torch.full((x0.shape[1],), 1e4).double()
    here = path.at(x0, x1, t, eps)
    there = path.at(x0 @ q + shift, x1 @ q + shift, t, eps @ q)
    torch.testing.assert_close(there.x_t, here.x_t @ q + shift, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(there.u_t, here.u_t @ q, rtol=1e-9, atol=1e-8)
    silent = path.at(x0, x1, t, torch.zeros_like(eps))
    large = path.at(scale * x0, scale * x1, t, torch.zeros_like(eps))
    torch.testing.assert_close(large.x_t, scale * silent.x_t, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(large.u_t, scale * silent.u_t, rtol=1e-12, atol=1e-9)
    back = path.at(x1, x0, 1 - t, eps)
    torch.testing.assert_close(back.x_t, here.x_t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back.u_t, -here.u_t, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(back.sigma_t, here.sigma_t, rtol=1e-9, atol=1e-12)


@given(pairs(), st.floats(0.01, 3), st.floats(0, 1), st.floats(0, 1))
def test_a_bridge_of_an_interval_is_a_part_of_the_bridge(pair, sigma, one, other):
    """Pinned at ``s``, the bridge from 0 to 1 is from ``s`` to 1 a bridge of diffusion ``sigma sqrt(1 - s)``."""
    x0, x1, _ = pair
    s, t = sorted((0.01 + 0.9 * one, 0.01 + 0.9 * other))
    inner = (t - s) / (1 - s)
    zero = torch.zeros_like(x0)
    at = lambda path, a, b, time: path.at(a, b, torch.full((len(a),), time, dtype=torch.float64), zero)  # noqa: E731
    whole = BrownianBridge(sigma, clip=1e-3)
    middle = at(whole, x0, x1, s)
    rest = at(BrownianBridge(sigma * (1 - s) ** 0.5, clip=1e-3), middle.x_t, x1, inner)
    torch.testing.assert_close(rest.x_t, at(whole, x0, x1, t).x_t, rtol=1e-9, atol=1e-9)
    # Law of total variance: what is left at t of the uncertainty at s, and what arises after it.
    carried = middle.sigma_t**2 * ((1 - t) / (1 - s)) ** 2
    torch.testing.assert_close(rest.sigma_t**2 + carried, at(whole, x0, x1, t).sigma_t ** 2, rtol=1e-9, atol=1e-12)


@given(paths(), st.integers(1, 500), generators())
def test_times_lie_in_the_range_and_repeat_with_the_seed(path, n, generator):
    lo, hi = path.t_range
    assert 0 <= lo < hi <= 1
    state = generator.get_state()
    for draw in (path.draw_t, path.spread_t):
        generator.set_state(state)
        first = draw(n, generator, torch.float64)
        generator.set_state(state)
        assert torch.equal(first, draw(n, generator, torch.float64))
        assert first.shape == (n,)
        assert lo <= float(first.min()) <= float(first.max()) <= hi
    unit = (first.sort().values - lo) / (hi - lo)
    # Even cover: the number of times below any level is right to within the discrepancy of golden-ratio multiples.
    level = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert float((unit - level).abs().max()) <= (2 + np.log(n)) / n


@given(st.integers(1, 5), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_expand_multiplies_row_by_row(n, shape):
    t, like = torch.arange(1.0, n + 1), torch.ones(n, *shape)
    torch.testing.assert_close(expand(t, like) * like, torch.stack([k * torch.ones(shape) for k in range(1, n + 1)]))
    assert expand(t, like).ndim == like.ndim


@pytest.mark.parametrize("path", [Linear(), BrownianBridge(0.5), GaussianOT(), VPDiffusion(), Trigonometric()])
def test_single_precision_stays_single(path, generator):
    x = torch.randn(5, 2, generator=generator)
    batch = path(x, x + 1, path.draw_t(5, generator), generator)
    assert {batch.x_t.dtype, batch.u_t.dtype, batch.sigma_t.dtype, batch.eps.dtype} == {torch.float32}
