"""The model inside the AnnData: ``uns[key]`` holds how it was made, and its weights as safetensors bytes.

Format 2, nested dicts of what h5ad and zarr hold:

===================  ===============================================================================================
``format, version``  of this description, and of the package that wrote it
``params``           ``method`` and what it learns (`TRAITS`), ``sigma``, ``n_models``, ``resampled``
``recipe``           the columns that cells are read from, see `thalweg.data.recipe`
``config``           the `FitConfig`
``time``             observed ``times``; ``knots`` and ``values`` of the time axis, and whether it is ``smooth``
``center, scale``    the normalisation of coordinates
``diffusion``        of each component, per square root of an average interval, in units of ``scale``
``seen``             what the fit has seen at each time: number, mean, spread and a few of its cells
``population_sizes`` sizes that were given, by time
``turnover``         births and deaths of states; ``others`` holds those of further models of other cells
``weights``          ``{"0": bytes, ...}``; one entry for each model
``history, ...``     ``history`` and ``intervals`` (tables), ``best_step``, ``seconds``
===================  ===============================================================================================

A later release may fill what is reserved here (sizes of populations); this one refuses such a fit and says so.
`thalweg.flows.store_formats` leads fits of earlier releases over to this format.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save as save_safetensors
from torch import Tensor

from thalweg import __version__
from thalweg._device import resolve_device
from thalweg.core.objectives import Contrastive, Dispersive
from thalweg.data.cells import Cells
from thalweg.data.recipe import NAMES, Recipe, read_recipe
from thalweg.errors import InputError
from thalweg.flows import normalisation
from thalweg.flows import store_checks as checks
from thalweg.flows.build import make_flow
from thalweg.flows.config import FitConfig
from thalweg.flows.ensemble import join
from thalweg.flows.flow import Flow
from thalweg.flows.methods import Method
from thalweg.flows.seen import Seen, pack_seen, read_seen
from thalweg.flows.store_formats import FORMAT, TRAITS, stored_method, upgraded
from thalweg.flows.turnover import Turnover, mean_turnover, pack_turnovers, read_turnovers

if TYPE_CHECKING:
    from thalweg.flows.fitting import Fitted


@dataclass(frozen=True)
class Stored:
    """A fit read back from an AnnData.

    Attributes
    ----------
    flow
        The flow.
    method
        How it was learned; one of the user's own no longer couples cells.
    recipe
        The columns that its cells are read from.
    config
        Configuration of the fit.
    turnovers
        Births and deaths, of each model where each had a sample of the cells of its own; none for a method that knows
        of none.
    sizes
        Of the populations, shape ``(n_conditions or 1, n_times)``; None where they were not given.
    seen
        Some of the cells it was fitted to; None in fits of earlier releases.
    resampled
        Whether each of its models had a bootstrap sample of the cells.
    """

    flow: Flow
    method: Method
    recipe: Recipe
    config: FitConfig
    turnovers: tuple[Turnover, ...] = ()
    sizes: NDArray[np.float64] | None = None
    seen: Seen | None = None
    resampled: bool = False

    @property
    def counted(self) -> bool:
        """Whether growth was measured, by sizes or rates, and is not a mere preference."""
        return self.sizes is not None or self.recipe.growth_key is not None

    @property
    def process(self) -> Flow:
        """What cells follow, see `thalweg.flows.flow.Flow.process`; ``flow`` predicts populations."""
        return self.flow.process

    def alive(self, cells: Cells) -> Cells:
        """The cells with the births and deaths of the process; as they are where it knows of none.

        With sizes the cells of a population weigh together what it has, so that conditions count by their sizes.
        """
        out = mean_turnover(self.turnovers, cells, self._normalised(cells))
        if self.sizes is None:
            return out
        weights = out.weights.copy()
        for (condition, time), size in np.ndenumerate(self.sizes):
            rows = out.rows(float(self.flow.axis.times[time]), condition if out.stratum_names else None)
            if len(rows):
                weights[rows] *= size / weights[rows].sum()
        return replace(out, weights=weights)

    def growth_now(self, cells: Cells) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Growth rate of each cell at its time, shape ``(n,)``, and its standard deviation over the models.

        For a method that knows of births and deaths; the deviation is None where all models share one turnover.
        """
        z = self._normalised(cells)
        found = np.stack([one.now(cells, z) for one in self.turnovers])
        return found.mean(0), found.std(0, ddof=1) if len(found) > 1 else None

    def _normalised(self, cells: Cells) -> Tensor:
        return normalisation.normalise(cells.x, self.flow.center, self.flow.scale)


