"""Held-out days of the CITE course, thalweg beside torchcfm: one command, one JSON.

Protocol: each interior day is left out, every method is trained on the other days, all true cells of the day before are
carried to the held-out day, and the cloud is compared with all of its real cells by exact Wasserstein-1. Five
components are z-scored over all cells, 50 and 100 are in raw units. torchcfm runs with its own recommended settings
(`torchcfm_fit.py`); thalweg with its defaults. Fitting times are measured in the same process, one fit after the other.

    python benchmarks/single_cell/cite.py --dims 5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch  # noqa: F401, loaded before a fit is timed
from anndata import AnnData
from tqdm.auto import tqdm

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import peers, results, tables

REP = "X_benchmark"


def course(dims: int) -> AnnData:
    """The CITE course with its benchmark representation."""
    adata = tw.datasets.cite(n_pcs=100 if dims == 100 else 50)
    if dims == 5:
        tw.pp.standardize(adata, n_dims=5, key_added=REP)
    else:
        adata.obsm[REP] = adata.obsm["X_pca"][:, :dims]
    return adata


def peer_rows(
    adata: AnnData, methods: list[str], seeds: int, spacing: str, done: set[tuple[Any, ...]]
) -> Iterator[dict[str, object]]:
    """Leave-one-out rows of torchcfm, without those that are done."""
    from benchmarks.single_cell.torchcfm_fit import fit_torchcfm

    x, day = adata.obsm[REP].astype(np.float64), adata.obs["day"].to_numpy(dtype=np.float64)
    days = np.unique(day)
    model_time = {t: float(i) for i, t in enumerate(days)} if spacing == "index" else {t: t for t in days}
    settings = peer_settings(x.shape[1])
    folds = [(m, d, s) for s in range(seeds) for m in methods for d in days[1:-1]]
    folds = [(m, d, s) for m, d, s in folds if (f"torchcfm {m}", float(d), s) not in done]
    for method, held_out, seed in tqdm(folds, desc="torchcfm"):
        kept = days[days != held_out]
        start = perf_counter()
        model = fit_torchcfm(method, [x[day == t] for t in kept], [model_time[t] for t in kept], seed, settings)
        seconds = perf_counter() - start
        before = kept[kept < held_out][-1]
        cloud = model.push(x[day == before], model_time[before], model_time[held_out])
        real = x[day == held_out]
        yield {
            "method": f"torchcfm {method}",
            "time": held_out,
            "seed": seed,
            "w1": (w1 := tw.metrics.wasserstein(cloud, real)),
            "w1_both_ends": w1,
            "energy_distance": tw.metrics.energy_distance(cloud, real),
            "variance_ratio": tw.metrics.variance_ratio(cloud, real),
            "fit_seconds": seconds,
        }


def peer_settings(dims: int) -> Any:
    """What torchcfm is run with: its authors' settings for so many components."""
    from benchmarks.single_cell.torchcfm_fit import PeerSettings

    return PeerSettings() if dims <= 10 else PeerSettings(width=512, steps=3000)


def sample_rows(adata: AnnData, seeds: int, spacing: str) -> Iterator[dict[str, object]]:
    """W1 of the default with the noise of its cells, `interpolate(prediction="sample")` from one side.

    A path between two cells averages their noise, which W1 rewards in high dimension; this row says how much of the
    score comes from that. ``uotcfm`` predicts as ``usb`` does and is fitted faster.
    """
    day = adata.obs["day"].to_numpy(dtype=np.float64)
    days = np.unique(day)
    for k, held_out in enumerate(days[1:-1], 1):
        train, real = adata[day != held_out].copy(), adata.obsm[REP][day == held_out]
        index = {t: float(i) for i, t in enumerate(days) if t != held_out}
        # An index-time model has the held-out index halfway between its neighbours', in whatever units.
        time = float(days[k - 1] + days[k + 1]) / 2 if spacing == "index" else float(held_out)
        for seed in range(seeds):
            start = perf_counter()
            axis = index if spacing == "index" else spacing
            tw.tl.fit(train, "day", method="uotcfm", use_rep=REP, spacing=axis, rng=seed, device="cpu")
            seconds = perf_counter() - start
            predicted = tw.tl.interpolate(train, time, both_ends=False, prediction="sample", rng=seed)
            pair = predicted.obsm[REP], real
            weights = predicted.obs["weight"].to_numpy()
            yield {
                "method": "usb, sample",
                "time": held_out,
                "seed": seed,
                "w1": (w1 := tw.metrics.wasserstein(*pair, weights_x=weights)),
                "w1_both_ends": w1,
                "energy_distance": tw.metrics.energy_distance(*pair, weights_x=weights),
                "variance_ratio": tw.metrics.variance_ratio(*pair, weights_x=weights),
                "fit_seconds": seconds,
            }


