"""The methods: a coupling, a path, and what is learned. A new one is a row here, or a `Method` of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from torch import Tensor

from thalweg.core import paths
from thalweg.core.couplings import Coupling
from thalweg.errors import InputError

CouplingName = Literal["independent", "exact", "entropic", "unbalanced", "none"]
CouplingFunction: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Coupling]
FieldName = Literal["velocity", "potential", "noise"]
DynamicsName = Literal["none", "bridge", "flow"]


@dataclass(frozen=True)
class Method:
    """One way to learn a flow between populations; `thalweg.tl.fit` takes one of these instead of a name.

    Attributes
    ----------
    name
        What it is called in tables and in the stored fit; not that of a method of the package.
    coupling
        Which pairs of cells are drawn. A name, or a function ``(x0, x1, a, b)`` that returns a
        `thalweg.core.couplings.Coupling` between two populations: float32 tensors of normalised coordinates, shape
        ``(n0, d)`` and ``(n1, d)``, and float64 weights that sum to one. It is called once for each interval (and
        condition). ``"none"`` where the source is noise.
    path
        Function from ``sigma`` (a scalar, or one for each sample) to a `thalweg.core.paths.Path`.
    sigma
        Default noise, in units of the average standard deviation of a coordinate.
    title
        What it is, in a line.
    field
        What the network is: a ``"velocity"``, a ``"potential"`` whose gradient it is, or the velocity of a flow from
        ``"noise"`` to the population of each time.
    score
        Whether a score field is learned, so that the flow can also be run as an SDE.
    growth
        Whether a growth rate is learned from the marginals of the plan, so that cells carry weights.
    bridge
        Whether ``sigma`` is a diffusion, growing with the square root of the interval, or a constant width.
    dynamics
        What is learned of the process of the cells beside the prediction of populations; the coupling and the path then
        serve the prediction alone. ``"bridge"``: drift and score along bridges, as by ``"usb"``. ``"flow"``: a velocity
        along plans that return the populations. ``"none"``: the prediction is the process.

    Raises
    ------
    InputError
        If a name is unknown or ``sigma`` negative.
    """

    name: str
    coupling: CouplingName | CouplingFunction
    path: Callable[[float | Tensor], paths.Path]
    sigma: float = 0.0
    title: str = ""
    field: FieldName = "velocity"
    score: bool = False
    growth: bool = False
    bridge: bool = False
    dynamics: DynamicsName = "none"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"a Method needs a name, text that is not empty; found {self.name!r}.")
        if not callable(self.coupling) and self.coupling not in get_args(CouplingName):
            names = ", ".join(map(repr, get_args(CouplingName)))
            raise InputError(f"coupling must be a function or one of {names}; found {self.coupling!r}.")
        if self.field not in get_args(FieldName):
            raise InputError(f"field must be one of {', '.join(get_args(FieldName))}; found {self.field!r}.")
        if self.dynamics not in get_args(DynamicsName):
            raise InputError(f"dynamics must be one of {', '.join(get_args(DynamicsName))}; found {self.dynamics!r}.")
        if not self.sigma >= 0:
            raise InputError(f"sigma of a Method must not be negative, found {self.sigma!r}.")

    @property
    def bridged(self) -> bool:
        """Whether the process of the cells is a bridge, with a drift and a score."""
        return self.dynamics == "bridge"

    @property
    def turns_over(self) -> bool:
        """Whether the process of the cells has births and deaths."""
        return self.growth and self.dynamics != "none"

    @property
    def coupling_name(self) -> str:
        """The coupling in words."""
        if callable(self.coupling):
            return str(getattr(self.coupling, "__name__", type(self.coupling).__name__))
        return self.coupling


def _bridge(sigma: float | Tensor) -> paths.Path:
    # Action matching integrates over all of [0, 1] and uses no velocity of the path, which is unbounded at the ends.
    return paths.BrownianBridge(sigma, clip=0.0)


_BUILT_IN = (
    Method("fm", "none", lambda _: paths.GaussianOT(), title="flow matching from Gaussian noise", field="noise"),
    Method("icfm", "independent", paths.Linear, 0.1, "independent conditional flow matching"),
    Method("vpcfm", "independent", lambda _: paths.Trigonometric(), title="trigonometric interpolant"),
    Method("otcfm", "exact", paths.Linear, 0.1, "optimal-transport conditional flow matching"),
    Method(
        "uotcfm",
        "unbalanced",
        paths.Linear,
        0.1,
        "unbalanced optimal-transport flow matching",
        growth=True,
        dynamics="flow",
    ),
    Method(
        "sbcfm", "entropic", paths.BrownianBridge, 0.25, "Schrödinger-bridge conditional flow matching", bridge=True
    ),
    Method(
        "sf2m",
        "entropic",
        paths.BrownianBridge,
        0.25,
        "score and flow matching of a Schrödinger bridge",
        score=True,
        bridge=True,
    ),
    # The noise of a prediction is not that of the cells: narrow paths predict populations best.
    Method("usb", "unbalanced", paths.Linear, 0.1, "unbalanced Schrödinger bridge", growth=True, dynamics="bridge"),
    Method("am", "exact", paths.Linear, title="action matching", field="potential"),
    Method("eam", "entropic", _bridge, 0.25, "entropic action matching", field="potential", score=True, bridge=True),
    Method(
        "uam",
        "unbalanced",
        paths.Linear,
        title="unbalanced action matching",
        field="potential",
        growth=True,
        dynamics="flow",
    ),
)
METHODS = {method.name: method for method in _BUILT_IN}


def with_dynamics(method: Method) -> Method:
    """The method with the dynamics of the cells learned beside it.

    Raises
    ------
    InputError
        If it has a score of its own.
    """
    if method.score or method.bridge:
        raise InputError(
            f"score='learned' adds a score to methods without one; method={method.name!r} is a bridge of its own. "
            "Leave it out, or use 'usb'."
        )
    return replace(method, dynamics="bridge")


def find_method(method: str | Method) -> Method:
    """A method by its name, or a `Method` as it is.

    Raises
    ------
    InputError
        If there is no such method, which lists those there are, or a method of one's own has the name of another.
    """
    if isinstance(method, Method):
        if METHODS.get(method.name, method) is not method:
            raise InputError(f"the name {method.name!r} is taken by a method of thalweg; give yours another one.")
        return method
    if not isinstance(method, str) or method not in METHODS:
        raise InputError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}, or give a tw.tl.Method.")
    return METHODS[method]
