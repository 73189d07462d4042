from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from thalweg.core import fields
from thalweg.core.action import Potential
from thalweg.core.dispersive import dispersive
from thalweg.core.fields.features import block_at, tap
from thalweg.errors import InputError


def network(dim: int = 2, depth: int = 3) -> fields.MLP:
    return fields.build(lambda: fields.MLP(dim, width=8, depth=depth), torch.Generator().manual_seed(0))


def inputs(n: int = 6, dim: int = 2) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(n, generator=g), torch.randn(n, dim, generator=g)


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in module.modules())


def test_value_equals_a_manual_forward():
    net, (t, x) = network(), inputs()
    with tap(net, "blocks.1") as tapped:
        out = net(t, x)
    angle = torch.pi * t[:, None] * torch.arange(1, 5)
    h = torch.cat([x, t[:, None], angle.sin(), angle.cos()], 1)
    second = net.blocks[1](net.blocks[0](h))
    torch.testing.assert_close(tapped.value, second)
    torch.testing.assert_close(out, net.out(net.blocks[2](tapped.value)))
    assert torch.equal(net(t, x), out)  # tapping changes nothing


def test_value_follows_the_latest_pass():
    net, (t, x) = network(), inputs()
    with tap(net, "blocks.0") as tapped:
        net(t, x)
        first = tapped.value
        net(t[:2], x[:2] + 1)
        assert tapped.value.shape == (2, 8)
        net(t, x)
        assert torch.equal(tapped.value, first)
    net(t, x + 1)
    assert torch.equal(tapped.value, first)  # closed: no longer follows


def test_nested_taps_and_networks_that_call_networks():
    inner, (t, x) = network(), inputs()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = inner

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return self.step(t, self.step(t, x))

    outer = Twice()
    with tap(outer, "step.blocks.2") as deep, tap(outer, "step") as whole, tap(outer, "step.blocks.2") as again:
        out = outer(t, x)
    middle = inner(t, x)
    assert torch.equal(whole.value, out)
    assert deep.value is again.value
    with tap(inner, "blocks.2") as tapped:
        inner(t, middle)
    assert torch.equal(deep.value, tapped.value)  # of the two calls in a pass, the last
    assert hooks(outer) == 0


def test_gradients_flow_through_the_features_to_the_layers_before_them():
    net, (t, x) = network(), inputs()
    with tap(net, "blocks.1") as tapped:
        net(t, x)
        dispersive(tapped.value).backward()
    moved = [name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert moved == [f"blocks.{k}.0.{p}" for k in (0, 1) for p in ("weight", "bias")]
    weight, h = net.blocks[0][0].weight, 1e-3
    net, t, x = net.double(), t.double(), x.double()
    expected = weight.grad.double()[0, 0].item()

    def loss(change: float) -> float:
        with torch.no_grad(), tap(net, "blocks.1") as tapped:
            net.blocks[0][0].weight[0, 0] += change
            net(t, x)
            net.blocks[0][0].weight[0, 0] -= change
            return dispersive(tapped.value).item()

    assert (loss(h) - loss(-h)) / (2 * h) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_hook_is_removed_on_exit_and_on_an_exception():
    net, (t, x) = network(), inputs()
    with tap(net, "blocks.0"):
        assert hooks(net) == 1
    assert hooks(net) == 0
    with pytest.raises(InputError, match="x must be"), tap(net, "blocks.0"):
        net(t, x[:, :1])
    assert hooks(net) == 0


def test_unknown_names_list_those_that_exist():
    with pytest.raises(
        InputError, match=r"MLP has no submodule 'block\.0'; available: blocks, blocks\.0, blocks\.0\.0"
    ):
        tap(network(), "block.0").__enter__()
    with pytest.raises(InputError, match="available: none"):
        tap(nn.Linear(1, 1), "").__enter__()


def test_outputs_that_are_no_single_tensor_are_refused_and_the_hook_still_goes():
    recurrent = nn.Sequential(nn.GRU(2, 3))
    with pytest.raises(InputError, match="'0' returns tuple, not one tensor"), tap(recurrent, "0"):
        recurrent(torch.zeros(1, 4, 2))
    assert hooks(recurrent) == 0


def test_a_tap_without_a_pass_has_no_value():
    with tap(network(), "blocks.0") as tapped, pytest.raises(InputError, match=r"'blocks\.0' has not run"):
        _ = tapped.value


@pytest.mark.parametrize(
    ("depth", "fraction", "index"),
    [
        (12, 0.25, 2),
        (12, 1.0, 11),
        (12, 1e-12, 0),
        (3, 0.25, 0),
        (3, 0.5, 1),
        (28, 0.25, 6),
        (100, 0.07, 6),
        (1, 0.25, 0),
    ],
)
def test_block_at_a_fraction_of_the_depth(depth, fraction, index):
    net = network(depth=depth)
    assert block_at(net, fraction) == f"blocks.{index}"
    assert dict(net.named_modules())[block_at(net, fraction)] is net.blocks[index]
    assert block_at(Potential(net), fraction) == f"network.blocks.{index}"


def test_block_at_refuses_what_it_cannot_name():
    with pytest.raises(InputError, match="fraction"):
        block_at(network(), 0.0)
    with pytest.raises(InputError, match="fraction"):
        block_at(network(), 1.1)
    with pytest.raises(InputError, match="found none"):
        block_at(nn.Linear(1, 1), 1.0)
    with pytest.raises(InputError, match=r"found \['a\.blocks', 'b\.blocks'\]"):
        block_at(nn.ModuleDict({"a": network(), "b": network()}), 1.0)
