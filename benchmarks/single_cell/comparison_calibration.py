"""Tests of two arms with three to five replicates of each: how often they reject, with and without a shift.

Replicates are drawn with a share of .30 in the first group, with a standard deviation of .03 from replicate to
replicate, and of 1,000 cells each or of 200 to 3,000. In null sets the arms are alike. In shifted ones the first share
falls to .15 and the others rise.

- ``cases``: for each design and test, the share of null tests with p < .05, the share of null sets with any adjusted
  p < .05, how often the shift is found before and after adjustment, and how often the interval holds the truth.
- ``choices``: the same for `thalweg.core.comparison.shares` with one of its choices undone.
- ``batches``: the same where replicates come in batches that shift both arms, with and without ``block``.

    python benchmarks/single_cell/comparison_calibration.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables

from thalweg.core.comparison.design import make_design
from thalweg.core.comparison.means import moderated_means
from thalweg.core.comparison.pvalues import adjusted
from thalweg.core.comparison.shares import compare, quasi_binomial

Floats = NDArray[np.float64]
Test = Callable[[Floats, Floats, NDArray[np.int64]], Floats]
COMMAND = "python benchmarks/single_cell/comparison_calibration.py"
NULL, SHIFTED, FEWER = 1000, 200, 200  # sets of a case; null ones of a test that takes long or is an aside
LEVEL, FROM, TO, CORRELATION = 0.05, 0.30, 0.15, 0.03**2 / (0.30 * 0.70)
BATCH = 0.3  # standard deviation of the log odds from batch to batch


@dataclass(frozen=True)
class Case:
    """A design; ``spread`` says how replicates scatter, from group to group."""

    replicates: int
    groups: int
    totals: str
    spread: str

    @property
    def arm(self) -> NDArray[np.int64]:
        """Arm of each unit."""
        return np.repeat([0, 1], self.replicates)


CASES = [
    *(Case(3, 1, totals, "alike") for totals in ("equal", "unequal")),
    *(Case(3, k, "equal", "none") for k in (1, 8)),
    *(Case(3, k, "equal", "alike") for k in (3, 8, 20)),
    *(Case(3, k, "unequal", of) for k in (3, 8, 20) for of in ("alike", "lognormal", "eightfold")),
    *(Case(3, k, "few in one arm", "alike") for k in (8, 20)),
    Case(3, 20, "few in one arm", "lognormal"),
    *(Case(5, k, "unequal", "alike") for k in (1, 3, 8, 20)),
    *(Case(5, k, "unequal", "eightfold") for k in (8, 20)),
]


def shares_of(groups: int) -> Floats:
    """First share .30; of eight groups or more, each further one is three quarters of the one before."""
    if groups == 1:
        return np.array([FROM])
    rest = (0.75 if groups > 3 else 1.0) ** np.arange(groups - 1)
    return np.array([FROM, *((1 - FROM) * rest / rest.sum())])


def totals_of(case: Case, rng: np.random.Generator) -> NDArray[np.int64]:
    if case.totals == "equal":
        return np.full(2 * case.replicates, 1000)
    if case.totals == "unequal":
        return np.exp(rng.uniform(np.log(200), np.log(3000), 2 * case.replicates)).astype(np.int64)
    return np.where(case.arm == 1, 200, 3000)


def draw(case: Case, shifted: bool, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Counts and totals of a set."""
    totals, one = totals_of(case, rng), case.groups == 1
    base = shares_of(case.groups)
    mean = np.tile([FROM, 1 - FROM] if one else base, (len(totals), 1))
    if shifted:
        mean[case.arm == 1] *= np.where(np.arange(mean.shape[1]) == 0, TO / FROM, (1 - TO) / (1 - FROM))
    if case.spread == "alike":
        shares = rng.gamma(mean * (1 / CORRELATION - 1))
    elif case.spread == "none":
        shares = mean
    else:
        cv = 0.1 * np.exp(rng.normal(0, 0.7, mean.shape[1]))
        if case.spread == "eightfold":
            cv = np.resize([0.1, 0.2, 0.05, 0.4], mean.shape[1])
        shares = mean * rng.gamma(np.broadcast_to(1 / cv**2, mean.shape)) * cv**2
    counts = rng.multinomial(totals, shares / shares.sum(1, keepdims=True)).astype(np.float64)
    return counts[:, :1] if one else counts, totals.astype(np.float64)


