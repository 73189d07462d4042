"""Write the tables of README.md from benchmarks/results/*.json: ``python benchmarks/readme.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables

README = results.ROOT / "README.md"


def lines(result: dict[str, Any]) -> tables.Lines:
    """Table of a held-out-day benchmark, best first, the floor last."""
    summary = result["summary"]
    days = list(next(iter(summary.values()))["w1_by_day"])
    timed = ["fit (s)"] if result["times_comparable"] else []
    out = [["method", "W1 (mean ± sd over seeds)", *(f"day {d}" for d in days), "variance ratio", *timed, "seeds"]]
    for name in sorted(summary, key=lambda n: (n == "floor", summary[n]["w1"])):
        s = summary[name]
        sd = f" ± {s['w1_sd']:.3f}" if s["w1_sd"] is not None else ""
        seconds = f"{s['fit_seconds']:.1f}" if s["fit_seconds"] else ""
        ratios = " / ".join(f"{s['variance_ratio_by_day'][d]:.2f}" for d in days)
        by_day = [f"{s['w1_by_day'][d]:.3f}" for d in days]
        out.append([name, f"{s['w1']:.3f}{sd}", *by_day, ratios, *([seconds] if timed else []), str(s["seeds"])])
    return out


def table(result: dict[str, Any]) -> str:
    """The same as markdown."""
    return tables.markdown(lines(result))


def fit_time(result: dict[str, Any]) -> str:
    """Sentence on the time of a fit beside torchcfm's, from one run."""
    ours, theirs = (result["summary"][name]["fit_seconds"] for name in ("otcfm", "torchcfm otcfm"))
    return (
        f"One `otcfm` fit took {ours:.1f} s, plans included, torchcfm's OT-CFM in the same run {theirs:.1f} s: "
        f"{theirs / ours:.0f} times (`cite_5_fit_time.json`)."
    )


def main() -> None:
    text = README.read_text(encoding="utf-8")
    for name in tables.marks(text, "results"):
        mark = f"results:{name}"
        text = tables.fill(text, mark, mark, table(results.load(results.path_of(name))))
    sentence = fit_time(results.load(results.path_of("cite_5_fit_time")))
    README.write_text(tables.fill(text, "fit_time", "fit_time", sentence), encoding="utf-8")


if __name__ == "__main__":
    main()
