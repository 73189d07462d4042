"""What `fuzz` mutates and hands to which reader, and the audit hook that sees what the reading does.

A target is an honest file and a reader. `make_case` gives a function that mutates the file with the generator it gets
(bits, bytes, numbers, blocks copied, zeroed, removed or swapped; of the weights also with a repaired header), switches
`WATCH` on and has it read.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PATIENCE = 5  # seconds of a rehearsal; 60 in the package
FORBIDDEN = {
    "compile",
    "exec",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "ctypes.dlopen",
    "pickle.find_class",
    "marshal.loads",
}
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**64 - 1)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """A few random changes of a file's bytes."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(len(out))) if rng.random() < 0.5 else int(rng.integers(min(len(out), 4096)))
        size = int(rng.integers(1, 33))
        kind = rng.integers(8)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.integers(256))
        elif kind == 2:
            width = int(rng.choice([1, 2, 4, 8]))
            out[at : at + width] = (NUMBERS[rng.integers(len(NUMBERS))] % 2 ** (8 * width)).to_bytes(width, "little")
        elif kind == 3:
            out[at : at + size] = bytes(len(out[at : at + size]))
        elif kind == 4:
            out[at : at + size] = rng.bytes(len(out[at : at + size]))
        elif kind == 5:
            other = int(rng.integers(len(out)))
            block = bytes(out[other : other + size])
            out[at : at + len(block)] = block
        elif kind == 6:
            del out[at : at + size]
        else:
            del out[int(rng.integers(len(out))) :]
        if not out:
            out = bytearray(b"\0")
    return bytes(out)


class Watch:
    """The audit hook; it cannot be removed, only rested.

    Python itself executes the code of a module that is imported late, a codec for instance. That is allowed to the
    import system alone, and only for the standard library and the packages that an honest file has loaded.
    """

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        self.packages: set[str] = set()

    def start(self) -> None:
        """Take what is loaded now as what reading needs."""
        self.packages = set(sys.stdlib_module_names) | {name.split(".")[0] for name in sys.modules}

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "import" and str(arguments[0]).split(".")[0] not in self.packages:
            self.seen.append(f"import {arguments[0]}")
        elif event in FORBIDDEN:
            importing = sys._getframe(1).f_code.co_filename.startswith("<frozen importlib")
            rehearsing = event in ("subprocess.Popen", "os.posix_spawn") and "thalweg.data.io.hdf5" in str(arguments)
            if not rehearsing and not (importing and event in ("exec", "marshal.loads")):
                self.seen.append(f"{event} {str(arguments)[:200]}")
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            self.seen.append(f"open for writing {arguments[0]}")


WATCH = Watch()


def _keep_signature(data: bytes, honest: bytes) -> bytes:
    """Most mutants keep the first bytes: without them a reader stops at once."""
    return honest[:8] + data[8:]


def make_h5ad(folder: Path, honest: bytes) -> Callable[[np.random.Generator], None]:
    import thalweg as tw
    from thalweg.data import reader

    path = folder / "mutant.h5ad"
    reader.PATIENCE = float(PATIENCE)
    real = reader._rehearse

    def case(rng: np.random.Generator) -> None:
        path.write_bytes(_keep_signature(mutate(honest, rng), honest))
        reader._rehearse = real if rng.random() < 0.02 else forked_rehearsal
        WATCH.on = True
        adata = tw.read_h5ad(path)
        tw.tl.velocity(adata)

    return case


def forked_rehearsal(file: Path, limit: int) -> None:
    """What `thalweg.data.io.reader` does in a process of its own, in one that is forked: fifty times as fast."""
    WATCH.on = False
    from thalweg.data.io import hdf5 as _hdf5
    from thalweg.errors import InputError, UnsafeFileError

    receive, send = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        WATCH.on = True
        try:
            _hdf5.rehearse(file, limit)
            answer = ""
        except UnsafeFileError as error:
            answer = f"UnsafeFileError: {error}"
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        WATCH.on = False
        os.write(send, (f"FINDING {WATCH.seen}" if WATCH.seen else answer).encode()[:4000])
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as answers:
        said = answers.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    WATCH.on = True
    if status:
        raise UnsafeFileError("the rehearsal " + ("does not end" if status == -signal.SIGALRM else "crashes"))
    if said.startswith("FINDING"):
        raise RuntimeError(said)
    if said:
        raise (UnsafeFileError if said.startswith("UnsafeFileError") else InputError)(said)


