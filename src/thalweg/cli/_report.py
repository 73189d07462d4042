"""The page of an assessment: one HTML file with its figures inside, which needs no network."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pandas as pd

from thalweg import __version__
from thalweg.get._assessment import find_assessment

if TYPE_CHECKING:
    from anndata import AnnData

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
img { max-width: min(100%, 32rem); height: auto; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; } th, td { padding: .3rem .6rem; text-align: left;
vertical-align: top; border-bottom: 1px solid #ddd; } td.number { text-align: right; white-space: nowrap; }
td:first-child, .checks td:nth-child(2) { white-space: nowrap; }
.verdict { padding: .8rem 1rem; border-left: .4rem solid; background: #f5f5f5; }
.good { border-color: #009E73; } .weak { border-color: #E69F00; } .none { border-color: #D55E00; }
.dark { color: #666; }
@media (max-width: 35rem) { .checks td { display: block; border: 0; padding: .1rem 0; }
.checks tr { display: block; border-bottom: 1px solid #ddd; padding: .5rem 0; } .checks th { display: none; } }
"""
_SAYS = {
    "good": "Trajectories of this course are supported by what could be checked.",
    "weak": "Some of what was checked supports trajectories of this course. Read the doubts before you draw arrows.",
    "none": "These cells give no evidence of a trajectory. Do not draw arrows from them.",
}
_MARK = {"good": "✓ good", "doubt": "△ doubt", "bad": "✗ bad", "missing": "– not checked"}
_COLUMNS = ("method", "time", "w1", "w1_both_ends", "share", "share_low", "share_high", "variance_ratio")


def page(adata: AnnData, title: str, *, key: str = "assessment") -> str:
    """The HTML of ``uns[key]``; every name that comes of the data is escaped.

    Raises
    ------
    MissingKeyError
        If there is no assessment under ``key``.
    """
    entry = find_assessment(adata, key)
    verdict = str(entry["verdict"])
    evidence, scores = entry["evidence"], entry["scores"]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>Can these trajectories be trusted? {escape(title)}</h1>",
            f'<p class="verdict {escape(verdict)}"><b>Verdict: {escape(verdict)}.</b> {_SAYS.get(verdict, "")}</p>',
            _headline(entry),
            _next(evidence),
            "<h2>The evidence</h2>",
            _checks(evidence),
            _table(scores),
            f'<h2>The rule</h2><p class="dark">{escape(str(entry["rule"]))}</p>',
            f'<p class="dark">thalweg {escape(__version__)}; {int(entry["n_cells"]):,} cells of a time at most; '
            f"time: obs[{escape(repr(str(entry['time_key'])))}]; coordinates: {escape(str(entry['use_rep']))}.</p>",
            "</body></html>",
        ]
    )


def _headline(entry: Any) -> str:
    share, low, high = (float(entry[name]) for name in ("share", "share_low", "share_high"))
    if share != share:
        return "<p>There is no share of the way to report: no time could be left out, or nothing moved.</p>"
    return (
        f"<p>At the times left out, <b>{share:.0%}</b> of the way from a copy of the time before to a fresh sample of "
        f"the real cells is covered (95% interval {low:.0%} to {high:.0%}).</p>"
    )


def _next(evidence: pd.DataFrame) -> str:
    advice = list(dict.fromkeys(str(text) for text in evidence["advice"] if str(text)))
    if not advice:
        return ""
    return "<h2>What to do next</h2><ul>" + "".join(f"<li>{escape(text)}</li>" for text in advice) + "</ul>"


def _checks(evidence: pd.DataFrame) -> str:
    rows = "".join(
        f"<tr><td><b>{escape(str(row['check']))}</b></td><td>{_MARK[str(row['level'])]}</td>"
        f"<td>{escape(str(row['says']))}</td></tr>"
        for _, row in evidence.iterrows()
    )
    return f'<table class="checks"><tr><th>check</th><th>it is</th><th>what was found</th></tr>{rows}</table>'


def _table(scores: pd.DataFrame) -> str:
    if not len(scores):
        return ""
    pictures = "".join(
        f'<img alt="{says}" src="{_picture(scores, metric)}">'
        for metric, says in (("share", "share of the way at each time left out"), ("w1_both_ends", "scores"))
        if scores[metric].notna().any()
    )
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    rows = "".join(
        "<tr>" + "".join(_cell(row[name]) for name in _COLUMNS) + "</tr>"
        for _, row in scores[list(_COLUMNS)].iterrows()
    )
    return f'<h2>Times left out</h2>{pictures}<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return f'<td class="number">{"" if value != value else f"{value:.3g}"}</td>'


def _picture(scores: pd.DataFrame, metric: str) -> str:
    """The scores by method, as a data URL."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from thalweg import pl

    figure = Figure(figsize=(6, 3), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    pl.leave_one_out(scores, metric=metric, ax=figure.subplots())
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
