"""The model inside the AnnData: ``uns[key]`` holds parameters, history and the weights as safetensors bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save as save_safetensors

from thalweg import __version__
from thalweg._settings import logger
from thalweg._uns import find_fit
from thalweg.core.objectives import Contrastive, Dispersive
from thalweg.data import Snapshots
from thalweg.data.recorded import recorded_times, time_labels
from thalweg.data.representation import read_representation
from thalweg.data.snapshots import read_rates, read_weights
from thalweg.data.times import TimeMap, obs_column
from thalweg.errors import InputError
from thalweg.tl import _trust as trust
from thalweg.tl._config import FitConfig
from thalweg.tl._flow import Flow
from thalweg.tl._methods import find_method
from thalweg.tl._train import Fitted, make_flow, resolve_device

if TYPE_CHECKING:
    from anndata import AnnData

FORMAT = 1
"""Version of what is written below; a reader refuses newer ones."""


@dataclass(frozen=True)
class Stored:
    """A fit read back from an AnnData.

    Attributes
    ----------
    flow
        The flow.
    method, time_key, use_rep
        As given to the fit.
    time_labels
        The ``time_map`` of the fit by label; empty without one.
    condition_key, conditions
        Column and names of the conditions; empty without.
    weight_key
        Column of the cells' weights; empty without.
    config
        Configuration of the fit.
    growth_key
        Column of the cells' growth rates; empty without.
    """

    flow: Flow
    method: str
    time_key: str
    use_rep: str
    time_labels: Mapping[str, float]
    condition_key: str
    conditions: tuple[str, ...]
    weight_key: str
    config: FitConfig
    growth_key: str = ""

    def times_of(self, adata: AnnData) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Times of the cells, read as in the fit."""
        return recorded_times(adata, self.time_key, self.time_labels)

    def coordinates_of(self, adata: AnnData) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Coordinates of the cells, read as in the fit."""
        return read_representation(adata, self.use_rep, self.flow.n_dims)

    def weights_of(self, adata: AnnData) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Weights of the cells; all one without a ``weight_key``."""
        return read_weights(adata, self.weight_key) if self.weight_key else np.ones(adata.n_obs)

    def rates_of(self, adata: AnnData) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        """Growth rates of the cells; None without a ``growth_key``."""
        if not self.growth_key:
            return None
        return read_rates(adata, self.growth_key, self.times_of(adata), self.conditions_of(adata))

    def conditions_of(self, adata: AnnData) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        """Condition index of the cells, or None for an unconditional flow."""
        if not self.conditions:
            return None
        column = obs_column(adata, self.condition_key, "condition_key").astype(str)
        unknown = sorted(set(column) - set(self.conditions))
        if unknown:
            raise InputError(
                f"obs[{self.condition_key!r}] holds {unknown}, unknown to the fit; it knows {list(self.conditions)}."
            )
        return column.map({name: i for i, name in enumerate(self.conditions)}).to_numpy(dtype=np.int64)


def pack(
    fitted: Fitted,
    snapshots: Snapshots,
    *,
    method: str,
    time_key: str,
    time_map: TimeMap | None,
    condition_key: str | None,
    weight_key: str | None,
    growth_key: str | None,
    config: FitConfig,
) -> dict[str, Any]:
    """What goes into ``uns``: nested dicts of strings, numbers, arrays and DataFrames only."""
    flow = fitted.flow
    weights = save_safetensors({k: v.cpu().contiguous() for k, v in flow.net.state_dict().items()})
    return {
        "format": FORMAT,
        "version": __version__,
        "params": {
            "method": method,
            "time_key": time_key,
            "use_rep": snapshots.use_rep,
            "n_dims": snapshots.n_dims,
            "condition_key": condition_key or "",
            "weight_key": weight_key or "",
            "growth_key": growth_key or "",
            "sigma": flow.sigma,
        },
        "config": _plain(asdict(config)),
        "time": {
            "times": flow.axis.times,
            "knots": flow.axis.knots,
            "values": flow.axis.values,
            "map_labels": np.array([str(k) for k in time_map or {}], dtype=str),
            "map_values": np.array([float(v) for v in (time_map or {}).values()]),
        },
        "conditions": np.array(snapshots.conditions, dtype=str),
        "center": flow.center,
        "scale": flow.scale,
        "weights": np.frombuffer(weights, dtype=np.uint8).copy(),
        "history": fitted.history,
        "intervals": fitted.intervals,
        "best_step": fitted.best_step,
        "seconds": fitted.seconds,
    }


