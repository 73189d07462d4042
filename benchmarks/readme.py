"""Write the tables of README.md from benchmarks/results/*.json: ``python benchmarks/readme.py``."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def table(result: dict) -> str:
    """Markdown table of a held-out-day benchmark, best first, the floor last."""
    summary = result["summary"]
    days = list(next(iter(summary.values()))["w1_by_day"])
    timed = ["fit (s)"] if result["times_comparable"] else []
    head = ["method", "W1 (mean ± sd over seeds)", *(f"day {d}" for d in days), "variance ratio", *timed, "seeds"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for name in sorted(summary, key=lambda n: (n == "floor", summary[n]["w1"])):
        s = summary[name]
        sd = f" ± {s['w1_sd']:.3f}" if s["w1_sd"] is not None else ""
        seconds = f"{s['fit_seconds']:.1f}" if s["fit_seconds"] else ""
        ratios = " / ".join(f"{s['variance_ratio_by_day'][d]:.2f}" for d in days)
        by_day = [f"{s['w1_by_day'][d]:.3f}" for d in days]
        cells = [name, f"{s['w1']:.3f}{sd}", *by_day, ratios, *([seconds] if timed else []), str(s["seeds"])]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def fit_time(result: dict) -> str:
    """Sentence on the time of a fit beside torchcfm's, from one run."""
    ours, theirs = (result["summary"][name]["fit_seconds"] for name in ("otcfm", "torchcfm otcfm"))
    return (
        f"One `otcfm` fit took {ours:.1f} s, plans included, torchcfm's OT-CFM in the same run {theirs:.1f} s: "
        f"{theirs / ours:.0f} times (`cite_5_fit_time.json`)."
    )


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    for name in re.findall(r"<!-- results:(\S+) -->", text):
        result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        block = f"<!-- results:{name} -->\n{table(result)}\n<!-- /results:{name} -->"
        text = re.sub(rf"<!-- results:{name} -->.*?<!-- /results:{name} -->", lambda _, b=block: b, text, flags=re.S)
    sentence = fit_time(json.loads((ROOT / "benchmarks" / "results" / "cite_5_fit_time.json").read_text()))
    block = f"<!-- fit_time -->\n{sentence}\n<!-- /fit_time -->"
    text = re.sub(r"<!-- fit_time -->.*?<!-- /fit_time -->", lambda _: block, text, flags=re.S)
    readme.write_text(text)


if __name__ == "__main__":
    main()
