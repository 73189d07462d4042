"""Affine fields: closed forms of Gaussian paths, an independent least-squares solution, invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thalweg.core import fields
from thalweg.core.fields import affine
from thalweg.errors import InputError

DIM = 3


def draws(n, seed=0, dim=DIM, n_times=50):
    """Times, a few of them, and points."""
    g = torch.Generator().manual_seed(seed)
    return g, (torch.randint(n_times, (n,), generator=g) + 0.5) / n_times, torch.randn(n, dim, generator=g)


def fitted(n_intervals, edges, s, *samples, dim=DIM, degree=affine.DEGREE):
    field = affine.Affine(dim, n_intervals, degree)
    times, which = torch.unique(s, return_inverse=True)
    rows = [which == k for k in range(len(times))]
    field.fit(torch.tensor(edges), [(t, *(v[r] for v in samples)) for t, r in zip(times.tolist(), rows, strict=True)])
    return field


def test_recovers_a_field_of_its_own_form_on_each_interval():
    g, s, x = draws(6000)
    a = torch.randn(2, 4, DIM, DIM, generator=g)
    b = torch.randn(2, 4, DIM, generator=g)
    edges = [0.0, 0.3, 1.0]
    k = (s >= 0.3).long()
    unit = 2 * (s - torch.tensor(edges)[k]) / torch.tensor(edges).diff()[k] - 1
    powers = unit[:, None] ** torch.arange(4)
    u = torch.einsum("np,npij,nj->ni", powers, a[k], x) + torch.einsum("np,npi->ni", powers, b[k])
    field = fitted(2, edges, s, x, u, torch.rand(6000, generator=g))
    torch.testing.assert_close(field(s, x), u, atol=0.02, rtol=0)


def test_equals_weighted_ridge_regression_solved_by_numpy():
    g, s, x = draws(500)
    u, w = torch.randn(500, DIM, generator=g), torch.rand(500, generator=g)
    field = fitted(1, [0.0, 1.0], s, x, u, w)
    unit, one = (2 * s - 1).double().numpy(), np.c_[x.double().numpy(), np.ones(500)]
    phi = np.concatenate([unit[:, None] ** p * one for p in range(4)], 1)
    root = np.sqrt(w.double().numpy() / w.double().sum().numpy())[:, None]
    stacked = np.concatenate([root * phi, np.sqrt(affine.RIDGE) * np.eye(phi.shape[1])])
    target = np.concatenate([root * u.double().numpy(), np.zeros((phi.shape[1], DIM))])
    theta = np.linalg.lstsq(stacked, target, rcond=None)[0]
    np.testing.assert_allclose(field(s, x).numpy(), phi @ theta, atol=2e-6)


def test_is_the_conditional_mean_between_independent_gaussians():
    """Of x_t = (1-t) x0 + t x1 with covariances S0, S1: E[u|x] = m1 - m0 + (t S1 - (1-t) S0) C_t^-1 (x - m_t)."""
    n = 200_000
    g, t, e0 = draws(n)
    e1 = torch.randn(n, DIM, generator=g)
    l0, l1 = torch.diag(torch.tensor([1.0, 0.5, 2.0])), torch.tensor([[1.0, 0, 0], [0.5, 1, 0], [0, 0.3, 0.7]])
    m0, m1 = torch.tensor([1.0, 0, -1]), torch.tensor([0.0, 2, 1])
    x0, x1 = m0 + e0 @ l0.T, m1 + e1 @ l1.T
    x = (1 - t)[:, None] * x0 + t[:, None] * x1
    field = fitted(1, [0.0, 1.0], t, x, x1 - x0, torch.ones(n))
    s0, s1 = l0 @ l0.T, l1 @ l1.T
    for at in (0.1, 0.5, 0.9):
        c = (1 - at) ** 2 * s0 + at**2 * s1
        y = (1 - at) * m0 + at * m1 + torch.randn(500, DIM, generator=g) @ torch.linalg.cholesky(c).T
        exact = m1 - m0 + (y - (1 - at) * m0 - at * m1) @ torch.linalg.solve(c, at * s1 - (1 - at) * s0)
        error = (field(torch.full((500,), at), y) - exact).square().mean().sqrt()
        assert error < 0.06 * exact.square().mean().sqrt()


def test_the_flow_of_noise_contracts_to_the_average_of_two_cells():
    """exp of the integral of A(t) = (2t-1)/(t^2+(1-t)^2) over [0, 1/2] is sqrt(1/2)."""
    n = 200_000
    g, t, x0 = draws(n, dim=2)
    x1 = torch.randn(n, 2, generator=g)
    x = (1 - t)[:, None] * x0 + t[:, None] * x1
    field = fitted(1, [0.0, 1.0], t, x, x1 - x0, torch.ones(n), dim=2)
    y, steps = torch.eye(2), 200
    for i in range(steps):
        half = torch.full((2,), (i + 0.5) / (2 * steps))
        middle = y + field(half, y) / (4 * steps)
        y = y + field(half, middle) / (2 * steps)
    torch.testing.assert_close(y, 0.5**0.5 * torch.eye(2), atol=0.01, rtol=0)


@pytest.mark.parametrize("few", [0, affine.FEW])
def test_mixed_times_and_derivatives(monkeypatch, few):
    monkeypatch.setattr(affine, "FEW", few)
    g, s, x = draws(200)
    field = affine.Affine(DIM, 3)
    field.theta.normal_(generator=g)
    together = field(s, x)
    for i in range(0, 200, 17):  # one time for all rows takes another branch
        torch.testing.assert_close(together[i], field(s[i].expand(200), x)[i])
        torch.testing.assert_close(together[i : i + 1], field(s[i : i + 1], x[i : i + 1]))
    at = torch.full((1,), 0.4)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: field(at, y[None])[0]))(x[:4])
    torch.testing.assert_close(jacobian[0], jacobian[3])
    torch.testing.assert_close(field(at, x[:1])[0] - field(at, x[1:2])[0], jacobian[0] @ (x[0] - x[1]))


def test_holds_its_value_beyond_the_intervals():
    g, _, x = draws(5)
    field = affine.Affine(DIM, 2)
    field.theta.normal_(generator=g)
    for inside, outside in ((0.0, -3.0), (1.0, 4.0)):
        torch.testing.assert_close(field(torch.full((5,), inside), x), field(torch.full((5,), outside), x))


def test_an_interval_without_samples_stays_zero_and_wrong_edges_are_refused():
    _, s, x = draws(50)
    field = fitted(2, [0.0, 0.5, 1.0], s / 3, x, x, torch.ones(50))
    assert field.theta[1].abs().max() == 0 < field.theta[0].abs().max()
    with pytest.raises(InputError, match="3 ascending numbers"):
        field.fit(torch.tensor([0.0, 1.0, 0.5]), [])


def test_the_network_learns_what_is_left_over():
    g = torch.Generator().manual_seed(0)
    net = fields.build(lambda: affine.AffineMLP(DIM, 1, width=8, depth=1), g)
    plain = fields.build(lambda: fields.MLP(DIM, width=8, depth=1), torch.Generator().manual_seed(0))
    net.affine.edges.copy_(torch.tensor([0.0, 1.0]))
    net.affine.theta.normal_(generator=g)
    _, s, x = draws(10)
    torch.testing.assert_close(net(s, x) - net.affine(s, x), plain(s, x))
    assert not any("affine" in name for name, _ in net.named_parameters())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_field_that_was_built_starts_with_equal_intervals_and_no_velocity(seed):
    """Laid out without memory, its buffers held whatever lay there, up to 1e37."""
    rubbish = [torch.full((2**k,), 1e37) for k in range(12)]
    del rubbish
    net = fields.build(lambda: affine.AffineMLP(3, 4, width=8, depth=1), torch.Generator().manual_seed(seed))
    torch.testing.assert_close(net.affine.edges, torch.linspace(0, 1, 5))
    assert not net.affine.theta.any()
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
    rest = fields.MLP.forward(net, torch.full((6,), 0.3), x)
    torch.testing.assert_close(net(torch.full((6,), 0.3), x), rest)


def test_buffers_of_any_module_that_was_built_start_at_zero():
    class Buffered(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("kept", torch.ones(5))

    assert not fields.build(Buffered, torch.Generator()).kept.any()
