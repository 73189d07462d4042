"""The methods by name: a coupling, a path, and whether a score is learned too. A new method is a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from thalweg.core import paths
from thalweg.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

CouplingName = Literal["independent", "exact", "entropic"]


@dataclass(frozen=True)
class Method:
    """One way to learn a flow between populations.

    Attributes
    ----------
    title
        What it is, for tables.
    coupling
        Which pairs are drawn.
    path
        Path for a ``sigma`` (scalar or one per sample).
    score
        Whether a score field is learned, so that the flow can also be run as an SDE.
    sigma
        Default noise, in units of the average standard deviation of a coordinate.
    """

    title: str
    coupling: CouplingName
    path: Callable[[float | Tensor], paths.Path]
    score: bool
    sigma: float

    @property
    def bridge(self) -> bool:
        """Whether ``sigma`` is a diffusion, growing with the square root of the interval, or a constant width."""
        return self.coupling == "entropic"


METHODS = {
    "icfm": Method("independent conditional flow matching", "independent", paths.Linear, score=False, sigma=0.1),
    "otcfm": Method("optimal-transport conditional flow matching", "exact", paths.Linear, score=False, sigma=0.1),
    "sbcfm": Method(
        "Schrödinger-bridge conditional flow matching", "entropic", paths.BrownianBridge, score=False, sigma=0.25
    ),
    "sf2m": Method(
        "score and flow matching of a Schrödinger bridge", "entropic", paths.BrownianBridge, score=True, sigma=0.25
    ),
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
