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

pytestmark = pytest.mark.filterwarnings("ignore::ebp_cuda.ShareWarning")
SHAPE = (1, 3, 112, 112)
STANDARD_OPSET = 18
IMAGES = 6


def digits_method(**options: object) -> ebp_cuda.ExcitationBackprop:
    return ebp_cuda.ExcitationBackprop(digits.load(), layer="pool1", **options)


def some_images(*shape: int) -> torch.Tensor:
    return torch.rand(IMAGES, *shape, generator=torch.Generator().manual_seed(1))


def some_targets(images: int, columns: int, classes: int = 10) -> torch.Tensor:
    return (torch.arange(images * columns) * 3 % classes).reshape(images, columns)


def check_in_runtime(eb: ebp_cuda.ExcitationBackprop, path: Path, x: torch.Tensor, targets: torch.Tensor) -> None:
    """MWP to 1e-5; c-MWP, a small difference, to 1e-6 of the mass that it came from.

    Where two numbers of a max pool are as good as equal, two float32 kernels may see two winners, and what went to one
    pixel goes to its neighbor. The package's own float32 maps differ from its float64 ones by that in half of these
    images, so a third of them must meet the bounds, and the others a hundred times those. The tests in float64 hold the
    graph itself to 1e-9.
    """
    result, exported = eb.run(x, targets), in_runtime(path, x.numpy(), targets.numpy())
    for name, wanted in (("scores", result.scores), ("mass_left", result.mass_left)):
        np.testing.assert_allclose(exported[name], wanted.numpy(), rtol=1e-3, atol=1e-5)
    assert exported["maps"].shape == tuple(result.maps.shape)
    errors = relative_l1(exported["maps"], result.maps.numpy()).max(1)
    allowed = 1e-5 if eb.contrast_layer is None else np.maximum(1e-5, 1e-6 / result.mass_left.numpy().min(1))
    assert (errors <= allowed).sum() >= IMAGES // 3 and (errors <= 100 * allowed).all(), errors


@pytest.mark.parametrize("contrast", [None, "auto"], ids=["MWP", "c-MWP"])
@pytest.mark.parametrize("rules", ["caffe", "conserving"])
def test_digits_in_onnx_runtime_for_another_number_of_images(rules: str, contrast: str | None, tmp_path: Path) -> None:
    eb, images = digits_method(rules=rules, contrast_layer=contrast), some_images(*SHAPE[1:])
    before = eb.attribute(images[:1], 4)
    path = export_onnx(eb, tmp_path / "maps.onnx", shape=SHAPE)
    assert torch.equal(eb.attribute(images[:1], 4), before), "the export changed the method"
    check_in_runtime(eb, path, images, some_targets(IMAGES, 1))


def test_several_classes_in_a_standard_graph_that_says_what_it_computes(tmp_path: Path) -> None:
    eb = digits_method(contrast_layer="auto")
    path = export_onnx(eb, tmp_path / "maps.onnx", shape=SHAPE, classes=2)
    check_in_runtime(eb, path, some_images(*SHAPE[1:]), some_targets(IMAGES, 2))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", STANDARD_OPSET)]
    kinds = {node.op_type for node in model.graph.node}
    assert {"Conv", "Div", "ConvTranspose", "Mul", "MaxPool", "ScatterElements"} <= kinds
    assert {node.domain for node in model.graph.node} == {""}
    said = {item.key.rpartition(".")[2]: json.loads(item.value) for item in model.metadata_props}
    assert (said["layer"], said["contrast_layer"], said["rules"]) == ("pool1", eb.contrast_layer, "caffe")
    assert (said.get("preprocess"), said.get("labels")) == (eb.net.preprocess, eb.net.labels)
    weights = sum(param.numel() for node in eb.net.graph.nodes for param in node.params.values())
    stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
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
        targets = some_targets(2, 2, classes=4)
        exported = in_float64(path, drawn.image, targets.numpy())
        wanted = eb.attribute(torch.from_numpy(drawn.image), targets).numpy()
        assert relative_l1(exported["maps"], wanted).max() <= 1e-9
        checked.append(drawn)

    agrees()
    assert len(checked) >= 4


class Block(nn.Module):
    """A residual block with squeeze and excite, as EfficientNets have them."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(3, 2, 1))
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
    x, targets = some_images(3, 20, 20), some_targets(IMAGES, 1)
    net = ebp_cuda.from_torch(Block().eval(), x)
    (image,) = net.graph.inputs
    eb = ebp_cuda.ExcitationBackprop(net, layer=image, contrast_layer="auto", rules="conserving", dtype=dtype)
    path = export_onnx(eb, tmp_path / "maps.onnx")
    if dtype == "fp32":
        check_in_runtime(eb, path, x, targets)
        return
    exported = in_float64(path, x.double().numpy(), targets.numpy())
    assert relative_l1(exported["maps"], eb.attribute(x.double(), targets).numpy()).max() <= 1e-9


WINDOW = {"stride": (1, 1), "padding": (0, 0), "padding_end": (0, 0), "dilation": (1, 1)}
SIGMOID = Node("act", "sigmoid", ("image",), ("a",))
RESIZE = Node("up", "resize", ("image",), ("a",), {"mode": "linear", "scale": (2.0, 2.0)})


def small_net(node: Node) -> Net:
    head = Node("fc", "conv", node.outputs, ("y",), WINDOW, {"weight": torch.rand(3, 2, 1, 1)})
    return Net(Graph([node, head], {"image": (None, 2, 6, 6)}, ("y",)))


@pytest.mark.usefixtures("tables_as_before")
def test_a_rule_of_ones_own_exports_without_a_line_of_onnx(tmp_path: Path) -> None:
    register_rule("sigmoid", "pass", rule_sets=["caffe"], needs="x")(
        lambda step, above: [only(above).times(step.inputs[0].cos())]
    )
    eb = ebp_cuda.ExcitationBackprop(small_net(SIGMOID), layer="image", rules="caffe", dtype="fp64")
    x = torch.rand(2, 2, 6, 6, dtype=torch.float64)
    exported = in_float64(export_onnx(eb, tmp_path / "maps.onnx"), x.numpy(), np.array([[0], [2]]))
    assert relative_l1(exported["maps"], eb.attribute(x, [0, 2]).numpy()).max() <= 1e-12


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


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "maps.onnx"
    flags = ["--model", "digits", "--layer", "pool1", "--shape", "1,3,112,112", "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["ebp-cuda", "export", *flags])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code and onnx.load(out).graph.output[0].name == "maps"
