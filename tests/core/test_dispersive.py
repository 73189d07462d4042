from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from thalweg.core.dispersive import Kind, contrastive_pair, dispersive, feature_stats
from thalweg.errors import InputError

KINDS: tuple[Kind, ...] = get_args(Kind)
every = pytest.mark.parametrize("kind", KINDS)
L2_KINDS: tuple[Kind, ...] = ("infonce_l2", "hinge")


def features(n: int = 12, d: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# An independent implementation: plain loops over pairs of rows, straight from the formulas.


def distance(a: np.ndarray, b: np.ndarray, kind: Kind) -> float:
    if kind == "infonce_cosine":
        return -sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(a**2) * sum(b**2))
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)


def covariance(a: np.ndarray, b: np.ndarray) -> list[list[float]]:
    n, d = a.shape
    mean_a, mean_b = a.sum(0) / n, b.sum(0) / n
    return [
        [sum((a[i, k] - mean_a[k]) * (b[i, m] - mean_b[m]) for i in range(n)) / n for m in range(d)] for k in range(d)
    ]


def loop_dispersive(z: np.ndarray, kind: Kind, tau: float, margin: float) -> float:
    n, d = z.shape
    if kind == "covariance":
        cov = covariance(z, z)
        return sum(cov[k][m] ** 2 for k in range(d) for m in range(d) if k != m)
    pairs = [distance(z[i], z[j], kind) for i in range(n) for j in range(n)]
    if kind == "hinge":
        return sum(max(0.0, margin - x) ** 2 for x in pairs) / n**2
    return math.log(sum(math.exp(-x / tau) for x in pairs) / n**2)


def loop_contrastive(z: np.ndarray, plus: np.ndarray, kind: Kind, tau: float, margin: float, weight: float) -> float:
    n, d = z.shape
    if kind == "covariance":
        cov = covariance(z, plus)
        off = sum(cov[k][m] ** 2 for k in range(d) for m in range(d) if k != m)
        return sum((1 - cov[k][k]) ** 2 for k in range(d)) + weight * off
    total = 0.0
    for i in range(n):
        near = distance(z[i], plus[i], kind)
        row = [distance(z[i], z[j], kind) for j in range(n)]
        if kind == "hinge":
            total += near**2 + sum(max(0.0, margin - x) ** 2 for x in row) / n
        else:
            total += near / tau + math.log(sum(math.exp(-x / tau) for x in row))
    return total / n


@every
@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6), (2, 3)])
def test_values_equal_plain_loops(kind: Kind, shape: tuple[int, int], proof: Callable[..., None]) -> None:
    """Relative errors."""
    z, plus = features(*shape) + 0.3, features(*shape, seed=1)
    for tau, margin, weight in ((0.5, 1.0, 0.005), (1.7, 4.0, 2.0)):
        expected = loop_dispersive(z.numpy(), kind, tau, margin)
        value = dispersive(z, kind, tau=tau, margin=margin).item()
        proof(f"dispersive_{kind}", abs(value - expected) / abs(expected), 1e-12)
        expected = loop_contrastive(z.numpy(), plus.numpy(), kind, tau, margin, weight)
        value = contrastive_pair(z, plus, kind, tau=tau, margin=margin, weight=weight).item()
        proof(f"contrastive_{kind}", abs(value - expected) / abs(expected), 1e-12)


@every
def test_normalised_features_equal_plain_loops_on_scaled_rows(kind: Kind) -> None:
    z = features()
    rows = z.numpy()
    unit = np.stack([row * math.sqrt(5) / math.sqrt(sum(row**2)) for row in rows])
    expected = loop_dispersive(unit, kind, 0.5, 1.0)
    assert dispersive(z, kind, normalize=True).item() == pytest.approx(expected, rel=1e-12, abs=0)
    scale = torch.linspace(0.01, 100, 12, dtype=torch.float64)[:, None]
    assert dispersive(z * scale, kind, normalize=True).item() == pytest.approx(expected, rel=1e-12, abs=0)


@every
def test_trailing_axes_are_flattened(kind: Kind) -> None:
    z = features(6, 24)
    assert torch.equal(dispersive(z.reshape(6, 2, 3, 4), kind), dispersive(z, kind))


