"""The toggle switch: its numbers of cells, its drift by hand, and what is refused."""

import numpy as np
import pytest

import thalweg as tw
from thalweg.datasets import _toggle_switch as toggle
from thalweg.errors import InputError


def test_the_population_grows_as_that_of_the_paper():
    """The published file has 400, 442, 530, 690 and 969 cells; a binomial spread of a tenth allows for chance."""
    adata = tw.datasets.toggle_switch(rng=0)
    found = adata.obs["time"].value_counts().sort_index().to_numpy()
    assert found[0] == 400
    np.testing.assert_allclose(found, [400, 442, 530, 690, 969], rtol=0.1)
    assert list(adata.uns["population_size"].values()) == found.tolist()
    quiescent = adata.obs["state"] == "quiescent"
    np.testing.assert_allclose(adata.obs["time"][quiescent].value_counts(), 200, atol=12)  # these do not divide


def test_drift_and_division_are_the_formulas():
    x = np.array([[2.0, 0.2, 0.0], [0.0, 0.0, 2.0], [0.5, 1.5, 0.1]])
    x1, x2, x3 = x.T
    first = (0.5 * x1**2 + 1) / (1 + 0.5 * x1**2 + x2**2 + 10 * x3**2 + 1) - 0.4 * x1
    second = (x2**2 + 1) / (1 + 0.5 * x1**2 + x2**2 + 10 * x3**2 + 1) - 0.4 * x2
    third = x3**2 / (1 + x3**2) - 0.4 * x3
    np.testing.assert_allclose(toggle.drift(x), np.stack([first, second, third], 1))
    np.testing.assert_allclose(toggle.division(x), 0.07 * x2**2 / (1 + x2**2))
    adata = tw.datasets.toggle_switch(20, rng=1)
    every = np.asarray(adata.X, dtype=np.float64)
    np.testing.assert_allclose(adata.obs["growth_true"], 8 * toggle.division(every), rtol=1e-5)
    np.testing.assert_allclose(adata.obsm["velocity_pca_true"], 8 * toggle.drift(every)[:, :2], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(adata.obsm["X_pca"], adata.X[:, :2])


def test_a_seed_fixes_it():
    one, same, other = (tw.datasets.toggle_switch(40, rng=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.X, same.X)
    assert one.n_obs != other.n_obs or (one.X != other.X).any()


@pytest.mark.parametrize("n_cells", [0, 19, 21, 2.5, True])
def test_numbers_that_make_no_two_states_are_refused(n_cells):
    with pytest.raises(InputError, match="even number from 20 on"):
        tw.datasets.toggle_switch(n_cells)
