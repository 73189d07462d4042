"""Cases 23 to 25, 28 and 29: kills, full disks, damage, old and new files, a loss that is not finite."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from benchmarks.reliability.common import QUICK, Case, Result, both, course, refusal

import thalweg as tw

ARCHIVE = Path(__file__).parents[2] / "tests" / "archive"
FULL = {"kills": 50, "disks": 20, "flips": 1000}
SMALL = {"kills": 4, "disks": 4, "flips": 100}
size = dict(SMALL)
"""Number of trials; the scorecard sets `FULL` with ``--full``."""


@cache
def _kills() -> dict[str, Any]:
    from benchmarks.reliability.kill_and_flip import kill_test

    return kill_test(size["kills"])


def killed() -> Result:
    k = _kills()
    passed = k["resumed"] == k["bit_equal"] == k["kills"] == size["kills"]
    return passed, f"{k['resumed']} of {k['kills']} resumed, {k['bit_equal']} equal to the bit"


def killed_while_writing() -> Result:
    from benchmarks.reliability.kill_and_flip import full_disk_test

    k, d = _kills(), full_disk_test(size["disks"])
    passed = d["previous_loads"] == d["bit_equal"] == d["trials"] == size["disks"] and k["bit_equal"] == k["kills"]
    figure = f"{k['inside_a_write']} kills inside a write; full disk: {d['previous_loads']} of {d['trials']} load"
    return passed, figure


def damaged() -> Result:
    from benchmarks.reliability.kill_and_flip import flip_test

    f = flip_test(size["flips"])
    passed = f["found"] == f["flips"] == size["flips"] and f["truncations_found"] == f["truncations"]
    peer = f"torch.load silent after {f['torch_load_silent']} of {f['torch_load_flips']}"
    cut = f"{f['truncations_found']} of {f['truncations']} cuts"
    return passed, f"{f['found']} of {f['flips']} flips and {cut} found; {peer}"


def old_and_new() -> Result:
    """Files of each release give the predictions that the release made, to what another machine may change."""
    make, tolerances = _by_path(ARCHIVE / "make.py"), _by_path(ARCHIVE.parent / "last_bits.py")
    releases = sorted(p for p in ARCHIVE.glob("*") if (p / "fitted.h5ad").is_file())
    worst, count = 0.0, 0
    for release in releases:
        adata = tw.read_h5ad(release / "fitted.h5ad")
        for method, values in json.loads((release / "fitted.json").read_text()).items():
            found = make.predictions(adata, method)
            for name, value in values.items():
                allowed = tolerances.NETWORK if name == "velocity" else tolerances.SOLVED
                gap = np.abs(np.subtract(found[name], value)) / (allowed["atol"] + allowed["rtol"] * np.abs(value))
                worst = max(worst, float(gap.max()))
            count += 1
    names = ", ".join(p.name for p in releases) or "no archive"
    adata = course()
    tw.tl.fit(adata, "time", rng=0, config=QUICK)
    adata.uns["thalweg"] |= {"format": 99, "version": "9.0.0"}
    newer = refusal(lambda: tw.tl.interpolate(adata, 2.0), "format 99", "upgrade thalweg to 9.0.0")
    return both((count > 0 and worst <= 1, f"{count} fits of {names}: {worst:.2f} of what a machine may change"), newer)


def _by_path(path: Path) -> ModuleType:
    """A file of the tests: what was predicted for the archive, and how far it can be trusted."""
    spec = importlib.util.spec_from_file_location(f"archive_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def not_finite() -> Result:
    """The objective turns NaN at step 7."""
    from thalweg.training import TrainingConfig, train

    model, step = torch.nn.Linear(2, 1), 0
    before: list[dict[str, torch.Tensor]] = []

    def objective(net: torch.nn.Module, n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        nonlocal step
        step += 1
        before.append({k: v.detach().clone() for k, v in net.state_dict().items()})
        value = net(torch.randn(n, 2, generator=generator)).square().mean()
        return {"velocity": value, "extra": value * (float("nan") if step == 7 else 1.0)}

    try:
        config = TrainingConfig(max_steps=20, batch_size=8)
        train(model, objective, config, torch.Generator().manual_seed(0), progress=False)
    except tw.errors.NonFiniteLossError as error:
        kept = {k: v for k, v in error.weights.items() if k in before[-1]}
        finite = bool(kept) and all(bool(torch.isfinite(v).all()) for v in kept.values())
        named = "'extra'" in str(error) and "step 7" in str(error)
        return step == 7 and finite and named, f"{error}; stopped at {step}, weights kept finite: {finite}"
    return False, "went on"


CASES: dict[int, tuple[str, Case]] = {
    23: ("SIGKILL at a random step", killed),
    24: ("SIGKILL in a write; disk full", killed_while_writing),
    25: ("truncation and byte flips", damaged),
    28: ("older and newer files", old_and_new),
    29: ("loss not finite at step k", not_finite),
}
