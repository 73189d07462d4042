"""Bad inputs that a biologist makes, and the message shown for each.

    python -m benchmarks.reliability.bad_inputs     # prints them, and writes them into docs/troubleshooting.md

Each is a time course that is nearly right. What thalweg raises or logs is collected word for word, so that the page
"Troubleshooting by error message" of the documentation shows what the code says. The messages are also written as JSON,
docs/troubleshooting_messages.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from benchmarks.common import results, tables
from benchmarks.reliability.common import QUICK, course, logged

import thalweg as tw

DOCS = results.ROOT / "docs"
PLAIN: dict[str, Any] = {"method": "otcfm", "spacing": "real", "rng": 0, "config": replace(QUICK, path="straight")}
"""Fits that say little besides what they say of their input."""
OUT, PAGE = DOCS / "troubleshooting_messages.json", DOCS / "troubleshooting.md"


def counts_instead_of_pcs(folder: Path) -> None:
    adata = AnnData(np.random.default_rng(0).poisson(1.0, (90, 200)).astype(np.float32), obs=course().obs)
    tw.tl.fit(adata, "time", use_rep="X", **PLAIN)


def days_as_strings(folder: Path) -> None:
    tw.tl.fit(course(["d0", "d2", "d10"]), "time", **PLAIN)


def unsorted_categories(folder: Path) -> None:
    adata = course(["0", "10", "2"])
    adata.obs["time"] = pd.Categorical(adata.obs["time"], categories=["10", "0", "2"])
    tw.tl.fit(adata, "time", **PLAIN)


def a_batch_for_each_day(folder: Path) -> None:
    adata = course()
    adata.obs["batch"] = adata.obs["time"].map({0.0: "run1", 1.0: "run2", 3.0: "run3"})
    tw.tl.fit(adata, "time", **PLAIN)
    tw.tl.fit(adata, "time", condition_key="batch", **PLAIN)


def three_cells_at_a_day(folder: Path) -> None:
    tw.tl.fit(course()[[*range(33), *range(60, 90)]].copy(), "time", **PLAIN)


def duplicated_names(folder: Path) -> None:
    adata = course()
    adata.obs_names = [*adata.obs_names[:30], *adata.obs_names[:30], *adata.obs_names[60:]]
    tw.tl.fit(adata, "time", **PLAIN)


def a_view(folder: Path) -> None:
    tw.tl.fit(course()[::2], "time", **PLAIN)


def weights_of_a_few(folder: Path) -> None:
    adata = course()
    adata.obs["weight"] = np.where(np.arange(90) % 30 < 2, 1000.0, 1.0)
    tw.tl.fit(adata, "time", weight_key="weight", check=False, **PLAIN)


def replicates_apart(folder: Path) -> None:
    adata = course()
    adata.obs["mouse"] = np.where(np.arange(90) % 2, "m1", "m2")
    adata.obsm["X_pca"][::2, 1] += 20
    tw.tl.fit(adata, "time", replicate_key="mouse", **PLAIN)


def replicates_of_one_day(folder: Path) -> None:
    adata = course()
    adata.obs["mouse"] = [f"D{t:g}_r{i % 2}" for i, t in enumerate(adata.obs["time"])]
    tw.tl.leave_one_replicate_out(adata, "time", "mouse")


def a_replicate_of_one_day(folder: Path) -> None:
    adata = course()
    adata.obs["mouse"] = np.where(np.arange(90) % 2, "m1", "m2")
    adata.obs.iloc[30:40, adata.obs.columns.get_loc("mouse")] = "m3"
    tw.tl.leave_one_replicate_out(adata, "time", "mouse", methods="otcfm", spacing="real", config=PLAIN["config"])


def _arms() -> AnnData:
    """A control and a drug that share an untreated first day, with three mice."""
    adata = course(n=60)
    number = np.arange(adata.n_obs)
    arm = np.where(number % 2, "drug", "control")
    adata.obs["arm"] = np.where(adata.obs["time"] == 0, "untreated", arm)
    adata.obs["type"] = np.where(number % 4 < 2, "A", "B")
    adata.obs["mouse"] = [f"m{i}" for i in number // 2 % 3 + 1]
    return adata


def a_baseline_that_is_no_label(folder: Path) -> None:
    tw.tl.fit(_arms(), "time", condition_key="arm", baseline="day 0", **PLAIN)


def cells_without_a_condition(folder: Path) -> None:
    adata = _arms()
    adata.obs["arm"] = adata.obs["arm"].where(adata.obs["arm"] != "untreated")
    adata.obs.iloc[[80, 84], adata.obs.columns.get_loc("arm")] = None
    tw.tl.fit(adata, "time", condition_key="arm", baseline=float("nan"), **PLAIN)


def _compared(adata: AnnData) -> None:
    with logged():
        tw.tl.fit(adata, "time", condition_key="arm", baseline="untreated", check=False, **PLAIN)
    tw.tl.compare(adata, "arm", "type", replicate_key="mouse", genes=False, rng=0)


def arms_of_other_days(folder: Path) -> None:
    adata = _arms()
    _compared(adata[((adata.obs["arm"] == "drug") == (adata.obs["time"] == 1)) | (adata.obs["time"] == 0)].copy())


def a_replicate_without_the_last_day(folder: Path) -> None:
    adata = _arms()
    absent = (adata.obs["mouse"] == "m3") & (adata.obs["arm"] == "drug") & (adata.obs["time"] == 3)
    _compared(adata[~absent].copy())


def another_pca_after_the_fit(folder: Path) -> None:
    adata = course()
    tw.tl.fit(adata, "time", check=False, **PLAIN)
    adata.obsm["X_pca"] = -adata.obsm["X_pca"]
    tw.tl.velocity(adata)


def _new_cells(change: Callable[[AnnData], object]) -> None:
    reference, new = (tw.datasets.simulated(n, n_futures=0, rng=0) for n in (1000, 200))
    with logged():
        tw.tl.fit(reference, "time", check=False, **PLAIN)
    change(new)
    tw.tl.map_query(new, reference)


def new_cells_with_a_pca_of_their_own(folder: Path) -> None:
    _new_cells(lambda new: None)


def new_cells_of_another_normalisation(folder: Path) -> None:
    def change(new: AnnData) -> None:
        del new.obsm["X_pca"]
        new.X = np.log1p(3 * np.expm1(new.X))

    _new_cells(change)


def new_cells_of_another_batch(folder: Path) -> None:
    def change(new: AnnData) -> None:
        del new.obsm["X_pca"]
        new.X = new.X + 0.3 * np.random.default_rng(0).standard_normal(new.n_vars)

    _new_cells(change)


def log_normalised_with_nan(folder: Path) -> None:
    x = np.log1p(np.random.default_rng(0).poisson(1.0, (90, 50))).astype(np.float32)
    x[[4, 9], 7] = np.nan
    tw.tl.fit(AnnData(x, obs=course().obs), "time", use_rep="X", **PLAIN)


def a_wrong_key(folder: Path) -> None:
    tw.tl.fit(course(), "day", **PLAIN)


def a_backed_file(folder: Path) -> None:
    adata = course()
    AnnData(adata.obsm["X_pca"], obs=adata.obs, obsm=dict(adata.obsm)).write_h5ad(folder / "course.h5ad")
    backed = anndata.read_h5ad(folder / "course.h5ad", backed="r")
    try:
        tw.pp.drop_missing(backed, "time")
    finally:
        backed.file.close()


INPUTS: dict[str, Callable[[Path], None]] = {
    "counts instead of PCs": counts_instead_of_pcs,
    "days as strings": days_as_strings,
    "unsorted categories": unsorted_categories,
    "a batch for each day": a_batch_for_each_day,
    "3 cells at a day": three_cells_at_a_day,
    "duplicated names": duplicated_names,
    "weights of a few": weights_of_a_few,
    "replicates apart": replicates_apart,
    "a replicate of one day": a_replicate_of_one_day,
    "replicates of one day": replicates_of_one_day,
    "a baseline that is no label": a_baseline_that_is_no_label,
    "cells without a condition": cells_without_a_condition,
    "arms of other days": arms_of_other_days,
    "a replicate without the last day": a_replicate_without_the_last_day,
    "another PCA after the fit": another_pca_after_the_fit,
    "new cells with a PCA of their own": new_cells_with_a_pca_of_their_own,
    "new cells of another normalisation": new_cells_of_another_normalisation,
    "new cells of another batch": new_cells_of_another_batch,
    "a view": a_view,
    "log-normalised X with NaN": log_normalised_with_nan,
    "a wrong key": a_wrong_key,
    "a backed file": a_backed_file,
}


def messages(make: Callable[[Path], None]) -> list[dict[str, str]]:
    """What is said about one input: warnings and remarks about the data, and the error, if any."""
    with tempfile.TemporaryDirectory() as folder, logged() as lines:
        error: tw.errors.ThalwegError | None = None
        try:
            make(Path(folder))
        except tw.errors.ThalwegError as caught:
            error = caught
    said = [{"kind": "log", "text": line} for line in dict.fromkeys(lines) if not _routine(line)]
    said += [] if error is None else [{"kind": type(error).__name__, "text": str(error)}]
    return [{"kind": m["kind"], "text": m["text"].replace(f"{folder}/", "")} for m in said]


def _routine(line: str) -> bool:
    """Lines of every fit: the representation, couplings, steps, and what was added."""
    return line.startswith(("using obsm", "added uns")) or " coupling of " in line or " steps in " in line


def fill(page: str, found: dict[str, list[dict[str, str]]]) -> str:
    """The page with the messages between its marks."""
    for name in tables.marks(page, "message"):
        lines = [("thalweg" if m["kind"] == "log" else m["kind"]) + f": {m['text']}" for m in found[name]]
        page = tables.fill(page, f"message: {name}", "message", "\n".join(["", "```text", *lines, "```", ""]))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.bad_inputs")
    parser.add_argument("--json", type=Path, default=OUT)
    args = parser.parse_args()
    tw.settings.progress = False
    found = {name: messages(make) for name, make in INPUTS.items()}
    for name, said in found.items():
        print(f"\n{name}")
        for message in said or [{"kind": "", "text": "read without a word"}]:
            print(f"    {message['kind']}: {message['text']}")
    results.save(args.json, found)
    PAGE.write_text(fill(PAGE.read_text(), found))
    print(f"\nwritten: {args.json}, {PAGE}")


if __name__ == "__main__":
    main()