def pack(
    fitted: Sequence[Fitted],
    cells: Cells,
    names: np.ndarray[Any, Any],
    method: Method,
    recipe: Recipe,
    config: FitConfig,
    sizes: NDArray[np.float64] | None,
    resampled: bool = False,
) -> dict[str, Any]:
    """What goes into ``uns``: nested dicts of strings, numbers, arrays and DataFrames only.

    Parameters
    ----------
    fitted
        The flows, one for each model, and how they came about.
    cells, names
        The cells it was fitted to, and their names, shape ``(n,)``.
    method, recipe, config
        As given to the fit.
    sizes
        Of the populations, shape ``(n_conditions or 1, n_times)``; None where they were not given.
    resampled
        Whether each model had a bootstrap sample of the cells.
    """
    first, flow = fitted[0], fitted[0].flow
    traits = {name: getattr(method, name) for name in TRAITS}
    return {
        "format": FORMAT,
        "version": __version__,
        "params": {"method": method.name, **traits, "sigma": float(flow.sigma), "n_models": len(fitted)}
        | {"resampled": resampled},
        "recipe": _resolved(recipe, cells).entry(),
        "config": _plain(asdict(config)),
        "time": {name: getattr(flow.axis, name) for name in ("times", "knots", "values", "smooth")},
        "center": flow.center,
        "scale": flow.scale,
        "diffusion": np.broadcast_to(_diffusion(flow, method), cells.n_dims).copy(),
        "seen": pack_seen(cells, names),
        "population_sizes": {} if sizes is None else {"sizes": sizes},
        "turnover": pack_turnovers(_turnovers(fitted, resampled)),
        "weights": {str(i): _bytes(one.flow) for i, one in enumerate(fitted)},
        "history": _histories(fitted),
        "intervals": first.intervals,
        "best_step": first.best_step,
        "seconds": sum(one.seconds for one in fitted) - sum(map(_planning, fitted[1:])),
    }


def _resolved(recipe: Recipe, cells: Cells) -> Recipe:
    """The recipe by which these cells, or some of them, are read as they were."""
    return replace(
        recipe, use_rep=cells.use_rep, n_dims=cells.n_dims, conditions=cells.conditions, strata=cells.withins,
        starts=cells.starts,
    )  # fmt: skip


def _turnovers(fitted: Sequence[Fitted], resampled: bool) -> list[Turnover]:
    """Of each model; of one where all had the same cells."""
    return [one.turnover for one in (fitted if resampled else fitted[:1]) if one.turnover is not None]


def _bytes(flow: Flow) -> np.ndarray[Any, Any]:
    tensors = {k: v.cpu().contiguous() for k, v in flow.net.state_dict().items()}  # type: ignore[attr-defined]
    return np.frombuffer(save_safetensors(tensors), dtype=np.uint8).copy()


def _histories(fitted: Sequence[Fitted]) -> pd.DataFrame:
    """The history of the only model, or those of all with a column that tells them apart."""
    if len(fitted) == 1:
        return fitted[0].history
    return pd.concat([one.history.assign(model=i) for i, one in enumerate(fitted)], ignore_index=True)


def _planning(fitted: Fitted) -> float:
    """Seconds of the plans, which models share."""
    return float(np.nansum(fitted.intervals.filter(like="seconds").to_numpy()))


