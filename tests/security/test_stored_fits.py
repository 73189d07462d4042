"""A fit from a stranger runs no code, allocates nothing of the size it claims, and is not half believed."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from benchmarks.reliability import attacks, memory

import thalweg as tw
from thalweg.errors import InputError
from thalweg.flows import store_checks as checks


def size_of(weights) -> int:
    """Bytes of the models of a fit, whatever an attack made of them."""
    models = weights.values() if isinstance(weights, dict) else [weights]
    return sum(getattr(model, "nbytes", 0) for model in models)


@pytest.mark.parametrize("name", attacks.FIT)
def test_attacks_are_refused(name, base, marker):
    adata = attacks.fit_attack(base, name)
    memory.reset()
    before = memory.peak()
    with pytest.raises(InputError, match=r"uns\['thalweg'\]"):
        tw.tl.velocity(adata)
    assert not marker.exists()
    assert "velocity_X_pca" not in adata.obsm
    grown = memory.peak() - before
    assert grown < 2 * size_of(adata.uns["thalweg"]["weights"]) + 30 * 2**20


@pytest.mark.parametrize("name", ["pickle as weights", "'../' as tensor name", "width of 10^9", "scale of zero"])
def test_attacks_are_refused_out_of_a_file(name, base, tmp_path):
    attacks.fit_attack(base, name).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match=r"uns\['thalweg'\] is damaged"):
        tw.tl.velocity(tw.read_h5ad(tmp_path / "a.h5ad"))


def test_a_newer_format_names_the_version_that_reads_it(base):
    adata = attacks.fit_attack(base, "format of a later version")
    adata.uns["thalweg"]["version"] = "7.3.1"
    with pytest.raises(InputError, match=r"format 99, this version reads up to 2; upgrade thalweg to 7\.3\.1"):
        tw.tl.interpolate(adata, 0.5)
    assert base.uns["thalweg"]["version"] == tw.__version__


def test_single_bytes_of_the_weights_never_go_unnoticed_as_another_network(base):
    """A flipped byte gives an error or finite weights of the same shapes; nothing else."""
    weights, rng = base.uns["thalweg"]["weights"]["0"], np.random.default_rng(0)
    outcomes = set()
    for at in [*range(8), *rng.integers(len(weights), size=40)]:
        adata = base.copy()
        adata.uns["thalweg"] = dict(base.uns["thalweg"], weights={"0": weights.copy()})
        adata.uns["thalweg"]["weights"]["0"][at] ^= 1 << rng.integers(8)
        try:
            out = tw.tl.interpolate(adata, 0.5).obsm["X_pca"]
        except (InputError, tw.errors.NotConvergedError):
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert np.isfinite(out).all()
    assert outcomes == {"refused", "read"}


def test_honest_values_pass_in_every_type_that_files_give():
    for one in (3, np.int64(3), np.array(3)):
        assert checks.whole(one, "x", 1, 5) == 3
        assert checks.real(one, "x") == 3.0
    for bad in (True, 3.5, "3", None, np.arange(2), 6):
        with pytest.raises(InputError, match=r"x must be a whole number from 1 to 5"):
            checks.whole(bad, "x", 1, 5)
    for bad in (True, np.nan, -np.inf, "3", -1.0, [1.0]):
        with pytest.raises(InputError, match="x must be a finite number of at least 0"):
            checks.real(bad, "x", 0.0)


def test_backed_files_are_written_in_memory(base, tmp_path):
    base.write_h5ad(tmp_path / "none.h5ad")
    backed = ad.read_h5ad(tmp_path / "none.h5ad", backed="r")
    with pytest.raises(InputError, match=r"none\.h5ad.*read it without backed="):  # a fault of anndata: there is no X
        tw.tl.velocity(backed, copy=True)
    backed.file.close()
    with_x = ad.AnnData(np.ones((60, 2), np.float32), obs=base.obs, obsm=dict(base.obsm), uns=dict(base.uns))
    with_x.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    out = tw.tl.velocity(backed, copy=True)
    assert not out.isbacked
    view = backed[:60]
    tw.tl.velocity(view)
    np.testing.assert_array_equal(view.obsm["velocity_X_pca"], out.obsm["velocity_X_pca"][:60])
    backed.file.close()
    assert "velocity_X_pca" not in ad.read_h5ad(tmp_path / "a.h5ad").obsm
