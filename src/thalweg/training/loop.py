"""One loop for every model: AdamW, averaged weights, validation, early stopping, a stop when a loss is not finite."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from thalweg.errors import NonFiniteLossError
from thalweg.training.config import TrainingConfig

M = TypeVar("M", bound=nn.Module)

Objective = Callable[[M, int, torch.Generator], Mapping[str, Tensor]]
"""``objective(model, batch_size, generator)`` -> scalar terms by name; their sum is minimised."""

Validation = Callable[[M], float]
"""``validation(model)`` -> loss on the samples held back; the same draws at every call."""

Monitor = Callable[[M], Mapping[str, float]]
"""``monitor(model)`` -> figures to log beside the losses."""


@dataclass
class TrainingResult:
    """What a run leaves behind besides the weights.

    Attributes
    ----------
    history
        Columns ``step``, one for each term, ``loss``, ``learning_rate``, with a validation ``validation_loss``, and
        those of the monitor: a row every ``validate_every`` steps, the losses averaged over the steps since the row
        before.
    best_step
        Step whose averaged weights were kept.
    stopped_early
        Whether patience ran out before ``max_steps``.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    best_step: int = 0
    stopped_early: bool = False


def train(
    model: M,
    objective: Objective[M],
    config: TrainingConfig,
    generator: torch.Generator,
    *,
    validation: Validation[M] | None = None,
    monitor: Monitor[M] | None = None,
    progress: bool = True,
    description: str = "training",
) -> TrainingResult:
    """Train ``model`` in place; it ends with the best averaged weights.

    Parameters
    ----------
    model
        Module to train, on the device it shall be trained on.
    objective
        Draws a batch with the generator and returns the scalar terms of the loss by name.
    config
        Steps, rates, averaging and stopping.
    generator
        Source of every draw.
    validation
        Loss on held-back samples; without it the averaged weights of the last step are kept.
    monitor
        Figures of the averaged model to log with every validation.
    progress, description
        Progress bar and its label.

    Raises
    ------
    NonFiniteLossError
        At the first step whose loss or gradient is NaN or infinite; names the step and the term. The model keeps the
        weights it had before that step.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: _rate(k, config))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))  # type: ignore[no-untyped-call]
    result, keeper = TrainingResult(), _Best(patience=config.patience)
    sums: dict[str, float] = {}
    bar = tqdm(total=config.max_steps, desc=description, disable=not progress, leave=False)
    with bar, _threads(config.n_threads):
        for step in range(1, config.max_steps + 1):
            terms = _step(model, objective, optimizer, config, generator, step)
            schedule.step()
            average.update_parameters(model)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value
            if step % config.validate_every == 0 or step == config.max_steps:
                n = (step - 1) % config.validate_every + 1
                row: dict[str, float] = {
                    "step": float(step),
                    **{k: v / n for k, v in sums.items()},
                    "learning_rate": float(schedule.get_last_lr()[0]),
                }
                sums = {}
                if validation is not None:
                    row["validation_loss"] = _evaluate(cast(M, average.module), validation, step)
                if monitor is not None:
                    row |= monitor(cast(M, average.module))
                for name, value in row.items():
                    result.history.setdefault(name, []).append(value)
                bar.set_postfix(loss=f"{row['loss']:.4g}", refresh=False)
                if keeper.exhausted(row.get("validation_loss", -step), step, average.module):
                    result.stopped_early = step < config.max_steps
                    break
            bar.update()
    model.load_state_dict(keeper.state)
    result.best_step = keeper.step
    return result


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _step(
    model: M,
    objective: Objective[M],
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    generator: torch.Generator,
    step: int,
) -> dict[str, float]:
    terms = objective(model, config.batch_size, generator)
    loss = torch.stack(list(terms.values())).sum()
    values = {name: float(v.detach()) for name, v in terms.items()} | {"loss": float(loss.detach())}
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteLossError(_NON_FINITE.format(f"loss term {name!r} is {value}", step))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip))
    if not math.isfinite(norm):
        raise NonFiniteLossError(_NON_FINITE.format(f"gradient norm of {' + '.join(terms)} is {norm}", step))
    optimizer.step()
    return values


_NON_FINITE = (
    "{} at step {}: training stopped, the weights of the step before are kept. "
    "Lower the learning_rate or check the input."
)


def _evaluate(model: M, validation: Validation[M], step: int) -> float:
    model.eval()
    value = validation(model)
    model.train()
    if not math.isfinite(value):
        raise NonFiniteLossError(_NON_FINITE.format(f"the validation loss is {value}", step))
    return value


def _rate(step: int, config: TrainingConfig) -> float:
    """Learning rate of ``step`` (from 0) over its peak."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    rest = max(1, config.max_steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - config.warmup_steps) / rest)))


class _Best:
    """Keeps the weights of the lowest value seen and counts the rounds since."""

    def __init__(self, patience: int) -> None:
        self.patience, self.value, self.rounds, self.step = patience, math.inf, 0, 0
        self.state: dict[str, Tensor] = {}

    def exhausted(self, value: float, step: int, model: nn.Module) -> bool:
        if value < self.value:
            self.value, self.step, self.rounds = value, step, 0
            self.state = copy.deepcopy(model.state_dict())
        else:
            self.rounds += 1
        return self.rounds >= self.patience
