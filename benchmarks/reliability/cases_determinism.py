"""Cases 20 to 22 and 30: the same bits, other batches, threads, and what a fit leaves behind."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import torch
from benchmarks.reliability.common import QUICK, Case, Result, both, course, refusal

import thalweg as tw
from thalweg.core import couplings

METHODS = ("otcfm", "uotcfm", "sf2m", "icfm", "fm", "eam")


def same_seed() -> Result:
    equal, before = [], (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())  # noqa: NPY002
    for method in METHODS:
        runs = []
        for _ in range(2):
            adata = course()
            tw.tl.fit(adata, "time", method=method, rng=0, config=QUICK)
            out = tw.tl.interpolate(adata, 2.0, stochastic=method == "sf2m", rng=1).obsm["X_pca"]
            runs.append((adata.uns["thalweg"]["weights"]["0"].tobytes(), out.tobytes()))
        equal.append(runs[0] == runs[1])
    after = (random.getstate(), np.random.get_state()[1], torch.get_rng_state())  # noqa: NPY002
    untouched = before[0] == after[0] and np.array_equal(before[1], after[1]) and torch.equal(before[2], after[2])
    return all(equal) and untouched, f"{sum(equal)} of {len(METHODS)} methods equal to the bit; generators untouched"


def other_seed() -> Result:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(100, 3, generator=g), torch.randn(100, 3, generator=g)
    plan = couplings.exact(x, y)
    drawn = [plan.sample(64, torch.Generator().manual_seed(s))[0] for s in (0, 1)]
    weights = []
    for seed in (0, 1):
        adata = course()
        tw.tl.fit(adata, "time", rng=seed, config=QUICK)
        weights.append(adata.uns["thalweg"]["weights"]["0"].tobytes())
    share = float((drawn[0] == drawn[1]).float().mean())
    return share < 0.2 and weights[0] != weights[1], f"{share:.0%} of the drawn cells agree; weights differ"


def threads() -> Result:
    """Training is the same to 1e-5; plans that depend on the threads are not gone on from with another number."""
    return both(_trained_on_threads(), _plans_on_threads())


def _plans_on_threads() -> Result:
    adata, config, before = course(n=60), replace(QUICK, max_steps=40), torch.get_num_threads()
    refused = {}
    try:
        for method in ("uotcfm", "sf2m", "eam", "otcfm"):
            with tempfile.TemporaryDirectory() as folder:
                options = {"method": method, "rng": 0, "checkpoint_dir": folder, "checkpoint_every": 10}
                torch.set_num_threads(1)
                tw.tl.fit(adata, "time", config=config, **options)
                torch.set_num_threads(2)
                call = partial(tw.tl.fit, adata, "time", config=config, resume=True, **options)
                refused[method] = refusal(call, "threads of the plans", "is 1 there and 2 here")[0]
    finally:
        torch.set_num_threads(before)
    passed = refused == {"uotcfm": True, "sf2m": True, "eam": True, "otcfm": False}
    return passed, f"resumed on 2 threads is refused after 1: {refused}"


def _trained_on_threads() -> Result:
    out = []
    for n in (1, 2):
        adata = course(n=400, dims=20)
        config = replace(QUICK, max_steps=60, batch_size=256, width=64, depth=3, n_threads=n)
        tw.tl.fit(adata, "time", method="otcfm", rng=0, config=config)
        out.append(tw.tl.interpolate(adata, 2.0).obsm["X_pca"].astype(np.float64))
    worst = float(np.abs(out[0] - out[1]).max())
    return worst <= 1e-5, f"1 and 2 threads differ by {worst:.1e}"


def round_trip() -> Result:
    adata = course()
    before = adata.copy()
    tw.tl.fit(adata, "time", rng=0, config=QUICK)
    reference = tw.tl.interpolate(adata, 2.0).obsm["X_pca"]
    added = set(adata.uns) - set(before.uns)
    clean = added == {"thalweg"} and list(adata.obsm) == list(before.obsm) and adata.obs.equals(before.obs)
    view = course()[::2]
    tw.tl.fit(view, "time", rng=0, config=QUICK)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        adata.write_h5ad(path.with_suffix(".h5ad"))
        adata.write_zarr(path.with_suffix(".zarr"))
        read = (tw.read_h5ad(path.with_suffix(".h5ad")), anndata.read_zarr(path.with_suffix(".zarr")))
        equal = [np.array_equal(tw.tl.interpolate(again, 2.0).obsm["X_pca"], reference) for again in read]
        modes = [_mode(optimised, path.with_suffix(".h5ad")) for optimised in (True, False)]
    passed = all(equal) and clean and not view.is_view and all(modes)
    return passed, f"h5ad {equal[0]}, zarr {equal[1]}; only uns['thalweg'] added: {clean}; -O, -W error: {modes}"


def _mode(optimised: bool, path: Path) -> bool:
    """A fit, a prediction and a refusal under ``python -O``, or with every warning an error.

    Warnings turn into errors after the imports: those of other packages are not ours to mend.
    """
    code = (
        "import sys, warnings, thalweg as tw, scanpy, torch, ot\n"
        f"warnings.simplefilter({'default' if optimised else 'error'!r})\n"
        "tw.settings.progress = False\n"
        "a = tw.read_h5ad(sys.argv[1])\n"
        "tw.tl.fit(a, 'time', rng=0, config=tw.tl.FitConfig(max_steps=10, width=8, depth=1))\n"
        "tw.tl.interpolate(a, 2.0)\n"
        "try: tw.tl.fit(a, 'no')\n"
        "except tw.errors.MissingKeyError: print('fine')"
    )
    command = [sys.executable, *(["-O"] if optimised else []), "-c", code, str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    return out.stdout.strip().endswith("fine")


CASES: dict[int, tuple[str, Case]] = {
    20: ("same seed twice on CPU", same_seed),
    21: ("another seed", other_seed),
    22: ("1 and 2 threads", threads),
    30: ("write, read back; view; -O; -W error", round_trip),
}
