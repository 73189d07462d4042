"""Velocities on embeddings whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.core.projection import project


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def cloud(n=1500, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((n, d))


@pytest.mark.parametrize("seed", [0, 1])
def test_on_a_rotation_and_any_linear_embedding_the_regression_is_exact(seed):
    """y = x B and so dy/dt = v B; the ridge leaves a few thousandths."""
    x, v = cloud(seed=seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((5, 5)))[0]
    for b in (rotation, rotation[:, :2] * [1, 10]):
        found = project(x, v, x @ b + 7)
        error = np.linalg.norm(found - v @ b, axis=1) / np.linalg.norm(v @ b, axis=1)
        assert np.median(error) < 0.01
        assert cosine(found, v @ b).min() > 0.99


def test_on_a_curved_embedding_it_is_the_derivative():
    """y = (r, angle) in the plane: dr/dt and dangle/dt of a rotation at speed 2."""
    rng = np.random.default_rng(0)
    r, angle = rng.uniform(1, 2, 4000), rng.uniform(-1, 1, 4000)
    x = np.stack([r * np.cos(angle), r * np.sin(angle)], 1)
    v = 2 * x @ np.array([[0, 1], [-1, 0]])
    found = project(x, v, np.stack([r, angle], 1), n_neighbors=30)
    inside = (np.abs(angle) < 0.9) & (np.abs(r - 1.5) < 0.4)
    np.testing.assert_allclose(found[inside], np.tile([0.0, 2.0], (inside.sum(), 1)), atol=0.1)


def test_a_velocity_off_the_cells_is_left_out():
    """Cells in a plane of three dimensions: what points out of it has no image."""
    x, v = cloud(d=2)
    flat, moving = np.pad(x, ((0, 0), (0, 1))), np.pad(v, ((0, 0), (0, 1)), constant_values=5.0)
    np.testing.assert_allclose(project(flat, moving, x), v, rtol=0.02, atol=0.02)


def test_transition_probabilities_give_the_direction():
    x, v = cloud(3000, 2)
    found = project(x, v, x @ np.array([[0.0, 1.0], [-1.0, 0.0]]), method="transition")
    middle = np.linalg.norm(x, axis=1) < 1
    assert cosine(found, v @ np.array([[0.0, 1.0], [-1.0, 0.0]]))[middle].mean() > 0.97


@pytest.mark.parametrize("method", ["regression", "transition"])
def test_no_velocity_no_arrow_and_cells_in_one_place_do_no_harm(method):
    x, v = cloud(60, 3)
    assert (project(x, np.zeros_like(v), x[:, :2], method=method) == 0).all()
    same = project(np.ones((60, 3)), v, np.ones((60, 2)), method=method)
    assert (same == 0).all()
