"""ONNX as exporters write it: sizes computed by the graph, the old spellings of operators, and torch's own exports.

What the graph means is said by onnx's reference implementation or by onnxruntime, never by the package.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from support.torch_modules import Fn, Gated, Inception, Residual
from torch import nn

import ebp_cuda
from ebp_cuda.importers.onnx import load_onnx

RNG = np.random.default_rng(0)
Step = tuple[str, Sequence[str], str, dict[str, Any]]


def model(steps: Sequence[Step], opset: int, shape: Sequence[Any], **arrays: Any) -> onnx.ModelProto:
    """A model of one input "x" whose output is what the last step writes."""
    nodes = [helper.make_node(op, list(xs), y.split(), name=y.split()[0], **attrs) for op, xs, y, attrs in steps]
    value = helper.make_tensor_value_info
    last = steps[-1][2].split()[0]
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, list(shape))],
        [value(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run_elsewhere(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def check(proto: onnx.ModelProto, *shapes: Sequence[int]) -> ebp_cuda.Net:
    """The same output as onnxruntime's for images of every shape, and in "conserving" all of p at the input."""
    net = ebp_cuda.Net(load_onnx(proto))
    ((name, _),) = net.graph.inputs.items()
    for shape in shapes:
        x = RNG.random(shape, np.float32)
        wanted = run_elsewhere(proto, x)
        got = net.forward(x)[net.graph.outputs[0]].numpy()
        image = torch.from_numpy(x)
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 1e-5 * max(np.abs(wanted).max(), 1)
        if wanted.ndim == 2:
            p = ebp_cuda.ExcitationBackprop(net, name, rules="conserving").relevance(image, [0] * shape[0])
            assert p.flatten(1).sum(1).tolist() == pytest.approx([1] * shape[0], abs=1e-4)
    return net


