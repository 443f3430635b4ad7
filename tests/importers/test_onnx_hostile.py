"""ONNX files that ask for too much, or say what cannot be: a model or an EBPError, in bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import paths

import ebp_cuda
from ebp_cuda.importers.onnx import load_onnx

sys.path.insert(0, str(paths.TOOLS))
from memory import growth

BOUND = 1e9


def graph_of(
    nodes: list[onnx.NodeProto], shape: list[int | str] | None = None, **arrays: np.ndarray
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, shape or ["n", 4])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def node(op: str, inputs: str, output: str, **attrs: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attrs)


FILL = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
TWENTY_MILLION = np.array([20_000_000], np.int64)
GREEDY: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray]]] = {
    "constants of a shape": (
        [node("ConstantOfShape", "s", f"c{i}", value=FILL) for i in range(20)],
        {"s": TWENTY_MILLION},
    ),
    "exponentials": (
        [node("ConstantOfShape", "s", "c0", value=FILL), *(node("Exp", f"c{i}", f"c{i + 1}") for i in range(30))],
        {"s": TWENTY_MILLION},
    ),
    "ranges": (
        [node("Range", "zero many one", f"c{i}") for i in range(20)],
        {"zero": np.int64(0), "many": np.int64(30_000_000), "one": np.int64(1)},
    ),
    "text": (
        [node("ConstantOfShape", "s", "c", value=FILL), node("Cast", "c", "t", to=TensorProto.STRING)],
        {"s": TWENTY_MILLION},
    ),
    "sums": (
        [node("ConstantOfShape", "s", "c0", value=FILL), *(node("Add", f"c{i} c{i}", f"c{i + 1}") for i in range(30))],
        {"s": TWENTY_MILLION},
    ),
}


@pytest.mark.parametrize("name", GREEDY)
def test_all_that_an_import_makes_is_one_account(name: str) -> None:
    nodes, arrays = GREEDY[name]
    last = nodes[-1].output[0]
    model = graph_of([*nodes, node("Add", f"x {last}", "y")], **arrays)

    def refused() -> None:
        with pytest.raises(ebp_cuda.UnsupportedError, match=r"numbers that no file holds|text; wanted numbers"):
            load_onnx(model)

    assert growth(refused) < BOUND


WIDE = 1_000_000_000
ONE = np.array([1], np.int64)
FAR = np.array([0, 0, 0, WIDE, 0, 0, 0, WIDE], np.int64)
SHAPE: list[Any] = ["n", 1, 1, WIDE]
MADE_BY_A_CONVERTER: dict[str, tuple[list[Any], dict[str, np.ndarray], list[Any], int]] = {
    "CumSum": ([node("CumSum", "x axis", "y")], {"axis": np.array(3)}, SHAPE, 13),
    "TopK": ([node("TopK", "x k", "y z", axis=3)], {"k": ONE}, SHAPE, 13),
    "ArgMax": ([node("ArgMax", "x", "y", axis=3)], {}, SHAPE, 13),
    "Slice": ([node("Slice", "x a b c d", "y")], {"a": -ONE, "b": -2 * WIDE * ONE, "c": 3 * ONE, "d": -ONE}, SHAPE, 13),
    "Concat": ([node("Concat", "x c", "y", axis=3)], {"c": np.ones((1, 1, 1, 1), np.float32)}, SHAPE, 13),
    "GatherND": ([node("GatherND", "x i", "y")], {"i": np.zeros((2, 2), np.int64)}, [2, 1, 1, WIDE], 13),
    "AveragePool": (
        [node("AveragePool", "x", "y", kernel_shape=[2, 2], pads=[0, 0, 1, 1])], {}, ["n", 1, 30_000, 30_000], 13
    ),
    "GroupNormalization": (
        [node("GroupNormalization", "x s s", "y", num_groups=1)],
        {"s": np.ones(1, np.float32)}, ["n", WIDE, 1, 1], 18,
    ),
    "Resize": (
        [helper.make_node("Resize", ["x", "", "s"], ["y"], mode="cubic")],
        {"s": np.array([1, 1, 1, 1e6], np.float32)}, [2, 1, 1, 1000], 13,
    ),
    "Pad, reflect": ([node("Pad", "x p", "y", mode="reflect")], {"p": FAR // 2}, SHAPE, 13),
    "Pad, edge": ([node("Pad", "x p", "y", mode="edge")], {"p": FAR}, ["n", 1, 1, 4], 13),
    "Pad, wrap": ([node("Pad", "x p", "y", mode="wrap")], {"p": FAR}, ["n", 1, 1, 4], 19),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE_BY_A_CONVERTER)
def test_what_a_converter_makes_is_in_the_account(name: str) -> None:
    """A file may declare an input of any size: what a layer's numbers follow from is counted before it is made."""
    nodes, arrays, shape, opset = MADE_BY_A_CONVERTER[name]
    model = graph_of(nodes, shape, **arrays)
    model.opset_import[0].version = opset

    def refused() -> None:
        with pytest.raises(ebp_cuda.UnsupportedError, match="numbers that no file holds"):
            load_onnx(model)

    assert growth(refused) < BOUND


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda graph: graph.initializer.append(graph.initializer[0]), "two initializers are named 'c'"),
        (lambda graph: graph.initializer[0].dims.__setitem__(0, -5), r"initializer 'c' has shape \[-5\]"),
    ],
)
def test_initializers_that_cannot_be(edit: Callable[[onnx.GraphProto], None], words: str) -> None:
    model = graph_of([node("Add", "x c", "y")], c=np.ones(4, np.float32))
    edit(model.graph)
    with pytest.raises(ebp_cuda.ModelError, match=words):
        load_onnx(model)


