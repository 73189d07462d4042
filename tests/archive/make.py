"""Make the archive of a release: a fitted h5ad, a checkpoint, and what they predict.

    python tests/archive/make.py fit
    python tests/archive/make.py checkpoint

Run once for each release, before it; nothing is ever overwritten. ``test_archive.py`` loads all of them for ever. The
fit of 0.1.0.dev0 is from before velocities had an affine part.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

import thalweg as tw

HERE = Path(__file__).parent
TIMES, BETWEEN = (0.0, 1.0, 3.0), 2.0
METHODS = ("otcfm", "uotcfm", "sf2m", "eam", "fm")


def course() -> AnnData:
    """Twenty cells at each of three times, moving along the first of two axes."""
    rng = np.random.default_rng(0)
    x = np.concatenate([0.5 * rng.standard_normal((20, 2)) + [2 * t, 0.0] for t in TIMES])
    obs = pd.DataFrame({"time": np.repeat(TIMES, 20)}, index=[f"cell{i}" for i in range(len(x))])
    return AnnData(obs=obs, obsm={"X_pca": x.astype(np.float32)})


def config() -> tw.tl.FitConfig:
    return tw.tl.FitConfig(max_steps=40, batch_size=32, width=8, depth=1, validate_every=10)


def predictions(adata: AnnData, method: str) -> dict[str, list]:
    """What a fit gives: the cells at an unseen time, and the velocity of each cell."""
    adata = adata.copy()
    if method == "fm":  # a flow from noise draws new cells; its density is exact
        tw.tl.log_likelihood(adata, key=method)
        return {"log likelihood": adata.obs["log_likelihood"].tolist()}
    tw.tl.velocity(adata, key=method, kind="flow")
    cells = tw.tl.interpolate(adata, BETWEEN, key=method, both_ends=False)
    return {"interpolated": cells.obsm["X_pca"].tolist(), "velocity": adata.obsm["velocity_X_pca"].tolist()}


def write_fit(folder: Path) -> None:
    adata, expected = course(), {}
    for method in METHODS:
        tw.tl.fit(adata, "time", method=method, rng=0, config=config(), device="cpu", key_added=method)
        expected[method] = predictions(adata, method)
    adata.write_h5ad(folder / "fitted.h5ad")  # uncompressed: chunks cost more than these few numbers
    (folder / "fitted.json").write_text(json.dumps(expected) + "\n")


def write_checkpoint(folder: Path) -> None:
    """Of a fit stopped at step 20 of 40, with the weights of the best step and the result of going on."""
    from thalweg.training import load_weights, loop

    step = loop._step

    def cut(state, objective, config, now):  # type: ignore[no-untyped-def]
        if now == 21:
            raise KeyboardInterrupt
        return step(state, objective, config, now)

    adata, place = course(), folder / "checkpoints"
    options = {"method": "otcfm", "rng": 0, "config": config(), "device": "cpu", "key_added": "otcfm"}
    loop._step = cut
    try:
        tw.tl.fit(adata, "time", checkpoint_dir=place, checkpoint_every=20, **options)
    except KeyboardInterrupt:
        loop._step = step
    expected = {"weights": {name: v.tolist() for name, v in load_weights(place).items()}}
    tw.tl.fit(adata, "time", **options)
    expected["resumed"] = predictions(adata, "otcfm")["interpolated"]
    (folder / "checkpoints.json").write_text(json.dumps(expected) + "\n")


def main() -> None:
    what = sys.argv[1]
    folder = HERE / tw.__version__
    folder.mkdir(exist_ok=True)
    there = folder / {"fit": "fitted.h5ad", "checkpoint": "checkpoints"}[what]
    if there.exists():
        raise SystemExit(f"{there} exists; an archive is never made again.")
    tw.settings.progress = False
    {"fit": write_fit, "checkpoint": write_checkpoint}[what](folder)


if __name__ == "__main__":
    main()
