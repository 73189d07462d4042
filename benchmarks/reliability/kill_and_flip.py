"""Fits that are killed, disks that are full, checkpoints that are damaged: what is lost, and what goes unnoticed.

    python -m benchmarks.reliability.kill_and_flip            # 50 kills, 10 full disks, 1,000 flips: five minutes

**Kills.** `tw.tl.fit` runs in a process of its own on the simulated course and gets SIGKILL: at a random moment, or as
soon as a checkpoint is seen under way. `resume=True` then ends the fit in another process, and its weights are compared
byte by byte with those of a fit that was never stopped. **Full disks.** A limit on file sizes (RLIMIT_FSIZE) makes the
system refuse the write of a random part of a checkpoint. **Flips.** One byte of one file of a checkpoint is changed at
random, or a file cut at each hundredth of its length, and the checkpoint read. The same flips are made in the file that
`torch.save` writes of the same tensors and `torch.load` reads.

Processes are forked from a fresh one that has imported everything and has a single thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "kill_and_flip.json"
METHODS = ("otcfm", "sf2m", "uotcfm")
STEPS, EVERY = 100, 10


def kill_test(n: int = 50, seed: int = 0) -> dict[str, Any]:
    """Kill ``n`` fits and resume each; every second one while it writes a checkpoint, if it can be caught.

    Parameters
    ----------
    n
        Kills.
    seed
        Of the moments.

    Returns
    -------
    ``kills``, ``resumed`` (to the end, without an error), ``bit_equal``, ``inside_a_write`` (a half-written checkpoint
    was left), ``before_the_first_checkpoint``, ``from_step`` (of each), ``failures`` in words.
    """
    return _fresh_process("kills", n, seed)


def full_disk_test(n: int = 10, seed: int = 0) -> dict[str, Any]:
    """Let the system refuse writes at ``n`` random sizes.

    Returns
    -------
    ``trials``, ``previous_loads``, ``no_leftovers``, ``bit_equal`` (the fit ended with the weights it should have),
    ``failures``.
    """
    return _fresh_process("disks", n, seed)


def flip_test(n: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Change ``n`` random bytes of a checkpoint, one at a time, and cut each of its files at every hundredth.

    Returns
    -------
    ``flips``, ``found`` (one `CheckpointError` that names the file), ``truncations``, ``truncations_found``,
    ``missed`` (file, position), and for `torch.load`: ``torch_load_silent``, flips after which it returned other
    values without an error, of ``torch_load_flips``.
    """
    from thalweg.training import read_checkpoint

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = _small_checkpoint(Path(place) / "c")
        files = sorted(folder.iterdir())
        tensors = {k: dict(v) for k, v in read_checkpoint(folder).tensors.items()}
        found, missed = 0, []
        for k in range(n):
            # Half of them by size, half by file: most bytes are in the weights.
            sizes = np.array([f.stat().st_size for f in files])
            path = files[rng.choice(len(files), p=sizes / sizes.sum() if k % 2 else None)]
            position = int(rng.integers(path.stat().st_size))
            outcome = _read_changed(folder, path, _flipped(path.read_bytes(), position, rng))
            found += outcome == "found"
            missed += [] if outcome == "found" else [[path.name, position, outcome]]
        cuts = [(path, percent) for path in files for percent in range(100)]
        outcomes = [
            _read_changed(folder, path, path.read_bytes()[: path.stat().st_size * percent // 100])
            for path, percent in cuts
        ]
        read_checkpoint(folder)  # all bytes are back, so that every error was about the change
        peer = _torch_load(tensors, Path(place) / "peer.pt", n, rng)
    return {
        "flips": n,
        "found": found,
        "truncations": len(cuts),
        "truncations_found": outcomes.count("found"),
        "missed": missed + [[p.name, f"{c} %", o] for (p, c), o in zip(cuts, outcomes, strict=True) if o != "found"],
        **peer,
    }


# --- damage ----------------------------------------------------------------------------------------------------------


def _small_checkpoint(directory: Path) -> Path:
    """A checkpoint of a run of twenty steps."""
    import torch

    from thalweg.core.fields import MLP, build
    from thalweg.training import Checkpoints, TrainingConfig, train

    model = build(lambda: MLP(3, width=16, depth=2), torch.Generator().manual_seed(0))

    def objective(net: torch.nn.Module, n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        x, t = torch.randn(n, 3, generator=generator), torch.rand(n, generator=generator)
        return {"fit": (net(t, x) - x.sin()).square().mean()}

    points = Checkpoints(directory, {"data": "normal"}, every=10)
    config = TrainingConfig(max_steps=20, batch_size=8, validate_every=5)
    train(model, objective, config, torch.Generator().manual_seed(0), checkpoints=points, progress=False)
    return directory / "step-00000020"


def _flipped(data: bytes, position: int, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[position] ^= int(rng.integers(1, 256))
    return bytes(changed)


def _read_changed(folder: Path, path: Path, data: bytes) -> str:
    """What reading a checkpoint gives while one of its files holds other bytes."""
    from thalweg.errors import CheckpointError
    from thalweg.training import read_checkpoint

    before = path.read_bytes()
    path.write_bytes(data)
    try:
        read_checkpoint(folder)
    except CheckpointError as error:
        return "found" if path.name in str(error) else f"another file was named: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    else:
        return "not noticed"
    finally:
        path.write_bytes(before)


def _torch_load(tensors: dict[str, Any], path: Path, n: int, rng: np.random.Generator) -> dict[str, int]:
    import warnings

    import torch

    torch.save(tensors, path)
    data, silent = path.read_bytes(), 0
    for _ in range(n):
        path.write_bytes(_flipped(data, int(rng.integers(len(data))), rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = torch.load(path, weights_only=True)
            same = all(torch.equal(found[k][name], v) for k, part in tensors.items() for name, v in part.items())
        except Exception:
            continue
        silent += not same
    return {"torch_load_flips": n, "torch_load_silent": silent}


# --- fits in processes -----------------------------------------------------------------------------------------------


def _fresh_process(what: str, n: int, seed: int) -> dict[str, Any]:
    """A test that forks, in a process that has one thread and nothing else to lose."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "benchmarks.reliability.kill_and_flip", "--only", what, str(n), str(seed)]
    env = {**os.environ, **one, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    out: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return out


class _Fits:
    """Fits of one course, each in a forked process."""

    def __init__(self, place: Path) -> None:
        import torch

        import thalweg as tw

        torch.set_num_threads(1)
        tw.settings.progress = False
        tw.settings.verbosity = "error"
        self.place = place
        self.course = tw.datasets.simulated(300, n_genes=50, rng=0)
        self.config = tw.tl.FitConfig(max_steps=STEPS, batch_size=32, width=16, depth=2, validate_every=25)
        self.whole = {}
        for method in METHODS:
            start = time.perf_counter()
            self.run(method, place / f"{method}-whole", resume=False, wait=True)
            self.whole[method] = self.weights(place / f"{method}-whole"), time.perf_counter() - start

    def run(self, method: str, directory: Path, *, resume: bool, wait: bool, limit: int | None = None) -> int:
        """Start a fit that writes its weights beside its checkpoints; its number, or its status when it has ended."""

        def fit() -> None:
            import thalweg as tw

            if limit is not None:
                hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            adata = self.course.copy()
            options = {"config": self.config, "rng": 0, "device": "cpu"}
            tw.tl.fit(
                adata, "time", method=method, checkpoint_dir=directory, checkpoint_every=EVERY, resume=resume, **options
            )
            os.write(self._sink(directory), adata.uns["thalweg"]["weights"].tobytes())

        directory.mkdir(exist_ok=True)
        child = _fork(fit)
        return os.waitpid(child, 0)[1] if wait else child

    def weights(self, directory: Path) -> bytes:
        return (directory / "weights").read_bytes()

    def _sink(self, directory: Path) -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
        return os.open(directory / "weights", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def _fork(function: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        function()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _kill(child: int, directory: Path, seconds: float, caught: bool, rng: np.random.Generator) -> bool:
    """Kill a fit at a random moment or, ``caught``, soon after a write has begun; whether it was still running."""
    until = time.perf_counter() + rng.uniform(0, seconds)
    while time.perf_counter() < until:
        time.sleep(1e-3)
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
    give_up = time.perf_counter() + seconds
    while caught and not any(p.name.endswith(".part") for p in directory.iterdir()):
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        if time.perf_counter() > give_up:
            break
        time.sleep(2e-4)  # leaves the processor to the fit
    if caught:
        time.sleep(rng.uniform(0, 1.5e-3))
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _kills(n: int, seed: int) -> dict[str, Any]:
    from thalweg.training.checkpoint import folders

    rng, out = np.random.default_rng(seed), dict.fromkeys(("kills", "resumed", "bit_equal", "inside_a_write"), 0)
    from_step, failures = [], []
    with tempfile.TemporaryDirectory() as place:
        fits = _Fits(Path(place))
        for trial in range(20 * n):
            method = METHODS[trial % len(METHODS)]
            directory, (whole, seconds) = Path(place) / f"kill-{trial}", fits.whole[method]
            child = fits.run(method, directory, resume=False, wait=False)
            if not _kill(child, directory, seconds, trial % 2 == 0, rng):
                continue  # it had ended before its time came
            out["kills"] += 1
            out["inside_a_write"] += any(p.name.startswith(".") for p in directory.iterdir())
            there = folders(directory)
            from_step.append(int(there[-1].name[5:]) if there else 0)
            status = fits.run(method, directory, resume=True, wait=True)
            same = status == 0 and fits.weights(directory) == whole
            out["resumed"] += status == 0
            out["bit_equal"] += same
            if not same:
                failures.append(f"{method}, trial {trial}, from step {from_step[-1]}: status {status}")
            if out["kills"] == n:
                break
    return {
        **out,
        "before_the_first_checkpoint": from_step.count(0),
        "from_step": from_step,
        "methods": list(METHODS),
        "steps": STEPS,
        "checkpoint_every": EVERY,
        "failures": failures,
    }


def _disks(n: int, seed: int) -> dict[str, Any]:
    from thalweg.training import latest_checkpoint

    rng = np.random.default_rng(seed)
    out, failures = dict.fromkeys(("previous_loads", "no_leftovers", "bit_equal"), 0), []
    with tempfile.TemporaryDirectory() as place:
        fits = _Fits(Path(place))
        for trial in range(n):
            method = METHODS[trial % len(METHODS)]
            directory, (whole, seconds) = Path(place) / f"disk-{trial}", fits.whole[method]
            before = None
            while before is None or before.step == STEPS:  # a fit killed with a checkpoint
                shutil.rmtree(directory, ignore_errors=True)
                _kill(fits.run(method, directory, resume=False, wait=False), directory, seconds, False, rng)
                before = latest_checkpoint(directory)
            largest = max(p.stat().st_size for p in before.path.iterdir())
            status = fits.run(method, directory, resume=True, wait=True, limit=int(rng.integers(1, largest)))
            after = latest_checkpoint(directory)
            good = {
                "previous_loads": after is not None and after.step == before.step,
                "no_leftovers": not list(directory.glob(".*")),
                "bit_equal": status == 0 and fits.weights(directory) == whole,
            }
            for name, value in good.items():
                out[name] += value
            if not all(good.values()):
                failures.append(f"{method}, trial {trial}: {good}")
    return {"trials": n, **out, "failures": failures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--disks", type=int, default=10)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--only", nargs=3, metavar=("WHAT", "N", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        what, n, seed = args.only
        print(json.dumps({"kills": _kills, "disks": _disks}[what](int(n), int(seed))))
        return
    result: dict[str, Any] = {"command": "python -m benchmarks.reliability.kill_and_flip"}
    found = "{found} of {flips} flips and {truncations_found} of {truncations} cuts found; "
    parts = {
        "flips": (flip_test, args.flips, found + "torch.load silent after {torch_load_silent} of {torch_load_flips}"),
        "kills": (kill_test, args.kills, "{kills} kills, {inside_a_write} inside a write; {bit_equal} bit-equal"),
        "full_disks": (full_disk_test, args.disks, "{trials} full disks: {previous_loads} load, {bit_equal} bit-equal"),
    }
    for name, (test, n, line) in parts.items():
        result[name] = test(n, args.seed)
        print(line.format(**result[name]), flush=True)
        args.output.write_text(json.dumps(result, indent=1) + "\n")  # each part is minutes long and stands by itself
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