def load(adata: AnnData, key: str, device: str = "auto") -> Stored:
    """Read the fit under ``uns[key]``.

    Raises
    ------
    MissingKeyError
        If there is none; lists the keys of ``uns``.
    InputError
        If something else lies there, it was written by a newer version, or it is damaged.
    """
    entry = find_fit(adata, key)
    try:
        version = trust.whole(entry["format"], "format", 1, 2**31)
        if version <= FORMAT:
            return _unpack(entry, device)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        found = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"adata.uns[{key!r}] is damaged or no fit of thalweg: {found[:500].rstrip('.')}. Run tw.tl.fit again."
        ) from None
    writer = str(entry.get("version", "a later release"))[:40]
    raise InputError(
        f"adata.uns[{key!r}] has format {version}, this version reads up to {FORMAT}; upgrade thalweg to {writer} or "
        f"later, which wrote it (this is {__version__})."
    )


_NONE = "none"  # h5ad holds no None


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping in what h5ad and zarr hold."""
    return {k: _plain(v) if isinstance(v, Mapping) else _NONE if v is None else v for k, v in fields.items()}


def _read_config(fields: Mapping[str, Any]) -> FitConfig:
    options = {"contrastive": Contrastive, "dispersive": Dispersive}
    values = {k: options[k](**_scalars(v)) if isinstance(v, Mapping) else v for k, v in _scalars(fields).items()}
    return FitConfig(**({"affine": False} | values))  # a fit from before that option has none


def _scalars(fields: Mapping[str, Any]) -> dict[str, Any]:
    values = {k: v.item() if hasattr(v, "item") else v for k, v in fields.items()}
    return {k: None if isinstance(v, str) and v == _NONE else v for k, v in values.items()}


def _unpack(entry: Mapping[str, Any], device: str) -> Stored:
    params, times = entry["params"], entry["time"]
    names = {k: trust.text(params[k], k) for k in ("method", "time_key", "use_rep", "condition_key", "weight_key")}
    method, config = find_method(names["method"]), _read_config(entry["config"])
    conditions = trust.labels(entry["conditions"], "conditions")
    n_dims = trust.whole(params["n_dims"], "n_dims", 1, trust.LARGEST["n_dims"])
    center, scale = trust.numbers(entry["center"], "center", (n_dims,)), trust.real(entry["scale"], "scale", 1e-300)
    axis, sigma = trust.time_axis(times), trust.real(params["sigma"], "sigma", 0.0)
    trust.tables(entry)
    sizes = len(conditions), axis.n_intervals
    net = trust.load_net(entry["weights"], n_dims, method, config, *sizes).to(resolve_device(device))
    return Stored(
        make_flow(method, net, axis, center, scale, sigma),
        names["method"],
        names["time_key"],
        names["use_rep"],
        time_labels(times),
        names["condition_key"],
        conditions,
        names["weight_key"],
        config,
        trust.text(params.get("growth_key", ""), "growth_key"),  # absent from fits of earlier versions
    )


def writable(adata: AnnData, copy: bool) -> AnnData:
    """The object to write into: a copy when asked; a view is made actual first, as scanpy does. Both are in memory.

    Raises
    ------
    InputError
        If it is backed by a file that anndata cannot load.
    """
    if copy:
        return _in_memory(adata)
    if adata.is_view:
        logger.info("adata is a view; it is made an actual AnnData before writing")
        adata._init_as_actual(_in_memory(adata))
    return adata


def _in_memory(adata: AnnData) -> AnnData:
    if not adata.isbacked:
        return adata.copy()
    try:
        return adata.to_memory()
    except KeyError as error:  # anndata, if the file has no X
        raise InputError(
            f"adata is backed by {str(adata.filename)!r}, which anndata cannot load ({error}); read it without backed=."
        ) from None
