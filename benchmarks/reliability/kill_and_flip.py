"""Fits that are killed, disks that are full, checkpoints that are damaged: what is lost, and what goes unnoticed.

    python -m benchmarks.reliability.kill_and_flip            # 50 kills, 10 full disks, 1,000 flips: three minutes

**Kills.** `tw.tl.fit` runs in a process of its own on the simulated course and gets SIGKILL: at a random moment, or as
soon as a checkpoint is seen under way. `resume=True` then ends the fit in another process, and its weights are compared
byte by byte with those of a fit that was never stopped. **Full disks.** A limit on file sizes (RLIMIT_FSIZE) makes the
system refuse the write of a random part of a checkpoint. **Flips.** One byte of one file of a checkpoint is changed at
random, or a file cut at each hundredth of its length, and the checkpoint read. The same flips are made in the file that
`torch.save` writes of the same tensors and `torch.load` reads.

The damage is done here; the fits, and what happens to them, are in `killed_fits`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import results
from benchmarks.reliability.killed_fits import full_disk_test, kill_test

RESULT = results.path_of("kill_and_flip")


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


def _small_checkpoint(directory: Path) -> Path:
    """A checkpoint of a run of twenty steps."""
    import torch

    from thalweg.core.fields.mlp import MLP, build
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--disks", type=int, default=10)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    result = results.head(vars(args), [args.seed], ["torch", "safetensors"])
    found = "{found} of {flips} flips and {truncations_found} of {truncations} cuts found; "
    parts = {
        "flips": (flip_test, args.flips, found + "torch.load silent after {torch_load_silent} of {torch_load_flips}"),
        "kills": (kill_test, args.kills, "{kills} kills, {inside_a_write} inside a write; {bit_equal} bit-equal"),
        "full_disks": (full_disk_test, args.disks, "{trials} full disks: {previous_loads} load, {bit_equal} bit-equal"),
    }
    for name, (test, n, line) in parts.items():
        result[name] = test(n, args.seed)
        print(line.format(**result[name]), flush=True)
        results.save(args.output, result)  # each part is minutes long and stands by itself
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
