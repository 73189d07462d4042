"""Plots read: nothing in an AnnData or a table changes, and no file appears."""

from __future__ import annotations

import hashlib

import anndata
import numpy as np
import pandas as pd
import pytest

import thalweg as tw

PLOTS = {
    "animation": lambda a, p, s, g: tw.pl.animation(a, p, color="kind", n_frames=2).to_jshtml(),
    "drivers": lambda a, p, s, g: tw.pl.drivers(a, "kind", kind="volcano"),
    "fate": lambda a, p, s, g: tw.pl.fate(a, "kind", "umap", kind="mixed"),
    "fate_calibration": lambda a, p, s, g: tw.pl.fate_calibration(a, "kind", "kind"),
    "fate_flow": lambda a, p, s, g: tw.pl.fate_flow(a, "kind"),
    "gene_trends": lambda a, p, s, g: tw.pl.gene_trends(g, kind="heatmap"),
    "growth": lambda a, p, s, g: tw.pl.growth(a, condition_key="condition"),
    "leave_one_out": lambda a, p, s, g: tw.pl.leave_one_out(s, kind="times"),
    "time_course": lambda a, p, s, g: tw.pl.time_course(a, "time", "text"),
    "trajectories": lambda a, p, s, g: tw.pl.trajectories(a, p, basis="umap", color="text"),
    "velocity": lambda a, p, s, g: tw.pl.velocity(a, color="text", condition_key="condition"),
}


def fingerprint(value):
    """Changes with any key, type or number."""
    if isinstance(value, anndata.AnnData):
        names = ("obs", "var", "uns", "obsm", "varm", "obsp", "layers")
        return {name: fingerprint(getattr(value, name)) for name in names} | {"X": fingerprint(value.X)}
    if isinstance(value, pd.DataFrame):
        hashed = hashlib.sha256(pd.util.hash_pandas_object(value.astype(str)).to_numpy()).hexdigest()
        return hashed, tuple(value.columns), tuple(map(str, value.dtypes))
    if hasattr(value, "items"):
        return {k: fingerprint(v) for k, v in value.items()}
    if hasattr(value, "tocsr"):
        return fingerprint(value.toarray())
    if isinstance(value, np.ndarray):
        raw = np.ascontiguousarray(value.astype(str) if value.dtype == object else value)
        return hashlib.sha256(raw.tobytes()).hexdigest(), str(value.dtype)
    return value


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_written(name, cells, paths, scores, trends, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells.obs["text"] = np.where(np.arange(cells.n_obs) % 3, "x", "y")  # scanpy would turn it into a category
    del cells.uns["kind_colors"]  # and write colours
    given = (cells, paths, scores, trends)
    before = [fingerprint(v) for v in given]
    PLOTS[name](*given)
    assert [fingerprint(v) for v in given] == before
    assert not list(tmp_path.iterdir())


def test_every_plot_is_in_the_list():
    of_a_fit = {"history", "interpolation", "reconstruction", "write_animation"}  # their own tests read only
    assert set(PLOTS) | of_a_fit | {"assess", "compare", "next_time"} == set(tw.pl.__all__)