def make_fit(folder: Path, honest: bytes) -> Callable[[np.random.Generator], None]:
    import anndata

    import thalweg as tw

    base = anndata.read_h5ad(folder / "honest.h5ad")

    def case(rng: np.random.Generator) -> None:
        entry = {k: dict(v) if isinstance(v, dict) else v for k, v in base.uns["thalweg"].items()}
        if rng.random() < 0.6:
            entry["weights"]["0"] = np.frombuffer(mutate(entry["weights"]["0"].tobytes(), rng), np.uint8).copy()
        for _ in range(int(rng.integers(0, 3))):
            _mutate_field(entry, rng)
        adata = base.copy()
        adata.uns["thalweg"] = entry
        WATCH.on = True
        tw.tl.interpolate(adata, 0.5)

    return case


def _mutate_field(entry: dict[str, Any], rng: np.random.Generator) -> None:
    place = entry
    name = str(rng.choice(list(place)))
    while isinstance(place[name], dict) and len(place[name]):
        place = place[name]
        name = str(rng.choice(list(place)))
    strange = (
        None,
        -1,
        0,
        2**40,
        1e308,
        float("nan"),
        "",
        "x" * 1000,
        b"\x80\x04.",
        [],
        {},
        np.zeros(0),
        np.ones((3, 3)),
    )
    old = place[name]
    if isinstance(old, np.ndarray) and old.size and rng.random() < 0.5:
        new = old.copy()
        new.flat[rng.integers(new.size)] = rng.choice([0, 1, 200])
        place[name] = new
    elif rng.random() < 0.2:
        del place[name]
    else:
        place[name] = strange[rng.integers(len(strange))]


def make_checkpoint(folder: Path, honest: bytes) -> Callable[[np.random.Generator], None]:
    import hashlib

    from thalweg.training import checkpoint, files

    source = next(folder.glob("run/step-*"))
    parts = {p.name: p.read_bytes() for p in source.iterdir()}
    target = folder / "mutant" / source.name
    target.mkdir(parents=True, exist_ok=True)

    def case(rng: np.random.Generator) -> None:
        mutants = dict(parts)
        name = str(rng.choice(list(mutants)))
        mutants[name] = mutate(mutants[name], rng)
        if name != "manifest.json" and rng.random() < 0.7:  # a forger repairs the sums
            manifest = json.loads(parts["manifest.json"])["content"]
            manifest["files"][name] = {
                "bytes": len(mutants[name]),
                "sha256": hashlib.sha256(mutants[name]).hexdigest(),
            }
            mutants["manifest.json"] = files.sealed(manifest)
        for k, data in mutants.items():
            (target / k).write_bytes(data)
        WATCH.on = True
        checkpoint.read_checkpoint(target)

    return case


MAKERS = {"h5ad": make_h5ad, "fit": make_fit, "checkpoint": make_checkpoint}
TARGETS = tuple(MAKERS)


def make_case(target: str, folder: Path) -> Callable[[np.random.Generator], None]:
    """A function that mutates the honest file of a target and has it read."""
    return MAKERS[target](folder, (folder / "honest.h5ad").read_bytes())


def draws(target: str, seed: int, number: int) -> np.random.Generator:
    """The generator of one case, from which all of it can be had again."""
    return np.random.default_rng([seed, TARGETS.index(target), number])


def prepare(folder: Path) -> None:
    """The honest files."""
    import torch
    from benchmarks.reliability import attacks

    import thalweg as tw
    from thalweg.training import checkpoint

    tw.settings.progress, tw.settings.verbosity = False, "error"
    attacks.honest().write_h5ad(folder / "honest.h5ad")
    (folder / "run").mkdir()
    weights = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.zeros(4)}
    checkpoint.write_checkpoint(folder / "run", 5, {"model": weights, "optimizer": weights}, {"history": [1.0, 0.5]})


def warm(folder: Path) -> None:
    """Load every module that an honest file needs, so that importing them is not taken for code of the file."""
    import thalweg as tw

    adata = tw.read_h5ad(folder / "honest.h5ad")
    tw.tl.velocity(adata)
    tw.tl.interpolate(adata, 0.5)
