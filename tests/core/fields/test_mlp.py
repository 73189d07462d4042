"""Fields: reproducible weights, no global generator, shapes refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from thalweg.core import fields
from thalweg.errors import InputError


def make(seed=0, **kwargs):
    return fields.build(lambda: fields.MLP(3, width=16, **kwargs), torch.Generator().manual_seed(seed))


def test_build_draws_from_its_generator_only():
    before = torch.get_rng_state()
    a, b, c = make(0), make(0), make(1)
    assert torch.equal(torch.get_rng_state(), before)
    same = [torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    other = [torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True)]
    assert all(same)
    assert not any(other)


def test_initial_weights_have_torchs_own_spread():
    net = fields.build(lambda: fields.MLP(3, width=512), torch.Generator().manual_seed(0))
    weight = net.blocks[1][0].weight.detach()
    assert float(weight.std()) == pytest.approx(1 / math.sqrt(512) / math.sqrt(3), rel=0.02)


def test_layers_without_an_initialisation_are_refused():
    with pytest.raises(InputError, match="outside Linear and Embedding"):
        fields.build(lambda: nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), torch.Generator())


def test_condition_and_time_change_the_output():
    net = make(n_conditions=2)
    x, t = torch.zeros(2, 3), torch.zeros(2)
    by_condition = net(t, x, torch.tensor([0, 1]))
    assert not torch.allclose(by_condition[0], by_condition[1])
    by_time = make()(torch.tensor([0.0, 0.5]), x)
    assert not torch.allclose(by_time[0], by_time[1])


@pytest.mark.parametrize(
    ("t", "x"),
    [(torch.zeros(4), torch.zeros(5, 3)), (torch.zeros(5, 1), torch.zeros(5, 3)), (torch.zeros(5), torch.zeros(5, 2))],
)
def test_shapes_are_refused(t, x):
    with pytest.raises(InputError, match="x must be"):
        make()(t, x)


def test_a_condition_is_needed_exactly_when_the_field_has_one():
    t, x, c = torch.zeros(1), torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(InputError, match="missing"):
        make(n_conditions=2)(t, x)
    with pytest.raises(InputError, match="unconditional"):
        make()(t, x, c)