def summarise(rows: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Mean over days, then mean and sd over seeds; and the mean of each day. A seed that lacks a day is left out."""
    days = rows.groupby(["method", "seed"])["time"].transform("nunique")
    rows, out = rows[days == rows["time"].nunique()], {}
    for method, group in rows.groupby("method"):
        seeds = group.groupby("seed")[["w1", "w1_both_ends", "energy_distance", "variance_ratio", "fit_seconds"]].mean()
        out[str(method)] = {
            "w1": seeds["w1"].mean(),
            "w1_sd": seeds["w1"].std() if len(seeds) > 1 else None,
            "w1_both_ends": seeds["w1_both_ends"].mean(),
            "w1_by_day": {f"{t:g}": v for t, v in group.groupby("time")["w1"].mean().items()},
            "energy_distance": seeds["energy_distance"].mean(),
            "variance_ratio_by_day": {f"{t:g}": v for t, v in group.groupby("time")["variance_ratio"].mean().items()},
            "fit_seconds": seeds["fit_seconds"].mean(),
            "seeds": len(seeds),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, choices=(5, 50, 100), default=5)
    parser.add_argument("--methods", nargs="*", default=["icfm", "otcfm", "sbcfm", "sf2m", "usb"])
    parser.add_argument("--peers", nargs="*", default=["icfm", "otcfm", "sbcfm", "sf2m"], help="torchcfm methods")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peer-seeds", type=int, default=None, help="seeds of torchcfm (as --seeds)")
    parser.add_argument(
        "--spacing",
        choices=("index", "real", "clock"),
        default="index",
        help="index as in the papers; clock is our default",
    )
    parser.add_argument("--keep-peers", action="store_true", help="keep the rows of torchcfm that the JSON has")
    parser.add_argument(
        "--busy", action="store_true", help="other jobs share the machine: keep the times out of tables"
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="JSON to write (benchmarks/results/cite_<dims>_index.json or _real.json)"
    )
    args = parser.parse_args()
    if args.peers:
        peers.require("torchcfm")  # before the fits, which take long
    out = args.out or results.path_of(f"cite_{args.dims}_{'index' if args.spacing == 'index' else 'real'}")
    adata = course(args.dims)
    theirs = results.kept_rows(out, lambda row: row["method"].startswith("torchcfm")) if args.keep_peers else []
    kept = len(theirs)
    own = tw.tl.leave_one_out(
        adata, "day", methods=args.methods, use_rep=REP, spacing=args.spacing, n_seeds=args.seeds, device="cpu"
    )
    if "usb" in args.methods:
        own = pd.concat([own, pd.DataFrame(sample_rows(adata, args.seeds, args.spacing))], ignore_index=True)
    done = results.keys_of(theirs, "method", "time", "seed")
    summary = write(out, args, own, theirs, kept)
    for row in peer_rows(adata, args.peers, args.peer_seeds or args.seeds, args.spacing, done):
        theirs.append(row)
        summary = write(out, args, own, theirs, kept)  # a run cut short goes on with --keep-peers
    shown = pd.DataFrame(summary).T.drop(columns=["variance_ratio_by_day"]).rename_axis("method")
    print(tables.terminal(tables.frame_lines(shown)))
    print(f"written: {out}")


def write(
    out: Path, args: argparse.Namespace, own: pd.DataFrame, theirs: list[dict[str, Any]], kept: int
) -> dict[str, dict[str, object]]:
    """Write the JSON and return its summary; ``kept`` of the rows of torchcfm are from an earlier run."""
    rows = pd.concat([own, pd.DataFrame(theirs, columns=own.columns)], ignore_index=True) if theirs else own
    summary = summarise(rows)
    whole = "first 5 of 50 PCs, z-scored over all cells" if args.dims == 5 else f"{args.dims} PCs, raw units"
    seeds = range(max(args.seeds, args.peer_seeds or 0))
    result = results.head(vars(args), seeds, ["torch", "numpy", "POT"])
    if len(theirs) > kept:
        result["peers"] = {"torchcfm": peers.record("torchcfm", peer_settings(args.dims).record())}
    elif kept:
        result["peers"] = results.load(out).get("peers", {})
    result |= {
        "torchcfm_rows_kept_from_an_earlier_run": kept,
        "protocol": "interior day left out; all cells of the day before carried to it; exact W1 to all its real cells",
        "representation": whole,
        "spacing": args.spacing,
        "times_comparable": not args.busy,
        "summary": summary,
        "rows": rows.to_dict("records"),
    }
    if not args.busy and {"otcfm", "torchcfm otcfm"} <= summary.keys():
        ours, other = (summary[name]["fit_seconds"] for name in ("otcfm", "torchcfm otcfm"))
        result["times_faster_than_torchcfm_otcfm"] = other / ours
    results.save(out, result)
    return summary


if __name__ == "__main__":
    try:
        main()
    except peers.PeerError as error:
        raise SystemExit(f"error: {error}") from error
