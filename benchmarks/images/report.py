"""Summaries of tables as JSON, their markdown in README.md, and figures of samples; all made from stored results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import results as files
from benchmarks.common import tables
from benchmarks.common.tables import Lines
from benchmarks.images.store import slug

from thalweg.errors import InputError
from thalweg.training.files import read_tensors

README = Path(__file__).parent / "README.md"
_T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # two-sided 95 % quantiles of Student's t for so many seeds
_BASELINES = ("fm-ot", "lambda 0", "none")
_HEADINGS = {
    "fd": "FD", "kid": "KID", "in_target_classes": "in target classes", "nfe": "NFE", "bits_per_dim": "bits/dim",
    "feature_norm": "feature norm", "effective_rank": "effective rank",
}  # fmt: skip
_SCORES = ("fd", "kid", "precision", "recall", "accuracy", "in_target_classes", "moved", "nfe")


def summarise(result: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every score of every run.

    Parameters
    ----------
    result
        As `store.run_table` returns it.

    Returns
    -------
    ``rows``: one for each run without its seed and sampler, in the order of the runs; scores are ``[mean, sd]``, the
    deviation None for one seed; ``fd_values`` and ``seeds`` for differences between rows.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, run in result["runs"].items():
        whole = {key: run["scores"][key] for key in ("bits_per_dim", "straightness") if key in run["scores"]}
        whole |= run["scores"].get("features", {})
        for scored in run["scores"]["samplers"]:
            scores = {key: scored[key] for key in _SCORES if key in scored} | whole
            groups.setdefault((name.rpartition("-s")[0], scored["sampler"]), []).append(scores)
    rows = []
    for (name, sampler), members in groups.items():
        row: dict[str, Any] = {"name": name, "sampler": sampler, "seeds": len(members)}
        for key in members[0]:
            values = np.array([m[key] for m in members])
            row[key] = [float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None]
        row["fd_values"] = [m["fd"] for m in members]
        rows.append(row)
    return {"rows": rows}


def difference(row: dict[str, Any], baseline: dict[str, Any]) -> tuple[float, float | None]:
    """Mean difference of FD to a baseline, seed by seed, and the half width of its 95 % interval (Student's t).

    Raises
    ------
    InputError
        If the two have unequal numbers of seeds.
    """
    if len(row["fd_values"]) != len(baseline["fd_values"]):
        raise InputError(f"{row['name']} and {baseline['name']} have unequal numbers of seeds; run both with the same.")
    gaps = np.subtract(row["fd_values"], baseline["fd_values"])
    t = _T95.get(len(gaps))
    return float(gaps.mean()), None if t is None else float(t * gaps.std(ddof=1) / math.sqrt(len(gaps)))


def store(
    result: dict[str, Any], results: Path, table: str, dataset: str, settings: Mapping[str, Any], folder: Path
) -> Path:
    """Write ``images_<dataset>_<table>.json`` and the figure of its samples; returns the JSON's path."""
    stem = f"images_{Path(dataset).stem}_{table}"
    runs = result["runs"]
    first = next(iter(runs.values()))
    seeds = sorted({run["config"]["seed"] for run in runs.values()})
    summary = {
        **files.head(settings, seeds),
        "table": table,
        "dataset": dataset,
        "n": result["n"],
        "floor": result["floor"],
        "train_seconds": {name: run["train_seconds"] for name, run in runs.items()},
        "score_seconds": {name: run["score_seconds"] for name, run in runs.items()},
        "bits_k": first["scores"].get("bits_k"),
        "config": first["config"],
        **summarise(result),
    }
    path = files.save(results / f"{stem}.json", summary)
    figure(folder, list(runs), results / f"{stem}.png", pairs=table == "translation")
    return path


def show(result: dict[str, Any]) -> None:
    """Print the table of runs."""
    print(tables.terminal(_run_lines({**result, **summarise(result)})))


def _cell(value: list[float | None] | None) -> str:
    if value is None or value[0] is None:
        return ""
    mean, sd = value[0], value[1]
    digits = 0 if abs(mean) >= 20 or (not sd and mean == int(mean)) else 3
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None and sd > 0 else "")


def markdown(summary: dict[str, Any]) -> str:
    """Markdown table of a summary, of runs or of the time of a step."""
    return tables.markdown(_step_lines(summary["rows"]) if "step" in summary["rows"][0] else _run_lines(summary))


