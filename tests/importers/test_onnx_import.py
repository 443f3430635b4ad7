"""ONNX files as torch's exporter writes them, and files that are none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import ebp_cuda
from ebp_cuda import ModelError, UnsupportedError

WARNS = pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations


class Model(nn.Module):
    """Layers that exporters write differently: a residual sum, a gate, slices, and four ways to a vector."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.ending = ending
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish(), nn.AvgPool2d(2, 2, ceil_mode=True),
        )  # fmt: skip
        self.gate, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        x = x + torch.sigmoid(self.gate(x))
        x = torch.cat([x[:, 4:], x[:, :4]], 1)
        pooled = nn.functional.adaptive_avg_pool2d(x, 1)
        vector = {
            "mean": lambda: x.mean((2, 3)),
            "flatten": lambda: pooled.flatten(1),
            "view": lambda: pooled.view(2, -1),
            "squeeze": lambda: pooled.squeeze(-1).squeeze(-1),
        }[self.ending]()
        return self.head(nn.functional.dropout(vector, 0.5, self.training))


@WARNS
@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("ending", ["mean", "flatten", "view", "squeeze"])
def test_exported_models_compute_and_conserve(ending, opset, tmp_path):
    torch.manual_seed(0)
    model, x, path = Model(ending).eval(), torch.rand(2, 3, 30, 30), tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), path, dynamo=False, input_names=["image"], output_names=["y"], opset_version=opset)
    net = ebp_cuda.load(path)
    torch.testing.assert_close(net.forward(x)["y"], model(x).detach(), rtol=1e-5, atol=1e-6)
    maps = ebp_cuda.ExcitationBackprop(net, net.graph.nodes[0].name, rules="conserving").attribute(x, [1, 4])
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(2, 1), rtol=0, atol=1e-5)


def small_model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    shape = [None, 3, 4, 4]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_every_unknown_operator_is_named(tmp_path):
    nodes = [helper.make_node("Det", ["x"], ["a"], name="one"), helper.make_node("STFT", ["a"], ["y"], name="two")]
    with pytest.raises(
        UnsupportedError, match=r"no importer for 'one' \(Det of opset 17\), 'two' \(STFT of opset 17\)"
    ):
        _load(small_model(*nodes), tmp_path)


def _load(model: onnx.ModelProto, folder) -> ebp_cuda.Net:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return ebp_cuda.load(path)


def test_a_weight_that_the_graph_computes_is_refused(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["v"]), helper.make_node("Conv", ["x", "v"], ["y"], name="c")]
    with pytest.raises(UnsupportedError, match=r"node 'c' \(Conv, opset 17\): its weight is computed by the graph"):
        _load(small_model(*nodes), tmp_path)


def test_a_missing_input_is_named(tmp_path):
    nodes = [helper.make_node("Conv", ["xx", "w"], ["y"], name="c")]
    with pytest.raises(ModelError, match=r"layer 'c' \(Conv\) reads 'xx', which no earlier layer writes; nearest: x"):
        _load(small_model(*nodes), tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12\x04test"])
def test_a_file_that_is_no_model(content, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        ebp_cuda.load(path)


def test_a_truncated_model(tmp_path):
    whole = small_model(helper.make_node("Conv", ["x", "w"], ["y"], name="c")).SerializeToString()
    for size in range(1, len(whole), 7):
        path = tmp_path / "cut.onnx"
        path.write_bytes(whole[:size])
        with pytest.raises(ebp_cuda.EBPError):
            ebp_cuda.load(path)


def test_files_of_other_kinds(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        ebp_cuda.load(tmp_path / "none.onnx")
    (tmp_path / "net.pth").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"wanted a \.onnx file, or a \.prototxt"):
        ebp_cuda.load(tmp_path / "net.pth")


def test_options_belong_to_prototxts(tmp_path):
    with pytest.raises(ebp_cuda.InputError, match="complete in itself; weights, phase was given as well"):
        ebp_cuda.load(tmp_path / "net.onnx", tmp_path / "w.caffemodel", phase="TEST")
