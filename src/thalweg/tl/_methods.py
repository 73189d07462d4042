"""The methods by name: a coupling, a path, and what is learned. A new method is a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from thalweg.core import paths
from thalweg.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

CouplingName = Literal["independent", "exact", "entropic", "unbalanced", "none"]
FieldName = Literal["velocity", "potential", "noise"]


@dataclass(frozen=True)
class Method:
    """One way to learn a flow between populations.

    Attributes
    ----------
    title
        What it is, for tables.
    coupling
        Which pairs are drawn; ``"none"`` where the source is noise.
    path
        Path for a ``sigma`` (scalar or one per sample).
    sigma
        Default noise, in units of the average standard deviation of a coordinate.
    field
        What the network is: a ``"velocity"``, a ``"potential"`` whose gradient it is, or the velocity of a flow from
        ``"noise"`` to the population of each time.
    score
        Whether a score field is learned, so that the flow can also be run as an SDE.
    growth
        Whether a growth rate is learned, so that cells carry weights.
    """

    title: str
    coupling: CouplingName
    path: Callable[[float | Tensor], paths.Path]
    sigma: float
    field: FieldName = "velocity"
    score: bool = False
    growth: bool = False

    @property
    def bridge(self) -> bool:
        """Whether ``sigma`` is a diffusion, growing with the square root of the interval, or a constant width."""
        return self.coupling == "entropic"


def _bridge(sigma: float | Tensor) -> paths.Path:
    # Action matching integrates over all of [0, 1] and uses no velocity of the path, which is unbounded at the ends.
    return paths.BrownianBridge(sigma, clip=0.0)


METHODS = {
    "fm": Method("flow matching from Gaussian noise", "none", lambda _: paths.GaussianOT(), 0.0, field="noise"),
    "icfm": Method("independent conditional flow matching", "independent", paths.Linear, 0.1),
    "vpcfm": Method("trigonometric interpolant", "independent", lambda _: paths.Trigonometric(), 0.0),
    "otcfm": Method("optimal-transport conditional flow matching", "exact", paths.Linear, 0.1),
    "uotcfm": Method("unbalanced optimal-transport flow matching", "unbalanced", paths.Linear, 0.1, growth=True),
    "sbcfm": Method("Schrödinger-bridge conditional flow matching", "entropic", paths.BrownianBridge, 0.25),
    "sf2m": Method(
        "score and flow matching of a Schrödinger bridge", "entropic", paths.BrownianBridge, 0.25, score=True
    ),
    "am": Method("action matching", "exact", paths.Linear, 0.0, field="potential"),
    "eam": Method("entropic action matching", "entropic", _bridge, 0.25, field="potential", score=True),
    "uam": Method("unbalanced action matching", "unbalanced", paths.Linear, 0.0, field="potential", growth=True),
}


def find_method(name: str) -> Method:
    """Look a method up.

    Raises
    ------
    InputError
        If there is no such method; lists those there are.
    """
    if name not in METHODS:
        raise InputError(f"method={name!r} is unknown; choose one of {', '.join(METHODS)}.")
    return METHODS[name]
