"""Layers of ONNX files by torch's exporters have their modules' paths as names, as a torch module itself has."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import ebp_cuda
from ebp_cuda.importers.onnx.scopes import modules_of

pytest.importorskip("onnxscript")


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = (
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.norm(self.conv(self.relu(x))) + x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.stages = nn.Sequential(nn.Sequential(Block(4), Block(4)), nn.Sequential(Block(4)))
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def module() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module", params=[True, False], ids=["torch.export", "TorchScript"])
def exported(request: pytest.FixtureRequest, module: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (X,), path, dynamo=request.param, verbose=False)
    return path


def test_module_paths_name_the_same_values_as_of_the_module_itself(exported: Path, module: Net) -> None:
    net, right = ebp_cuda.load(exported), ebp_cuda.from_torch(module, X)
    common = sorted(set(net.graph.names) & set(right.graph.names))
    assert {"stem", "stages", "stages.0", "stages.0.1", "stages.1", "stages.1.0.relu", "head"} <= set(common)
    values, wanted = net.forward(X, common), right.forward(X, common)
    for name in common:
        torch.testing.assert_close(values[name], wanted[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_choice_is_that_of_the_module(exported: Path, module: Net) -> None:
    of_file, of_module = ebp_cuda.ExcitationBackprop(ebp_cuda.load(exported)), ebp_cuda.ExcitationBackprop(module)
    maps = of_module.attribute(X, 1)
    assert of_file.setting.layer == of_module.setting.layer and of_file.setting.layer.startswith("stages.")
    torch.testing.assert_close(of_file.attribute(X, 1), maps, rtol=1e-3, atol=1e-6)


def test_the_files_own_names_stay(exported: Path) -> None:
    net = ebp_cuda.load(exported)
    for item in onnx.load(exported).graph.node:
        if item.op_type in ("Conv", "Gemm", "Relu"):
            assert net.graph.resolve(item.name) == net.graph.resolve(item.output[0])
    assert not [
        node.name for node in net.graph.nodes if node.op == "conv" and not node.name.startswith(("st", "stages"))
    ]
    assert "stages.0.1.sum" in [node.name for node in net.graph.nodes] and "stages.0.1.sum" in net.summary()


def node(name: str, op: str = "Conv", scopes: str | None = None) -> Any:
    made = onnx.helper.make_node(op, ["x"], ["y"], name=name)
    if scopes is not None:
        made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    return made


@pytest.mark.parametrize(
    ("item", "modules"),
    [
        (node("/a/a.0/b/b.1/conv/Conv"), ("a", "a.0", "a.0.b", "a.0.b.1", "a.0.b.1.conv")),
        (node("/a/a.0/a/a.1/Conv_3"), ("a", "a.0", "a.0.a", "a.0.a.1")),
        (node("/Conv"), ()),
        (node("/a" * 101 + "/Conv"), None),
        (node("n", scopes=str(["a"] * 101)), None),
        (node("/layer/Flatten"), None),  # not a name that the exporter made of a Conv
        (node("Conv_12"), None),
        (node("model/conv1/Conv"), None),
        (node("n", scopes="['', 'a', 'a.0', 'conv2d']"), ("a", "a.0")),
        (node("n", scopes="['', 'conv2d']"), ()),
        (node("n", scopes="['', 3]"), None),
        (node("n", scopes="__import__('os')"), None),
        (node("n", scopes="(" * 5000), None),
        (node("n", scopes=f"['{'a' * 20000}', 'b']"), None),
    ],
)
def test_what_a_node_says_of_its_module(item: Any, modules: tuple[str, ...] | None) -> None:
    assert modules_of(item) == modules


def test_a_path_that_is_another_values_name_stays_that_value() -> None:
    weight = onnx.numpy_helper.from_array(torch.rand(3, 3, 1, 1).numpy(), "w")
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["b"], name="/a/Conv")]
    nodes += [onnx.helper.make_node("Relu", ["b"], ["a"], name="/b/Relu")]
    infos = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 3, 4, 4]) for n in ("x", "a")]
    graph = onnx.helper.make_graph(nodes, "g", infos[:1], infos[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    from ebp_cuda.importers.onnx import load_onnx

    net = ebp_cuda.Net(load_onnx(model))
    assert net.graph.resolve("a") == ("a",) and net.graph.resolve("b") == ("b",)
    assert net.graph.resolve("/a/Conv") == ("b",) and [node.name for node in net.graph.nodes] == ["/a/Conv", "/b/Relu"]
