"""Fits in processes of their own that are killed, or whose disk is full; `kill_and_flip` reports on them.

`kill_test` and `full_disk_test` run this file as a fresh process that imports everything, has a single thread and forks
a child for each fit: a kill then costs the time of a small fit, not that of the imports.

The moment of a kill is drawn over the checkpoints: which of them is the last one seen, and the time after it. Drawn
over the seconds of an earlier fit, most moments would fall before the first checkpoint or, as soon as the machine
has less to do, after the end.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common.processes import ask, say

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


def _fresh_process(what: str, n: int, seed: int) -> dict[str, Any]:
    """A test that forks, in a process that has one thread and nothing else to lose."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "benchmarks.reliability.killed_fits", what, str(n), str(seed)]
    out: dict[str, Any] = ask(command, {**one, "CUDA_VISIBLE_DEVICES": ""})
    return out


@dataclass(frozen=True)
class _Whole:
    """A fit that was never stopped: its weights, the seconds to its first checkpoint and those between two of them."""

    weights: bytes
    first: float
    between: float


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
        _import_all()
        self.whole = {method: self._measured(method) for method in METHODS}

    def _measured(self, method: str) -> _Whole:
        directory = self.place / f"{method}-whole"
        start = time.perf_counter()
        child = self.run(method, directory, resume=False, wait=False)
        if not _runs_until(child, lambda: _last_step(directory) > 0):
            raise RuntimeError(f"{method} ended without a checkpoint")
        first = time.perf_counter() - start
        os.waitpid(child, 0)
        rest = time.perf_counter() - start - first
        return _Whole(self.weights(directory), first, rest / (STEPS // EVERY - 1))

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
            os.write(self._sink(directory), adata.uns["thalweg"]["weights"]["0"].tobytes())

        directory.mkdir(exist_ok=True)
        child = _fork(fit)
        return os.waitpid(child, 0)[1] if wait else child

    def weights(self, directory: Path) -> bytes:
        return (directory / "weights").read_bytes()

    def _sink(self, directory: Path) -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
        return os.open(directory / "weights", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def _import_all() -> None:
    """Load what torch loads late, half a compiler, so that the children need not.

    Nothing is trained here: that would start a thread, and a process with threads is not to fork.
    """
    import torch

    from thalweg.core.fields.mlp import MLP, build

    torch.optim.AdamW(build(lambda: MLP(1, width=1, depth=1), torch.Generator()).parameters())


def _last_step(directory: Path) -> int:
    """Step of the newest checkpoint; 0 if there is none."""
    from thalweg.training.checkpoint import folders

    there = folders(directory)
    return int(there[-1].name.removeprefix("step-")) if there else 0


def _runs_until(child: int, met: Callable[[], bool], nap: float = 1e-3) -> bool:
    """Wait for a condition; whether the fit was running until then."""
    while not met():
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(nap)  # leaves the processor to the fit
    return True


def _kill(
    child: int, directory: Path, whole: _Whole, rng: np.random.Generator, *, least: int = 0, caught: bool = False
) -> bool:
    """Kill a fit at a random moment after ``least`` or more checkpoints; whether it was still running.

    ``caught`` waits on until the next write has begun.
    """
    written = int(rng.integers(least, STEPS // EVERY))
    pause = rng.uniform(0, whole.between if written else whole.first)
    if not _runs_until(child, lambda: _last_step(directory) >= written * EVERY):
        return False
    until = time.perf_counter() + pause
    if not _runs_until(child, lambda: time.perf_counter() >= until):
        return False
    if caught:
        if not _runs_until(child, lambda: any(p.name.endswith(".part") for p in directory.iterdir()), 2e-4):
            return False
        time.sleep(rng.uniform(0, 1.5e-3))
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


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


def _kills(n: int, seed: int) -> dict[str, Any]:
    rng, out = np.random.default_rng(seed), dict.fromkeys(("kills", "resumed", "bit_equal", "inside_a_write"), 0)
    from_step, failures = [], []
    with tempfile.TemporaryDirectory() as place:
        fits = _Fits(Path(place))
        for trial in range(20 * n):
            method = METHODS[trial % len(METHODS)]
            directory, whole = Path(place) / f"kill-{trial}", fits.whole[method]
            child = fits.run(method, directory, resume=False, wait=False)
            if not _kill(child, directory, whole, rng, caught=trial % 2 == 0):
                continue  # it had ended before its time came
            out["kills"] += 1
            out["inside_a_write"] += any(p.name.startswith(".") for p in directory.iterdir())
            from_step.append(_last_step(directory))
            status = fits.run(method, directory, resume=True, wait=True)
            same = status == 0 and fits.weights(directory) == whole.weights
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
            directory, whole = Path(place) / f"disk-{trial}", fits.whole[method]
            before = None
            while before is None or before.step == STEPS:  # it may have ended first
                shutil.rmtree(directory, ignore_errors=True)
                _kill(fits.run(method, directory, resume=False, wait=False), directory, whole, rng, least=1)
                before = latest_checkpoint(directory)
            largest = max(p.stat().st_size for p in before.path.iterdir())
            status = fits.run(method, directory, resume=True, wait=True, limit=int(rng.integers(1, largest)))
            after = latest_checkpoint(directory)
            good = {
                "previous_loads": after is not None and after.step == before.step,
                "no_leftovers": not list(directory.glob(".*")),
                "bit_equal": status == 0 and fits.weights(directory) == whole.weights,
            }
            for name, value in good.items():
                out[name] += value
            if not all(good.values()):
                failures.append(f"{method}, trial {trial}: {good}")
    return {"trials": n, **out, "failures": failures}


if __name__ == "__main__":
    name, count, origin = sys.argv[1:]
    say({"kills": _kills, "disks": _disks}[name](int(count), int(origin)))
