"""Formats of a stored fit: the present one, and how fits of earlier releases are led over to it.

Format 1 (thalweg 0.1) kept the columns among the parameters, the labels of times beside the time axis, one array of
weights, and no record of the cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from thalweg.core.couplings import Coupling
from thalweg.core.paths import Path
from thalweg.errors import InputError
from thalweg.flows import store_checks as checks
from thalweg.flows.methods import METHODS, Method

FORMAT = 2
"""Version of what is written now; a reader refuses newer ones."""

TRAITS = ("field", "score", "growth", "bridge", "dynamics")
"""What is stored of a method besides its name, so that one of the user's own can be run again."""


def upgraded(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry in the present format; what an earlier one lacks is left out, or as it was by default then."""
    return _from_first(entry) if int(entry["format"]) == 1 else entry


def _from_first(entry: Mapping[str, Any]) -> dict[str, Any]:
    params, time = entry["params"], entry["time"]
    name = checks.text(params["method"], "method")
    if name not in METHODS:
        raise InputError(f"method={name!r} is unknown; format 1 knows {', '.join(METHODS)}")
    columns = ("time_key", "use_rep", "n_dims", "condition_key", "weight_key")
    recipe = {key: params[key] for key in columns} | {"growth_key": params.get("growth_key", "")}
    recipe |= {"conditions": entry["conditions"]} | {key: time[key] for key in ("map_labels", "map_values")}
    traits = {key: getattr(METHODS[name], key) for key in TRAITS} | {"dynamics": "none"}
    return dict(entry) | {
        "params": {"method": name, **traits, "sigma": params["sigma"], "n_models": 1},
        "recipe": recipe,
        "config": {"affine": False} | dict(entry["config"]),  # a fit from before that option has none
        "weights": {"0": entry["weights"]},
    }


def stored_method(params: Mapping[str, Any]) -> Method:
    """The method of a stored fit: one of the package, or what is known of one of the user's own.

    Raises
    ------
    InputError
        If the parameters describe no method.
    """
    name = checks.text(params["method"], "method")
    traits: dict[str, Any] = {"field": checks.text(params["field"], "field")}
    traits |= {key: bool(checks.flag(params.get(key, False), key)) for key in TRAITS[1:-1]}
    traits["dynamics"] = checks.text(params.get("dynamics", "none"), "dynamics")  # came later
    known = METHODS.get(name)
    if known is not None:
        known = replace(known, dynamics=traits["dynamics"])  # learned beside any method where that was asked for
        if any(getattr(known, key) != traits[key] for key in TRAITS):
            raise InputError(f"method={name!r} is described as another one than thalweg's")
        return known
    return Method(name, _no_coupling, _no_path, title="a method of the user's own, read back", **traits)


def _no_coupling(x0: Tensor, x1: Tensor, a: Tensor, b: Tensor) -> Coupling:
    raise InputError(
        "the coupling of this fit is a function of your own, which is not stored; use kind='flow', or fit again."
    )


def _no_path(sigma: float | Tensor) -> Path:
    raise InputError("the path of this fit is a function of your own, which is not stored with it; fit again.")
