"""The affine part of a fit: what it is for, and that it can be left out."""

from __future__ import annotations

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import thalweg as tw
from thalweg.core.fields.affine import AffineMLP
from thalweg.flows.methods import METHODS
from thalweg.flows.networks import make_net


@pytest.fixture(scope="module")
def noise():
    """Two populations that are noise in twenty coordinates: halfway a cell is the average of two."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 20))
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0], 1500)}, index=[f"c{i}" for i in range(3000)])
    return anndata.AnnData(obs=obs, obsm={"X_pca": x})


def halfway_variance(adata, **config):
    tw.tl.fit(adata, "day", method="icfm", rng=0, config=tw.tl.FitConfig(max_steps=200, **config))
    return tw.tl.interpolate(adata, 0.5, both_ends=False).obsm["X_pca"].var(0).mean()


def test_noise_is_averaged_as_the_path_says(noise):
    assert halfway_variance(noise.copy()) == pytest.approx(0.5, abs=0.03)
    assert halfway_variance(noise.copy(), affine=False) > 0.56  # a network alone has not learned it by then


def test_survives_the_round_trip(noise, tmp_path):
    halfway_variance(noise, affine=True)
    noise.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(
        tw.tl.interpolate(again, 0.3).obsm["X_pca"], tw.tl.interpolate(noise, 0.3).obsm["X_pca"]
    )


def test_several_threads_find_the_same_field():
    """PyTorch's batched LU raises or errs with 152 rows or more on several threads; 50 components have 204."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0, 2.0], 100)}, index=[f"c{i}" for i in range(300)])
    adata = anndata.AnnData(obs=obs, obsm={"X_pca": rng.normal(size=(300, 50)) + obs[["day"]].to_numpy()})
    before, ends = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            tw.tl.fit(adata, "day", method="otcfm", rng=0, config=tw.tl.FitConfig(max_steps=2))
            ends.append(tw.tl.interpolate(adata, 0.5).obsm["X_pca"])
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=0.01)


def test_it_is_left_out_beyond_256_coordinates_and_where_that_is_asked_for(quick):
    for dims, config, there in ((256, quick, True), (257, quick, False), (3, replace(quick, affine=False), False)):
        net = make_net(
            dims, METHODS["otcfm"], config, n_conditions=0, n_intervals=1, generator=torch.Generator().manual_seed(0)
        )
        assert isinstance(net.main, AffineMLP) == there
