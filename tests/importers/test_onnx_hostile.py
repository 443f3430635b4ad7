"""ONNX files that ask for too much, or say what cannot be: a model or an EBPError, in bounded memory."""

from __future__ import annotations

import sys
from pathlib import Path

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
        [value("x", TensorProto.FLOAT, ["n", 4])],
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