def _run_lines(summary: dict[str, Any]) -> Lines:
    """Runs in their order with differences of FD to a baseline, the floor last."""
    rows = summary["rows"]
    keys = [
        k
        for k in (*_SCORES, "bits_per_dim", "straightness", "feature_norm", "effective_rank")
        if any(k in r for r in rows)
    ]
    several = len({r["name"] for r in rows}) > 1
    baselines = {r["sampler"]: r for r in rows if several and r["name"] in _BASELINES}
    names = [_HEADINGS.get(key, key) for key in keys]
    head = ["run", "sampler", *names, *(["FD − baseline (95 %)"] if baselines else []), "seeds"]
    lines = [head]
    for row in rows:
        gap = [""] if baselines else []
        baseline = baselines.get(row["sampler"].removesuffix(" undo"))
        if baseline is not None and baseline is not row:
            mean, half = difference(row, baseline)
            gap = [f"{mean:+.3f}".replace("-", "−") + ("" if half is None else f" ± {half:.3f}")]
        lines.append([row["name"], row["sampler"], *(_cell(row.get(k)) for k in keys), *gap, str(row["seeds"])])
    floor = summary["floor"]
    last = [f"floor: {summary['n']} real images", "", *(_cell([floor[k], None]) if k in floor else "" for k in keys)]
    return [*lines, last + [""] * (len(head) - len(last))]


def _step_lines(rows: list[dict[str, Any]]) -> Lines:
    lines = [["objective", "part", "core (ms)", "torchcfm (ms)", "ratio"]]
    for row, part in ((row, part) for row in rows for part in ("step", "loss only")):
        v = row[part]
        times = f"{1e3 * v['core']:.2f}", f"{1e3 * v['torchcfm']:.2f}"
        lines.append([row["objective"], part, *times, f"{v['ratio']:.2f}"])
    return lines


def figure(folder: Path, names: list[str], path: Path, *, pairs: bool = False, across: int = 20) -> None:
    """Samples of the runs of the first seed, a strip for each run.

    Parameters
    ----------
    folder, names
        Folder of the table's runs, and their names.
    path
        PNG to write.
    pairs
        Rows are source images above what they became.
    across
        Images in a row.
    """
    from matplotlib.figure import Figure

    names = [name for name in names if name.endswith("-s0")]
    strips = [_strip(folder / slug(name) / "samples.safetensors", across) for name in names]
    height = sum(s.shape[0] for s in strips) / strips[0].shape[1]
    drawing = Figure(figsize=(9.0, 8.0 * height + 0.28 * len(strips)), layout="constrained")
    for ax, name, strip in zip(np.atleast_1d(drawing.subplots(len(strips), 1)), names, strips, strict=True):
        ax.imshow(strip, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        title = name.removesuffix("-s0") + (": source above, translation below" if pairs else "")
        ax.set_title(title, fontsize=8, loc="left", pad=2)
        ax.set_axis_off()
    drawing.savefig(path, dpi=150)


def _strip(path: Path, across: int) -> np.ndarray:
    """Images side by side, in [0, 1]."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; make the run again.")
    grey = read_tensors(path)[0]["grey"]
    top = 16 if int(grey.max()) <= 16 else 255
    rows = max(1, len(grey) // across)
    tiles = torch.nn.functional.pad(grey[: rows * across].float() / top, (1, 1, 1, 1), value=0.35)
    c, h, w = tiles.shape[1:]
    image = tiles.reshape(rows, -1, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, -1, c).numpy()
    return image[..., 0] if c == 1 else image


def write(results: Path, runs: Path, readme: Path = README) -> None:
    """Put the tables of all results into the README, between its markers, and draw the figures of runs that are here.

    Parameters
    ----------
    results
        Folder of the tables' JSON and figures.
    runs
        Folder of the runs, with their samples.
    readme
        File with ``<!-- results:name -->`` and ``<!-- /results:name -->`` around each table.

    Raises
    ------
    InputError
        If a table has no result or no closing marker.
    """
    text = readme.read_text(encoding="utf-8")
    for name in tables.marks(text, "results"):
        path = results / f"{name}.json"
        if not path.is_file():
            raise InputError(f"{path} does not exist; run the table's command, or take its marker out of {readme}.")
        summary = files.load(path)
        try:
            text = tables.fill(text, f"results:{name}", f"results:{name}", markdown(summary))
        except LookupError as error:
            raise InputError(f"{readme}: {error}.") from error
        folder = runs / Path(summary.get("dataset", "")).stem / summary.get("table", "")
        if "table" in summary and folder.is_dir():
            figure(folder, list(summary["train_seconds"]), path.with_suffix(".png"), pairs="translation" in name)
    readme.write_text(text, encoding="utf-8")
