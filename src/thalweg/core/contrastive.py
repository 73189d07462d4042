r"""Contrastive flow matching (ΔFM): its loss, its negatives, and the way back to flow matching.

Source: Stoica et al., "Contrastive Flow Matching" (2025). With u the conditional velocity of a sample and u~ that of
another row of the same batch (with its own time and noise), for each sample

    L = ||v(t, x_t, c) - u||^2 / d - weight ||v(t, x_t, c) - u~||^2 / d,        0 <= weight < 1.

Minimiser. Write v_FM(t, x, c) = E[u | t, x, c], the minimiser of flow matching, and u_bar = E[u~ | t, x, c]. Given
(t, x, c), L is a quadratic in v with second derivative 2 (1 - weight) / d, hence unbounded below from weight = 1 on.
Setting its derivative 2 (v - v_FM) - 2 weight (v - u_bar) to zero gives

    v_D = (v_FM - weight u_bar) / (1 - weight),    and back    v_FM = (1 - weight) v_D + weight u_bar    (`undo`).

Mean negative. u~ comes from another row, whose pair, time and noise are independent of this row's when rows are
drawn independently. So u_bar does not depend on (t, x):

- "any": u_bar = E[u], over the whole batch distribution, times included;
- "other_condition": the negative is drawn evenly from the rows of other conditions; such a row has condition c' with
  probability p(c') / (1 - p(c)), so u_bar(c) = (E[u] - p(c) E[u | c]) / (1 - p(c)).

`MeanNegative` accumulates both from batches.

What v_D does. It does not transport the source to the target. For N(0, 1) -> N(m, s^2) with independent pairs on the
straight path, v_FM = m + (log a_t)' (x - t m) with a_t^2 = (1-t)^2 + t^2 s^2 and u_bar = m, so v_D has the same mean
and 1 / (1 - weight) times the slope: it ends with standard deviation s^(1/(1-weight)), and sharpens when s < 1.

Not guaranteed: comparability of the loss between weights (compare the first of `contrastive_terms`); the exact u_bar
when the rows of a batch depend on each other, as with plans of minibatches, fixed shares of the conditions ("any"), or
one time common to the batch. The first two change u_bar by O(1/n).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from thalweg.core.losses import Model, mean_square, predict, velocity
from thalweg.core.paths import Batch, Path
from thalweg.errors import InputError

Negatives = Literal["any", "other_condition"]
Noise = Literal["independent", "restricted"]


def contrastive_velocity(
    model: Model, batch: Batch, *, weight: float = 0.05, generator: torch.Generator, negatives: Negatives = "any"
) -> Tensor:
    """Contrastive flow-matching loss ``||v - u||^2 / d - weight ||v - u~||^2 / d``, one pass of the model.

    Parameters
    ----------
    model
        Velocity field ``v``.
    batch
        Batch of ``n >= 2`` samples.
    weight
        Weight of the negative term in [0, 1); 0.05 is the published value. At 0 this is `losses.velocity` bit for bit
        and nothing is drawn from ``generator``.
    generator
        Source of the negatives.
    negatives
        "any" (default): any other row of the batch; "other_condition": a row of another condition.

    Returns
    -------
    Loss of each sample, shape ``(n,)``; may be negative.

    Raises
    ------
    InputError
        If ``weight`` lies outside [0, 1), ``negatives`` is unknown or the batch has no such negatives (see
        `negative_rows`), or the model's output has another shape than ``x_t``.
    """
    _check_weight(weight)
    if weight == 0:
        return velocity(model, batch)
    positive, negative = contrastive_terms(model, batch, generator=generator, negatives=negatives)
    return positive - weight * negative


def contrastive_terms(
    model: Model, batch: Batch, *, generator: torch.Generator, negatives: Negatives = "any"
) -> tuple[Tensor, Tensor]:
    """Both terms of the loss, ``||v - u||^2 / d`` and ``||v - u~||^2 / d``, each of shape ``(n,)``.

    The first is what to track: the total is not comparable between weights. Parameters and errors as in
    `contrastive_velocity`.
    """
    rows = negative_rows(batch, generator, negatives)
    v = predict(model, batch)
    return mean_square(v - batch.u_t), mean_square(v - batch.u_t[rows])


def negative_rows(batch: Batch, generator: torch.Generator, negatives: Negatives = "any") -> Tensor:
    """Draw the row that serves as the negative of each row, never itself.

    Parameters
    ----------
    batch
        Batch of ``n`` samples.
    generator
        Source of the draw.
    negatives
        "any": a uniformly drawn cycle through all rows, so that each row serves once and every other row is equally
        likely; "other_condition": for each row on its own, a uniform draw among the rows of other conditions.

    Returns
    -------
    Row indices, int64 of shape ``(n,)``, on the device of the batch.

    Raises
    ------
    InputError
        For an unknown ``negatives``, fewer than two samples, or, with "other_condition", a batch without
        ``condition`` or with a single condition.
    """
    _check_choice("negatives", negatives, get_args(Negatives))
    n, device = len(batch), batch.x_t.device
    if n < 2:
        raise InputError(f"a negative is another row of the batch: it needs at least 2 samples, found {n}.")
    if negatives == "any":
        order = torch.randperm(n, generator=generator, device=generator.device).to(device)
        return torch.empty_like(order).scatter_(0, order, order.roll(1))
    if batch.condition is None:
        raise InputError("negatives='other_condition' needs batch.condition, found None; use negatives='any'.")
    # Sorted by condition, the rows of other conditions are the places that follow a group's end, cyclically.
    ordered, places = batch.condition.sort()
    if bool(ordered[0] == ordered[-1]):
        raise InputError("negatives='other_condition' needs two conditions in a batch, found one; draw larger batches.")
    end = torch.searchsorted(ordered, batch.condition, right=True)
    others = n - (end - torch.searchsorted(ordered, batch.condition))
    u = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64).to(device)
    place = end + (u * others).long()
    rows: Tensor = places[torch.where(place < n, place, place - n)]
    return rows


class MeanNegative:
    """Mean negative ``u_bar``, accumulated from batches in float64; called like a field.

    Parameters
    ----------
    negatives
        The choice the model was trained with.

    Notes
    -----
    The error of ``u_bar`` after ``n`` samples is ``std(u) / sqrt(n)``; `undo` carries it over times ``weight``.
    """

    def __init__(self, negatives: Negatives = "any") -> None:
        _check_choice("negatives", negatives, get_args(Negatives))
        self.negatives = negatives
        self.count = torch.zeros(0, dtype=torch.float64)  # samples of each condition, or of all
        self.total = torch.zeros(0, dtype=torch.float64)  # their summed velocities, shape (conditions, ...)

    def update(self, batch: Batch) -> None:
        """Add the velocities of a batch.

        Raises
        ------
        InputError
            With "other_condition", if the batch has no ``condition`` or a negative label.
        """
        u = batch.u_t.detach().to("cpu", torch.float64)
        if self.negatives == "any":
            label = torch.zeros(len(batch), dtype=torch.int64)
        elif batch.condition is None or bool((batch.condition < 0).any()):
            raise InputError("negatives='other_condition' needs batch.condition with integer labels from 0 on.")
        else:
            label = batch.condition.to("cpu", torch.int64)
        size = max(len(self.count), int(label.max()) + 1)
        count, total = torch.zeros(size, dtype=torch.float64), torch.zeros(size, *u.shape[1:], dtype=torch.float64)
        if len(self.count):
            count[: len(self.count)], total[: len(self.count)] = self.count, self.total
        self.count = count.index_add_(0, label, torch.ones(len(label), dtype=torch.float64))
        self.total = total.index_add_(0, label, u)

    def __call__(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Mean negative of each row, of the shape, dtype and device of ``x``; constant in ``t`` and ``x``.

        Raises
        ------
        InputError
            Before the first `update`; with "other_condition", if ``condition`` is missing, was never seen, or is the
            only one that was.
        """
        if not len(self.count):
            raise InputError("MeanNegative has seen no batch; call update(batch) first.")
        if self.negatives == "any":
            return (self.total[0] / self.count[0]).to(x).expand_as(x)
        seen = self.count.nonzero().flatten()
        label = None if condition is None else condition.to("cpu")
        if label is None or len(seen) < 2 or not bool(torch.isin(label, seen).all()):
            found = "None" if label is None else sorted(set(label.tolist()))
            raise InputError(f"condition must be one of two or more seen by update, {seen.tolist()}; found {found}.")
        others = (self.count.sum() - self.count).reshape(-1, *[1] * (self.total.ndim - 1))
        return ((self.total.sum(0) - self.total) / others)[label].to(x)