def test_infonce_l2_runs_from_zero_to_minus_log_n(proof: Callable[..., None]) -> None:
    same = features(1, 4).expand(16, 4) + 3.7
    assert dispersive(same).item() == pytest.approx(0, abs=1e-15)
    apart = 1e3 * torch.eye(16, dtype=torch.float64)
    proof("dispersive_infonce_l2", abs(dispersive(apart).item() + math.log(16)), 1e-14)
    for scale in (1e-3, 0.1, 1.0, 3.0):
        assert -math.log(16) < dispersive(scale * features(16, 4)).item() < 0


def test_other_extremes_in_closed_form() -> None:
    same = features(1, 4).expand(16, 4)
    assert dispersive(same, "infonce_cosine", tau=0.25).item() == pytest.approx(4.0, rel=1e-14)
    assert dispersive(same, "hinge", margin=3.0).item() == pytest.approx(9.0, rel=1e-14)
    assert dispersive(same, "covariance").item() == pytest.approx(0.0, abs=1e-30)
    apart = 1e3 * torch.eye(16, dtype=torch.float64)
    assert dispersive(apart, "hinge", margin=3.0).item() == pytest.approx(9 / 16, rel=1e-14)
    orthogonal = math.log((math.exp(2) + 15) / 16)
    assert dispersive(apart, "infonce_cosine").item() == pytest.approx(orthogonal, rel=1e-14)


@pytest.mark.parametrize("kind", L2_KINDS)
def test_distances_are_divided_by_the_dimension(kind: Kind) -> None:
    z = features(8, 3)
    assert dispersive(z.repeat(1, 50), kind).item() == pytest.approx(dispersive(z, kind).item(), rel=1e-13)
    two = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)  # D = 2/2
    exact = {"infonce_l2": math.log((2 + 2 * math.exp(-2)) / 4), "hinge": (2 * 4 + 2 * 1) / 4}[kind]
    assert dispersive(two, kind, margin=2.0).item() == pytest.approx(exact, rel=1e-14)


@every
def test_gradients_are_exact(kind: Kind) -> None:
    for shape in ((5, 3), (3, 5)):
        z, plus = features(*shape).requires_grad_(), features(*shape, seed=1).requires_grad_()
        for normalize in (False, True):
            assert torch.autograd.gradcheck(lambda a, k=normalize: dispersive(a, kind, margin=3.0, normalize=k), z)
        assert torch.autograd.gradcheck(lambda a, b: contrastive_pair(a, b, kind, margin=3.0, weight=0.5), (z, plus))
    z = features(23, 3).requires_grad_()  # groups of 5, three rows left over
    assert torch.autograd.gradcheck(lambda a: dispersive(a, kind, margin=3.0, group=5), z)


@every
def test_a_second_derivative_is_refused_and_not_silently_zero(kind: Kind) -> None:
    z = features().requires_grad_()
    loss = z.pow(3).sum() + dispersive(z, kind)  # the gradient of the first term alone could be differentiated
    with pytest.raises(InputError, match="differentiable once"):
        torch.autograd.grad(loss, z, create_graph=True)


@every
@pytest.mark.parametrize("shape", [(256, 64), (64, 256), (130, 7)])
@pytest.mark.parametrize("scale", [1e-3, 0.3, 2.0])
def test_float32_values_and_gradients_equal_float64(kind: Kind, shape: tuple[int, int], scale: float) -> None:
    z = (scale * torch.nn.functional.silu(2 * features(*shape))).requires_grad_()
    single = z.detach().float().requires_grad_()
    for group in (None, 40):
        value, expected = (dispersive(x, kind, margin=scale**2, group=group) for x in (single, z))
        assert value.item() == pytest.approx(expected.item(), rel=1e-5, abs=5e-7)
        (grad,), (right,) = torch.autograd.grad(value, single), torch.autograd.grad(expected, z)
        assert float((grad.double() - right).norm()) <= 1e-5 * float(right.norm())


