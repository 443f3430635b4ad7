"""Pieces of networks that people hold, from Caffe's forks: imported, run, and explained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.caffe_nets import build, dims, layer, net, random, run

import ebp_cuda
from ebp_cuda import caffe as pycaffe
from ebp_cuda.errors import UnsupportedError
from ebp_cuda.importers import caffe
from ebp_cuda.importers.caffe import checking
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.net import Net

CONV = "convolution_param {{ num_output: {} kernel_size: {} pad: {} stride: {} {} }}"
BILINEAR = "group: 5 bias_term: false weight_filler { type: 'bilinear' }"
GLOBAL = "pooling_param { pool: AVE global_pooling: true }"


def conv(name: str, bottom: str, out: int, k: int = 1, pad: int = 0, stride: int = 1, more: str = "") -> list[str]:
    kind = "ConvolutionDepthwise" if "group" in more else "Convolution"
    return [
        layer(name, kind, CONV.format(out, k, pad, stride, more), bottom),
        layer(f"{name}/relu", "ReLU", bottoms=name, tops=name),
    ]


SENET = [
    *conv("c", "x", 8, 3, 1),
    layer("squeeze", "Pooling", GLOBAL, "c"),
    *conv("down", "squeeze", 2),
    layer("up", "Convolution", CONV.format(8, 1, 0, 1, ""), "down"),
    layer("gate", "Sigmoid", bottoms="up"),
    *conv("d", "c", 8, 3, 1),
    layer("se", "Axpy", "", "gate d c"),
    layer("pool", "Pooling", GLOBAL, "se"),
    layer("fc", "InnerProduct", "inner_product_param { num_output: 5 }", "pool"),
]
SHUFFLENET = [
    *conv("c", "x", 8, 3, 1),
    layer("shuffle", "ShuffleChannel", "shuffle_channel_param { group: 2 }", "c"),
    *conv("dw", "shuffle", 8, 3, 1, 2, "group: 8"),
    layer("pool", "Pooling", GLOBAL, "dw"),
    layer("fc", "Convolution", CONV.format(5, 1, 0, 1, ""), "pool"),
]
MOBILENET = [
    layer("c", "Convolution", CONV.format(8, 3, 1, 2, "bias_term: false"), "x"),
    layer("bn", "BatchNorm", "batch_norm_param { use_global_stats: true eps: 0.001 }", "c", "c"),
    layer("scale", "Scale", "scale_param { bias_term: true }", "c", "c"),
    layer("relu6", "ReLU6", bottoms="c", tops="c"),
    *conv("dw", "c", 8, 3, 1, 1, "group: 8"),
    layer("pool", "Pooling", GLOBAL, "dw"),
    layer("fc", "InnerProduct", "inner_product_param { num_output: 5 }", "pool"),
]
PSPNET = [
    *conv("c", "x", 8, 3, 1),
    layer("bn", "BN", "bn_param { frozen: true }", "c"),
    layer("p", "Pooling", "pooling_param { pool: AVE kernel_size: 5 stride: 5 }", "bn"),
    layer("up", "Interp", "", "p c"),
    layer("cat", "Concat", "", "c up"),
    *conv("d", "cat", 8, 3, 2, 1, "dilation: 2"),
    layer("zoom", "Interp", "interp_param { zoom_factor: 2 }", "d"),
    layer("pool", "Pooling", GLOBAL, "zoom"),
    layer("fc", "Convolution", CONV.format(5, 1, 0, 1, ""), "pool"),
]
SEGNET = [
    *conv("c", "x", 8, 3, 1),
    layer("p", "Pooling", "pooling_param { kernel_size: 2 stride: 2 }", "c", "p mask"),
    layer("up", "Upsample", "upsample_param { scale: 2 }", "p mask"),
    *conv("d", "up", 8, 3, 1),
    layer("pool", "Pooling", GLOBAL, "d"),
    layer("fc", "Convolution", CONV.format(5, 1, 0, 1, ""), "pool"),
]
FCN = [
    *conv("c", "x", 8, 3, 1),
    layer("p", "Pooling", "pooling_param { kernel_size: 2 stride: 2 }", "c"),
    layer("score", "Convolution", CONV.format(5, 1, 0, 1, ""), "p"),
    layer("up", "Deconvolution", CONV.format(5, 4, 0, 2, BILINEAR), "score"),
    layer("crop", "Crop", "crop_param { axis: 2 offset: 1 }", "up x"),
    layer("fc", "Pooling", GLOBAL, "crop"),
]
SSD = [
    *conv("c", "x", 8, 3, 1),
    layer("norm", "Normalize", "norm_param { across_spatial: false channel_shared: false }", "c"),
    layer("conf", "Convolution", CONV.format(12, 3, 1, 1, ""), "norm"),
    layer("perm", "Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", "conf"),
    layer("flat", "Flatten", "flatten_param { axis: 1 }", "perm"),
    layer("boxes", "Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 3 } }", "flat"),
    layer("soft", "Softmax", "softmax_param { axis: 2 }", "boxes"),
    layer("fc", "InnerProduct", "inner_product_param { num_output: 5 }", "soft"),
]
NETS = {
    "SENet": SENET, "ShuffleNet": SHUFFLENET, "MobileNet": MOBILENET, "PSPNet": PSPNET, "SegNet": SEGNET, "FCN": FCN,
    "SSD": SSD,
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_networks_of_forks_run_and_are_explained(tmp_path: Path, name: str) -> None:
    model = build(tmp_path, net((2, 3, 10, 12), *NETS[name]))
    x = np.abs(random(2, 3, 10, 12))
    engine = Net(load_onnx(model))
    values = [v for node in engine.graph.nodes for v in node.outputs if not v.endswith("@indices")]
    wanted, got = run(model, {"x": x}, values), engine.forward(x, outputs=values)
    for value in values:
        np.testing.assert_allclose(got[value].numpy(), wanted[value], atol=1e-5 * np.abs(wanted[value]).max())
    assert not [row for row in engine.explain_support() if row["conserving"] is None]
    method = ebp_cuda.ExcitationBackprop(engine, layer="c", rules="conserving", top="fc")
    maps = method.attribute(x, [[0, 3], [1, 4]])
    # only SegNet's way up has places that belong to no place below
    least = 0.2 if name == "SegNet" else 1 - 1e-4
    assert maps.shape == (2, 2, 10, 12) or name == "MobileNet"
    assert float(maps.min()) >= 0 and least < float(maps.sum((2, 3)).min()) <= float(maps.sum((2, 3)).max()) < 1 + 1e-4


@pytest.mark.parametrize(("name", "kind"), [("SENet", "Mul"), ("PSPNet", "Interp"), ("SSD", "Normalize")])
def test_the_original_has_no_rule_for_them(tmp_path: Path, name: str, kind: str) -> None:
    engine = Net(load_onnx(build(tmp_path, net((1, 3, 10, 12), *NETS[name]))))
    assert {row["missing"] for row in engine.explain_support() if row["type"] == kind} == {"caffe rule"}
    with pytest.raises(UnsupportedError, match="no 'caffe' rule for"):
        ebp_cuda.ExcitationBackprop(engine, layer="c", top="fc").attribute(np.ones((1, 3, 10, 12), np.float32), 0)


@pytest.mark.parametrize(
    "data",
    [
        'name: "d" type: "Python" top: "x" top: "label" python_param { module: "voc" layer: "Voc" }',
        'name: "d" type: "DenseImageData" top: "x" top: "label" dense_image_data_param { source: "f" }',
        'name: "d" type: "AnnotatedData" top: "x" top: "label" annotated_data_param { batch_sampler { max: 1 } }',
    ],
)
def test_data_layers_of_forks_become_inputs(tmp_path: Path, data: str) -> None:
    loss = layer("loss", "SoftmaxWithLoss", bottoms="y label")
    text = "\n".join(f"layer {{ {text} }}" for text in (data, layer("y", "ReLU"), loss))
    model = build(tmp_path, text, input_shapes={"x": (1, 3, 5, 5)})
    assert dims(model.graph.input) == {"x": ["N", 3, "H", "W"]}


@pytest.mark.parametrize("kind", checking._REASONS)
def test_what_has_no_translation_says_why(kind: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        checking.check(caffe.parse_net(net((1, 2), layer("y", kind))), ignore_unknown=False)
    assert f"prototxt:2: layer 'y' ({kind}): no translation for this type: " in str(caught.value)


STORED, BATCH = (f"batch_norm_param {{ use_global_stats: {value} }}" for value in ("true", "false"))


@pytest.mark.parametrize(
    ("kind", "param", "phase", "takes_the_batchs"),
    [
        ("BatchNorm", "", "TEST", False),
        ("BatchNorm", "", "TRAIN", True),
        ("BatchNorm", STORED, "TRAIN", False),
        ("BatchNorm", BATCH, "TEST", True),
        ("BN", "", "TEST", False),
        ("BN", "", "TRAIN", True),
        ("BN", "bn_param { frozen: true }", "TRAIN", False),
        ("BN", "bn_param { bn_mode: INFERENCE }", "TRAIN", False),
    ],
)
def test_statistics_of_the_batch_are_refused_unless_the_stored_ones_will_do(
    tmp_path: Path, kind: str, param: str, phase: str, takes_the_batchs: bool
) -> None:
    text, report = net((2, 3, 4, 4), layer("y", kind, param)), caffe.ImportReport()
    x = random(2, 3, 4, 4)
    stored = run(build(tmp_path, text, phase=phase, stored_statistics=True, report=report), {"x": x})["y"]
    np.testing.assert_allclose(stored, x, rtol=1e-4)  # mean 0, variance 1
    assert report.batch_statistics == ["y"] * takes_the_batchs
    number = {"TEST": pycaffe.TEST, "TRAIN": pycaffe.TRAIN}[phase]
    if takes_the_batchs:
        for load in (lambda **o: build(tmp_path, text, phase=phase, **o),
                     lambda **o: pycaffe.Net(tmp_path / "net.prototxt", number, **o)):  # fmt: skip
            with pytest.raises(
                UnsupportedError, match=rf"'y' \({kind}\).*statistics of the batch.*stored_statistics=True"
            ):
                load()
    else:
        build(tmp_path, text, phase=phase)
    face = pycaffe.Net(tmp_path / "net.prototxt", number, stored_statistics=takes_the_batchs)
    np.testing.assert_allclose(face.forward(x=x)["y"], x, rtol=1e-4)


def test_dummy_data_has_a_shape_for_every_top() -> None:
    old = "num: 2 num: 4 channels: 3 height: 5 width: 6 width: 7"
    new = "shape { dim: 2 dim: 3 dim: 5 dim: 6 } shape { dim: 4 dim: 3 dim: 5 dim: 7 }"
    for param in (old, new):
        text = f'layer {{ name: "d" type: "DummyData" top: "x" top: "z" dummy_data_param {{ {param} }} }}'
        read = caffe.parse_net(f"{text} layer {{ {layer('y', 'ReLU')} }} layer {{ {layer('w', 'ReLU', bottoms='z')} }}")
        assert read.inputs == {"x": (2, 3, 5, 6), "z": (4, 3, 5, 7)}


def test_v1_layers_of_forks_have_the_later_settings(tmp_path: Path) -> None:
    text = (
        'input: "x" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4 '
        'layers { name: "y" type: PRELU bottom: "x" top: "y" prelu_param { channel_shared: true } }'
    )
    x = random(1, 3, 4, 4)
    np.testing.assert_allclose(run(build(tmp_path, text), {"x": x})["y"], np.where(x > 0, x, 0.25 * x), rtol=1e-6)
