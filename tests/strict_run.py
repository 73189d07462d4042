"""Checks that raise by themselves, for ``python -O`` and ``python -W error``, where a test by `assert` proves nothing.

Run by test_interpreter_modes.py in a process of its own: ``python -O tests/strict_run.py FOLDER``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

import thalweg as tw
from thalweg.errors import CheckpointError, InputError, MissingKeyError, NonFiniteLossError, NotConvergedError

QUICK = tw.tl.FitConfig(max_steps=20, batch_size=32, width=8, depth=2, validate_every=10)


def require(condition: object, what: str) -> None:
    if not condition:
        raise SystemExit(f"failed: {what}")


@contextlib.contextmanager
def raises(kind: type[Exception], text: str) -> Iterator[None]:
    try:
        yield
    except kind as error:
        require(text in str(error), f"the message says {text!r}, found {error}")
    else:
        raise SystemExit(f"failed: {kind.__name__} about {text!r} was not raised")


def course() -> AnnData:
    rng = np.random.default_rng(0)
    time = np.repeat([0.0, 1.0, 3.0], 40)
    x = rng.normal(size=(120, 2)) * 0.5 + np.c_[2 * time, 0 * time]
    return AnnData(obs=pd.DataFrame({"day": time}, index=[f"c{i}" for i in range(120)]), obsm={"X_pca": x})


def with_(x: np.ndarray | None = None, **columns: object) -> AnnData:
    adata = course()
    if x is not None:
        adata.obsm["X_pca"] = x
    for name, values in columns.items():
        adata.obs[name] = values
    return adata


def a_fit_survives_its_file(folder: Path) -> None:
    adata = course()
    before = adata.obs.copy()
    tw.tl.fit(adata, "day", rng=0, config=QUICK)
    require(adata.obs.equals(before), "obs is not changed")
    adata.write_h5ad(folder / "fit.h5ad")
    back = ad.read_h5ad(folder / "fit.h5ad")
    here, there = (tw.tl.interpolate(a, 2.0).obsm["X_pca"] for a in (adata, back))
    require(np.array_equal(here, there), "a fit read back predicts the same bits")
    require(
        np.array_equal(tw.tl.interpolate(adata, 0.0).obsm["X_pca"], adata.obsm["X_pca"][:40].astype(np.float32)),
        "nothing moves at the first time",
    )
    again = course()
    tw.tl.fit(again, "day", rng=0, config=QUICK)
    require(
        np.array_equal(again.uns["thalweg"]["weights"]["0"], adata.uns["thalweg"]["weights"]["0"]),
        "one seed, one result",
    )
    damaged = adata.copy()
    damaged.uns["thalweg"]["weights"]["0"] = damaged.uns["thalweg"]["weights"]["0"][:-1]
    with raises(InputError, "thalweg"):
        tw.tl.interpolate(damaged, 2.0)


def bad_input_is_refused() -> None:
    x = np.asarray(course().obsm["X_pca"]).copy()
    hole = x.copy()
    hole[7, 1] = np.nan
    days = course().obs["day"]
    cases = [
        (with_(hole), {}, InputError, "1 NaN or infinite"),
        (with_(x.astype(complex)), {}, InputError, "real numbers"),
        (with_(day=days.map("d{:g}".format)), {}, InputError, "time_map="),
        (with_(day=days.where(days < 3)), {}, InputError, "missing"),
        (with_(day=days > 0), {}, InputError, "booleans"),
        (with_(day=days.replace(3.0, np.inf)), {}, InputError, "finite"),
        (with_(day=1.0), {}, InputError, "two or more times"),
        (course(), {"use_rep": "X_umap"}, MissingKeyError, "'X_pca'"),
        (course(), {"n_dims": 3}, InputError, "2 columns"),
        (course(), {"method": "magic"}, InputError, "otcfm"),
        (with_(w=[-1.0] + [1.0] * 119), {"weight_key": "w"}, InputError, "1 of 120"),
        (course(), {"resume": True}, InputError, "checkpoint_dir"),
    ]
    for adata, arguments, kind, text in cases:
        with raises(kind, text):
            tw.tl.fit(adata, "day", rng=0, config=QUICK, **arguments)
        require("thalweg" not in adata.uns, f"nothing is written after an error about {text!r}")
    with raises(MissingKeyError, "'day'"):
        tw.tl.fit(course(), "time", config=QUICK)
    with raises(InputError, "max_steps"):
        tw.tl.FitConfig(max_steps=0)
    with raises(InputError, "p must be 1 or 2"):
        tw.metrics.wasserstein(x, x, p=3)


def a_diverging_fit_stops() -> None:
    wild = tw.tl.FitConfig(max_steps=200, batch_size=32, width=8, learning_rate=1e38, warmup_steps=0, grad_clip=1e38)
    with raises(NonFiniteLossError, "step"):
        tw.tl.fit(course(), "day", method="otcfm", rng=0, config=wild)


def a_field_that_diverges_has_no_solution() -> None:
    import torch

    from thalweg.core.dynamics import ode

    for method in ("rk4", "dopri5"):
        with raises(NotConvergedError, "diverges"):
            ode.odeint(lambda t, x: x**3 * 1e6, torch.ones(2, 1), [0.0, 1.0], method=method, n_steps=20)


def damaged_checkpoints_are_refused(folder: Path) -> None:
    saved = folder / "checkpoints"
    options = {"method": "otcfm", "rng": 0, "config": QUICK}
    tw.tl.fit(course(), "day", checkpoint_dir=saved, checkpoint_every=10, **options)
    whole = course()
    tw.tl.fit(whole, "day", checkpoint_dir=saved, resume=True, **options)
    plain = course()
    tw.tl.fit(plain, "day", **options)
    require(
        np.array_equal(whole.uns["thalweg"]["weights"]["0"], plain.uns["thalweg"]["weights"]["0"]),
        "resuming keeps every bit",
    )
    for file in sorted(saved.rglob("*.safetensors")):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))
    with raises(CheckpointError, "safetensors"):
        tw.tl.fit(course(), "day", checkpoint_dir=saved, resume=True, **options)


def main() -> None:
    tw.settings.progress, tw.settings.verbosity = False, "error"
    folder = Path(sys.argv[1])
    a_fit_survives_its_file(folder)
    bad_input_is_refused()
    a_diverging_fit_stops()
    a_field_that_diverges_has_no_solution()
    damaged_checkpoints_are_refused(folder)
    print("all checks passed")


if __name__ == "__main__":
    main()
