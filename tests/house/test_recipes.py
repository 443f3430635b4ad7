"""The recipes of CONTRIBUTING.md, done exactly as they are written there."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from support.paths import ROOT

import ebp_cuda
from ebp_cuda.graph import Graph, Node
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.importers.onnx.call import CONVERTERS
from ebp_cuda.linear import LinearMap
from ebp_cuda.net import Net

pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs the repository"),
    pytest.mark.usefixtures("tables_as_before"),
]


def done(recipe: str) -> dict[str, Any]:
    """The names that the code of a recipe leaves, after it ran. A recipe is at most 15 lines of prose and code each."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split(f"## {recipe}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(textwrap.dedent(code), namespace)
    return namespace


def net_of(*nodes: Node, shape: tuple[int | None, ...]) -> Net:
    return Net(Graph(list(nodes), {"x": shape}, nodes[-1].outputs))


WEIGHT = torch.tensor([[1.0, 2.0, -3.0], [0.5, -1.0, 1.0]])


def classifier(below: str) -> Node:
    return Node("fc", "linear", (below,), ("y",), {}, {"weight": WEIGHT})


def test_how_to_add_a_rule() -> None:
    net = net_of(Node("s", "sigmoid", ("x",), ("h",)), classifier("h"), shape=(None, 3))
    x = torch.tensor([[1.0, 2.0, 3.0]])

    def relevance() -> torch.Tensor:
        return ebp_cuda.ExcitationBackprop(net, layer="x", rules="caffe").relevance(x, 0)

    at_h = ebp_cuda.ExcitationBackprop(net, layer="h", rules="caffe").relevance(x, 0)
    assert not torch.allclose(relevance(), at_h)  # until then the ordinary gradient
    done("How to add a rule")
    assert torch.equal(relevance(), at_h)


def test_how_to_add_a_layer() -> None:
    done("How to add a layer")
    net = net_of(Node("d", "mylab::double", ("x",), ("h",)), classifier("h"), shape=(None, 3))
    x = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.equal(net.forward(x, outputs=["h"])["h"], 2 * x)
    below = ebp_cuda.ExcitationBackprop(net, layer="x", rules="caffe").relevance(x, 0)
    assert below.sum() == pytest.approx(1)


def test_how_to_add_a_backend() -> None:
    backend = done("How to add a backend")["Traced"]()
    linear = LinearMap.of(classifier("x"), WEIGHT, backend)
    x = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.equal(linear.positive().apply(x), x @ WEIGHT.clamp_min(0).T)
    assert backend.asked == ["fc"]


def test_how_to_add_an_onnx_operator(tmp_path) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Softsign", ["x"], ["y"])], "g", value[:1], value[1:])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    del CONVERTERS["Softsign"]
    with pytest.raises(ebp_cuda.EBPError, match="Softsign"):
        load_onnx(path)
    done("How to add an ONNX operator")
    x = torch.tensor([[1.0, -3.0, 0.0]])
    assert torch.equal(Net(load_onnx(path)).forward(x)["y"], x / (1 + x.abs()))
