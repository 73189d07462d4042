"""The training loss is the sum of its terms, each of them the loss of its own module."""

from __future__ import annotations

import pytest
import torch

from thalweg.core import contrastive, fields, losses, objectives, paths
from thalweg.core.dispersive import dispersive
from thalweg.core.fields.features import tap
from thalweg.errors import InputError


@pytest.fixture
def parts(generator):
    x0, x1 = torch.randn(64, 3, generator=generator), torch.randn(64, 3, generator=generator)
    path = paths.Linear(0.1)
    batch = path(x0, x1, path.draw_t(64, generator), generator)
    return fields.build(lambda: fields.MLP(3, width=16), generator), batch, torch.rand(64, generator=generator)


def test_terms_are_the_losses(parts):
    net, batch, weight = parts
    options = {"contrastive": objectives.Contrastive(0.2), "dispersive": objectives.Dispersive(0.3, block="blocks.1")}
    terms = objectives.velocity_terms(net, batch, weight=weight, generator=torch.Generator().manual_seed(1), **options)
    positive, negative = contrastive.contrastive_terms(net, batch, generator=torch.Generator().manual_seed(1))
    with tap(net, "blocks.1") as tapped:
        net(batch.t, batch.x_t)
    torch.testing.assert_close(terms["velocity"], (weight * positive).mean())
    torch.testing.assert_close(terms["contrastive"], -0.2 * (weight * negative).mean())
    torch.testing.assert_close(terms["dispersive"], 0.3 * dispersive(tapped.value, group=64))


def test_without_options_it_is_the_plain_loss_to_the_bit(parts):
    net, batch, _ = parts
    (value,) = objectives.velocity_terms(net, batch).values()
    assert torch.equal(value, losses.velocity(net, batch).mean())


def test_bad_arguments(parts):
    net, batch, weight = parts
    with pytest.raises(InputError, match="give a generator"):
        objectives.velocity_terms(net, batch, contrastive=objectives.Contrastive())
    with pytest.raises(InputError, match=r"weight must have shape \(64,\)"):
        objectives.velocity_terms(net, batch, weight=weight[:, None])
    with pytest.raises(InputError, match="at least 2 rows"):
        objectives.Dispersive(group=1)
