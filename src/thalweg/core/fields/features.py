"""Reach the features inside a network while it runs, for losses on hidden features (`dispersive`).

`tap` watches one named submodule with a forward hook; gradients flow through what it keeps. `block_at` names the block
at a fraction of the depth, for networks that hold their blocks in a `torch.nn.ModuleList` called ``blocks``, as
`MLP` does.

Not guaranteed: features of a pass made inside a `torch.func` transform can be used inside that transform only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from thalweg.errors import InputError


class Tap:
    """The latest output of the watched submodule."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._value: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """Output of the latest forward pass, shape ``(n, ...)``, attached to the graph; kept after the tap is closed.

        Raises
        ------
        InputError
            If the submodule has not run since the tap was opened.
        """
        if self._value is None:
            raise InputError(f"{self.name!r} has not run since it was tapped; call the network inside the with block.")
        return self._value

    def _keep(self, module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            raise InputError(
                f"{self.name!r} returns {type(output).__name__}, not one tensor; tap a submodule that returns a tensor."
            )
        self._value = output


@contextmanager
def tap(module: nn.Module, name: str) -> Iterator[Tap]:
    """Keep the output of a submodule while the ``with`` block runs; the hook is gone after it, also on an error.

    Parameters
    ----------
    module
        The network.
    name
        Dotted name of a submodule as in `torch.nn.Module.named_modules`, for instance ``"blocks.0"``.

    Yields
    ------
    `Tap`, whose ``value`` is the submodule's output in the latest forward pass; of several calls within a pass, the
    last one's.

    Raises
    ------
    InputError
        If there is no such submodule (the message lists the names), or, during a pass, if it returns no single tensor.
    """
    try:
        watched = module.get_submodule(name) if name else None
    except AttributeError:
        watched = None
    if watched is None:
        names = ", ".join(key for key, _ in module.named_modules() if key)
        raise InputError(f"{type(module).__name__} has no submodule {name!r}; available: {names or 'none'}.")
    opened = Tap(name)
    handle = watched.register_forward_hook(opened._keep)
    try:
        yield opened
    finally:
        handle.remove()


def block_at(module: nn.Module, fraction: float) -> str:
    """Name of the block after which a fraction of the depth has passed.

    Of ``n`` blocks it is number ``ceil(fraction n)``, counted from 1: the third of twelve at a quarter, the last at 1.

    Parameters
    ----------
    module
        Network with exactly one `torch.nn.ModuleList` named ``blocks``, at any level.
    fraction
        In (0, 1]; published choices for the dispersive loss are a quarter and the last (Wang & He 2025).

    Returns
    -------
    The name, to hand to `tap`.

    Raises
    ------
    InputError
        If ``fraction`` lies outside (0, 1], or the network has no such list, an empty one, or several.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction must lie in (0, 1], found {fraction}; 1 is the last block.")
    lists = {
        name: len(m)
        for name, m in module.named_modules()
        if isinstance(m, nn.ModuleList) and name.rpartition(".")[2] == "blocks" and len(m)
    }
    if len(lists) != 1:
        raise InputError(
            f"{type(module).__name__} must hold one non-empty ModuleList named blocks, found {list(lists) or 'none'}; "
            "give the submodule's own name to tap."
        )
    ((name, n),) = lists.items()
    # Rounded first: 0.07 * 100 is 7.000000000000001, which would count as eight blocks.
    return f"{name}.{max(math.ceil(round(fraction * n, 9)), 1) - 1}"
