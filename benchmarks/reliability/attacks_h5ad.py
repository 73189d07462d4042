"""Attacks on the reader of h5ad files: what a stranger could send as one. Each function changes an open, honest file.

Every payload, if its code ran, would create the file that the environment variable `MARKER` names.
"""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from anndata import AnnData

MARKER = "THALWEG_ATTACK_MARKER"
SWELL = 200 * 10**6  # bytes


class Payload:
    """Unpickling an instance runs a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f'touch "${MARKER}"',)


PICKLE = pickle.dumps(Payload())


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
