"""One training step of the core against torchcfm's, on the same network, batch and machine, as a ratio from one run.

A step is everything between a batch of images and the updated weights: noise, pairs, path, forward and backward pass,
AdamW. Both sides run the same network in alternation, so that the load of the machine falls on both; figures are
medians over steps. ``loss only`` is the same without a network: noise, pairs and path alone. torchcfm draws from the
global generators, which are seeded here and given back.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.images.embedding import build
from benchmarks.images.objectives import Objective, draw, terms
from benchmarks.images.unet import UNet, UNetConfig
from torch import Tensor, nn
from tqdm.auto import trange

from thalweg.errors import InputError

SHAPE = (3, 32, 32)
_RATE = 2e-4


def measure(*, batch_size: int = 128, steps: int = 30, width: int = 16, progress: bool = True) -> dict[str, Any]:
    """Median seconds of a step of I-CFM and OT-CFM on both sides, and their ratio (core over torchcfm).

    Parameters
    ----------
    batch_size, steps
        Images of a step and steps measured, after three that are not.
    width
        Width of the U-Net; the other options are the published recipe's.
    progress
        Progress bar.

    Raises
    ------
    InputError
        If torchcfm is not installed.
    """
    rows = [_compare(name, batch_size, steps, width, progress) for name in ("icfm", "otcfm")]
    return {
        "batch_size": batch_size,
        "steps": steps,
        "image": SHAPE,
        "unet_width": width,
        "threads": torch.get_num_threads(),
        "rows": rows,
    }


def run(results: Path, **options: Any) -> Path:
    """Measure, write ``images_steptime.json`` and return its path; options as in `measure`."""
    results.mkdir(parents=True, exist_ok=True)
    path = results / "images_steptime.json"
    result = {"command": "python -m benchmarks.images steptime", "machine": machine(), **measure(**options)}
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def _compare(name: str, batch_size: int, steps: int, width: int, progress: bool) -> dict[str, Any]:
    config = UNetConfig(width=width, mult=(1, 2, 2, 2), n_blocks=2, attention=(16,))
    generator = torch.Generator().manual_seed(0)
    network = build(lambda: UNet(SHAPE, 0, config), generator)
    images = torch.rand(batch_size, *SHAPE, generator=generator) * 2 - 1
    sides = {"core": _core(network, name, images, generator), "torchcfm": _torchcfm(network, name, images)}
    row: dict[str, Any] = {"objective": name}
    for part in ("step", "loss only"):
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        with torch.random.fork_rng(devices=[]), _NumpyState():
            torch.manual_seed(0)
            count = steps if part == "step" else 3 * steps
            for k in trange(count + 3, desc=f"{name} {part}", disable=not progress, leave=False):
                for side, functions in sides.items():
                    start = time.perf_counter()
                    functions[part]()
                    if k >= 3:
                        seconds[side].append(time.perf_counter() - start)
        medians = {side: statistics.median(values) for side, values in seconds.items()}
        row[part] = {**medians, "ratio": medians["core"] / medians["torchcfm"]}
    return row


def _update(network: nn.Module) -> Callable[[Tensor], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, fused=True)

    def update(loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return update


def _core(network: nn.Module, name: str, x1: Tensor, generator: torch.Generator) -> dict[str, Callable[[], object]]:
    objective, update = Objective(name), _update(network)
    return {
        "step": lambda: update(terms(network, objective, x1, None, generator)["velocity"]),
        "loss only": lambda: draw(objective, x1, None, generator),
    }


def _torchcfm(network: nn.Module, name: str, x1: Tensor) -> dict[str, Callable[[], object]]:
    try:
        from torchcfm.conditional_flow_matching import (
            ConditionalFlowMatcher,
            ExactOptimalTransportConditionalFlowMatcher,
        )
    except ImportError as error:
        raise InputError(
            "the step time is measured against torchcfm, which is not installed; `pip install torchcfm`."
        ) from error
    matcher = ConditionalFlowMatcher(0.0) if name == "icfm" else ExactOptimalTransportConditionalFlowMatcher(0.0)
    update = _update(network)

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        return t, x_t, u_t

    def step() -> None:
        t, x_t, u_t = batch()
        update((network(t, x_t) - u_t).square().mean())

    return {"step": step, "loss only": batch}


class _NumpyState:
    """Seeds numpy's global generator, which torchcfm draws its pairs from, and gives it back."""

    def __enter__(self) -> None:
        self.state = np.random.get_state()  # noqa: NPY002
        np.random.seed(0)  # noqa: NPY002

    def __exit__(self, *_: object) -> None:
        np.random.set_state(self.state)  # noqa: NPY002


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
