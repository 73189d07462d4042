"""A verdict and its evidence on one page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg.get._assessment import find_assessment
from thalweg.pl._canvas import BLUE, CONTEXT, DARK, ORANGE, PAGE, canvas, legend, small

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

LEVELS = {"good": "#009E73", "doubt": "#E69F00", "bad": "#D55E00", "missing": CONTEXT}
"""Colour of a check, which colour-blind readers can tell apart."""
SIGNS = {"good": "o", "doubt": "^", "bad": "X", "missing": "o"}
SAYS = {"none": "no trajectory can be seen", "weak": "weak evidence", "good": "good evidence"}
_LINE = 62  # characters of a line of evidence


def assess(
    adata: AnnData, *, key: str = "assessment", ax: Sequence[Axes] | None = None, show: bool | None = None
) -> list[Axes]:
    """The verdict on a course and the evidence for it.

    Parameters
    ----------
    adata
        AnnData with an assessment, see `thalweg.tl.assess`.
    key
        Key of ``uns`` with the assessment.
    ax, show
        As in `leave_one_out`; ``ax`` holds two axes.

    Returns
    -------
    The two axes. On the left, how much of the way from a copy of the time before (0) to a fresh sample (1) each method
    covers at the times left out, with its 95 % interval; the straight middle of the plan is grey. On the right each
    check, with a mark for what it says: a green dot is good, an orange triangle a doubt, a red cross bad, and what is
    grey could not be looked at. Numbers: `thalweg.get.assessment_df`.

    Raises
    ------
    MissingKeyError
        If there is no assessment under ``key``.
    """
    entry = find_assessment(adata, key)
    lines = [textwrap.wrap(str(says), _LINE) for says in entry["evidence"]["says"]]
    height = 0.7 + 0.13 * (sum(map(len, lines)) + 0.6 * len(lines))
    with canvas(ax, show, n=2, height=height) as axes:
        if ax is None:
            _widen(axes[0])
        _shares(axes[0], entry["scores"], [str(m) for m in entry["methods"]])
        _evidence(axes[1], entry["evidence"], lines)
        axes[1].set_title(f"verdict: {entry['verdict']} ({SAYS[str(entry['verdict'])]})", loc="left", fontweight="bold")
    return axes


def _widen(axes: Axes) -> None:
    """Make the figure as wide as a page, with most of it for the evidence."""
    place = axes.get_subplotspec()
    if place is not None:
        place.get_gridspec().set_width_ratios([1, 1.9])
    axes.figure.set_size_inches(PAGE, axes.figure.get_size_inches()[1])  # type: ignore[union-attr]


def _shares(axes: Axes, scores: pd.DataFrame, methods: list[str]) -> None:
    shown = {methods[0]: BLUE, methods[1]: ORANGE, "ot-midpoint": DARK}
    rows = scores[scores["method"].isin(shown) & scores["share"].notna()] if len(scores) else scores
    axes.set_xlabel("time left out")
    axes.set_ylabel("share of the way, copy (0) to fresh sample (1)")
    if not len(rows):
        says = "a copy is as good as a fresh sample" if len(scores) else "two times: none can be left out"
        axes.annotate(says, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=DARK)
        axes.set(xticks=[], yticks=[])
        return
    times = np.sort(rows["time"].unique())
    for k, (name, color) in enumerate(shown.items()):
        own = rows[rows["method"] == name].set_index("time").reindex(times)
        bars = np.stack([own["share"] - own["share_low"], own["share_high"] - own["share"]])
        at = np.arange(len(times)) + 0.18 * (k - 1)
        axes.errorbar(at, own["share"], bars, color=color, marker="o", ms=3.5, lw=0, elinewidth=1, label=name)
    for value in (0, 1):
        axes.axhline(value, color=CONTEXT, lw=0.8, zorder=0)
    axes.set_xticks(range(len(times)), [f"{t:g}" for t in times])
    axes.set_xlim(-0.6, len(times) - 0.4)
    low, high = min(0.0, float(rows["share_low"].min())), max(1.0, float(rows["share_high"].max()))
    axes.set_ylim(low - 0.05, high + 0.35)  # room for the legend
    legend(axes, inside=True)


def _evidence(axes: Axes, evidence: pd.DataFrame, lines: list[list[str]]) -> None:
    y = 0.0
    for (_, row), text in zip(evidence.iterrows(), lines, strict=True):
        level = str(row["level"])
        axes.plot([0], [y], marker=SIGNS[level], color=LEVELS[level], ms=5, ls="", clip_on=False)
        axes.text(0.04, y, str(row["check"]), fontsize=small(), va="center", fontweight="bold")
        for line in text:
            axes.text(0.37, y, line, fontsize=small(), va="center", color="black" if level != "missing" else DARK)
            y += 1.0
        y += 0.6
    axes.set(xlim=(-0.03, 1.5), ylim=(y - 0.6, -0.8))
    axes.axis("off")