def transformed(y: Floats, n: Floats, arm: NDArray[np.int64], *, logit: bool, moderated: bool) -> Floats:
    """P of a t test on log odds or on the arcsine of the root; moderated on the latter it is that of propeller."""
    rows = n[:, None]
    value = special.logit((y + 0.5) / (rows + 1)) if logit else np.arcsin(np.sqrt(y / rows))
    if moderated:
        return moderated_means(value, arm).p
    sides, df = (value[arm == 0], value[arm == 1]), len(arm) - 2
    variance = sum(np.square(side - side.mean(0)).sum(0) for side in sides) / df
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (sides[1].mean(0) - sides[0].mean(0)) / np.sqrt(variance * sum(1 / len(side) for side in sides))
    return 2 * stats.t.sf(np.abs(t), df)


def beta_binomial(y: Floats, n: Floats, arm: NDArray[np.int64]) -> Floats:
    """P of the likelihood ratio, each likelihood maximised on a grid of shares and correlations."""
    correlation = np.geomspace(1e-6, 0.3, 50)
    out = []
    for count in y.T:
        pooled = (count.sum() + 0.5) / (n.sum() + 1)
        share = special.expit(special.logit(pooled) + np.linspace(-2.5, 2.5, 161))[:, None]
        a, b = share * (1 / correlation - 1), (1 - share) * (1 / correlation - 1)
        arms = [
            sum(special.betaln(k + a, m - k + b) - special.betaln(a, b) for k, m in zip(count[of], n[of], strict=True))
            for of in (arm == 0, arm == 1)
        ]
        ratio = (arms[0].max(0) + arms[1].max(0)).max() - (arms[0] + arms[1]).max()
        out.append(stats.chi2.sf(2 * max(ratio, 0), 1))
    return np.array(out)


def chosen(y: Floats, n: Floats, arm: NDArray[np.int64], **choices: Any) -> Floats:
    return compare(y, n, make_design(arm, None, len(y)), **choices).p


TESTS: dict[str, Test] = {
    "quasi-binomial": chosen,
    "t of arcsine": partial(transformed, logit=False, moderated=False),
    "t of log odds": partial(transformed, logit=True, moderated=False),
    "moderated t of arcsine": partial(transformed, logit=False, moderated=True),
    "beta-binomial likelihood ratio": beta_binomial,
}
CHOICES: dict[str, Test] = {
    "cells of a unit not correlated": partial(chosen, weighted=False),
    "dispersion not bounded": partial(chosen, bounded=False),
    "prior without caution": partial(chosen, caution=0.0),
    "dispersion not moderated": partial(chosen, caution=np.inf),
}


def rates(case: Case, test: Test, null: int, shifted: int) -> dict[str, float]:
    """How often a test rejects."""
    found = []
    for shift, sets in ((False, null), (True, shifted)):
        rng = np.random.default_rng([31, int(shift)])
        p = np.array([test(*draw(case, shift, rng), case.arm) for _ in range(sets)])
        found.append((p < LEVEL, np.array([adjusted(row) for row in p]) < LEVEL))
    (alone, corrected), (hit, hit_corrected) = found
    return {
        "false_positives": float(alone.mean()),
        "false_sets": float(corrected.any(1).mean()),
        "power": float(hit[:, 0].mean()),
        "power_adjusted": float(hit_corrected[:, 0].mean()),
    }


