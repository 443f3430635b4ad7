"""Exported graphs against the package: in ONNX Runtime, and in float64 by the onnx package's reference."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from support.exported import in_float64, in_runtime, relative_l1
from support.random_nets import RandomNet, random_nets
from torch import nn

import ebp_cuda
from ebp_cuda import cli, export_onnx
from ebp_cuda.graph import Graph, Node
from ebp_cuda.models import digits
from ebp_cuda.net import Net
from ebp_cuda.rules import register_rule
from ebp_cuda.rules.relevance import only

SHAPE = (1, 3, 112, 112)
TARGETS = torch.tensor([[1, 3], [4, 0], [7, 9]])
STANDARD_OPSET = 18


def digits_method(**options: object) -> ebp_cuda.ExcitationBackprop:
    return ebp_cuda.ExcitationBackprop(digits.load(), layer="pool1", **options)


def allowed(contrast: object, mass_left: torch.Tensor) -> float:
    """MWP to 1e-5; c-MWP, a small difference, to 1e-6 of the mass that it came from."""
    return 1e-5 if contrast is None else max(1e-5, 1e-6 / float(mass_left.min()))


def check_in_runtime(eb: ebp_cuda.ExcitationBackprop, path: Path, x: torch.Tensor, targets: torch.Tensor) -> None:
    onnx.checker.check_model(path, full_check=True)
    result, exported = eb.run(x, targets), in_runtime(path, x.numpy(), targets.numpy())
    for name, wanted in (("scores", result.scores), ("mass_left", result.mass_left)):
        np.testing.assert_allclose(exported[name], wanted.numpy(), rtol=1e-3, atol=1e-5)
    assert exported["maps"].shape == tuple(result.maps.shape)
    assert relative_l1(exported["maps"], result.maps.numpy()) <= allowed(eb.contrast_layer, result.mass_left)


@pytest.mark.parametrize("contrast", [None, "auto"], ids=["MWP", "c-MWP"])
@pytest.mark.parametrize("rules", ["caffe", "conserving"])
def test_digits_in_onnx_runtime_for_any_number_of_images(rules: str, contrast: str | None, tmp_path: Path) -> None:
    eb = digits_method(rules=rules, contrast_layer=contrast)
    path = export_onnx(eb, tmp_path / "maps.onnx", shape=SHAPE)
    images = torch.rand(3, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    for count in (1, 3):
        check_in_runtime(eb, path, images[:count], TARGETS[:count, :1])


def test_several_classes_of_an_image_share_its_forward_pass(tmp_path: Path) -> None:
    eb = digits_method(contrast_layer="auto")
    path = export_onnx(eb, tmp_path / "maps.onnx", shape=SHAPE, classes=2)
    check_in_runtime(eb, path, torch.rand(3, *SHAPE[1:]), TARGETS)


def test_the_graph_is_standard_and_says_what_it_computes(tmp_path: Path) -> None:
    eb = digits_method(contrast_layer="auto")
    model = onnx.load(export_onnx(eb, tmp_path / "maps.onnx", shape=SHAPE))
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", STANDARD_OPSET)]
    kinds = {node.op_type for node in model.graph.node}
    assert {"Conv", "Div", "ConvTranspose", "Mul", "MaxPool", "ScatterElements"} <= kinds
    assert {node.domain for node in model.graph.node} == {""}
    said = {item.key.rpartition(".")[2]: json.loads(item.value) for item in model.metadata_props}
    assert (said["layer"], said["contrast_layer"], said["rules"]) == ("pool1", eb.contrast_layer, "caffe")
    assert said["preprocess"] == eb.net.preprocess and said["labels"] == eb.net.labels
    weights = sum(param.numel() for node in eb.net.graph.nodes for param in node.params.values())
    stored = sum(np.prod(tensor.dims, dtype=int) for tensor in model.graph.initializer)
    assert stored < 1.1 * weights, "a weight and its positive part both stand in the file"


@pytest.mark.parametrize("rules", ["caffe", "conserving"])
def test_random_networks_agree_in_float64(rules: str, tmp_path: Path) -> None:
    checked = []

    @settings(max_examples=8, deadline=None, database=None, derandomize=True)
    @given(random_nets(rules))
    def agrees(drawn: RandomNet) -> None:
        if any(node.op == "resize" for node in drawn.graph.nodes):
            return
        eb = ebp_cuda.ExcitationBackprop(Net(drawn.graph), layer="image", rules=rules, dtype="fp64")
        path = export_onnx(eb, tmp_path / "maps.onnx", classes=2, batch=2)
        targets = TARGETS[:2].clamp(max=3)
        exported = in_float64(path, drawn.image, targets.numpy())
        wanted = eb.attribute(torch.from_numpy(drawn.image), targets).numpy()
        assert relative_l1(exported["maps"], wanted) <= 1e-9
        checked.append(drawn)

    agrees()
    assert len(checked) >= 4


class Block(nn.Module):
    """A residual block with squeeze and excite, as EfficientNets have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(3, 2, 1))
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.depthwise(x)
        return self.fc((x + y * self.gate(y)).relu().mean((2, 3)))


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_a_torch_module_with_the_parts_of_an_efficientnet(dtype: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 20, 20)
    net = ebp_cuda.from_torch(Block().eval(), x)
    eb = ebp_cuda.ExcitationBackprop(net, layer="stem", contrast_layer="auto", rules="conserving", dtype=dtype)
    path = export_onnx(eb, tmp_path / "maps.onnx")
    if dtype == "fp32":
        check_in_runtime(eb, path, x, TARGETS[:2, :1])
        return
    exported = in_float64(path, x.double().numpy(), TARGETS[:2, :1].numpy())
    assert relative_l1(exported["maps"], eb.attribute(x.double(), TARGETS[:2, :1]).numpy()) <= 1e-9


