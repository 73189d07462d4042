"""Velocities written on an embedding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.errors import InputError, MissingKeyError


def test_velocity_writes_the_projection(known, cells):
    x = np.random.default_rng(0).standard_normal((400, 3))
    adata = known(cells({0.0: x[:200], 1.0: x[200:]}), lambda t, z, c: torch.ones_like(z))
    adata.obsm["X_map"] = adata.obsm["X_pca"] @ np.array([[2.0, 0], [0, 0], [0, 3]]) + 1
    tw.tl.velocity(adata, basis="map")
    np.testing.assert_allclose(adata.obsm["velocity_map"], np.tile([2.0, 3.0], (400, 1)), rtol=0.02)
    assert adata.obsm["velocity_map"].dtype == np.float32
    tw.tl.velocity(adata, basis="pca")
    np.testing.assert_array_equal(adata.obsm["velocity_pca"], adata.obsm["velocity_X_pca"])
    with pytest.raises(MissingKeyError, match="basis='umap'"):
        tw.tl.velocity(adata, basis="umap")
    with pytest.raises(InputError, match="projection must be"):
        tw.tl.velocity(adata, basis="map", projection="arrow")