def f32(*shape: int) -> np.ndarray:
    return (RNG.random(shape) - 0.4).astype(np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


SHAPED = ["n", 4, 6, 6]
X = ["x"]
DOUBLING: list[Step] = [("Concat", [f"k{i}"] * 2, f"k{i + 1}", {"axis": 0}) for i in range(40)]
ADD: Step = ("Add", ["x", "c"], "y", {})
OLD: dict[str, tuple[list[Step], int, dict[str, Any]]] = {
    "Upsample 7": ([("Upsample", X, "y", {"scales": [1.0, 1.0, 2.0, 3.0]})], 7, {}),
    "Upsample 9": ([("Upsample", ["x", "s"], "y", {})], 9, {"s": np.array([1, 1, 2, 2], np.float32)}),
    "Resize 10": ([("Resize", ["x", "s"], "y", {})], 10, {"s": np.array([1, 1, 2, 1], np.float32)}),
    "Dropout 7": ([("Dropout", X, "d", {"ratio": 0.3}), ("Relu", ["d"], "y", {})], 9, {}),
    "Clip 6": ([("Clip", X, "y", {"min": 0.2, "max": 0.7})], 9, {}),
    "Pad 2": ([("Pad", X, "y", {"pads": [0, 0, 1, 2, 0, 0, 0, 3], "value": 0.5})], 9, {}),
    "Pad 2, reflect": ([("Pad", X, "y", {"pads": [0, 0, 1, 2, 0, 0, 0, 3], "mode": "reflect"})], 9, {}),
    "Pad 2, edge, cut": ([("Pad", X, "y", {"pads": [0, 0, 0, -2, 0, 0, -1, 0]})], 9, {}),
    "Slice 1": ([("Slice", X, "y", {"axes": [1, 3], "starts": [1, 0], "ends": [3, -1]})], 9, {}),
    "Squeeze 1": (
        [("ReduceMean", X, "m", {"axes": [2, 3], "keepdims": 1}), ("Squeeze", ["m"], "y", {"axes": [2, 3]})], 9, {}
    ),
    "ReduceMean 1": ([("ReduceMean", X, "y", {"axes": [2, 3], "keepdims": 0})], 9, {}),
    "ReduceSum, L2, Max": (
        [
            ("ReduceSum", X, "a", {"axes": [2, 3], "keepdims": 0}),
            ("ReduceL2", X, "b", {"axes": [2, 3], "keepdims": 0}),
            ("ReduceMax", X, "c", {"axes": [2, 3], "keepdims": 0}),
            ("Concat", ["a", "b", "c"], "y", {"axis": 1}),
        ], 9, {},
    ),
    "BatchNormalization 9": (
        [("BatchNormalization", ["x", *"abcd"], "y", {"epsilon": 1e-3})], 9,
        {"a": f32(4), "b": f32(4), "c": f32(4), "d": np.abs(f32(4))},
    ),
    "InstanceNormalization 6": ([("InstanceNormalization", ["x", *"ab"], "y", {})], 9, {"a": f32(4), "b": f32(4)}),
    "LayerNormalization 17": (
        [("LayerNormalization", ["x", *"ab"], "y", {"axis": -1})], 17, {"a": f32(6), "b": f32(6)}
    ),
    "GroupNormalization 21": (
        [("GroupNormalization", ["x", *"ab"], "y", {"num_groups": 2})], 21, {"a": f32(4), "b": f32(4)}
    ),
    "Reshape by Shape": (
        [
            ("Shape", X, "s", {}), ("Gather", ["s", "zero"], "n", {"axis": 0}),
            ("Unsqueeze", ["n"], "n1", {"axes": [0]}),
            ("Concat", ["n1", "rest"], "to", {"axis": 0}), ("Reshape", ["x", "to"], "f", {}),
            ("MatMul", ["f", "w"], "y", {}),
        ], 9, {"zero": np.int64(0), "rest": ints(-1), "w": f32(144, 5)},
    ),
    "channel shuffle by Shape": (
        [
            ("Shape", X, "s", {}), ("Gather", ["s", "zero"], "n", {}), ("Gather", ["s", "two"], "h", {}),
            ("Unsqueeze", ["n", "zero1"], "n1", {}), ("Unsqueeze", ["h", "zero1"], "h1", {}),
            ("Concat", ["n1", "groups", "h1", "h1"], "to", {"axis": 0}), ("Reshape", ["x", "to"], "a", {}),
            ("Transpose", ["a"], "b", {"perm": [0, 2, 1, 3, 4]}),
            ("Concat", ["n1", "four", "h1", "h1"], "back", {"axis": 0}),
            ("Reshape", ["b", "back"], "y", {}),
        ], 13, {"zero": np.int64(0), "two": np.int64(2), "zero1": ints(0), "groups": ints(2, 2), "four": ints(4)},
    ),
    "Resize by Shape": (
        [
            ("Conv", ["x", "w"], "c", {"strides": [2, 2]}), ("Shape", ["c"], "s", {}),
            ("Slice", ["s", "zero", "two"], "nc", {}), ("Concat", ["nc", "plane"], "to", {"axis": 0}),
            ("Resize", ["c", "", "", "to"], "y", {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}),
        ], 13, {"w": f32(3, 4, 1, 1), "zero": ints(0), "two": ints(2), "plane": ints(7, 5)},
    ),
    "folded weights": (
        [("Transpose", ["w"], "wt", {"perm": [1, 0]}), ("Mul", ["wt", "half"], "wh", {}),
         ("Flatten", X, "f", {}), ("MatMul", ["f", "wh"], "y", {})],
        13, {"w": f32(5, 144), "half": np.float32(0.5)},
    ),
    "squeeze-excite, gate first": (
        [
            ("Conv", ["x", "w"], "c", {}), ("Relu", ["c"], "r", {}), ("GlobalAveragePool", ["r"], "g", {}),
            ("Conv", ["g", "v"], "e", {}), ("Sigmoid", ["e"], "gate", {}), ("Mul", ["gate", "r"], "m", {}),
            ("GlobalAveragePool", ["m"], "a", {}), ("Flatten", ["a"], "y", {}),
        ], 13, {"w": f32(5, 4, 3, 3), "v": f32(5, 5, 1, 1)},
    ),
    "broadcast, quotient, difference": (
        [
            ("ReduceMean", X, "m", {"axes": [1], "keepdims": 1}), ("Sub", ["x", "m"], "d", {}),
            ("Pow", ["d", "two"], "q", {}), ("ReduceMean", ["q"], "v", {"axes": [1], "keepdims": 1}),
            ("Add", ["v", "eps"], "ve", {}), ("Sqrt", ["ve"], "sd", {}), ("Div", ["d", "sd"], "n", {}),
            ("Add", ["n", "m"], "o", {}), ("Div", ["one", "sd"], "i", {}), ("Max", ["i", "o"], "y", {}),
        ], 13, {"two": np.float32(2), "eps": np.float32(1e-3), "one": np.float32(1)},
    ),
    "gelu by erf": (
        [("Div", ["x", "r"], "a", {}), ("Erf", ["a"], "e", {}), ("Add", ["e", "one"], "g", {}),
         ("Mul", ["g", "x"], "b", {}), ("Mul", ["b", "half"], "y", {})],
        13, {"r": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)},
    ),
    "blocks": (
        [("DepthToSpace", X, "a", {"blocksize": 2}), ("SpaceToDepth", ["a"], "b", {"blocksize": 3}),
         ("DepthToSpace", X, "c", {"blocksize": 2, "mode": "CRD"}), ("Flatten", ["b"], "d", {}),
         ("Flatten", ["c"], "e", {}), ("Concat", ["d", "e"], "y", {"axis": 1})],
        13, {},
    ),
    "expanded gate": (
        [("GlobalMaxPool", X, "g", {}), ("Shape", X, "s", {}), ("Expand", ["g", "s"], "y", {})], 13, {},
    ),
    "Split 13, one index": (
        [("Split", X, "a b", {"axis": 1}), ("Gather", ["b", "one"], "y", {"axis": 2})], 13, {"one": np.int64(1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_operators_of_older_and_newer_opsets(name: str) -> None:
    steps, opset, arrays = OLD[name]
    check(model(steps, opset, SHAPED, **arrays), (2, 4, 6, 6), (3, 4, 6, 6))


def test_sizes_that_follow_a_free_plane() -> None:
    """Height and width are free: a size computed from them is copied or inferred, and a factor stays a factor."""
    steps: list[Step] = [
        ("Conv", ["x", "w"], "c", {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("Shape", ["c"], "s", {}),
        ("Slice", ["s", "two", "four"], "hw", {}),
        ("Mul", ["hw", "twice"], "hw2", {}),
        ("Slice", ["s", "zero", "two"], "nc", {}),
        ("Concat", ["nc", "hw2"], "to", {"axis": 0}),
        ("Resize", ["c", "", "", "to"], "r", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
        ("Shape", ["r"], "rs", {}),
        ("Slice", ["rs", "zero", "two"], "rnc", {}),
        ("Concat", ["rnc", "rest"], "flat", {"axis": 0}),
        ("Reshape", ["r", "flat"], "f", {}),
        ("ReduceMean", ["f"], "y", {"axes": [2], "keepdims": 0}),
    ]
    arrays = {
        "w": f32(5, 3, 3, 3),
        "zero": ints(0),
        "two": ints(2),
        "four": ints(4),
        "twice": ints(2),
        "rest": ints(-1),
    }
    check(model(steps, 13, ["n", 3, "h", "w"], **arrays), (1, 3, 8, 10), (2, 3, 12, 6))


@pytest.mark.parametrize(
    ("steps", "arrays", "words"),
    [
        ([("ConstantOfShape", ["s"], "c", {}), ADD], {"s": ints(1 << 20, 1 << 20)}, "elements"),
        ([("Expand", ["k", "s"], "c", {}), ADD], {"k": f32(1), "s": ints(1 << 40)}, "elements"),
        ([*DOUBLING, ADD], {"k0": f32(1)}, "elements"),
        ([("Gather", ["k", "i"], "c", {}), ADD], {"k": f32(1, 1 << 15), "i": np.zeros(1 << 15, np.int64)}, "elements"),
        ([("Mul", ["k", "q"], "c", {}), ADD], {"k": f32(1 << 14, 1), "q": f32(1 << 14)}, "elements"),
        ([("Reshape", ["w", "s"], "c", {}), ADD], {"w": f32(3), "s": ints(2)}, "not those of"),
    ],
)  # fmt: skip
def test_hostile_or_impossible(steps: list[Step], arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(ebp_cuda.EBPError, match=words):
        net = ebp_cuda.Net(load_onnx(model(steps, 12, SHAPED, **arrays)))
        net.forward(np.zeros((1, 4, 6, 6), np.float32))


@pytest.mark.parametrize(
    "step",
    [
        ("ReduceMean", X, "y", {"axes": [0]}), ("ReduceSum", X, "y", {"keepdims": 0}),
        ("Softmax", X, "y", {"axis": 0}), ("Flatten", X, "y", {"axis": 2}), ("Flatten", X, "y", {"axis": 0}),
        ("Transpose", X, "y", {"perm": [1, 0, 2, 3]}), ("ReduceL2", X, "y", {"axes": [-4]}),
        ("Pad", X, "y", {"pads": [1, 0, 0, 0, 0, 0, 0, 0]}), ("Concat", ["x", "x"], "y", {"axis": -4}),
    ],
    ids=lambda step: step[0],
)  # fmt: skip
def test_what_mixes_images_is_computed_and_has_no_rule(step: Step) -> None:
    proto, x = model([step], 10, SHAPED), RNG.random((2, 4, 6, 6), np.float32)
    net = ebp_cuda.Net(load_onnx(proto))
    np.testing.assert_allclose(net.forward(x)["y"], run_elsewhere(proto, x), rtol=1e-5, atol=1e-6)
    assert any(row["missing"] == "caffe rule, conserving rule" for row in net.explain_support())


class Head(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), -1)


EXPORTED: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: nn.Sequential(Residual(3, 4, 2), nn.AdaptiveAvgPool2d(1), Head(), nn.Linear(4, 5)),
    "gated": lambda: nn.Sequential(Gated(3), nn.AdaptiveAvgPool2d(1), Head(), nn.Linear(3, 5)),
    "inception": lambda: nn.Sequential(Inception(3), nn.MaxPool2d(3, 2, ceil_mode=True), Head(), nn.Linear(8 * 36, 5)),
    "shuffle": lambda: Fn(lambda m, x: m.fc(F.pixel_unshuffle(x, 2).mean((2, 3))), fc=nn.Linear(12, 5)),
    "norms": lambda: nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.GELU(), nn.Conv2d(6, 4, 3), nn.LayerNorm((4, 8, 8)), nn.SiLU()),
        *(nn.AdaptiveAvgPool2d(1), Head(), nn.Linear(4, 5)),
    ),
    "upsampling": lambda: Fn(
        lambda m, x: m.fc(F.interpolate(F.avg_pool2d(m.conv(x), 2), scale_factor=2, mode="bilinear").amax((2, 3))),
        conv=nn.Conv2d(3, 4, 1),
        fc=nn.Linear(4, 5),
    ),
}


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("name", EXPORTED)
def test_torch_exports(name: str, opset: int) -> None:
    torch.manual_seed(0)
    module, x = EXPORTED[name]().eval(), torch.rand(2, 3, 12, 12)
    free: Any = {0: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (x,),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=((free,),) if isinstance(module, Fn) else (free,),
            verbose=False,
        )
    stream = io.BytesIO()
    program.save(stream)
    net = check(onnx.load_from_string(stream.getvalue()), (2, 3, 12, 12), (3, 3, 12, 12))
    with torch.no_grad():
        torch.testing.assert_close(net.forward(x)[net.graph.outputs[0]], module(x), rtol=1e-4, atol=1e-5)
