"""Write the tables of README.md and of the notes from benchmarks/results/*.json: ``python benchmarks/readme.py``."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables

README = results.ROOT / "README.md"
NOTES = results.ROOT / "benchmarks" / "single_cell" / "NOTES.md"
SUITE = [
    tables.Column("method", "method"),
    tables.Column("w1", "W1", ".2f"),
    tables.Column("w1_both_ends", "W1 from both ends", ".2f"),
    tables.Column("velocity_cosine", "cosine", ".3f"),
]


def lines(result: dict[str, Any]) -> tables.Lines:
    """Table of a held-out-day benchmark, best first, the floor last."""
    summary = result["summary"]
    days = list(next(iter(summary.values()))["w1_by_day"])
    timed = ["fit (s)"] if result["times_comparable"] else []
    out = [["method", "W1 (mean ± sd)", *(f"day {d}" for d in days), "both ends", "variance ratio", *timed, "seeds"]]
    for name in sorted(summary, key=lambda n: (n == "floor", summary[n]["w1"])):
        s = summary[name]
        sd = f" ± {s['w1_sd']:.3f}" if s["w1_sd"] is not None else ""
        seconds = f"{s['fit_seconds']:.1f}" if s["fit_seconds"] else ""
        ratios = " / ".join(f"{s['variance_ratio_by_day'][d]:.2f}" for d in days)
        by_day = [f"{s['w1_by_day'][d]:.3f}" for d in days]
        both = f"{s['w1_both_ends']:.3f}" if s.get("w1_both_ends") not in (None, s["w1"]) else ""
        out.append([name, f"{s['w1']:.3f}{sd}", *by_day, both, ratios, *([seconds] if timed else []), str(s["seeds"])])
    return out


def kept(result: dict[str, Any]) -> str:
    """Which rows of torchcfm are of an earlier run than the others; nothing if the file was made in one run."""
    n = result.get("torchcfm_rows_kept_from_an_earlier_run", 0)
    if not n:
        return ""
    every = sum(row["method"].startswith("torchcfm") for row in result["rows"])
    which = f"All {n}" if n == every else f"{n} of the {every}"
    return _wrapped(
        f"{which} rows of torchcfm (one for each method, day and seed) were kept from an earlier run. All other rows "
        "are of one later run."
    )


def table(result: dict[str, Any]) -> str:
    """The same as markdown, with a remark on rows of an earlier run."""
    return "\n\n".join(filter(None, (tables.markdown(lines(result)), kept(result))))


def fit_time(result: dict[str, Any]) -> str:
    """Sentences on the time of a fit beside torchcfm's, from one run."""
    ours, theirs = (result["summary"][name] for name in ("otcfm", "torchcfm otcfm"))
    days = len(ours["w1_by_day"])
    seeds = min(ours["seeds"], theirs["seeds"])
    ratios = sorted(_ratios(result["rows"]))
    spread = f"; seed by seed {ratios[0]:.1f} to {ratios[-1]:.1f} times" if len(ratios) > 1 else ""
    return _wrapped(
        f"One `otcfm` fit took {ours['fit_seconds']:.1f} s, plans included. One OT-CFM fit of torchcfm took "
        f"{theirs['fit_seconds']:.1f} s in the same run. That is {theirs['fit_seconds'] / ours['fit_seconds']:.1f} "
        f"times as long{spread}. Each figure is the mean over {days} held-out days and "
        f"{seeds} seed{'s' if seeds > 1 else ''}, on {result['machine']['cores']} cores "
        "(`benchmarks/results/cite_5_fit_time.json`)."
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _ratios(rows: list[dict[str, Any]]) -> list[float]:
    """For each seed, the time of torchcfm's fits over ours."""
    spent: dict[tuple[str, int], float] = {}
    for row in rows:
        key = (row["method"], row["seed"])
        spent[key] = spent.get(key, 0.0) + row["fit_seconds"]
    seeds = {seed for method, seed in spent if method == "otcfm" and ("torchcfm otcfm", seed) in spent}
    return [spent["torchcfm otcfm", seed] / spent["otcfm", seed] for seed in seeds]


def simulated(result: dict[str, Any]) -> str:
    """The simulated courses of ``suite.py``, best first."""
    rows = [row for row in result["summary"] if row["course"] == "simulated"]
    return tables.markdown(tables.lines_of(sorted(rows, key=lambda row: row["w1"]), SUITE))


MAKERS = {"fit_time": ("cite_5_fit_time", fit_time), "simulated": ("suite", simulated)}


def text_of(mark: str) -> str:
    """What stands at a mark; a remark where the file does not exist yet."""
    kind, _, name = mark.partition(":")
    file, make = MAKERS.get(kind, (name, table))
    path = results.path_of(file)
    if not path.exists():
        return f"Not measured yet: `benchmarks/results/{file}.json` does not exist."
    return make(results.load(path))


def filled(page: str) -> str:
    """The page with what stands at each of its marks made again."""
    found = [f"results:{name}" for name in tables.marks(page, "results")]
    for mark in [*found, *(kind for kind in MAKERS if f"<!-- {kind} -->" in page)]:
        page = tables.fill(page, mark, mark, text_of(mark))
    return page


def main() -> None:
    for path in (README, NOTES):
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
