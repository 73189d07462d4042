"""The figure of docs/methods/growth.md: ``python docs/scripts/growth.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

import thalweg as tw

PICTURE = Path(__file__).parents[1] / "_static" / "growth.png"
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "0.6"


def mimicry(axes: Axes) -> None:
    """The same two snapshots by movement and by growth."""
    x = np.linspace(-3.5, 5.5, 300)
    for mean, color, label in ((0, GREY, "first day"), (2, BLUE, "next day")):
        axes.fill_between(x, np.exp(-((x - mean) ** 2) / 2), color=color, alpha=0.5, lw=0, label=label)
    axes.annotate("", (2, 1.08), (0, 1.08), arrowprops={"arrowstyle": "-|>", "color": "0.2"})
    axes.text(1, 1.13, "all cells move by 2 ...", ha="center", fontsize=8)
    axes.set(xlabel="x", ylabel="cells", ylim=(0, 1.5), yticks=[])
    other = axes.twinx()
    other.plot(x, 2 * x - 2, color=ORANGE, lw=1.5)
    other.set_ylabel("... or grow by this logarithm", color=ORANGE)
    other.set_ylim(-10, 14)
    other.spines[["top"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def main() -> None:
    tw.settings.progress, tw.settings.verbosity = False, "error"
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained")
    mimicry(left)
    adata = tw.datasets.toggle_switch(rng=0)
    sizes = np.array(list(adata.uns["population_size"].values()), dtype=float)
    middle.plot(sizes / sizes[0], "x", color="0.2", ms=7, label="true size")
    for given, color, label in (("population_size", BLUE, "with sizes"), (None, ORANGE, "without")):
        tw.tl.fit(adata, "time", method="uotcfm", population_size=given, rng=0, device="cpu")
        tw.tl.velocity(adata, genes=False)
        mass = np.r_[1, tw.get.reconstruction_df(adata)["mass"]]
        middle.plot(mass, "o-", color=color, ms=4, label=label)
        right.scatter(
            adata.obs["growth_true"], adata.obs["growth_rate"], s=4, color=color, lw=0, alpha=0.5, label=label
        )
    middle.set(xlabel="time", ylabel="size, relative to the first", ylim=(0, None), xticks=range(5))
    middle.legend(frameon=False, fontsize=8)
    low, high = -0.4, 0.6
    right.plot([0, high], [0, high], color=GREY, lw=1, zorder=0)
    right.set(xlabel="true growth rate", ylabel="learned growth rate", ylim=(low, high))
    right.legend(frameon=False, fontsize=8, markerscale=3)
    for axes in (left, middle, right):
        axes.spines[["top"]].set_visible(False)
    for axes in (middle, right):
        axes.spines[["right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=150)
    with Image.open(PICTURE) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(PICTURE, optimize=True)
    print(f"{PICTURE.name}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
