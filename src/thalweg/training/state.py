"""Everything that changes from one step to the next: a run stopped anywhere goes on from it to the bit.

The learning rate is a function of the step, so the schedule has no state of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from thalweg.errors import CheckpointError
from thalweg.training.checkpoint import Checkpoint
from thalweg.training.config import TrainingConfig

M = TypeVar("M", bound=nn.Module)

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each parameter


class Best:
    """Keeps the weights of the lowest value seen and counts the rounds since."""

    def __init__(self, model: nn.Module) -> None:
        self.value, self.rounds, self.step = math.inf, 0, 0
        self.state: dict[str, Tensor] = copy.deepcopy(model.state_dict())

    def update(self, value: float, step: int, model: nn.Module) -> None:
        """Compare the model of ``step`` with the best one so far."""
        if value < self.value:
            self.value, self.step, self.rounds = value, step, 0
            self.state = copy.deepcopy(model.state_dict())
        else:
            self.rounds += 1


class RunState(Generic[M]):
    """A run between two steps.

    Parameters
    ----------
    model
        Module under training.
    config
        Its training.
    generators
        Every generator the run draws from, by name; the first is that of the objective.

    Attributes
    ----------
    step
        Steps done.
    sums
        Sums of the loss terms since the last row of the history.
    history
        See `TrainingResult`.
    seconds
        Wall time of the parts before this process.
    finished, stopped_early
        Whether the run is over, and whether by patience.
    """

    def __init__(self, model: M, config: TrainingConfig, generators: Mapping[str, torch.Generator]) -> None:
        self.model, self.generators = model, generators
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))  # type: ignore[no-untyped-call]
        self.best = Best(self.average)
        self.step = 0
        self.sums: dict[str, float] = {}
        self.history: dict[str, list[float]] = {}
        self.seconds = 0.0
        self.finished = self.stopped_early = False

    @property
    def generator(self) -> torch.Generator:
        """The generator of the objective."""
        return next(iter(self.generators.values()))

    @property
    def average(self) -> M:
        """The averaged model."""
        return cast(M, self._average.module)

    def update_average(self) -> None:
        """Take the model's weights into the average."""
        self._average.update_parameters(self.model)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors of the run, by file."""
        return {
            "model": self.model.state_dict(),
            "average": self._average.state_dict(),
            "best": self.best.state,
            "optimizer": {
                f"{name}.{key}": value
                for name, p in self.model.named_parameters()
                for key, value in self.optimizer.state.get(p, {}).items()
            },
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def record(self) -> dict[str, Any]:
        """All plain values of the run."""
        best = self.best
        return {
            "history": self.history,
            "sums": self.sums,
            # JSON has no infinity: None before the first comparison.
            "best": {"value": None if math.isinf(best.value) else best.value, "step": best.step, "rounds": best.rounds},
            "seconds": self.seconds,
            "finished": self.finished,
            "stopped_early": self.stopped_early,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint.

        Raises
        ------
        CheckpointError
            If it holds other tensors than this run, or lacks a value; nothing is changed.
        """
        self._check(checkpoint)
        tensors, meta = checkpoint.tensors, checkpoint.meta
        try:
            best = meta["best"]
            value, step, rounds = best["value"], int(best["step"]), int(best["rounds"])
            history = {str(k): [float(v) for v in values] for k, values in meta["history"].items()}
            sums = {str(k): float(v) for k, v in meta["sums"].items()}
            seconds, (finished, stopped_early) = float(meta["seconds"]), _flags(meta, "finished", "stopped_early")
            for name, generator in self.generators.items():
                generator.set_state(tensors["generators"][name])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"{checkpoint.path} is no state of a run ({type(error).__name__}: {error})."
            ) from None
        self.model.load_state_dict(tensors["model"])
        self._average.load_state_dict(tensors["average"])
        self._restore_moments(tensors["optimizer"])
        self.best.state = {name: tensors["best"][name].to(like.device) for name, like in self.best.state.items()}
        self.best.value, self.best.step, self.best.rounds = math.inf if value is None else float(value), step, rounds
        self.step, self.history, self.sums, self.seconds = checkpoint.step, history, sums, seconds
        self.finished, self.stopped_early = finished, stopped_early

    def keep_finite_weights(self) -> int:
        """Go back to the last finite weights and return their step: the current ones, or else the best."""
        if all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            return self.step
        self.model.load_state_dict(self.best.state)
        return self.best.step

    def _restore_moments(self, moments: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for i, (name, _) in enumerate(self.model.named_parameters()):
            found = {key: moments[f"{name}.{key}"] for key in _MOMENTS if f"{name}.{key}" in moments}
            if found:
                state[i] = found
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})

    def _check(self, checkpoint: Checkpoint) -> None:
        """Compare names, shapes and types of all tensors with those of this run."""
        expected = self.tensors()
        scalar = torch.zeros(())
        # A parameter that no loss has reached yet has no moments.
        optional = {
            f"{name}.{key}": scalar if key == "step" else p.detach()
            for name, p in self.model.named_parameters()
            for key in _MOMENTS
        }
        for stem, like in expected.items():
            file, found = checkpoint.path / f"{stem}.safetensors", checkpoint.tensors.get(stem)
            if found is None:
                raise CheckpointError(f"{file} is missing.")
            known = optional if stem == "optimizer" else like
            if found.keys() - known.keys() or (stem != "optimizer" and known.keys() - found.keys()):
                names = sorted(found.keys() ^ known.keys())
                raise CheckpointError(f"{file} is of another model: only one of the two has {', '.join(names[:5])}.")
            for name, value in found.items():
                if (value.shape, value.dtype) != (known[name].shape, known[name].dtype):
                    raise CheckpointError(
                        f"{file} is of another model: {name} is {tuple(value.shape)} {value.dtype} there and "
                        f"{tuple(known[name].shape)} {known[name].dtype} here."
                    )


def _flags(meta: Mapping[str, Any], *names: str) -> list[bool]:
    values = [meta[name] for name in names]
    if not all(isinstance(value, bool) for value in values):
        raise TypeError(f"{' and '.join(names)} must be true or false, found {values}")
    return values
