"""The figure of docs/methods/usb.md: ``python docs/scripts/usb.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

import thalweg as tw

PICTURE = Path(__file__).parents[1] / "_static" / "usb_calibration.png"


def main() -> None:
    tw.settings.progress, tw.settings.verbosity = False, "error"
    adata = tw.datasets.simulated(rng=0)
    tw.tl.fit(adata, "time", method="usb", rng=0, device="cpu")
    names = [str(name) for name in adata.uns["simulated"]["fates"]]
    tw.tl.fate(adata, "branch", terminal=names)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", width_ratios=(1, 1.5))
    early = adata[adata.obs["time"] < adata.obs["time"].max()].copy()
    tw.pl.fate_calibration(early, "branch", "fate_true", ax=left, show=False)
    x, some = adata.obsm["X_pca"], np.random.default_rng(0).choice(adata.n_obs, 110, replace=False)
    right.scatter(x[:, 0], x[:, 1], s=3, color="0.88", lw=0)
    for kind, color in (("flow", "#e69f00"), ("drift", "#0072b2")):
        v = tw.tl.velocity(adata, kind=kind, copy=True).obsm["velocity_X_pca"]
        right.quiver(*x[some, :2].T, *v[some, :2].T, color=color, angles="xy", width=0.0035, scale=90, label=kind)
    v = adata.obsm["velocity_pca_true"]
    right.quiver(*x[some, :2].T, *v[some, :2].T, color="0.2", angles="xy", width=0.0018, scale=90, label="true drift")
    right.set(xlabel="PC 1", ylabel="PC 2", xticks=[], yticks=[])
    right.legend(frameon=False, loc="upper left", fontsize=8)
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=150)
    with Image.open(PICTURE) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(PICTURE, optimize=True)
    print(f"{PICTURE.name}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