def test_groups_pool_the_pairs_of_rows_dealt_in_turn() -> None:
    z = features(23, 3)
    hands = [z[:20][i::4] for i in range(4)]  # 23 // 5 = 4 groups of 5; the last three rows sit out
    for tau in (0.5, 1.7):
        exps = [math.exp(dispersive(hand, tau=tau).item()) for hand in hands]
        assert math.exp(dispersive(z, tau=tau, group=5).item()) == pytest.approx(sum(exps) / 4, rel=1e-12)
        exps = [math.exp(dispersive(hand, "infonce_cosine", tau=tau).item()) for hand in hands]
        grouped = dispersive(z, "infonce_cosine", tau=tau, group=5)
        assert math.exp(grouped.item()) == pytest.approx(sum(exps) / 4, rel=1e-12)
    mean = sum(dispersive(hand, "hinge", margin=2.0).item() for hand in hands) / 4
    assert dispersive(z, "hinge", margin=2.0, group=5).item() == pytest.approx(mean, rel=1e-12)
    assert torch.equal(dispersive(z, "covariance", group=5), dispersive(z, "covariance"))
    leaf = z.clone().requires_grad_()
    (grad,) = torch.autograd.grad(dispersive(leaf, group=5), leaf)
    assert torch.equal(grad[20:], torch.zeros_like(grad[20:]))
    assert float(grad[:20].abs().min()) > 0


@every
@pytest.mark.parametrize("group", [12, 23, 100])
def test_one_group_is_the_whole_batch(kind: Kind, group: int) -> None:
    z = features(23, 3)
    assert torch.equal(dispersive(z, kind, group=group), dispersive(z, kind))


