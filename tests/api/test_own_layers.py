"""A layer of the user's own: an operator that neither importer knows, with a forward and a rule given from outside."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import ebp_cuda
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.rules import RULE_SETS

NAME = "ebp_tests::power_gate"


@torch.library.custom_op(NAME, mutates_args=())
def power_gate(x: torch.Tensor, gain: torch.Tensor, exponent: int) -> torch.Tensor:
    return x.clamp(min=0) ** exponent * gain


@power_gate.register_fake
def _(x: torch.Tensor, gain: torch.Tensor, exponent: int) -> torch.Tensor:
    return torch.empty_like(x)


@pytest.fixture
def registered(tables_as_before: None) -> None:
    @ebp_cuda.register_operation(NAME, keeps_non_negative=True)
    def forward(node, params, inputs, saved):
        gain = next(iter(params.values()))
        return [inputs[0].clamp(min=0) ** node.attrs["exponent"] * gain]

    @ebp_cuda.register_rule(NAME, "pass", needs="")
    def hand_on(step, above):
        return above


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.gain = nn.Parameter(torch.rand(4, 1, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(power_gate(self.conv(x), self.gain, 2).mean((2, 3)))


def test_torch_operator(registered: None) -> None:
    module, x = Net().eval(), torch.rand(2, 3, 7, 6)
    net = ebp_cuda.from_torch(module, x)
    node = next(node for node in net.graph.nodes if node.op == NAME)
    assert (dict(node.attrs), list(node.params)) == ({"exponent": 2}, ["gain"])
    with torch.no_grad():
        torch.testing.assert_close(next(iter(net.forward(x).values())), module(x))
    for rules in RULE_SETS:
        maps = ebp_cuda.ExcitationBackprop(net, "conv", rules=rules).attribute(x, [1, 4])
        assert maps.shape == (2, 1, 5, 4)
        assert maps.sum((1, 2, 3)).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_onnx_domain(registered: None) -> None:
    conv, fc = torch.rand(4, 3, 3, 3) - 0.5, torch.rand(4, 5) - 0.5
    gain = torch.rand(1, 4, 1, 1) + 0.5
    named = {"conv": conv, "fc": fc, "gain": gain}
    arrays = [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in named.items()]
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"], name="first"),
        helper.make_node("power_gate", ["a", "gain"], ["b"], name="gate", domain="ebp_tests", exponent=3),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "fc"], ["y"]),
    ]
    x = torch.rand(2, 3, 6, 6)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, ["n", 3, 6, 6])],
        [value("y", TensorProto.FLOAT, ["n", 5])],
        arrays,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ebp_tests", 1)])
    net = ebp_cuda.Net(load_onnx(model))
    wanted = (torch.conv2d(x, conv).clamp(min=0) ** 3 * gain).mean((2, 3)) @ fc
    torch.testing.assert_close(net.forward(x)["y"], wanted)
    maps = ebp_cuda.ExcitationBackprop(net, "first", rules="conserving").attribute(x, [0, 3])
    assert maps.sum((1, 2, 3)).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_what_is_not_registered_is_refused_with_the_way_out() -> None:
    with pytest.raises(ebp_cuda.UnsupportedError, match=r"power_gate.*\n?.*register_operation"):
        ebp_cuda.from_torch(Net(), torch.rand(1, 3, 7, 6))


@pytest.mark.parametrize(
    ("name", "flags"), [("relu", {}), ("::x", {}), ("a::", {}), ("a::b", {"keeps_positive": True})]
)
def test_bad_registrations(name: str, flags: dict[str, bool]) -> None:
    with pytest.raises(ebp_cuda.InputError, match="register_operation"):
        ebp_cuda.register_operation(name, **flags)
