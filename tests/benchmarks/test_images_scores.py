"""Scores against closed forms, independent implementations and sets whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from benchmarks.images.scores import frechet, kid, precision_recall

from thalweg.errors import InputError


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(x: torch.Tensor, mean: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """Move a cloud to an exact mean and an exact covariance ``root root^T``."""
    x = x - x.mean(0)
    whiten: torch.Tensor = torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T)))
    return x @ whiten.T @ root.T + mean


def test_frechet_of_a_set_and_itself_is_zero() -> None:
    x = normal(200, 16, 0)
    assert abs(frechet(x, x)) < 1e-10
    assert abs(frechet(x, x[torch.randperm(200, generator=torch.Generator().manual_seed(1))])) < 1e-10


def test_frechet_of_commuting_gaussians() -> None:
    # |m|^2 + sum (s_a - s_b)^2 for diagonal covariances, in any common rotation.
    d, s_a, s_b = 3, torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([2.0, 1.0, 0.1]).double()
    rotation = torch.linalg.qr(normal(d, d, 5))[0]
    m = torch.tensor([0.5, -1.0, 2.0]).double()
    a = with_moments(normal(400, d, 1), torch.zeros(d).double(), rotation @ torch.diag(s_a))
    b = with_moments(normal(400, d, 2), m, rotation @ torch.diag(s_b))
    expected = float(m.square().sum() + (s_a - s_b).square().sum())
    assert frechet(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_other_gaussians_by_scipy() -> None:
    a, b = normal(300, 6, 1) @ normal(6, 6, 3), normal(300, 6, 2) @ normal(6, 6, 4) + 1
    ca, cb = np.cov(a.numpy().T), np.cov(b.numpy().T)
    expected = (a.mean(0) - b.mean(0)).square().sum().item() + np.trace(ca + cb - 2 * scipy.linalg.sqrtm(ca @ cb).real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-7)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)


def test_kid_is_unbiased_where_the_biased_one_is_not() -> None:
    n, values = 20, []
    for seed in range(400):
        x = normal(2 * n, 4, seed)
        values.append(kid(x[:n], x[n:]))
    mean, error = np.mean(values), np.std(values) / np.sqrt(len(values))
    assert abs(mean) < 4 * error
    # With the diagonals kept the expectation is 2 (E k(x,x) - E k(x,y)) / n: far outside that error.
    x = normal(100_000, 4, 0)
    diagonal, off = ((x.square().sum(1) / 4 + 1) ** 3).mean(), ((x[::2] * x[1::2]).sum(1) / 4 + 1).pow(3).mean()
    assert float(2 * (diagonal - off) / n) > 20 * error


def test_kid_of_a_shift_by_its_moments() -> None:
    # E (x.y + 1)^3 in one dimension, x, y ~ N(m, 1) independent: 1 + 3 E xy + 3 E x^2 y^2 + E x^3 y^3.
    def mean_kernel(p: float, q: float) -> float:
        return 1 + 3 * p * q + 3 * (1 + p * p) * (1 + q * q) + (p**3 + 3 * p) * (q**3 + 3 * q)

    expected = mean_kernel(0, 0) + mean_kernel(1, 1) - 2 * mean_kernel(0, 1)
    values = [kid(normal(1000, 1, s), normal(1000, 1, 50 + s) + 1) for s in range(30)]
    assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / np.sqrt(30))


def test_precision_and_recall_of_known_sets() -> None:
    left, right = normal(300, 2, 0), normal(300, 2, 1) + 100
    assert precision_recall(left, left) == (1.0, 1.0)
    assert precision_recall(left, right) == (0.0, 0.0)
    both = torch.cat([left[:150], right[:150]])
    # Samples of one mode only are all realistic, and cover the half of the real images that is theirs.
    precision, recall = precision_recall(normal(300, 2, 7), both)
    assert precision > 0.9
    assert 0.4 < recall < 0.51
    precision, recall = precision_recall(both, normal(300, 2, 7))
    assert 0.4 < precision < 0.51
    assert recall > 0.9


def test_third_neighbour_sets_the_balls() -> None:
    real = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])[:, None]  # radii 3, 2, 2, 2, 3
    samples = torch.tensor([-3.0, -3.1, 7.0, 7.1, 2.0])[:, None]
    assert precision_recall(samples, real, k=3)[0] == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(10, 3), torch.zeros(11, 3), "equal n"),
        (torch.full((10, 3), float("nan")), torch.zeros(10, 3), "not finite"),
        (torch.zeros(100, 33), torch.zeros(100, 33), "held to 32"),
    ],
)
def test_sets_that_do_not_compare_are_refused(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        frechet(a, b)
    with pytest.raises(InputError, match="more than 3"):
        precision_recall(torch.zeros(3, 2), torch.zeros(3, 2))