def coverage(case: Case) -> dict[str, float]:
    """How often intervals hold the true difference."""
    base, held = shares_of(case.groups), {}
    other = base * np.where(np.arange(case.groups) == 0, TO / FROM, (1 - TO) / (1 - FROM))
    for shift, truth in ((False, 0 * base), (True, other - base)):
        rng = np.random.default_rng([32, int(shift)])
        sets = [quasi_binomial(*draw(case, shift, rng), case.arm) for _ in range(SHIFTED)]
        inside = [(s.low <= truth) & (truth <= s.high) for s in sets]
        width = [s.high - s.low for s in sets]
        kept = np.isfinite(width)
        held |= {f"covered_{'shifted' if shift else 'null'}": float(np.mean(np.array(inside)[kept]))}
    return held


def cases() -> list[dict[str, Any]]:
    rows = []
    for case in tqdm(CASES, desc="cases"):
        for name, test in TESTS.items():
            if name.startswith("beta") and (
                case.groups > 8 or case.spread != "alike" or case.totals == "few in one arm"
            ):
                continue
            null, shifted = (FEWER, FEWER // 4) if name.startswith("beta") else (NULL, SHIFTED)
            row = {"test": name, **asdict(case), **rates(case, test, null, shifted)}
            rows.append(row | (coverage(case) if test is chosen else {}))
    return rows


def choices() -> list[dict[str, Any]]:
    some = [
        Case(3, 8, "unequal", "alike"),
        Case(3, 20, "unequal", "eightfold"),
        Case(3, 20, "few in one arm", "lognormal"),
    ]
    return [
        {"test": name, **asdict(case), **rates(case, test, 2 * FEWER, FEWER)}
        for case in some
        for name, test in {"quasi-binomial": chosen, **CHOICES}.items()
    ]


def batches() -> list[dict[str, Any]]:
    """Three batches of both arms; the log odds of a group in a batch differ by `BATCH`."""
    case, rows = Case(3, 8, "unequal", "alike"), []
    batch = np.tile(np.arange(case.replicates), 2)
    for used in (None, batch):
        rejected: dict[bool, list[NDArray[np.bool_]]] = {False: [], True: []}
        for shift, found in rejected.items():
            rng = np.random.default_rng([33, int(shift)])
            for _ in range(2 * FEWER):
                totals = totals_of(case, rng)
                mean = np.tile(shares_of(case.groups), (len(totals), 1))
                if shift:
                    mean[case.arm == 1] *= np.where(np.arange(8) == 0, TO / FROM, (1 - TO) / (1 - FROM))
                mean *= np.exp(rng.normal(0, BATCH, (case.replicates, case.groups)))[batch]
                shares = rng.gamma(mean / mean.sum(1, keepdims=True) * (1 / CORRELATION - 1))
                counts = rng.multinomial(totals, shares / shares.sum(1, keepdims=True)).astype(np.float64)
                found.append(adjusted(quasi_binomial(counts, totals, case.arm, used).p) < LEVEL)
        row = {"block": used is not None, "false_sets": float(np.any(rejected[False], axis=1).mean())}
        rows.append(row | {"power_adjusted": float(np.array(rejected[True])[:, 0].mean())})
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Worst of each test over the cases."""
    table = pd.DataFrame(rows).groupby("test", sort=False)
    worst = {"false_positives": "max", "false_sets": "max", "power": "min", "power_adjusted": "min"}
    return table.agg(worst).to_dict("index")


def main() -> None:
    found = {"cases": cases(), "choices": choices(), "batches": batches()}
    head = results.head({"sets": NULL, "shifted": SHIFTED}, [31, 32, 33], ["numpy", "scipy"], COMMAND)
    results.save(results.path_of("comparison_calibration"), head | {"summary": summary(found["cases"]), **found})
    for rows in found.values():
        print(tables.terminal(tables.frame_lines(pd.DataFrame(rows).round(3), index=False)))


if __name__ == "__main__":
    main()
