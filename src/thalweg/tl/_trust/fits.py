"""What fits of the course say: predictions of times left out, and whether two fits agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.tl._trust.verdict import AGREEMENT, HALF, Evidence, Level, Way

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
_FAR, _SPREAD, _FEW, _FOLD = 1.5, 0.5, 50, 20.0


def left_out(scores: pd.DataFrame | None, way: Way | None, method: str) -> Evidence:
    """How much of the way the prediction covers at the times left out."""
    if scores is None or way is None:
        return Evidence(
            "prediction", "missing", np.nan, "with two times there is none between others that could be left out",
            "Measure a time in between: without one nothing can be validated.",
        )  # fmt: skip
    if np.isnan(way.share):
        return Evidence(
            "prediction", "bad", np.nan,
            "at every time left out a copy of the time before is as good as a fresh sample: nothing to predict",
            "Measure times that are further apart, or look at other components.",
        )  # fmt: skip
    level: Level = "good" if way.share >= HALF else "doubt" if way.low > 0 else "bad"
    says = (
        f"{method} covers {way.share:.0%} of the way from a copy to a fresh sample at the times left out "
        f"(95% interval {way.low:.0%} to {way.high:.0%})"
    )
    advice = "" if level == "good" else "Measure a time in the longest interval, or shorten it; see tw.tl.next_time."
    return Evidence("prediction", level, way.share, says, advice)


def beside_middle(way: Way, middle: Way) -> Evidence:
    """Whether the network adds to the plan."""
    if middle.share <= way.high:
        return Evidence(
            "straight middle", "good", middle.share, f"the straight middle of the plan covers {middle.share:.0%}"
        )
    return Evidence(
        "straight middle", "doubt", middle.share,
        f"the straight middle of the optimal plan, without a network, covers more: {middle.share:.0%}",
        "Few cells, or growth that is none: compare method='otcfm' and 'usb', and trust plans more than fields.",
    )  # fmt: skip


def reconstruction(found: pd.DataFrame) -> Evidence:
    """Whether the fit returns the populations it saw."""
    worst = found.loc[(found["w1"] / found["floor"]).idxmax()]
    ratio = float(worst["w1"] / worst["floor"])
    says = f"rolled out from the first time, populations come back within {ratio:.1f} times the distance of two halves"
    if ratio <= _FAR or worst["w1"] < 0.5 * worst["still"]:
        return Evidence("reconstruction", "good", ratio, says)
    return Evidence("reconstruction", "doubt", ratio, says, "Look at tw.pl.reconstruction: which time is not reached?")


def agreement(one: AnnData, other: AnnData, names: tuple[str, str], key: str) -> Evidence:
    """Whether the velocities of two methods point the same way."""
    cosine = _cosines(one.obsm[key], other.obsm[key])
    mean = float(np.nanmean(cosine))
    against = f"below 0 for {np.nanmean(cosine < 0):.0%} of the cells"
    says = f"velocities of {names[0]} and {names[1]}: mean cosine {mean:.2f}, {against}"
    if mean >= AGREEMENT:
        return Evidence("methods", "good", mean, says)
    return Evidence("methods", "doubt", mean, says, "Draw no arrow that only one of the methods has.")


def members(adata: AnnData, key: str, n_models: int) -> Evidence:
    """Whether models of bootstrap samples of the cells agree."""
    if n_models < 2:
        return Evidence("models", "missing", np.nan, "one model says nothing of how far another one would differ")
    size, sd = (np.linalg.norm(adata.obsm[name], axis=1) for name in (key, f"{key}_sd"))
    share = float(np.median(sd / np.maximum(size, 1e-12)))
    says = f"{n_models} models, each of a bootstrap sample of the cells, differ by {share:.0%} of a velocity (median)"
    if share <= _SPREAD:
        return Evidence("models", "good", share, says)
    return Evidence("models", "doubt", share, says, "Fit n_models=5 with resample=True, draw what they share.")


def rna_velocity(adata: AnnData, fitted: AnnData, rows: NDArray[np.int64], key: str) -> Evidence:
    """Agreement with an RNA velocity in ``layers["velocity"]``, by way of the loadings of the PCA."""
    loadings = adata.varm.get("PCs")
    if "velocity" not in adata.layers or loadings is None:
        has = "spliced and unspliced counts are there; " if {"spliced", "unspliced"} <= set(adata.layers) else ""
        return Evidence(
            "RNA velocity", "missing", np.nan, f"{has}no RNA velocity (layers['velocity'], varm['PCs']) to compare",
            "Compute one (scvelo) and assess again." if has else "",
        )  # fmt: skip
    v = fitted.obsm[key]
    layer = adata.layers["velocity"][rows]
    layer = np.nan_to_num(layer.toarray() if hasattr(layer, "toarray") else np.asarray(layer))
    mean = float(np.nanmean(_cosines(layer @ loadings[:, : v.shape[1]], v)))
    level: Level = "good" if mean > 0.2 else "doubt"
    return Evidence("RNA velocity", level, mean, f"mean cosine with layers['velocity'] {mean:.2f}")


def growth(fitted: AnnData, time_key: str) -> Evidence | None:
    """Whether the growth that was found is possible."""
    if "growth_rate" not in fitted.obs:
        return None
    times = np.unique(fitted.obs[time_key])
    rate = fitted.obs["growth_rate"].to_numpy()
    fold = float(np.exp(np.nanmax(np.abs(rate)) * np.diff(times).max()))
    says = f"relative growth of states: at most ×{fold:.3g} in an interval; what all cells share cannot be seen"
    if fold <= _FOLD:
        return Evidence("growth", "good", fold, says)
    return Evidence(
        "growth", "doubt", fold, says,
        "Give counted population_size, or growth_key; or raise FitConfig.gap if cells are known not to divide so fast.",
    )  # fmt: skip


def effective_cells(weight: Floats) -> Evidence:
    """How many cells of equal weight a prediction in the longest interval rests on, given their weights."""
    n = float(weight.sum() ** 2 / (weight @ weight))
    says = f"a prediction in the longest interval rests on {n:.0f} cells of {len(weight)}, counted by their weights"
    if n >= _FEW:
        return Evidence("effective cells", "good", n, says)
    return Evidence("effective cells", "doubt", n, says, "Measure more cells at the ends of that interval.")


def _cosines(v: Floats, w: Floats) -> Floats:
    """Cosine of each row; NaN where one of them is zero."""
    norms = np.linalg.norm(v, axis=1) * np.linalg.norm(w, axis=1)
    out: Floats = np.where(norms > 0, (v * w).sum(1) / np.where(norms > 0, norms, 1), np.nan)
    return out
