"""One training step of the core against torchcfm's, on the same network, batch and machine, as a ratio from one run.

A step is everything between a batch of images and the updated weights: noise, pairs, path, forward and backward pass,
AdamW. Both sides run the same network in alternation, so that the load of the machine falls on both; figures are
medians over steps. ``loss only`` is the same without a network: noise, pairs and path alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import peers, results
from benchmarks.images.embedding import build
from benchmarks.images.objectives import Objective, draw, terms
from benchmarks.images.unet import UNet, UNetConfig
from torch import Tensor, nn
from tqdm.auto import trange

SHAPE = (3, 32, 32)
SETTINGS = {"sigma": 0.0, "optimizer": "AdamW, fused", "lr": 2e-4}
"""Of torchcfm; the optimiser is that of both sides."""


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
    PeerMissing
        If torchcfm is not installed.
    """
    peers.require("torchcfm")
    rows = [_compare(name, batch_size, steps, width, progress) for name in ("icfm", "otcfm")]
    return {
        "batch_size": batch_size,
        "steps": steps,
        "image": SHAPE,
        "unet_width": width,
        "threads": torch.get_num_threads(),
        "rows": rows,
    }


def run(folder: Path, **options: Any) -> Path:
    """Measure, write ``images_steptime.json`` into a folder and return its path; options as in `measure`."""
    found = measure(**options)
    settings = {name: value for name, value in found.items() if name != "rows"}
    head = results.head(settings, [0])
    head["peers"] = {"torchcfm": peers.record("torchcfm", SETTINGS)}
    return results.save(folder / "images_steptime.json", head | found)


def _compare(name: str, batch_size: int, steps: int, width: int, progress: bool) -> dict[str, Any]:
    config = UNetConfig(width=width, mult=(1, 2, 2, 2), n_blocks=2, attention=(16,))
    generator = torch.Generator().manual_seed(0)
    network = build(lambda: UNet(SHAPE, 0, config), generator)
    images = torch.rand(batch_size, *SHAPE, generator=generator) * 2 - 1
    sides = {"core": _core(network, name, images, generator), "torchcfm": _torchcfm(network, name, images)}
    row: dict[str, Any] = {"objective": name}
    for part in ("step", "loss only"):
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        with peers.seeded(0):
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
    optimizer = torch.optim.AdamW(network.parameters(), lr=SETTINGS["lr"], fused=True)

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
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher, ExactOptimalTransportConditionalFlowMatcher

    kind = ConditionalFlowMatcher if name == "icfm" else ExactOptimalTransportConditionalFlowMatcher
    matcher = kind(SETTINGS["sigma"])
    update = _update(network)

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        return t, x_t, u_t

    def step() -> None:
        t, x_t, u_t = batch()
        update((network(t, x_t) - u_t).square().mean())

    return {"step": step, "loss only": batch}