def with_external(folder: Path, count: int, dims: list[int], length: int) -> Path:
    """A model with tensors that all lie in the same bytes of one file."""
    names = [f"w{i}" for i in range(count)]
    model = graph_of([node("Sum", " ".join(["x", *names]), "y")])
    for name in names:
        tensor = model.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="data")
        tensor.external_data.add(key="length", value=str(length))
    (folder / "data").write_bytes(bytes(4_000_000))
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"


def test_a_file_that_thousands_of_tensors_read_anew(tmp_path: Path) -> None:
    path = with_external(tmp_path, 5_000, [1, 1_000_000], 4_000_000)

    def refused() -> None:
        with pytest.raises(ebp_cuda.UnsupportedError, match=r"initializer 'w.*numbers that no file holds"):
            load_onnx(path)

    assert growth(refused) < BOUND


def test_nothing_times_more_than_there_is(tmp_path: Path) -> None:
    with pytest.raises(ebp_cuda.ModelError, match="initializer 'w0': shape"):
        load_onnx(with_external(tmp_path, 1, [0, 1 << 62, 1 << 62], 0))


def test_a_reference_to_an_attribute_that_nobody_gives() -> None:
    item = node("LeakyRelu", "x", "y")
    item.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    with pytest.raises(ebp_cuda.ModelError, match=r"\(LeakyRelu, opset 13\): an attribute has no value of its own"):
        load_onnx(graph_of([item]))


@pytest.mark.parametrize("place", [b"LeakyRelu", b"alpha", b"unlike", b"NEAREST"])
def test_text_that_is_no_utf8(tmp_path: Path, place: bytes) -> None:
    """In an operator, an attribute's name or its text it is refused; a node of such a name may be read."""
    nodes = [
        helper.make_node("LeakyRelu", ["x"], ["a"], name="unlike", alpha=0.5),
        helper.make_node("Gelu", ["a"], ["y"], approximate="NEAREST"),
    ]
    nodes = nodes if place == b"NEAREST" else [helper.make_node("LeakyRelu", ["x"], ["y"], name="unlike", alpha=0.5)]
    data = graph_of(nodes).SerializeToString()
    (tmp_path / "net.onnx").write_bytes(data.replace(place, b"\xff" * len(place)))
    try:
        load_onnx(tmp_path / "net.onnx")
    except ebp_cuda.EBPError as error:
        assert "net.onnx" in str(error)
    else:
        assert place == b"unlike"


def test_what_the_importer_does_not_know_is_refused_by_name() -> None:
    item = node("Relu", "x", "y", alpha=0.5)
    with pytest.raises(ebp_cuda.UnsupportedError, match=r"\(Relu, opset 13\): attribute alpha is not known"):
        load_onnx(graph_of([item]))


def test_an_opset_that_is_too_new_is_refused_by_number() -> None:
    model = graph_of([node("Relu", "x", "y")])
    model.opset_import[0].version = 999
    with pytest.raises(ebp_cuda.UnsupportedError, match="opset 999; the newest that is read is 28"):
        load_onnx(model)


def test_a_value_that_is_named_like_its_node() -> None:
    item = helper.make_node("Split", ["x"], ["y", "z"], name="y", axis=1)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(ebp_cuda.Net(load_onnx(graph_of([item]))).forward(x)["y"], x[:, :2])
