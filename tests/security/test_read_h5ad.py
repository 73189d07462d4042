"""The reader refuses what a stranger can hide in an h5ad, and reads every honest one as anndata does."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from benchmarks.reliability import attacks

import thalweg as tw
from thalweg.data.io import hdf5 as _hdf5
from thalweg.data.io import reader
from thalweg.data.io.reader import default_limit
from thalweg.errors import InputError, UnsafeFileError

# Refused while the rest of the file is read, as damage: the file is whole until anndata, pandas or scipy look inside.
DAMAGE = {"reference out of the tree", "negative sparse shape", "category out of range", "a web page", "half a file"}


@pytest.fixture(scope="module")
def files(base, tmp_path_factory):
    return attacks.write_h5ad_attacks(tmp_path_factory.mktemp("attacks"), base)


@pytest.mark.parametrize("name", attacks.H5AD)
def test_attacks_are_refused(name, files, marker):
    with pytest.raises(InputError) as caught:
        tw.read_h5ad(files[name])
    assert isinstance(caught.value, UnsafeFileError) == (name not in DAMAGE)
    assert files[name].name in str(caught.value)
    assert not marker.exists()


def test_the_payload_of_the_attacks_would_run(marker):
    pickle.loads(attacks.PICKLE)
    assert marker.exists()


@pytest.mark.filterwarnings("ignore:Element .* was written without encoding")
def test_what_anndata_itself_makes_of_them(files):
    """The checks are needed: anndata follows a link out of the file, and takes 200 MB from a file of 0.2."""
    assert list(ad.read_h5ad(files["external storage"]).uns["stolen"].tobytes()) == list(b"password")
    assert ad.read_h5ad(files["200 MB never written"]).obsm["X_big"].nbytes > 199 * 10**6
    broken = ad.read_h5ad(files["negative sparse index"]).obsp["near"]
    assert broken.indices.min() == -7


def test_refusing_takes_no_memory(files):
    """What looks at the files that swell grows by less than 40 MB."""
    names = ["200 MB never written", "200 MB deflated", "200 MB deflated twice", "chunk of 1 GiB", "shape of 2^62"]
    code = (
        "import sys, thalweg as tw\n"
        "from benchmarks.reliability.memory import peak\n"
        "from thalweg.data.io import hdf5 as _hdf5\n"
        "before = peak()\n"
        "for path in sys.argv[1:]:\n"
        "    try: _hdf5.rehearse(__import__('pathlib').Path(path), 2**26)\n"
        "    except tw.errors.UnsafeFileError: pass\n"
        "    else: sys.exit('accepted')\n"
        "print(peak() - before, 'torch' in sys.modules)"
    )
    command, root = [sys.executable, "-c", code, *(str(files[n]) for n in names)], Path(__file__).parents[2]
    out = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    grown, heavy = out.stdout.split()
    assert int(grown) < 40 * 2**20
    assert heavy == "False"  # a rehearsal starts quickly


def rich() -> AnnData:
    """One of everything that AnnData writes."""
    rng = np.random.default_rng(0)
    counts = sp.random(40, 30, 0.2, "csr", dtype=np.float32, random_state=0)
    obs = pd.DataFrame(
        {
            "cat": pd.Categorical(list("abcd") * 10),
            "text": [f"cell {i}" for i in range(40)],
            "int": pd.array([None, *range(39)], dtype="Int64"),
            "bool": np.arange(40) % 2 == 0,
            "float": rng.standard_normal(40),
        },
        index=[f"c{i}" for i in range(40)],
    )
    out = AnnData(counts, obs=obs, obsm={"X_pca": rng.standard_normal((40, 3)), "frame": obs[["float"]]})
    out.layers["csc"], out.layers["dense"] = counts.tocsc(), counts.toarray()
    out.obsp["near"] = sp.identity(40, format="csr")
    out.varm["loadings"] = rng.standard_normal((30, 3))
    out.uns = {"text": "one", "number": 3, "list": np.array(["a", "b"]), "deep": {"er": {"est": np.arange(3)}}}
    out.uns["table"], out.uns["matrix"] = pd.DataFrame({"x": [1, 2]}, index=["a", "b"]), counts[:3]
    out.raw = out.copy()
    return out


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"compression": "lzf"}], ids=str)
def test_honest_files_are_read_as_anndata_reads_them(options, tmp_path):
    rich().write_h5ad(tmp_path / "a.h5ad", **options)
    ours, theirs = tw.read_h5ad(tmp_path / "a.h5ad"), ad.read_h5ad(tmp_path / "a.h5ad")
    for name in ("obs", "var", "uns", "obsm", "varm", "obsp", "layers", "X"):
        _same(getattr(ours, name), getattr(theirs, name))
    _same(ours.raw.X, theirs.raw.X)


def _same(a, b) -> None:
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    elif isinstance(a, Mapping):
        assert list(a) == list(b)
        for key in a:
            _same(a[key], b[key])
    else:
        assert type(a) is type(b)
        np.testing.assert_array_equal(*(v.toarray() if sp.issparse(v) else v for v in (a, b)))


def test_a_fit_survives(base, tmp_path):
    base.write_h5ad(tmp_path / "a.h5ad")
    again = tw.read_h5ad(str(tmp_path / "a.h5ad"))
    np.testing.assert_array_equal(
        tw.tl.interpolate(again, 0.4).obsm["X_pca"], tw.tl.interpolate(base, 0.4).obsm["X_pca"]
    )


def test_categories_by_reference_as_in_anndata_0_7(base, tmp_path):
    path = tmp_path / "old.h5ad"
    base.write_h5ad(path)
    with h5py.File(path, "r+") as f:
        codes = f["obs/label/codes"][:]
        del f["obs/label"]
        f["obs/__categories/label"] = np.array(["a", "b"], dtype=object)
        f["obs/__categories/label"].attrs["ordered"] = False
        f["obs/label"] = codes
        f["obs/label"].attrs["categories"] = f["obs/__categories/label"].ref
        f["obs"].attrs["encoding-version"] = "0.1.0"
        for name in ("encoding-type", "encoding-version"):
            f["obs/label"].attrs.pop(name, None)
    _hdf5.inspect(path, 2**24)  # the rest is anndata's own support of old files


def test_the_limit_is_an_argument_and_counts_every_array(tmp_path):
    n = 10_000
    AnnData(obs=pd.DataFrame(index=pd.RangeIndex(n).astype(str)), obsm={"X": np.zeros((n, 50))}).write_h5ad(
        tmp_path / "a.h5ad", compression="gzip"
    )
    with pytest.raises(UnsafeFileError, match=r"obsm/X \(10000 x 50 entries x 8 bytes\).*max_bytes=4000000"):
        tw.read_h5ad(tmp_path / "a.h5ad", max_bytes=4_000_000)
    assert tw.read_h5ad(tmp_path / "a.h5ad", max_bytes=8_000_000).n_obs == n
    with pytest.raises(InputError, match="max_bytes must be at least 1"):
        tw.read_h5ad(tmp_path / "a.h5ad", max_bytes=0)


def test_long_texts_are_counted_as_they_are(tmp_path):
    """Many short texts and one long one fit, though their number times the longest does not."""
    texts = np.array(["x"] * 20_000 + ["y" * 10**5], dtype=object)
    AnnData(obs=pd.DataFrame(index=["a"]), uns={"texts": texts}).write_h5ad(tmp_path / "a.h5ad")
    assert len(tw.read_h5ad(tmp_path / "a.h5ad", max_bytes=10**7).uns["texts"][-1]) == 10**5
    with pytest.raises(UnsafeFileError, match="text up to entry"):
        tw.read_h5ad(tmp_path / "a.h5ad", max_bytes=20_001 * 64 + 50_000)


def test_default_limit():
    assert default_limit(32 * 1024) == 64 * 2**20 < 200 * 10**6
    assert default_limit(10**8) == 10**10
    assert default_limit(10**12) == 64 * 2**30


def test_no_file_and_no_hdf5(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        tw.read_h5ad(tmp_path / "none.h5ad")
    (tmp_path / "empty.h5ad").touch()
    with pytest.raises(InputError, match="does not start as an HDF5 file"):
        tw.read_h5ad(tmp_path / "empty.h5ad")


def test_the_number_of_objects_and_attributes_is_bounded(base, tmp_path, monkeypatch):
    base.write_h5ad(tmp_path / "a.h5ad")
    monkeypatch.setattr(_hdf5, "OBJECTS", 10)
    with pytest.raises(UnsafeFileError, match="more than 10 objects"):
        _hdf5.rehearse(tmp_path / "a.h5ad", 2**26)
    monkeypatch.undo()
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        for k in range(300):
            f["uns"].attrs[f"a{k}"] = k
    with pytest.raises(UnsafeFileError, match="attributes"):
        tw.read_h5ad(tmp_path / "a.h5ad")


@pytest.mark.parametrize(
    ("code", "message"),
    [("import os; os.abort()", r"crashes on it \(exit status -6\)"), ("while True: pass", "does not end within 1 s")],
    ids=["crash", "hang"],
)
def test_a_rehearsal_that_crashes_or_hangs_refuses_the_file(code, message, base, tmp_path, monkeypatch):
    base.write_h5ad(tmp_path / "a.h5ad")
    run = subprocess.run
    monkeypatch.setattr(reader, "PATIENCE", 1.0)
    monkeypatch.setattr(subprocess, "run", lambda command, **k: run([command[0], "-c", code], **k))
    with pytest.raises(UnsafeFileError, match=message):
        tw.read_h5ad(tmp_path / "a.h5ad")


def test_a_rehearsal_reads_every_block(base, tmp_path, monkeypatch):
    base.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        data = f["obsm/X_pca"]
        data.id.write_direct_chunk((0,) * data.ndim, b"this is no deflate stream")
    with pytest.raises(InputError, match="is damaged or not an h5ad"):
        tw.read_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(OSError, match="filter"):
        _hdf5.rehearse(tmp_path / "a.h5ad", 2**26)


def test_a_module_beside_the_file_is_not_imported(base, tmp_path, monkeypatch, marker):
    (tmp_path / "h5py.py").write_text(f"open({str(marker)!r}, 'w')")
    base.write_h5ad(tmp_path / "a.h5ad")
    monkeypatch.chdir(tmp_path)
    assert tw.read_h5ad("a.h5ad").n_obs == base.n_obs
    assert not marker.exists()
