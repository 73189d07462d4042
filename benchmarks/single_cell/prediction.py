"""What the defaults predict: held-out times of every course here, from one side and from both.

``leave_one_out`` with its default method and ``otcfm``, nothing chosen for a course; its references beside them. The
courses: CITE with real days and with index time in 5 components, with index time in 50 and 100; three simulated ones
and three toggle switches, known to the last digit; reprogramming (MEF, 30 components of the training days' PCA) and a
part of LARRY (10 components), with few cells. ``small`` thins courses to few cells, ten times each, and asks one
question: is the default ever worse than the straight middle of the optimal plan, which needs no network?

Rows are stored as they are made; a course that is complete is not run again.

    python benchmarks/single_cell/prediction.py --courses cite_5_real simulated
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch  # noqa: F401, loaded before a fit is timed
from anndata import AnnData

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables
from benchmarks.single_cell import cite, mef

RESULTS = results.path_of("prediction")
SEEDS, THINNED = 3, 10
FIGURES = ["w1", "w1_both_ends", "energy_distance", "variance_ratio", "fit_seconds"]


class Part(NamedTuple):
    """A course, or one of several that count as one, and the options of ``leave_one_out``."""

    adata: AnnData
    time_key: str
    options: dict[str, Any]
    label: str = ""


def _cite(dims: int, spacing: str) -> Callable[[], Iterator[Part]]:
    def parts() -> Iterator[Part]:
        yield Part(cite.course(dims), "day", {"use_rep": cite.REP, "spacing": spacing})

    return parts


def _simulated() -> Iterator[Part]:
    for seed in range(3):
        yield Part(tw.datasets.simulated(rng=seed, n_futures=0), "time", {}, f"course {seed}")


def _toggle() -> Iterator[Part]:
    for seed in range(3):
        yield Part(tw.datasets.toggle_switch(rng=seed), "time", {}, f"course {seed}")


def _mef() -> Iterator[Part]:
    split = mef.split(30)
    obs = pd.concat([part.obs[["day"]] for part in split])
    adata = AnnData(obs=obs, obsm={"X_pca": np.concatenate([part.obsm["X_pca"] for part in split])})
    yield Part(adata, "day", {"times": [mef.HELD_OUT]})


def _larry() -> Iterator[Part]:
    adata = tw.datasets.larry()
    adata.obsm["X_pca"] = np.asarray(adata.obsm["X_pca"])[:, :10]
    yield Part(adata, "time_info", {"use_rep": "X_pca"})


COURSES: dict[str, Callable[[], Iterator[Part]]] = {
    "cite_5_real": _cite(5, "clock"),
    "cite_5_index": _cite(5, "index"),
    "cite_50_index": _cite(50, "index"),
    "cite_100_index": _cite(100, "index"),
    "simulated": _simulated,
    "toggle_switch": _toggle,
    "mef": _mef,
    "larry": _larry,
}
SMALL: dict[str, tuple[Callable[[], AnnData], str, str, int]] = {
    "simulated, 50 cells a time": (lambda: tw.datasets.simulated(n_futures=0, rng=0), "time", "X_pca", 50),
    "simulated, 200 cells a time": (lambda: tw.datasets.simulated(n_futures=0, rng=0), "time", "X_pca", 200),
    "CITE, 5 PCs, 200 cells a day": (lambda: cite.course(5), "day", cite.REP, 200),
    "CITE, 50 PCs, 200 cells a day": (lambda: cite.course(50), "day", cite.REP, 200),
    "CITE, 100 PCs, 200 cells a day": (lambda: cite.course(100), "day", cite.REP, 200),
    "MEF, 30 PCs, 80 cells a day": (lambda: next(_mef()).adata, "day", "X_pca", 80),
}


def thinned(adata: AnnData, time_key: str, rep: str, n: int, seed: int) -> AnnData:
    """At most ``n`` cells of each time."""
    rng, time = np.random.default_rng(seed), adata.obs[time_key].to_numpy()
    rows = np.concatenate([rng.permutation(np.flatnonzero(time == t))[:n] for t in np.unique(time)])
    some = adata[np.sort(rows)]
    return AnnData(obs=some.obs[[time_key]].copy(), obsm={rep: np.asarray(some.obsm[rep])})


def scored(name: str, methods: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a course."""
    for part in COURSES[name]():
        folder = Path(gettempdir()) / "thalweg_prediction" / f"{name} {part.label}".strip().replace(" ", "_")
        table = tw.tl.leave_one_out(
            part.adata, part.time_key, methods=methods, n_seeds=SEEDS, device="cpu", checkpoint_dir=folder, resume=True,
            **part.options,
        )  # fmt: skip
        for row in table.to_dict("records"):
            yield {"course": name, "part": part.label} | row


