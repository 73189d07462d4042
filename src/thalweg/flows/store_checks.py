"""A stored fit may come from a stranger: each field is checked before it is used, the weights before they are parsed.

A description that does not match the weights it comes with is refused before anything of its size is allocated: the
networks are first laid out without memory, and names, shapes and types are compared with the header of the weights, so
a fit never takes more memory than a small multiple of its own bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors

from thalweg.errors import InputError
from thalweg.flows.config import FitConfig
from thalweg.flows.methods import Method
from thalweg.flows.networks import FlowNet, make_net
from thalweg.flows.time_axis import TimeAxis
from thalweg.flows.turnover import packed_turnovers

HEADER_LIMIT = 4 * 2**20  # bytes: about forty thousand tensors
LARGEST = {
    "n_dims": 2**20,
    "width": 2**15,
    "depth": 2**8,
    "conditions": 2**14,
    "columns": 2**10,
    "times": 2**16,
    "models": 2**10,
}
_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}


def whole(value: Any, name: str, lowest: int, highest: int) -> int:
    """A whole number within bounds.

    Raises
    ------
    InputError
        If it is no whole number, or outside.
    """
    number = value.item() if isinstance(value, np.generic | np.ndarray) and np.size(value) == 1 else value
    if isinstance(number, bool) or not isinstance(number, int) or not lowest <= number <= highest:
        raise InputError(f"{name} must be a whole number from {lowest} to {highest}, found {_short(value)}.")
    return number


def real(value: Any, name: str, lowest: float = -np.inf) -> float:
    """A finite number, ``lowest`` or more.

    Raises
    ------
    InputError
        If it is no number, not finite, or less.
    """
    number = value.item() if isinstance(value, np.generic | np.ndarray) and np.size(value) == 1 else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not np.isfinite(number) or number < lowest:
        raise InputError(f"{name} must be a finite number of at least {lowest:g}, found {_short(value)}.")
    return float(number)


def text(value: Any, name: str) -> str:
    """A string.

    Raises
    ------
    InputError
        If it is not one.
    """
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, found {_short(value)}.")
    return str(value)


def flag(value: Any, name: str) -> bool:
    """True or False.

    Raises
    ------
    InputError
        If it is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, found {_short(value)}.")
    return bool(value)


def labels(value: Any, name: str) -> tuple[str, ...]:
    """Distinct strings.

    Raises
    ------
    InputError
        If they are not strings, repeat, or are too many.
    """
    array = np.asarray(value)
    if array.ndim != 1 or len(array) > LARGEST[name]:
        raise InputError(f"{name} must be a list of at most {LARGEST[name]} names, found {_short(value)}.")
    found = tuple(text(item, f"each of {name}") for item in array)
    if len(set(found)) < len(found):
        raise InputError(f"{name} must differ, found {_short(list(found))}.")
    return found


def numbers(value: Any, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """Finite numbers in an array of that shape; None stands for any length.

    Raises
    ------
    InputError
        If they are not.
    """
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=False))
    if not fits or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(f"{name} must be finite numbers of shape {shape}, found {_short(value)}.")
    return array.astype(np.float64)


def time_axis(times: Mapping[str, Any]) -> TimeAxis:
    """The time axis of a fit.

    Raises
    ------
    InputError
        If times, knots or model times do not increase, or do not belong together.
    """
    observed, knots, values = (numbers(times[k], k, (None,)) for k in ("times", "knots", "values"))
    for name, array in (("times", observed), ("knots", knots), ("values", values)):
        if not 2 <= len(array) <= LARGEST["times"] or not (np.diff(array) > 0).all():
            raise InputError(f"{name} must be two or more increasing numbers, found {_short(array)}.")
    if len(knots) != len(values) or not np.isin(observed, knots).all():
        raise InputError("knots and values must pair up, and every observed time must be a knot.")
    return TimeAxis(observed, knots, values, flag(times.get("smooth", False), "smooth"))  # came later


def tables(entry: Mapping[str, Any]) -> None:
    """Check the records of a training that are shown to a reader.

    Raises
    ------
    InputError
        If one has the wrong type.
    """
    for name in ("history", "intervals"):
        if not isinstance(entry[name], pd.DataFrame):
            raise InputError(f"{name} must be a table, found {_short(entry[name])}.")
    whole(entry["best_step"], "best_step", 0, 2**62)
    real(entry["seconds"], "seconds", 0.0)


def reserved(entry: Mapping[str, Any], n_dims: int, diffusion: Any) -> None:
    """Check what a fit says of itself and its cells.

    Raises
    ------
    InputError
        If the fit has other weights than those of its models, a diffusion other than that of its networks, or a record
        of its cells that is none.
    """
    n_models = whole(entry["params"]["n_models"], "n_models", 1, LARGEST["models"])
    if len(entry["weights"]) != n_models:
        raise InputError(f"the fit says it has {n_models} models, and holds the weights of {len(entry['weights'])}.")
    if "diffusion" in entry and (numbers(entry["diffusion"], "diffusion", (n_dims,)) != diffusion).any():
        raise InputError("the fit's diffusion is not that of its networks.")
    if "seen" in entry:
        seen, k = entry["seen"], len(entry["time"]["times"])
        numbers(seen["n"], "n", (k,))
        for name, shape in (("mean", (k, n_dims)), ("sd", (k, n_dims)), ("coordinates", (k, None, n_dims))):
            numbers(seen[name], name, shape)


