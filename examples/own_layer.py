"""A layer of your own: what it computes, and how relevance goes down through it.

The layer here is a leaky square, y = gain * x^2 where x is above 0 and 0.1 * x elsewhere. Once it is registered, torch
modules and ONNX files that hold it are imported like any other.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import ebp_cuda

# The layer as torch knows it. (Its name has a namespace; a fake gives the shape of its result.)


@torch.library.custom_op("mylab::leaky_square", mutates_args=())
def leaky_square(x: torch.Tensor, gain: torch.Tensor, slope: float) -> torch.Tensor:
    return torch.where(x > 0, gain * x * x, slope * x)


@leaky_square.register_fake
def _(x: torch.Tensor, gain: torch.Tensor, slope: float) -> torch.Tensor:
    return torch.empty_like(x)


# The layer as ebp_cuda knows it: its forward. Activations come as `inputs`, tensors that do not depend on the image as
# `params`, everything else in `node.attrs`; by the names of the operator's arguments.


@ebp_cuda.register_operation("mylab::leaky_square")
def forward(node, params, inputs, saved):
    (gain,), (x,) = params.values(), inputs
    return [torch.where(x > 0, gain * x * x, node.attrs["slope"] * x)]


# Its rule, for both rule sets: an element-wise function hands relevance on. `above` holds the relevance of the outputs,
# the result that of the inputs, None where one gets none.


@ebp_cuda.register_rule("mylab::leaky_square", "pass", needs="")
def hand_on(step, above):
    return above


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.top = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.gain = nn.Parameter(torch.full((8, 1, 1), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.top(leaky_square(self.conv(x), self.gain, 0.1).mean((2, 3)))


torch.manual_seed(0)
model, x = Classifier().eval(), torch.rand(2, 3, 12, 12)
net = ebp_cuda.from_torch(model, x)
print(net.summary())
maps = ebp_cuda.ExcitationBackprop(net, layer="conv", rules="conserving").attribute(x, "top2")
print(f"from torch: maps {list(maps.shape)}, each sums to {maps.sum((2, 3)).min():.6f}")

# The same network as an ONNX file, where the layer is a node of a domain of its own.
named = {"w": model.conv.weight, "b": model.conv.bias, "gain": model.gain, "v": model.top.weight, "c": model.top.bias}
nodes = [
    helper.make_node("Conv", ["x", "w", "b"], ["a"], name="conv"),
    helper.make_node("leaky_square", ["a", "gain"], ["s"], name="square", domain="mylab", slope=0.1),
    helper.make_node("GlobalAveragePool", ["s"], ["m"]),
    helper.make_node("Flatten", ["m"], ["f"]),
    helper.make_node("Gemm", ["f", "v", "c"], ["y"], name="top", transB=1),
]
graph = helper.make_graph(
    nodes,
    "classifier",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 12, 12])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
    [numpy_helper.from_array(tensor.detach().numpy(), name) for name, tensor in named.items()],
)
versions = [helper.make_opsetid("", 18), helper.make_opsetid("mylab", 1)]
path = Path(sys.argv[1] if len(sys.argv) > 1 else "examples-out") / "own_layer.onnx"
path.parent.mkdir(parents=True, exist_ok=True)
onnx.save(helper.make_model(graph, opset_imports=versions), path)
again = ebp_cuda.load(path)
same = ebp_cuda.ExcitationBackprop(again, layer="conv", rules="conserving").attribute(x, "top2")
print(f"from ONNX: largest difference {(same - maps).abs().max():.1e}")