def load_fit(entry: Mapping[str, Any], key: str, device: str = "auto") -> Stored:
    """Read a fit.

    Parameters
    ----------
    entry
        What lies in ``uns``, see `thalweg.data.entries.find_fit`.
    key
        Where it lies, for messages.
    device
        Where the networks shall live.

    Raises
    ------
    InputError
        If it was written by a newer version, or is damaged.
    """
    try:
        version = checks.whole(entry["format"], "format", 1, 2**31)
        if version <= FORMAT:
            return _unpack(upgraded(entry), device)
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


def fit_checksum(entry: Mapping[str, Any]) -> int:
    """A number by which results of one fit are told from those of another."""
    weights = upgraded(entry)["weights"]
    return zlib.crc32(b"".join(np.asarray(weights[name], dtype=np.uint8).tobytes() for name in sorted(weights)))


def _diffusion(flow: Flow, method: Method) -> Any:
    """Of each component, or of all."""
    return flow.process.sigma if method.bridged or method.bridge else 0.0


_NONE = "none"  # h5ad holds no None


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping in what h5ad and zarr hold."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _plain(value)
        return _NONE if value is None else np.array(value) if isinstance(value, tuple | list) else value

    return {k: plain(v) for k, v in fields.items()}


def _read_config(fields: Mapping[str, Any]) -> FitConfig:
    options = {"contrastive": Contrastive, "dispersive": Dispersive}
    values = {k: options[k](**_scalars(v)) if isinstance(v, Mapping) else v for k, v in _scalars(fields).items()}
    return FitConfig(**values)


def _scalars(fields: Mapping[str, Any]) -> dict[str, Any]:
    values = {k: _scalar(v) for k, v in fields.items()}
    return {k: None if isinstance(v, str) and v == _NONE else v for k, v in values.items()}


def _scalar(value: Any) -> Any:
    """A number as Python has it; an array of several as a tuple."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return tuple(value.tolist())
    return value.item() if hasattr(value, "item") else value


def _unpack(entry: Mapping[str, Any], device: str) -> Stored:
    params = entry["params"]
    recipe, config = _checked_recipe(entry["recipe"]), _read_config(entry["config"])
    method, sigma = stored_method(params), checks.real(params["sigma"], "sigma", 0.0)
    n_dims, conditions = recipe.n_dims or 0, recipe.conditions
    center, scale = checks.numbers(entry["center"], "center", (n_dims,)), checks.real(entry["scale"], "scale", 1e-300)
    axis = checks.time_axis(entry["time"])
    checks.tables(entry)
    sizes = len(conditions), axis.n_intervals
    place, flows = resolve_device(device), []
    for i in range(checks.whole(params["n_models"], "n_models", 1, checks.LARGEST["models"])):
        net = checks.load_net(entry["weights"][str(i)], n_dims, method, config, *sizes).to(place)
        flows.append(make_flow(method, net, axis, center, scale, sigma, entry["intervals"], conditions))
    flow = join(flows)
    checks.reserved(entry, n_dims, _diffusion(flow, method))
    checks.populations(entry, len(recipe.strata or conditions), n_dims)
    turnovers = read_turnovers(entry.get("turnover", {}))
    counted = entry.get("population_sizes", {}).get("sizes")
    counted = None if counted is None else np.asarray(counted)
    resampled = bool(params.get("resampled", False))
    return Stored(flow, method, recipe, config, turnovers, counted, read_seen(entry.get("seen", {})), resampled)


def _checked_recipe(entry: Mapping[str, Any]) -> Recipe:
    for name in ("time_key", *NAMES):
        checks.text(entry.get(name, ""), name)
    checks.whole(entry["n_dims"], "n_dims", 1, checks.LARGEST["n_dims"])
    for name in ("conditions", "strata"):
        checks.labels(entry.get(name, ()), "conditions")
    for name in ("condition_key", "couple_within", "baseline"):
        checks.labels(np.atleast_1d(entry.get(name, ())), "columns")
    return read_recipe(entry)
