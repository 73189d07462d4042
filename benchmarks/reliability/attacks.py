"""Attack files: what a stranger could send as an h5ad or as a fitted model.

    python -m benchmarks.reliability.attacks     # makes them in a temporary folder and prints what becomes of each

`attacks_h5ad` has those on the reader of h5ad files and the payload; here are an honest course with a fit, and the
attacks on the fit, each a change of the dict in ``uns``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from benchmarks.reliability.attacks_h5ad import H5AD, MARKER, PICKLE, Payload, write_h5ad_attacks
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from scipy import sparse

import thalweg as tw

__all__ = ["FIT", "H5AD", "MARKER", "PICKLE", "fit_attack", "honest", "write_h5ad_attacks"]

Entry = dict[str, Any]


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


def _weights(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Callable[[Entry], None]:
    def apply(entry: Entry) -> None:
        tensors = {k: v.copy() for k, v in load_safetensors(entry["weights"]["0"].tobytes()).items()}
        entry["weights"]["0"] = np.frombuffer(save_safetensors(change(tensors)), np.uint8).copy()

    return apply


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Entry], None]:
    def apply(entry: Entry) -> None:
        entry["weights"]["0"] = np.frombuffer(change(entry["weights"]["0"].tobytes()), np.uint8).copy()

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
    "weights of another type": _set("weights", "0", value=np.array([Payload()], dtype=object)),
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
    "dimensions of 10^12": _set("recipe", "n_dims", value=10**12),
    "dimensions of -3": _set("recipe", "n_dims", value=-3),
    "dimensions as array": _set("recipe", "n_dims", value=np.arange(5)),
    "method without a name": _set("params", "method", value=""),
    "name of another method": _set("params", "method", value="sf2m"),
    "sigma of NaN": _set("params", "sigma", value=float("nan")),
    "scale of zero": _set("scale", value=0.0),
    "scale of infinity": _set("scale", value=float("inf")),
    "center of the wrong length": _set("center", value=np.zeros(99)),
    "center of NaN": _set("center", value=np.full(3, np.nan)),
    "times that fall": _set("time", "times", value=np.array([3.0, 1.0])),
    "one time": _set("time", "times", value=np.array([3.0])),
    "times of NaN": _set("time", "values", value=np.array([0.0, np.nan])),
    "knots without values": _set("time", "knots", value=np.arange(7.0)),
    "conditions that repeat": _set("recipe", "conditions", value=np.array(["a", "a"])),
    "a million conditions": _set("recipe", "conditions", value=np.arange(10**6).astype(str)),
    "labels without values": _set("recipe", "map_labels", value=np.array(["a", "b", "c"])),
    "format as text": _set("format", value="one"),
    "format of -1": _set("format", value=-1),
    "format of a later version": _set("format", value=99),
    "no parameters": _drop("params"),
    "no axis": _drop("time"),
    "history that is no table": _set("history", value=PICKLE),
    "parameters as list": _set("params", value=[1, 2]),
    "weights as bytes of format 1": lambda entry: entry.update(weights=entry["weights"]["0"]),
    "two models": lambda entry: entry["weights"].update({"1": entry["weights"]["0"]}),
    "a million models": _set("params", "n_models", value=10**6),
    "score as text": _set("params", "score", value="yes"),
    "another field than the method's": _set("params", "field", value="noise"),
    "no recipe": _drop("recipe"),
    "a column that is bytes": _set("recipe", "time_key", value=PICKLE),
    "a diffusion of NaN": _set("diffusion", value=np.full(3, np.nan)),
    "a diffusion for other components": _set("diffusion", value=np.ones(7)),
    "sizes of populations": _set("population_sizes", value={"0": 100.0}),
    "means of other dimensions": _set("seen", "mean", value=np.zeros((3, 99))),
    "a record that is a list": _set("seen", value=[1, 2]),
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
