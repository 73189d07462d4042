"""The table that ``thalweg leave-one-out`` and ``thalweg demo`` print."""

from __future__ import annotations

import pandas as pd


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