@every
def test_features_of_any_memory_layout(kind: Kind) -> None:
    z = features(24, 6)
    for group in (None, 5):
        plain = z.clone().requires_grad_()
        (right,) = torch.autograd.grad(dispersive(plain, kind, group=group), plain)
        for view in (z.T.contiguous().T, z.repeat_interleave(2, 0)[::2], z.repeat_interleave(2, 1)[:, ::2]):
            assert not view.is_contiguous()
            leaf = view.detach().requires_grad_()
            value = dispersive(leaf, kind, group=group)
            assert value.item() == pytest.approx(dispersive(z, kind, group=group).item(), rel=1e-13)
            torch.testing.assert_close(torch.autograd.grad(value, leaf)[0], right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponents_far_outside_the_floating_range(dtype: torch.dtype) -> None:
    tau = 1e-4  # exp(1 / tau) overflows even float64
    same = features(1, 4, dtype=dtype).repeat(8, 1).requires_grad_()
    assert dispersive(same, "infonce_cosine", tau=tau).item() == pytest.approx(1 / tau, rel=1e-6)
    apart = torch.eye(8, dtype=dtype, requires_grad=True)
    assert dispersive(apart, "infonce_cosine", tau=tau).item() == pytest.approx(1 / tau - math.log(8), rel=1e-6)
    zero = torch.zeros(8, 4, dtype=dtype, requires_grad=True)
    assert dispersive(zero, "infonce_cosine", tau=tau).item() == pytest.approx(0, abs=1e-6)
    far = (1e4 * torch.eye(8, dtype=dtype)).requires_grad_()
    assert dispersive(far, tau=tau).item() == pytest.approx(-math.log(8), rel=1e-6)
    for leaf, kind in (
        (same, "infonce_cosine"),
        (apart, "infonce_cosine"),
        (zero, "infonce_cosine"),
        (far, "infonce_l2"),
    ):
        (grad,) = torch.autograd.grad(dispersive(leaf, kind, tau=tau), leaf)
        assert float(grad.abs().max()) < 1e-2


@pytest.mark.parametrize("kind", L2_KINDS)
def test_descent_repels_every_pair(kind: Kind, proof: Callable[..., None]) -> None:
    """One minus the cosine between the step of a point and the way from the other one."""
    two = torch.tensor([[0.0, 0.0], [0.3, 0.1]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(dispersive(two, kind), two)
    along = (two[1] - two[0]).detach()
    # Both points move apart along the line that joins them, by equal and opposite steps.
    proof(f"dispersive_{kind}", 1 - torch.cosine_similarity(-grad[1], along, 0).item(), 1e-12)
    torch.testing.assert_close(grad[0], -grad[1])
    assert abs(float(grad[1, 0] * along[1] - grad[1, 1] * along[0])) < 1e-16
    z = (0.1 * features()).requires_grad_()
    (grad,) = torch.autograd.grad(dispersive(z, kind), z)
    before, after = torch.pdist(z.detach()), torch.pdist((z - 0.05 * grad).detach())
    assert float(after.square().mean()) > float(before.square().mean())


def test_cosine_descent_opens_a_narrow_cone_of_directions() -> None:
    z = features(32, 4) + 3.0
    mean_cosine = []
    for _ in range(60):
        unit = torch.nn.functional.normalize(z.detach())
        mean_cosine.append((unit @ unit.T).mean().item())
        z = z.detach().requires_grad_()
        (grad,) = torch.autograd.grad(dispersive(z, "infonce_cosine"), z)
        z = z - 40.0 * grad
    assert mean_cosine[0] > 0.9
    assert mean_cosine[-1] < 0.05
    assert all(after < before + 1e-6 for before, after in pairwise(mean_cosine))


@pytest.mark.parametrize("kind", ["infonce_l2", "hinge", "covariance"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_features_are_a_stationary_point(kind: Kind, dtype: torch.dtype) -> None:
    z = (features(1, 4, dtype=dtype).repeat(11, 1) + 3.7).requires_grad_()  # 11: the mean of equal rows is rounded
    (grad,) = torch.autograd.grad(dispersive(z, kind), z)
    assert torch.equal(grad, torch.zeros_like(grad))


@every
def test_zero_rows_have_finite_gradients_and_cosine_zero(kind: Kind) -> None:
    z = torch.cat([torch.zeros(2, 3), features(2, 3, dtype=torch.float32)]).requires_grad_()
    for normalize in (False, True):
        (grad,) = torch.autograd.grad(dispersive(z, kind, normalize=normalize), z)
        assert float(grad.abs().max()) < 10
    zero = torch.zeros(3, 2, dtype=torch.float64)
    assert dispersive(zero, "infonce_cosine").item() == pytest.approx(0.0, abs=1e-15)


@every
def test_order_of_the_batch_does_not_matter(kind: Kind) -> None:
    z, plus = features(9, 4), features(9, 4, seed=1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    assert dispersive(z[order], kind).item() == pytest.approx(dispersive(z, kind).item(), rel=1e-13)
    shuffled = contrastive_pair(z[order], plus[order], kind).item()
    assert shuffled == pytest.approx(contrastive_pair(z, plus, kind).item(), rel=1e-13)
    assert abs(contrastive_pair(z, plus[order], kind).item() - shuffled) > 1e-3


@pytest.mark.parametrize("kind", ["infonce_l2", "hinge", "covariance"])
@pytest.mark.parametrize("shape", [(64, 8), (32, 64)])
@pytest.mark.parametrize(("offset", "steps"), [(1e4, 256), (1e6, 16)])
def test_a_large_offset_changes_nothing_in_float32(
    kind: Kind, shape: tuple[int, int], offset: float, steps: int
) -> None:
    z = (features(*shape) * steps).round() / steps  # so that z + offset is exact in float32
    moved = (z + offset).float().requires_grad_()
    assert torch.equal(moved.double(), z + offset)
    exact = z.clone().requires_grad_()
    value, expected = dispersive(moved, kind), dispersive(exact, kind)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    (grad,) = torch.autograd.grad(value, moved)
    (right,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(grad.double(), right, rtol=1e-4, atol=1e-5 * float(right.abs().max()))


def test_rounding_never_makes_a_distance_negative() -> None:
    near = 1e-3 * features(64, 8, dtype=torch.float32)
    near[32:] += 1e3  # two tight clusters: D2 inside one, about 1e-6, is below its rounding error of about 0.1
    assert dispersive(near, tau=0.01).item() <= -math.log(2) + 1e-6


def test_half_precision_is_computed_in_float32() -> None:
    z = features(16, 8, dtype=torch.float32)
    half = z.bfloat16()
    value = dispersive(half)
    assert value.dtype == torch.float32
    assert torch.equal(value, dispersive(half.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(dispersive(z), dispersive(z.clone()))
        inside = dispersive(z)
    assert torch.equal(inside, dispersive(z))


def test_contrastive_attracts_the_views() -> None:
    z = features()
    for kind in KINDS:
        plus = (z + 0.1 * features(seed=3)).requires_grad_()
        (grad,) = torch.autograd.grad(contrastive_pair(z, plus, kind), plus)
        if kind == "covariance":  # its minimum has unit covariance, not equal views
            closer = contrastive_pair(z, plus - 1e-3 * grad, kind)
            assert closer.item() < contrastive_pair(z, plus, kind).item()
        else:
            before, after = (z - plus).detach(), (z - plus + 1e-3 * grad).detach()
            assert float(after.square().sum()) < float(before.square().sum())


def test_contrastive_with_equal_views_is_the_dispersive_loss_plus_a_known_term() -> None:
    # With z+ = z the l2 positives vanish, and on a regular simplex the mean of the logs is the log of the mean.
    z = 2.0 * torch.eye(6, dtype=torch.float64)
    shift = math.log(6)
    assert contrastive_pair(z, z).item() == pytest.approx(dispersive(z).item() + shift, rel=1e-13)
    assert contrastive_pair(z, z, "hinge").item() == pytest.approx(dispersive(z, "hinge").item(), rel=1e-13)
    cosine = dispersive(z, "infonce_cosine").item() + shift - 2
    assert contrastive_pair(z, z, "infonce_cosine").item() == pytest.approx(cosine, rel=1e-13)
    white = math.sqrt(8) * torch.linalg.qr(features(8, 3) - features(8, 3).mean(0)).Q  # unit covariance
    assert contrastive_pair(white, white, "covariance").item() == pytest.approx(0.0, abs=1e-28)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_effective_rank_counts_equal_singular_values(k: int) -> None:
    z = features(20, 9)
    q = torch.linalg.qr(z - z.mean(0)).Q[:, :k]  # k orthonormal centred columns
    mixed = q @ torch.linalg.qr(features(9, 9, seed=4)).Q[:k]
    stats = feature_stats(5.0 + 3.0 * mixed)  # neither offset nor scale counts
    assert stats.effective_rank == pytest.approx(k, rel=1e-12)


def test_feature_stats_in_closed_form() -> None:
    q = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    z = (q * torch.tensor([3.0, 1.0])).reshape(4, 2, 1).requires_grad_()
    stats = feature_stats(z)
    assert stats.mean_norm == pytest.approx(math.sqrt(10), rel=1e-14)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert stats.effective_rank == pytest.approx(math.exp(entropy), rel=1e-14)
    same = feature_stats(torch.full((5, 3), 2.0))
    assert same.effective_rank == 0.0
    assert same.mean_norm == pytest.approx(math.sqrt(12), rel=1e-7)


@every
def test_input_that_cannot_be_used_is_refused(kind: Kind) -> None:
    z = features()
    for bad in (z[:1], z[:0], z[0], z[:, :0]):
        with pytest.raises(InputError, match="at least two samples"):
            dispersive(bad, kind)
        with pytest.raises(InputError, match="at least two samples"):
            contrastive_pair(bad, bad, kind)
    with pytest.raises(InputError, match="floating"):
        dispersive(torch.ones(4, 2, dtype=torch.int64), kind)
    for bad_tau in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="`tau`"):
            dispersive(z, kind, tau=bad_tau)
        with pytest.raises(InputError, match="`margin`"):
            dispersive(z, kind, margin=bad_tau)
    for bad_group in (1, 0, -3):
        with pytest.raises(InputError, match="`group`"):
            dispersive(z, kind, group=bad_group)
    with pytest.raises(InputError, match="`weight`"):
        contrastive_pair(z, z, kind, weight=-1.0)
    for bad_view in (z[:3], z[:, :1], z.float()):
        with pytest.raises(InputError, match="`features_positive`"):
            contrastive_pair(z, bad_view, kind)


def test_unknown_kind_and_values_that_are_not_finite() -> None:
    with pytest.raises(InputError, match="infonce_l2, infonce_cosine, hinge, covariance; found 'l2'"):
        dispersive(features(), "l2")  # type: ignore[arg-type]
    z = features()
    z[0, 0] = math.nan
    with pytest.raises(InputError, match="1 values that are not finite"):
        feature_stats(z)
    assert math.isnan(dispersive(z).item())  # a diverged network is not hidden: the training loop stops on it
