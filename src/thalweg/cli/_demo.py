"""``thalweg demo``: leave the times of a small course out, and predict them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import thalweg as tw
from thalweg.cli._options import Parser
from thalweg.cli._summary import summary

if TYPE_CHECKING:
    from anndata import AnnData


_DEMO_METHODS = ("usb", "otcfm", "sf2m")


def parser() -> Parser:
    """The options of the demo, which has no function of its own in Python."""
    out = Parser(prog="thalweg demo", description="Leave each interior time of a small course out and predict it.")
    out.add_argument("--dataset", choices=("simulated", "cite"), default="simulated")
    out.add_argument("--seeds", type=int, default=None, help="seeds for each method (simulated: 2, cite: 1)")
    out.add_argument("--out", default="thalweg_demo", help="folder for the figure and the table (thalweg_demo)")
    return out


def run(words: Sequence[str]) -> None:
    """Leave each interior time out, predict it, print the table and write the figure."""
    args = parser().parse_args(words)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    adata, time_key, rep, seeds = _demo_data(args.dataset)
    print(f"{args.dataset}: {adata.n_obs} cells, times {', '.join(f'{t:g}' for t in np.unique(adata.obs[time_key]))}")
    seeds = args.seeds or seeds
    scores = tw.tl.leave_one_out(adata, time_key, methods=_DEMO_METHODS, use_rep=rep, n_seeds=seeds, rng=0)
    print("\nPredicting a time point that was left out (W1 to its real cells; mean ± sd over times and seeds)\n")
    print(summary(scores))
    scores.to_csv(out / "leave_one_out.csv", index=False)
    tw.tl.fit(adata, time_key, use_rep=rep, rng=0)
    if args.dataset == "simulated":
        tw.tl.velocity(adata)
        print(f"\nLearned velocity against the known drift: mean cosine {_velocity_cosine(adata):.3f}")
    print(f"\nfigure: {_demo_figure(adata, time_key, scores, out / 'demo.png')}")
    print(f"table:  {out / 'leave_one_out.csv'}")


def _demo_data(name: str) -> tuple[AnnData, str, str, int]:
    if name == "cite":
        adata = tw.datasets.cite()
        tw.pp.standardize(adata, n_dims=5)
        return adata, "day", "X_standardized", 1
    return tw.datasets.simulated(rng=0), "time", "X_pca", 2


def _velocity_cosine(adata: AnnData) -> float:
    learned, truth = adata.obsm["velocity_X_pca"], adata.obsm["velocity_pca_true"]
    norms = np.linalg.norm(learned, axis=1) * np.linalg.norm(truth, axis=1)
    return float(np.mean((learned * truth).sum(1) / norms))


def _demo_figure(adata: AnnData, time_key: str, scores: pd.DataFrame, path: Path) -> Path:
    """Left: a held-out time as predicted by a model that never saw it. Right: the scores."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    times = np.unique(adata.obs[time_key])
    held_out = float(times[len(times) // 2])
    rep = str(adata.uns["thalweg"]["recipe"]["use_rep"])
    seen = adata[(adata.obs[time_key] != held_out).to_numpy()].copy()
    tw.tl.fit(seen, time_key, method="uotcfm", use_rep=rep, rng=0)
    figure = Figure(figsize=(11, 3.8), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    tw.pl.interpolation(adata, tw.tl.interpolate(seen, held_out), ax=left)
    left.set_title(f"time {held_out:g}, left out of the fit", fontsize=10)
    tw.pl.leave_one_out(scores, ax=right)
    right.set_title("every interior time left out in turn", fontsize=10)
    figure.savefig(path)
    return path