def populations(entry: Mapping[str, Any], n_conditions: int, n_dims: int) -> None:
    """Check the sizes of the populations and their turnover, where the fit has them.

    Raises
    ------
    InputError
        If they are not of the conditions, times and coordinates of the fit, or a state is none.
    """
    shape = (max(1, n_conditions), len(entry["time"]["times"]))
    sizes = entry.get("population_sizes", {})
    if len(sizes):
        _positive(sizes["sizes"], "population_sizes", shape)
    for turnover in packed_turnovers(entry.get("turnover", {})):
        _turnover(turnover, shape, set(np.asarray(entry["time"]["times"]).tolist()), n_dims)


def _turnover(turnover: Mapping[str, Any], shape: tuple[int, int], known: set[float], n_dims: int) -> None:
    """Check the turnover of a model."""
    columns = np.asarray(turnover["columns"])
    if columns.ndim != 1 or columns.dtype.kind not in "iu" or not set(columns.tolist()) <= set(range(n_dims)):
        raise InputError(f"the turnover must be in some of the {n_dims} coordinates, found {_short(columns)}.")
    n, d = len(np.atleast_1d(turnover["time"])), len(columns)
    for name in ("rate", "current"):
        numbers(turnover[name], name, (n,))
    for name in ("lost", "arrived"):
        if not np.isin(numbers(turnover[name], name, (n,)), (0.0, 1.0)).all():
            raise InputError(f"{name} must be 0 or 1 for each state, found {_short(turnover[name])}.")
    of = np.asarray(turnover["condition"])
    if of.shape != (n,) or not set(of.tolist()) <= set(range(shape[0])):
        raise InputError(f"the turnover names conditions that the fit has not: {_short(of)}.")
    if not set(numbers(turnover["time"], "time", (n,)).tolist()) <= known:
        raise InputError(f"the turnover names times that the fit has not: {_short(turnover['time'])}.")
    numbers(turnover["mean"], "mean", (n, d))
    covariance = numbers(turnover["covariance"], "covariance", (n, d, d))
    if n and (np.linalg.eigvalsh(covariance) <= 0).any():
        raise InputError("a state of the turnover has a covariance that is not positive.")
    if (numbers(turnover["weight"], "weight", (n,)) <= 0).any():
        raise InputError("a state of the turnover has no cells.")


def _positive(value: Any, name: str, shape: tuple[int, ...]) -> None:
    """Positive numbers, or NaN where a condition was not observed."""
    found = np.asarray(value, dtype=np.float64)
    if found.shape != shape or (found <= 0).any() or np.isinf(found).any():
        raise InputError(f"{name} must be positive numbers of shape {shape}, found {_short(value)}.")


def load_net(
    weights: Any, n_dims: int, method: Method, config: FitConfig, n_conditions: int, n_intervals: int
) -> FlowNet:
    """Networks with stored weights.

    Parameters
    ----------
    weights
        Safetensors bytes, uint8.
    n_dims, method, config, n_conditions, n_intervals
        What the fit says the networks are.

    Raises
    ------
    InputError
        If the weights are not those of such networks, or not finite.
    SafetensorError
        If the bytes are no safetensors.
    """
    for name in ("width", "depth"):
        whole(getattr(config, name), name, 1, LARGEST[name])
    if not isinstance(weights, np.ndarray) or weights.dtype != np.uint8 or weights.ndim != 1:
        raise InputError(f"weights must be bytes (uint8), found {_short(weights)}.")
    with torch.device("meta"):  # takes no memory, whatever the sizes
        layout = FlowNet(n_dims, method, config, n_conditions, n_intervals).state_dict()
    _compare(_header(weights), layout, len(weights))
    tensors = load_safetensors(weights.tobytes())
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"the weights {name!r} hold NaN or infinite values.")
    net = make_net(
        n_dims, method, config, n_conditions=n_conditions, n_intervals=n_intervals, generator=torch.Generator()
    )
    net.load_state_dict(tensors)
    return net


def _header(weights: NDArray[np.uint8]) -> dict[str, Any]:
    """The header of safetensors bytes, of a bounded size."""
    claimed = int.from_bytes(weights[:8].tobytes(), "little")
    if len(weights) < 8 or claimed > min(len(weights) - 8, HEADER_LIMIT):
        raise InputError(f"the weights claim a header of {claimed} bytes within {len(weights)}; they are not read.")
    header = json.loads(weights[8 : 8 + claimed].tobytes())
    if not isinstance(header, dict) or not all(isinstance(v, dict) for v in header.values()):
        raise InputError("the header of the weights is not one of safetensors.")
    header.pop("__metadata__", None)
    return header


def _compare(header: Mapping[str, Any], layout: Mapping[str, torch.Tensor], size: int) -> None:
    wrong = sorted(set(header) ^ set(layout))
    if wrong:
        raise InputError(f"the weights and the parameters of the fit disagree about {_short(wrong)}.")
    for name, tensor in layout.items():
        expected = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape)}
        found = {k: header[name].get(k) for k in expected}
        if found != expected:
            raise InputError(f"the weights {name!r} are {_short(found)}, where the fit has {expected}.")
    needed = sum(tensor.numel() * tensor.element_size() for tensor in layout.values())
    if needed > size:
        raise InputError(f"the fit needs {needed} bytes of weights and has {size}.")


def _short(value: object) -> str:
    """What was found, in a line."""
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"an array of {value.dtype} and shape {value.shape}"
    shown = repr(value)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."
