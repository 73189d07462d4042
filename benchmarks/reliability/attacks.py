"""Attack files: what a stranger could send as an h5ad or as a fitted model.

    python -m benchmarks.reliability.attacks     # makes them in a temporary folder and prints what becomes of each

Every payload, if its code ran, would create the file that the environment variable `MARKER` names.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import zlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from scipy import sparse

import thalweg as tw

MARKER = "THALWEG_ATTACK_MARKER"
SWELL = 200 * 10**6  # bytes


class _Payload:
    """Unpickling an instance runs a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f'touch "${MARKER}"',)


PICKLE = pickle.dumps(_Payload())


def honest() -> AnnData:
    """A small course with a fit; the attacks are changes to it."""
    rng = np.random.default_rng(0)
    n = 60
    names = [f"cell{i}" for i in range(n)]
    obs = pd.DataFrame(
        {"time": np.repeat([0.0, 1.0, 3.0], n // 3), "label": pd.Categorical(["a", "b"] * (n // 2))}, names
    )
    adata = AnnData(obs=obs, obsm={"X_pca": rng.standard_normal((n, 3)) + obs[["time"]].to_numpy()})
    adata.obsp["near"] = sparse.identity(n, format="csr", dtype=np.float32)
    tw.tl.fit(adata, "time", rng=0, config=tw.tl.FitConfig(max_steps=20, batch_size=32, width=8, depth=1))
    return adata


# --- h5ad files: each function changes an open, honest file ----------------------------------------------------------


def _external_link(f: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as other:
        other["X"] = np.ones(3)
    f["uns/stolen"] = h5py.ExternalLink(str(folder / "secret.h5"), "/X")


def _external_storage(f: h5py.File, folder: Path) -> None:
    secret = folder / "secret.txt"
    secret.write_bytes(b"password")
    data = f.create_dataset("uns/stolen", (8,), "u1", external=[(str(secret), 0, 8)])
    data.attrs["encoding-type"], data.attrs["encoding-version"] = "array", "0.2.0"


def _virtual(f: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as other:
        other["X"] = np.ones(3)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "X", (3,))
    f.create_virtual_dataset("uns/stolen", layout)


def _cycle_of_soft_links(f: h5py.File, folder: Path) -> None:
    f["uns/a"], f["uns/b"] = h5py.SoftLink("/uns/b"), h5py.SoftLink("/uns/a")


def _soft_link_to_the_root(f: h5py.File, folder: Path) -> None:
    f["uns/again"] = h5py.SoftLink("/")


def _cycle_of_groups(f: h5py.File, folder: Path) -> None:
    f["uns/again"] = f["uns"]


def _deep(f: h5py.File, folder: Path) -> None:
    f.create_group("uns/" + "/".join(["a"] * 500))


def _parent_name(f: h5py.File, folder: Path) -> None:
    # h5py reads ".." as a name like any other.
    f["uns"].create_group("x").create_dataset("..", data=1)


def _pickle_bytes(f: h5py.File, folder: Path) -> None:
    data = f.create_dataset("uns/model", data=np.void(PICKLE))
    data.attrs["encoding-type"], data.attrs["encoding-version"] = "pickle", "0.1.0"


def _pickled_objects(f: h5py.File, folder: Path) -> None:
    data = f.create_dataset("uns/model", (1,), h5py.vlen_dtype(np.uint8))
    data[0] = np.frombuffer(PICKLE, np.uint8)


def _references(f: h5py.File, folder: Path) -> None:
    f.create_dataset("uns/model", (1,), h5py.ref_dtype)[0] = f["obs"].ref


def _reference_out_of_the_tree(f: h5py.File, folder: Path) -> None:
    loose = f.create_dataset(None, data=np.arange(3))
    f["obs/label"].attrs["categories"] = loose.ref


def _swells_unwritten(f: h5py.File, folder: Path) -> None:
    f.create_dataset("obsm/X_big", (f["obs/time"].shape[0], SWELL // 8 // f["obs/time"].shape[0]), "f8", chunks=True)


def _swells_deflated(f: h5py.File, folder: Path) -> None:
    f.create_dataset("uns/big", data=np.zeros(SWELL // 8), chunks=(SWELL // 8,), compression="gzip", compression_opts=9)


def _twice_deflated(f: h5py.File, folder: Path) -> None:
    """32 KB, or less, for 200 MB."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((SWELL,))
    plan.set_deflate(9)
    plan.set_deflate(9)
    space = h5py.h5s.create_simple((SWELL,))
    data = h5py.h5d.create(f["uns"].id, b"big", h5py.h5t.NATIVE_UINT8, space, plan)
    data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(SWELL, np.uint8))


def _chunk_larger_than_declared(f: h5py.File, folder: Path) -> None:
    data = f.create_dataset("uns/big", (1000,), "u1", chunks=(1000,), compression="gzip")
    data.id.write_direct_chunk((0,), zlib.compress(bytes(SWELL), 9))


def _huge_shape(f: h5py.File, folder: Path) -> None:
    f.create_dataset("uns/big", (2**31, 2**31), "f8", chunks=(16, 16))


def _huge_chunk(f: h5py.File, folder: Path) -> None:
    f.create_dataset("uns/big", (4,), "f8", chunks=(2**27,), maxshape=(None,))


def _one_text_many_times(f: h5py.File, folder: Path) -> None:
    data = f.create_dataset("uns/texts", (5000,), h5py.string_dtype())
    data[0] = "x" * 2**20
    f.flush()
    offset, name = data.id.get_offset(), f.filename
    f.close()
    with open(name, "r+b") as raw:
        raw.seek(offset)
        first = raw.read(16)
        raw.seek(offset)
        raw.write(first * 5000)


def _attribute_of_long_texts(f: h5py.File, folder: Path) -> None:
    f["uns"].create_dataset("long", data="x" * 2**20)
    f["uns"].attrs["texts"] = np.array(["y"] * 3000, dtype=object)


def _unknown_filter(f: h5py.File, folder: Path) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4,))
    plan.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, (1,))
    h5py.h5d.create(f["uns"].id, b"big", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((4,)), plan)


def _changed(path: str, value: Any, where: int = 0) -> Callable[[h5py.File, Path], None]:
    def change(f: h5py.File, folder: Path) -> None:
        f[path][where] = value

    return change


def _negative_shape(f: h5py.File, folder: Path) -> None:
    f["obsp/near"].attrs["shape"] = np.array([-5, -5])


def _html(f: h5py.File, folder: Path) -> None:
    name = f.filename
    f.close()
    Path(name).write_text("<html>404 Not Found</html>")


def _truncated(f: h5py.File, folder: Path) -> None:
    name = f.filename
    f.close()
    os.truncate(name, os.path.getsize(name) // 2)


H5AD: dict[str, Callable[[h5py.File, Path], None]] = {
    "external link": _external_link,
    "external storage": _external_storage,
    "virtual dataset": _virtual,
    "cycle of soft links": _cycle_of_soft_links,
    "soft link to the root": _soft_link_to_the_root,
    "group that holds itself": _cycle_of_groups,
    "500 groups deep": _deep,
    "'..' as a name": _parent_name,
    "pickle as opaque bytes": _pickle_bytes,
    "pickle as vlen bytes": _pickled_objects,
    "object references": _references,
    "reference out of the tree": _reference_out_of_the_tree,
    "200 MB never written": _swells_unwritten,
    "200 MB deflated": _swells_deflated,
    "200 MB deflated twice": _twice_deflated,
    "chunk larger than declared": _chunk_larger_than_declared,
    "shape of 2^62": _huge_shape,
    "chunk of 1 GiB": _huge_chunk,
    "one text 5,000 times": _one_text_many_times,
    "attribute of long texts": _attribute_of_long_texts,
    "unknown filter": _unknown_filter,
    "sparse index out of range": _changed("obsp/near/indices", 10**6),
    "negative sparse index": _changed("obsp/near/indices", -7),
    "sparse pointers decrease": _changed("obsp/near/indptr", 10**6, 1),
    "negative sparse shape": _negative_shape,
    "category out of range": _changed("obs/label/codes", 100),
    "a web page": _html,
    "half a file": _truncated,
}


def write_h5ad_attacks(folder: Path, base: AnnData) -> dict[str, Path]:
    """Write every attack on the h5ad reader; returns the files by name."""
    out = {}
    for k, (name, change) in enumerate(H5AD.items()):
        path = folder / f"attack{k:02d}.h5ad"
        base.write_h5ad(path)
        with h5py.File(path, "r+") as f:
            change(f, folder)
        out[name] = path
    return out


# --- fitted models: each function changes the dict in uns ------------------------------------------------------------

Entry = dict[str, Any]


def _weights(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Callable[[Entry], None]:
    def apply(entry: Entry) -> None:
        tensors = {k: v.copy() for k, v in load_safetensors(entry["weights"].tobytes()).items()}
        entry["weights"] = np.frombuffer(save_safetensors(change(tensors)), np.uint8).copy()

    return apply


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Entry], None]:
    def apply(entry: Entry) -> None:
        entry["weights"] = np.frombuffer(change(entry["weights"].tobytes()), np.uint8).copy()

    return apply


def _set(*path: str, value: Any) -> Callable[[Entry], None]:
    def apply(entry: Entry) -> None:
        for key in path[:-1]:
            entry = entry[key]
        entry[path[-1]] = value

    return apply


def _drop(*path: str) -> Callable[[Entry], None]:
    def apply(entry: Entry) -> None:
        for key in path[:-1]:
            entry = entry[key]
        del entry[path[-1]]

    return apply


def _first(tensors: dict[str, np.ndarray], value: np.ndarray) -> dict[str, np.ndarray]:
    return tensors | {min(tensors): value}


def _header_of(size: int) -> bytes:
    return size.to_bytes(8, "little") + b'{"a":' + b" " * (size - 7) + b"1}"


def _overlapping(data: bytes) -> bytes:
    """Every tensor at the offsets of the first one."""
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    first = next(v for k, v in header.items() if k != "__metadata__")["data_offsets"]
    for k, v in header.items():
        if k != "__metadata__":
            v["data_offsets"] = first
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + n :]


FIT: dict[str, Callable[[Entry], None]] = {
    "pickle as weights": _bytes(lambda data: PICKLE),
    "pickle after the weights": _bytes(lambda data: data + PICKLE),
    "pickle as field": _set("params", "method", value=PICKLE),
    "zip of a torch file": _bytes(lambda data: b"PK\x03\x04" + PICKLE),
    "no weights": _bytes(lambda data: b""),
    "weights of another type": _set("weights", value=np.array([_Payload()], dtype=object)),
    "header of 2^62 bytes": _bytes(lambda data: (2**62).to_bytes(8, "little") + data[8:]),
    "header of 40 MB": _bytes(lambda data: _header_of(40 * 10**6)),
    "header nested 50,000 deep": _bytes(lambda data: (200_000).to_bytes(8, "little") + b"[" * 100_000 + b"]" * 100_000),
    "tensors overlap": _bytes(_overlapping),
    "weights cut short": _bytes(lambda data: data[:-40]),
    "'../' as tensor name": _weights(lambda t: t | {"../../etc/passwd": np.zeros(3, np.float32)}),
    "a tensor missing": _weights(lambda t: {k: v for k, v in t.items() if k != min(t)}),
    "a shape transposed": _weights(lambda t: {k: np.ascontiguousarray(v.T) for k, v in t.items()}),
    "float64 weights": _weights(lambda t: {k: v.astype(np.float64) for k, v in t.items()}),
    "NaN in the weights": _weights(lambda t: _first(t, np.full_like(t[min(t)], np.nan))),
    "infinity in the weights": _weights(lambda t: _first(t, np.full_like(t[min(t)], np.inf))),
    "width of 10^9": _set("config", "width", value=10**9),
    "width of 30,000": _set("config", "width", value=30_000),
    "negative width": _set("config", "width", value=-8),
    "width as text": _set("config", "width", value="__import__('os')"),
    "width of NaN": _set("config", "width", value=float("nan")),
    "depth of 10^9": _set("config", "depth", value=10**9),
    "unknown field": _set("config", "__class__", value="os.system"),
    "option that is no option": _set("config", "dispersive", value={"__init__": "x"}),
    "dimensions of 10^12": _set("params", "n_dims", value=10**12),
    "dimensions of -3": _set("params", "n_dims", value=-3),
    "dimensions as array": _set("params", "n_dims", value=np.arange(5)),
    "method that is no method": _set("params", "method", value="__import__"),
    "sigma of NaN": _set("params", "sigma", value=float("nan")),
    "scale of zero": _set("scale", value=0.0),
    "scale of infinity": _set("scale", value=float("inf")),
    "center of the wrong length": _set("center", value=np.zeros(99)),
    "center of NaN": _set("center", value=np.full(3, np.nan)),
    "times that fall": _set("time", "times", value=np.array([3.0, 1.0])),
    "one time": _set("time", "times", value=np.array([3.0])),
    "times of NaN": _set("time", "values", value=np.array([0.0, np.nan])),
    "knots without values": _set("time", "knots", value=np.arange(7.0)),
    "conditions that repeat": _set("conditions", value=np.array(["a", "a"])),
    "a million conditions": _set("conditions", value=np.arange(10**6).astype(str)),
    "labels without values": _set("time", "map_labels", value=np.array(["a", "b", "c"])),
    "format as text": _set("format", value="one"),
    "format of -1": _set("format", value=-1),
    "format of a later version": _set("format", value=99),
    "no parameters": _drop("params"),
    "no axis": _drop("time"),
    "history that is no table": _set("history", value=PICKLE),
    "parameters as list": _set("params", value=[1, 2]),
}


def fit_attack(base: AnnData, name: str) -> AnnData:
    """A copy of ``base`` whose fit is replaced by an attack."""
    adata = base.copy()
    entry = deepcopy(dict(base.uns["thalweg"]))
    FIT[name](entry)
    adata.uns["thalweg"] = entry
    return adata


def main() -> None:
    tw.settings.progress, tw.settings.verbosity = False, "error"
    base = honest()
    with tempfile.TemporaryDirectory() as folder:
        for name, path in write_h5ad_attacks(Path(folder), base).items():
            print(f"{name:32} {path.stat().st_size:>9} B  {_outcome(lambda p=path: tw.read_h5ad(p))}")
    for name in FIT:
        print(f"{name:32} {'fit':>11}  {_outcome(lambda n=name: tw.tl.velocity(fit_attack(base, n)))}")


def _outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except tw.errors.ThalwegError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"FOREIGN {type(error).__name__}: {error}"
    return "ACCEPTED"


if __name__ == "__main__":
    main()