def small(method: str, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Rows of thinned courses, each thinning with a seed of its own."""
    for name, (make, time_key, rep, n) in SMALL.items():
        adata = make()
        for seed in range(THINNED):
            if (name, seed) not in done:
                some = thinned(adata, time_key, rep, n, seed)
                table = tw.tl.leave_one_out(
                    some, time_key, methods=method, use_rep=rep, n_seeds=1, rng=seed, device="cpu"
                )
                means = table.groupby("method")["w1_both_ends"].mean()
                yield {"course": name, "thinning": seed} | {m: float(means[m]) for m in (method, "ot-midpoint")}


def summarise(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Mean over times (and courses of one kind), then mean and standard deviation over seeds."""
    by_seed = pd.DataFrame(rows).groupby(["course", "method", "seed"])[FIGURES].mean()
    grouped = by_seed.groupby(["course", "method"])
    sd = grouped[["w1", "w1_both_ends"]].std().add_suffix("_sd")
    return grouped.mean().join(sd).reset_index()


def compared(rows: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    """The default over the straight middle, mean over thinnings."""
    frame = pd.DataFrame(rows)
    ratio = (frame[method] / frame["ot-midpoint"]).groupby(frame["course"])
    return [
        {"course": name, "ratio": r.mean(), "ratio_sd": r.std(), "highest": r.max(), "thinnings": len(r)}
        for name, r in ratio
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--courses", nargs="*", default=[*COURSES], choices=[*COURSES])
    parser.add_argument("--methods", nargs="*", default=["usb", "otcfm"])
    parser.add_argument("--small", action="store_true", help="thinned courses, too")
    args = parser.parse_args()
    tw.settings.progress, tw.settings.verbosity = False, "error"
    for name in args.courses:
        save(args, [*scored(name, args.methods)], [], {name})
    if args.small:
        there = results.load(RESULTS).get("small_rows", []) if RESULTS.exists() else []
        for row in small(args.methods[0], results.keys_of(there, "course", "thinning")):
            save(args, [], [row], set())


def save(args: argparse.Namespace, rows: list[dict[str, Any]], thin: list[dict[str, Any]], renewed: set[str]) -> None:
    """Add rows to the file; those of a course that was run take the place of its earlier ones."""
    found = results.load(RESULTS) if RESULTS.exists() else {}
    rows = [row for row in found.get("rows", []) if row["course"] not in renewed] + rows
    thin = found.get("small_rows", []) + thin
    result = results.head({"methods": args.methods}, range(SEEDS), ["torch", "numpy", "POT"], COMMAND)
    if rows:
        summary = summarise(rows)
        print(tables.terminal(tables.frame_lines(summary.round(4), index=False)))
        result["summary"] = summary.to_dict("records")
    if thin:
        result["small"] = compared(thin, args.methods[0])
        print(tables.terminal(tables.frame_lines(pd.DataFrame(result["small"]).round(4), index=False)))
    result |= {"rows": rows, "small_rows": thin}
    print(f"written: {results.save(RESULTS, result)}")


COMMAND = "python benchmarks/single_cell/prediction.py --small"


if __name__ == "__main__":
    main()