def undo(field: Model, weight: float, mean_negative: Model) -> Model:
    """Turn a field trained with the contrastive loss into that of flow matching, ``(1 - weight) v_D + weight u_bar``.

    Parameters
    ----------
    field
        The trained field ``v_D``.
    weight
        The weight it was trained with.
    mean_negative
        ``u_bar`` as a function ``(t, x, condition)``, such as a `MeanNegative`.

    Returns
    -------
    A field ``(t, x, condition=None)``; exact where ``field`` is the minimiser.

    Raises
    ------
    InputError
        If ``weight`` lies outside [0, 1).
    """
    _check_weight(weight)

    def velocity_field(t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return (1 - weight) * field(t, x, condition) + weight * mean_negative(t, x, condition)

    return velocity_field


def paired_views(
    path: Path,
    x0: Tensor,
    x1: Tensor,
    t: Tensor,
    generator: torch.Generator,
    *,
    noise: Noise = "independent",
    max_gap: float = 0.005,
) -> tuple[Batch, Batch]:
    """Two noised views of each sample, for the contrastive counterparts of the dispersive loss (Wang & He 2025).

    The first view is ``path(x0, x1, t, generator)``. The second has noise of its own and a time of its own:
    "independent" draws it with `Path.draw_t`, "restricted" uniformly within ``max_gap`` of the first and inside
    ``path.t_range``. Both share ``x0`` and ``x1``: where ``x0`` is itself the noise (`paths.Linear` from a
    Gaussian source), use `paths.GaussianOT`, which draws it.

    Parameters
    ----------
    path, x0, x1, t, generator
        As in `Path.__call__`; with "restricted", ``t`` lies inside ``path.t_range``.
    noise
        "independent" (default) or "restricted".
    max_gap
        Largest difference of the two times, with "restricted"; 0.005 is the published value.

    Returns
    -------
    First and second view, row by row of the same sample; the base loss uses the first only.

    Raises
    ------
    InputError
        As `Path.__call__`; for an unknown ``noise``, a negative ``max_gap``, or times outside ``path.t_range``.
    """
    _check_choice("noise", noise, get_args(Noise))
    first = path(x0, x1, t, generator)
    second_t = path.draw_t(len(t), generator, t.dtype).to(t.device)
    if noise == "restricted":
        lo, hi = path.t_range
        if not (max_gap >= 0 and bool(((t >= lo) & (t <= hi)).all())):
            raise InputError(
                f"restricted views need max_gap >= 0 and t inside path.t_range = ({lo:g}, {hi:g}), found "
                f"max_gap={max_gap} and t in [{t.min().item():g}, {t.max().item():g}]; draw t with path.draw_t."
            )
        low, high = (t - max_gap).clamp_min(lo), (t + max_gap).clamp_max(hi)
        second_t = low + (high - low) * (second_t - lo) / (hi - lo)
    return first, path(x0, x1, second_t, generator)


def _check_weight(weight: float) -> None:
    if not 0 <= weight < 1:
        raise InputError(
            f"weight must lie in [0, 1), found {weight}; from 1 on the contrastive loss is unbounded below."
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}; found {value!r}.")