def small_net(*nodes: Node, shape: tuple[int | None, ...] = (None, 2, 6, 6)) -> Net:
    head = Node("fc", "conv", (nodes[-1].outputs[0],), ("y",), WINDOW, {"weight": torch.rand(3, 2, 1, 1)})
    return Net(Graph([*nodes, head], {"image": shape}, ("y",)))


WINDOW = {name: (1, 1) if name in ("stride", "dilation") else (0, 0) for name in ("stride", "padding", "padding_end")}
WINDOW |= {"dilation": (1, 1)}
SIGMOID = Node("act", "sigmoid", ("image",), ("a",))


@pytest.mark.usefixtures("tables_as_before")
def test_a_rule_of_ones_own_exports_without_a_line_of_onnx(tmp_path: Path) -> None:
    register_rule("sigmoid", "pass", rule_sets=["caffe"], needs="x")(
        lambda step, above: [only(above).times(step.inputs[0].cos())]
    )
    eb = ebp_cuda.ExcitationBackprop(small_net(SIGMOID), layer="image", rules="caffe", dtype="fp64")
    x = torch.rand(2, 2, 6, 6, dtype=torch.float64)
    exported = in_float64(export_onnx(eb, tmp_path / "maps.onnx"), x.numpy(), np.array([[0], [2]]))
    assert relative_l1(exported["maps"], eb.attribute(x, [0, 2]).numpy()) <= 1e-12


RESIZE = Node("up", "resize", ("image",), ("a",), {"mode": "linear", "scale": (2.0, 2.0)})
Refused = Callable[[Path], object]
REFUSALS: dict[str, tuple[Refused, str]] = {
    "an operator without a form": (
        lambda path: export_onnx(ebp_cuda.ExcitationBackprop(small_net(RESIZE), "image", rules="conserving"), path),
        "layer 'up'",
    ),
    "several layers": (
        lambda path: export_onnx(ebp_cuda.ExcitationBackprop(digits.load(), ["pool1", "conv1"]), path),
        "2 layers",
    ),
    "a rounded precision": (lambda path: export_onnx(digits_method(dtype="bf16"), path), "bf16"),
    "open sizes": (lambda path: export_onnx(digits_method(), path), r"input 'data' is \['N', 3, '\?', '\?'\]"),
    "sizes that do not fit": (lambda path: export_onnx(digits_method(), path, shape=(1, 4, 112, 112)), "4, 112"),
    "an unknown input": (lambda path: export_onnx(digits_method(), path, shape={"x": SHAPE}), "the inputs are data"),
    "no class": (lambda path: export_onnx(digits_method(), path, classes=0), "classes=0"),
}


@pytest.mark.parametrize("call, message", REFUSALS.values(), ids=REFUSALS)
def test_refused_by_name_and_nothing_written(call: Refused, message: str, tmp_path: Path) -> None:
    with pytest.raises(ebp_cuda.EBPError, match=message):
        call(tmp_path / "maps.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_method_computes_as_before_after_an_export(tmp_path: Path) -> None:
    eb, x = digits_method(contrast_layer="auto", rules="conserving"), torch.rand(2, *SHAPE[1:])
    before = eb.attribute(x, [1, 2])
    export_onnx(eb, tmp_path / "maps.onnx", shape=SHAPE)
    assert torch.equal(eb.attribute(x, [1, 2]), before)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "maps.onnx"
    flags = ["--model", digits.DEPLOY, "--weights", digits.WEIGHTS, "--layer", "pool1", "--shape", "1,3,112,112", "-o", out]
    monkeypatch.setattr(sys, "argv", ["ebp-cuda", "export", *map(str, flags)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code and onnx.load(out).graph.output[0].name == "maps"
