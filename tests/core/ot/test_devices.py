"""Generators follow the data: torch refuses a CPU generator for a draw on another device."""

from __future__ import annotations

import pytest
import torch

from thalweg.core import sampling
from thalweg.core.ot import unbalanced


@pytest.fixture
def strict_draws(monkeypatch):
    """Random functions that insist on one device for generator and result, as they do where there is a GPU."""
    drawn = []

    def strict(name):
        original = getattr(torch, name)

        def call(*args, generator=None, device=None, **options):
            where = torch.device(device or "cpu")
            drawn.append(name)
            if generator is not None and generator.device.type != where.type:
                raise RuntimeError(
                    f"Expected a '{where.type}' device type for generator but found '{generator.device}'"
                )
            return original(*args, generator=generator, device=device, **options)

        return call

    for name in ("rand", "randn", "randperm", "randint"):
        monkeypatch.setattr(torch, name, strict(name))
    return drawn


class Elsewhere(torch.Tensor):
    """CPU numbers that say they are on another device, until they are brought back."""

    @staticmethod
    def __new__(cls, x: torch.Tensor):
        return x.as_subclass(cls)

    @property
    def device(self):
        return torch.device("meta")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_scale_of_growth_is_drawn_where_the_generator_is(strict_draws, weighted):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 2, generator=g), torch.randn(70, 2, generator=g) + 1
    weights = [torch.linspace(1, 2, len(v), dtype=torch.float64) if weighted else None for v in (x, y)]
    expected = unbalanced.displacement(x, y, *weights)
    strict_draws.clear()
    there = [None if w is None else Elsewhere(w) for w in weights]
    found = unbalanced.displacement(Elsewhere(x), Elsewhere(y), *there)
    assert found == expected
    assert strict_draws


def test_the_check_of_the_check(strict_draws):
    cdf = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="Expected a 'meta' device"):
        sampling.draw(Elsewhere(cdf), 3, torch.Generator())
