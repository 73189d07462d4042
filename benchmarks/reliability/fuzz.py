"""Mutational fuzzing of the readers: no crash, no hang, no code run, whatever bytes a file has.

    python -m benchmarks.reliability.fuzz --minutes 10

Targets: `thalweg.read_h5ad` (an h5ad with a fit, followed by `tl.velocity` if it is read; its rehearsal is a forked
process, and in every fiftieth case the real one), the loader of fits (weights
and fields in memory, followed by a prediction) and the reader of checkpoints. A worker process mutates an honest file
(bits, bytes, numbers, blocks copied, zeroed, removed or swapped; of the weights also with a repaired header), hands it
to the reader and accepts a result or one of thalweg's own errors. Anything else is a finding: another exception, a
signal, more than `SECONDS` for one file, more memory than `MEMORY`, or an event of the audit hook that no reading of
data needs (compile, exec, a new process, a socket, a file opened for writing). The parent restarts workers that die.

Everything is drawn from the seed and the number of the case, so that a finding can be run again:
`python -m benchmarks.reliability.fuzz --target h5ad --seed 0 --case 1234`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TARGETS = ("h5ad", "fit", "checkpoint")
SHARES = {"h5ad": 0.5, "fit": 0.35, "checkpoint": 0.15}  # of the time
SECONDS = 20
PATIENCE = 5  # seconds of a rehearsal; 60 in the package
MEMORY = 6 * 2**30  # bytes of address space, which torch fills with 2.5 GiB of libraries
CASES = 400  # of one worker: a fresh process now and then
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
RESULTS = Path(__file__).parents[1] / "results" / "fuzz.json"
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


# --- the worker ------------------------------------------------------------------------------------------------------


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
    """What `thalweg.data.reader` does in a process of its own, in one that is forked: fifty times as fast."""
    WATCH.on = False
    from thalweg import _hdf5
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
            entry["weights"] = np.frombuffer(mutate(entry["weights"].tobytes(), rng), np.uint8).copy()
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
            rehearsing = event in ("subprocess.Popen", "os.posix_spawn") and "thalweg._hdf5" in str(arguments)
            if not rehearsing and not (importing and event in ("exec", "marshal.loads")):
                self.seen.append(f"{event} {str(arguments)[:200]}")
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            self.seen.append(f"open for writing {arguments[0]}")


WATCH = Watch()


def work(target: str, folder: Path, seed: int, first: int, seconds: float) -> None:
    """Run cases; a line of JSON for each on standard output."""
    import warnings

    import thalweg as tw

    warnings.simplefilter("ignore")
    tw.settings.progress, tw.settings.verbosity = False, "critical"
    make = {"h5ad": make_h5ad, "fit": make_fit, "checkpoint": make_checkpoint}[target]
    case = make(folder, (folder / "honest.h5ad").read_bytes())
    _warm(folder)
    WATCH.start()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.addaudithook(WATCH)
    end = time.monotonic() + seconds
    for number in range(first, first + CASES):
        if time.monotonic() > end:
            break
        print(json.dumps({"start": number}), flush=True)
        WATCH.seen, start = [], time.monotonic()
        signal.alarm(SECONDS)
        try:
            case(np.random.default_rng([seed, TARGETS.index(target), number]))
            outcome = "read"
        except tw.errors.ThalwegError as error:
            outcome = f"refused: {type(error).__name__}"
            if "the rehearsal" in str(error):
                outcome = str(error)
        except BaseException as error:
            outcome = f"FINDING: {type(error).__name__}: {str(error)[:300]}"
        signal.alarm(0)
        WATCH.on = False
        if WATCH.seen:
            outcome = f"FINDING: {WATCH.seen[:3]}"
        print(json.dumps({"case": number, "outcome": outcome, "seconds": time.monotonic() - start}), flush=True)


def _warm(folder: Path) -> None:
    """Load every module that an honest file needs, so that importing them is not taken for code of the file."""
    import thalweg as tw

    adata = tw.read_h5ad(folder / "honest.h5ad")
    tw.tl.velocity(adata)
    tw.tl.interpolate(adata, 0.5)


# --- the parent ------------------------------------------------------------------------------------------------------


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


def one_worker(
    target: str, folder: Path, seed: int, first: int, seconds: float, outcomes: Counter[str]
) -> tuple[int, list[dict[str, Any]], float]:
    """Run a worker to its end or death; returns the next case, findings and the longest time of a case."""
    command = [sys.executable, "-m", "benchmarks.reliability.fuzz", "--worker", "--target", target, "--seed", str(seed)]
    command += ["--case", str(first), "--folder", str(folder), "--minutes", str(seconds / 60)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 10 * SECONDS + 120)
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    findings, longest, last = [], 0.0, first - 1
    for line in lines:
        if "outcome" in line:
            outcomes["FINDING" if line["outcome"].startswith("FINDING") else line["outcome"]] += 1
            longest, last = max(longest, line["seconds"]), line["case"]
            if line["outcome"].startswith("FINDING"):
                findings.append({"target": target, **line})
    if process.returncode:
        started = [line["start"] for line in lines if "start" in line]
        if not started:
            raise SystemExit(process.stderr[-3000:])
        last = started[-1]
        outcomes["FINDING"] += 1
        what = "no answer in time" if process.returncode == -signal.SIGALRM else f"exit status {process.returncode}"
        findings.append({"target": target, "case": last, "outcome": what, "stderr": process.stderr[-500:]})
    return last + 1, findings, longest


def fuzz(minutes: float, targets: list[str], seed: int) -> dict[str, Any]:
    """Share the time out and collect what happened."""
    result: dict[str, Any] = {"minutes": minutes, "seed": seed, "seconds_for_a_file": SECONDS, "targets": {}}
    findings: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for target in targets:
            outcomes: Counter[str] = Counter()
            share = 1.0 if len(targets) == 1 else SHARES[target]
            end, first, longest = time.monotonic() + 60 * minutes * share, 0, 0.0
            while (left := end - time.monotonic()) > 1:
                first, found, slowest = one_worker(target, folder, seed, first, left, outcomes)
                findings += found
                longest = max(longest, slowest)
                print(f"{target}: {first} files, {dict(outcomes)}", flush=True)
            result["targets"][target] = {"files": first, "outcomes": dict(outcomes), "longest_seconds": longest}
    result["files"] = sum(t["files"] for t in result["targets"].values())
    result["findings"] = findings
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", choices=TARGETS, help="one reader only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this case again, and show its error")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.worker:
        work(args.target, args.folder, args.seed, args.case, 60 * args.minutes)
        return
    if args.case is not None:
        replay(args.target, args.seed, args.case)
        return
    result = fuzz(args.minutes, [args.target] if args.target else list(TARGETS), args.seed)
    result["command"] = f"python -m benchmarks.reliability.fuzz {' '.join(sys.argv[1:])}".strip()
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['files']} files, {len(result['findings'])} findings; written: {args.json}")
    raise SystemExit(bool(result["findings"]))


def replay(target: str, seed: int, number: int) -> None:
    """Run one case without a net."""
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        make = {"h5ad": make_h5ad, "fit": make_fit, "checkpoint": make_checkpoint}[target]
        case = make(Path(name), (Path(name) / "honest.h5ad").read_bytes())
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        case(np.random.default_rng([seed, TARGETS.index(target), number]))
        print("read")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
