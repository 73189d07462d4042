"""Strategies of hypothesis for what a user may hand in, and the profiles they run under.

``THALWEG_HYPOTHESIS`` names the profile: ``ci`` (the default: few examples, the same ones every time), ``thorough``
(many, drawn afresh), ``mutation`` (as ``ci``, without the search for a smaller example).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Array = np.ndarray[Any, np.dtype[Any]]

_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.register_profile("ci", _COMMON, derandomize=True, database=None, max_examples=25)
settings.register_profile("thorough", _COMMON, max_examples=500)
settings.register_profile(
    "mutation", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate], max_examples=25
)


def load_profile() -> None:
    """Choose the profile named by the environment."""
    settings.load_profile(os.environ.get("THALWEG_HYPOTHESIS", "ci"))


def _frozen(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS: dict[str, Callable[[Array], Any]] = {
    "c": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "read-only": _frozen,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
}
DENSE = ("c", "fortran", "read-only", "strided", "reversed")
DTYPES = ("float32", "float64", "int8", "uint8", "int32", "int64", "uint16")


def layouts(dtype: str = "float64") -> st.SearchStrategy[str]:
    """Names of `LAYOUTS`; of half precision, which scipy's sparse matrices refuse, the dense ones."""
    return st.sampled_from(DENSE if dtype == "float16" else tuple(LAYOUTS))


@st.composite
def matrices(draw: st.DrawFn, rows: int | None = None, columns: int | None = None) -> Array:
    """Finite matrices of any number type, up to 8 x 4, with the ends of the type's range."""
    dtype = draw(st.sampled_from((*DTYPES, "float16")))
    shape = (rows or draw(st.integers(1, 8)), columns or draw(st.integers(1, 4)))
    if dtype.startswith("float"):
        width = int(dtype[5:])
        limit = float(np.float16(6e4)) if width == 16 else 2.0**60
        elements: st.SearchStrategy[Any] = st.floats(-limit, limit, width=width, allow_subnormal=False)
        elements = elements.map(lambda v: v if abs(v) > 1e-4 else 0.0)
    else:
        elements = hnp.from_dtype(np.dtype(dtype))
    return draw(hnp.arrays(dtype, shape, elements=elements))


@dataclass(frozen=True)
class TimeColumn:
    """A column of ``obs`` and what it means."""

    column: Any
    values: Array
    time_map: dict[Any, float] | None
    kind: str


def observed_times(min_size: int = 2, max_size: int = 5) -> st.SearchStrategy[list[float]]:
    """Distinct ascending times, whole or halves, so that every encoding holds them exactly."""
    return st.lists(st.integers(-40, 2000), min_size=min_size, max_size=max_size, unique=True).map(
        lambda ticks: [t / 2 for t in sorted(ticks)]
    )


def _text(value: float) -> str:
    return f"{value:g}"


ENCODINGS: dict[str, Callable[[list[float]], Any]] = {
    "float64": np.array,
    "float32": lambda v: np.array(v, dtype=np.float32),
    "float16": lambda v: np.array(v, dtype=np.float16),
    "text": lambda v: np.array([_text(t) for t in v], dtype=object),
    "decimals": lambda v: np.array([f"{t:.3f}" for t in v], dtype=object),
    "category": lambda v: pd.Categorical(v),
    "text category": lambda v: pd.Categorical([_text(t) for t in v]),
    "ordered the wrong way": lambda v: pd.Categorical(v, categories=sorted(set(v), reverse=True), ordered=True),
    "unused category": lambda v: pd.Categorical(v, categories=[*sorted(set(v)), 1e6]),
    "mixed": lambda v: np.array([t if i % 2 else _text(t) for i, t in enumerate(v)], dtype=object),
    "labels": lambda v: np.array([f"day {_text(t)}" for t in v], dtype=object),
    "nullable": lambda v: pd.array(v, dtype="Float64"),
}
WHOLE: dict[str, Callable[[list[float]], Any]] = {
    "int64": lambda v: np.array(v, dtype=np.int64),
    "int16": lambda v: np.array(v, dtype=np.int16),
    "nullable int": lambda v: pd.array([int(t) for t in v], dtype="Int64"),
}


@st.composite
def time_columns(draw: st.DrawFn, max_cells: int = 20) -> TimeColumn:
    """Columns of every type that means times; each of the times occurs."""
    times = draw(observed_times())
    n = draw(st.integers(len(times), max_cells))
    extra = draw(st.lists(st.sampled_from(times), min_size=n - len(times), max_size=n - len(times)))
    values = draw(st.permutations([*times, *extra]))
    if draw(st.booleans()):
        values = [2 * v for v in values]  # whole
    encodings = ENCODINGS | (WHOLE if all(v == int(v) for v in values) else {})
    kind = draw(st.sampled_from(sorted(encodings)))
    time_map = {f"day {_text(v)}": v for v in values} if kind == "labels" else None
    return TimeColumn(encodings[kind](list(values)), np.array(values), time_map, kind)


@st.composite
def courses(draw: st.DrawFn, max_cells: int = 20) -> tuple[AnnData, TimeColumn, Array]:
    """An AnnData with a time column under "day" and coordinates of any layout under "X_pca"; both also as arrays."""
    times = draw(time_columns(max_cells))
    x = draw(matrices(rows=len(times.values)))
    layout = draw(layouts(str(x.dtype)))
    names = [f"cell{i}" for i in range(len(x))]
    # As a Series, so that the dtype of the column is kept.
    obs = pd.DataFrame({"day": pd.Series(times.column, index=names)}, index=names)
    return AnnData(obs=obs, obsm={"X_pca": LAYOUTS[layout](x)}), times, x


@st.composite
def clouds(draw: st.DrawFn, max_points: int = 12, max_dims: int = 3) -> tuple[Array, Array]:
    """Two clouds in one space on a coarse lattice: ties, repeated and identical points occur."""
    d = draw(st.integers(1, max_dims))
    cells = st.integers(-32, 32).map(lambda k: k / 8)
    x, y = (
        draw(hnp.arrays(np.float64, (draw(st.integers(1, max_points)), d), elements=cells, fill=st.nothing()))
        for _ in range(2)
    )
    return x, y


@st.composite
def generic_clouds(
    draw: st.DrawFn, max_points: int = 30, max_dims: int = 4, equal: bool = False
) -> tuple[Array, Array]:
    """Two clouds in general position: drawn from normal distributions, so that optimal plans are unique."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m, d = draw(st.integers(2, max_points)), draw(st.integers(2, max_points)), draw(st.integers(1, max_dims))
    return rng.normal(size=(n, d)), rng.normal(1.0, 1.5, size=(n if equal else m, d))


@st.composite
def weights(draw: st.DrawFn, n: int, zeros: bool = False) -> Array:
    """Weights of ``n`` points that sum to one; some are zero when asked."""
    whole = draw(st.lists(st.integers(0 if zeros else 1, 9), min_size=n, max_size=n))
    if not any(whole):
        whole[0] = 1
    return np.array(whole) / sum(whole)


def seeds() -> st.SearchStrategy[int]:
    """Seeds of a generator."""
    return st.integers(0, 2**32 - 1)


def generators() -> st.SearchStrategy[torch.Generator]:
    """Seeded generators on the CPU."""
    return seeds().map(lambda seed: torch.Generator().manual_seed(seed))


@st.composite
def rotations(draw: st.DrawFn, d: int) -> Array:
    """Orthogonal matrices."""
    rng = np.random.default_rng(draw(seeds()))
    return np.linalg.qr(rng.normal(size=(d, d)))[0]
