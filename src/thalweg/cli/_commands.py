"""What each command does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import thalweg as tw
from thalweg.cli._report import page
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData


_DEMO_METHODS = ("usb", "otcfm", "sf2m")


def demo(args: argparse.Namespace) -> None:
    """Leave each interior time out, predict it, print the table and write the figure."""
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


def fit(args: argparse.Namespace) -> None:
    """Fit a flow to an h5ad and write the h5ad that carries it."""
    _check_folders(args.output)
    adata = tw.read_h5ad(args.input)
    tw.tl.fit(
        adata,
        args.time_key,
        method=args.method,
        use_rep=args.use_rep,
        n_dims=args.n_dims,
        spacing=args.spacing,
        config=_config(args),
        rng=args.seed,
        device=args.device,
        checkpoint_dir=args.checkpoint_dir,
        resume=args.resume,
    )
    adata.write_h5ad(args.output)
    print(f"fitted {args.method}: {args.output} (uns['thalweg'])")


def leave_one_out(args: argparse.Namespace) -> None:
    """Score methods on the held-out times of an h5ad."""
    _check_folders(args.csv, args.figure)
    scores = tw.tl.leave_one_out(
        tw.read_h5ad(args.input),
        args.time_key,
        methods=args.methods,
        n_seeds=args.seeds,
        use_rep=args.use_rep,
        n_dims=args.n_dims,
        spacing=args.spacing,
        config=_config(args),
        device=args.device,
        checkpoint_dir=args.checkpoint_dir,
        resume=args.resume,
    )
    print(summary(scores))
    if args.csv:
        scores.to_csv(args.csv, index=False)
        print(f"table:  {args.csv}")
    if args.figure:
        import matplotlib as mpl

        mpl.use("Agg")
        axes = tw.pl.leave_one_out(scores, show=False)
        axes.figure.savefig(args.figure, dpi=150)  # type: ignore[union-attr]
        print(f"figure: {args.figure}")


def report(args: argparse.Namespace) -> None:
    """Assess the course of an h5ad and write the page of it."""
    _check_folders(args.output)
    adata = tw.read_h5ad(args.input)
    tw.tl.assess(
        adata,
        args.time_key,
        methods=tuple(args.methods),
        use_rep=args.use_rep,
        n_dims=args.n_dims,
        n_cells=args.n_cells,
        config=_config(args),
        rng=args.seed,
        device=args.device,
    )
    Path(args.output).write_text(page(adata, Path(args.input).name), encoding="utf-8")
    print(f"verdict: {adata.uns['assessment']['verdict']}")
    print(f"page:    {args.output}")


def summary(scores: pd.DataFrame) -> str:
    """Readable table of a leave-one-out: best method first, references among them, the floors last.

    The sd is over seeds of the mean over held-out times, as the field reports it. ``W1`` is that of the cells of the
    time before, ``both ends`` that of the default prediction, ``share`` how much of the way from copying to a fresh
    sample it covers, the energy distance and the variance those of its sample.
    """
    figures = ["w1", "w1_both_ends", "energy_distance", "variance_ratio", "fit_seconds"]
    per_seed = scores.groupby(["method", "seed"])[figures].mean()
    mean, sd = per_seed.groupby("method").mean(), per_seed.groupby("method")["w1"].std()
    times = scores.pivot_table(index="method", columns="time", values="w1")
    table = pd.DataFrame(
        {"W1": [f"{m:.3f}" + (f" ± {s:.3f}" if s == s else "") for m, s in zip(mean["w1"], sd, strict=True)]},
        mean.index,
    )
    table["both ends"] = mean["w1_both_ends"].map("{:.3f}".format)
    table["share"] = scores.groupby("method")["share"].mean().map(lambda s: f"{s:.0%}" if s == s else "")
    for time in times.columns:
        table[f"W1 at {time:g}"] = times[time].map("{:.3f}".format)
    table["energy"] = mean["energy_distance"].map(lambda e: f"{e:.4f}" if e == e else "")
    table["variance ratio"] = mean["variance_ratio"].map(lambda r: f"{r:.2f}" if r == r else "")
    table["fit (s)"] = mean["fit_seconds"].map(lambda s: f"{s:.1f}" if s else "")
    order = sorted(table.index, key=lambda name: (name.startswith("floor"), mean.loc[name, "w1"]))
    text: str = table.loc[order].rename_axis(None).to_string()
    return text


def _check_folders(*paths: str | None) -> None:
    """Refuse a folder that does not exist before the training, not after it."""
    for path in paths:
        if path and not Path(path).parent.is_dir():
            raise InputError(f"the folder of {path!r} does not exist; make it first.")


def _config(args: argparse.Namespace) -> tw.tl.FitConfig | None:
    return None if args.max_steps is None else tw.tl.FitConfig(max_steps=args.max_steps)
