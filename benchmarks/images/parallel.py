"""Several processes on one run, started by ``torchrun``: each draws its own batches, gradients are averaged (DDP).

    torchrun --nproc-per-node 4 -m benchmarks.images cifar10 --device cuda

Without torchrun there is one process and nothing of torch.distributed is touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from benchmarks.images.objectives import Objective
from torch import nn

from thalweg.errors import InputError


@dataclass(frozen=True)
class World:
    """One process among those that share a run.

    Attributes
    ----------
    device
        Where it computes.
    rank, size
        Its number and how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process scores, writes and shows progress."""
        return self.rank == 0

    def shared(self, network: nn.Module, objective: Objective) -> tuple[nn.Module, Objective]:
        """Module to call in training, whose gradients are averaged over processes, and the objective for it."""
        if self.size == 1:
            return network, objective
        option = objective.dispersive
        if option is not None:  # the wrapper holds the network as its submodule "module"
            objective = replace(objective, dispersive=replace(option, block=f"module.{option.block_of(network)}"))
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids), objective

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()


@contextmanager
def world(device: str) -> Iterator[World]:
    """The processes of torchrun if it started this one, else this one alone.

    Parameters
    ----------
    device
        ``"cpu"``, ``"cuda"`` or ``"auto"`` (cuda where there is one).

    Raises
    ------
    InputError
        If cuda is asked for and not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for and torch finds none; pass --device cpu.")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(torch.device(device))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    place = torch.device("cuda", local) if device == "cuda" else torch.device(device)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield World(place, rank, size)
    finally:
        torch.distributed.destroy_process_group()
