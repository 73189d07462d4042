"""Files of every release load for ever, and give what they gave; those of a newer format name what they need."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch

import last_bits
import thalweg as tw
from thalweg.errors import CheckpointError, InputError
from thalweg.training import checkpoint, latest_checkpoint, load_weights

HERE = Path(__file__).parent
FITS, CHECKPOINTS = (sorted(p.parent.name for p in HERE.glob(f"*/{name}.json")) for name in ("fitted", "checkpoints"))
_spec = importlib.util.spec_from_file_location("archive_make", HERE / "make.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def test_there_is_an_archive_and_it_is_small():
    assert "0.1.0" in FITS
    assert "0.1.0" in CHECKPOINTS
    assert all(p.stat().st_size < 400_000 for p in HERE.rglob("*") if p.is_file())


@pytest.mark.parametrize("release", FITS)
@pytest.mark.parametrize("seed", [None, *last_bits.SEEDS])
def test_a_fit_predicts_what_it_predicted(release, seed, monkeypatch):
    """On the machine that stored it, and on others: None leaves the last bits as they are."""
    if seed is not None:
        last_bits.move(monkeypatch, seed)
    adata = ad.read_h5ad(HERE / release / "fitted.h5ad")
    expected = json.loads((HERE / release / "fitted.json").read_text())
    assert expected.keys() <= adata.uns.keys()
    for method, values in expected.items():
        found = make.predictions(adata, method)
        assert found.keys() == values.keys()
        for name, value in values.items():
            tolerance = last_bits.NETWORK if name == "velocity" else last_bits.SOLVED
            np.testing.assert_allclose(found[name], value, **tolerance, err_msg=f"{method} {name}")


def test_the_last_bits_are_moved_and_no_more(monkeypatch):
    """Or the test above would show nothing."""
    adata = ad.read_h5ad(HERE / FITS[-1] / "fitted.h5ad")
    before = {method: make.predictions(adata, method) for method in ("otcfm", "fm")}
    for seed in last_bits.SEEDS:
        with monkeypatch.context() as patch:
            last_bits.move(patch, seed)
            after = {method: make.predictions(adata, method) for method in before}
        for method, values in before.items():
            for name, value in values.items():
                gap = np.abs(np.array(after[method][name]) - value).max()
                assert 1e-8 < gap < 1e-3, (method, name, gap)


@pytest.mark.parametrize("release", CHECKPOINTS)
def test_a_checkpoint_holds_the_weights_it_held(release):
    expected = json.loads((HERE / release / "checkpoints.json").read_text())["weights"]
    found = load_weights(HERE / release / "checkpoints")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], torch.tensor(value))


@pytest.mark.parametrize("release", CHECKPOINTS)
def test_a_checkpoint_is_gone_on_from(release, tmp_path):
    shutil.copytree(HERE / release / "checkpoints", tmp_path / "c")
    adata = make.course()
    then = replace(make.config(), path="straight", relaxation=0.5)  # the only path that there was, and the default
    tw.tl.fit(
        adata, "time", method="otcfm", spacing="real", rng=0, config=then, device="cpu", key_added="otcfm",
        checkpoint_dir=tmp_path / "c", resume=True,
    )  # fmt: skip
    assert adata.uns["otcfm"]["history"]["step"].tolist() == [10.0, 20.0, 30.0, 40.0]
    expected = json.loads((HERE / release / "checkpoints.json").read_text())["resumed"]
    # Bits on the machine it was made on; elsewhere twenty steps of another BLAS lie between.
    np.testing.assert_allclose(make.predictions(adata, "otcfm")["interpolated"], expected, atol=1e-3)


def test_a_fit_of_a_newer_format_names_the_version_needed():
    adata = ad.read_h5ad(HERE / FITS[-1] / "fitted.h5ad")
    newer = int(adata.uns["otcfm"]["format"]) + 1000
    adata.uns["otcfm"] |= {"format": newer, "version": "9.1.0"}
    with pytest.raises(InputError, match=rf"format {newer}, this version reads up to \d+; upgrade thalweg to 9\.1\.0"):
        tw.tl.interpolate(adata, make.BETWEEN, key="otcfm")


def test_a_checkpoint_of_a_newer_format_names_the_version_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    monkeypatch.setattr(checkpoint, "__version__", "9.1.0")
    checkpoint.write_checkpoint(tmp_path, 3, {"best": {"w": torch.ones(2)}}, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"written by thalweg 9\.1\.0.*Upgrade thalweg to 9\.1\.0 or later"):
        latest_checkpoint(tmp_path)
