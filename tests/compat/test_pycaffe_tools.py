"""caffe.draw and caffe.coord_map."""

from __future__ import annotations

import shutil

import pytest
from google.protobuf import text_format

from ebp_cuda import InputError, UnsupportedError, caffe
from ebp_cuda.compat.pycaffe import NetSpec
from ebp_cuda.compat.pycaffe import layers as L
from ebp_cuda.compat.pycaffe.coord_map import coord_map_from_to, crop

PHASES = """
name: "two \\"phases\\""
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 7 kernel_size: 3 pad: 1 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_h: 2 kernel_w: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "pool" bottom: "data" top: "loss" include { phase: TRAIN } }
"""


def fully_convolutional(stages, pad):
    """VGG16's plan of pools, a classifier of 7 x 7, and an upsampling by 2 ** stages."""
    net = NetSpec()
    net.data = L.Input(shape={"dim": [1, 3, 500, 500]})
    x = L.ReLU(L.Convolution(net.data, num_output=4, kernel_size=3, pad=pad), in_place=True)
    for _ in range(stages):
        x = L.Pooling(L.Convolution(x, num_output=4, kernel_size=3, pad=1), kernel_size=2, stride=2)
    x = L.Dropout(L.Convolution(x, num_output=4, kernel_size=7), in_place=True)
    factor = 2**stages
    up = L.Deconvolution(x, convolution_param={"num_output": 4, "kernel_size": 2 * factor, "stride": factor})
    return net, x, up


def test_the_published_fully_convolutional_networks_crop_by_their_offsets():
    net, score, up = fully_convolutional(5, 100)
    cropped = crop(up, net.data)
    assert cropped.layer.kind == "Crop" and cropped.layer.bottoms == (up, net.data)
    assert cropped.layer.settings == {"crop_param": {"axis": 2, "offset": [19]}}  # that of fcn32s
    way = coord_map_from_to(score, net.data)
    assert (way.axis, way.scale) == (1, 32)
    net.score = cropped
    assert "offset: 19" in str(net.to_proto())


def test_a_crop_lies_over_what_it_was_made_for():
    data = L.Input(shape={"dim": [1, 1, 20, 20]})
    wide = L.Convolution(data, num_output=1, kernel_size=3, pad=4)  # its pixel 3 lies over pixel 0 of the data
    assert crop(wide, data).layer.settings["crop_param"] == {"axis": 2, "offset": [3]}
    assert crop(crop(wide, data), data).layer.settings["crop_param"]["offset"] == [0]
    dilated = L.Convolution(wide, num_output=1, kernel_size=3, dilation=2)
    assert crop(dilated, data).layer.settings["crop_param"]["offset"] == [1]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda data: (L.Convolution(data, kernel_size=3, stride=2), data), "one scale"),
        (lambda data: (L.Convolution(data, kernel_size=3), data), "offset of -1 pixels"),
        (lambda data: (L.Convolution(data, kernel_size=2, pad=1), data), r"offset of 0\.5 pixels"),
        (lambda data: (L.InnerProduct(data, num_output=3), data), "InnerProduct layer does not say"),
        (lambda data: (L.ReLU(data), L.Input(shape={"dim": [1]})), "no blob below them in common"),
        (lambda data: (L.Pooling(data, kernel_h=2, kernel_w=3), data), "height and width each"),
        (lambda data: (L.Convolution(data, kernel_size=[3, 5]), data), r"kernel_size \[3, 5\]"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(make, match):
    with pytest.raises((InputError, UnsupportedError), match=match):
        crop(*make(L.Input(shape={"dim": [1, 3, 9, 9]})))


def test_a_drawing_has_every_layer_and_blob_of_its_phase(tmp_path):
    message = text_format.Parse(PHASES, caffe.caffe_pb2.NetParameter())
    caffe.draw.draw_net_to_file(message, tmp_path / "net.dot", "TB", caffe.TEST)
    text = (tmp_path / "net.dot").read_text()
    assert text.startswith('digraph "two \\"phases\\"" {\nrankdir=TB;') and text.endswith("}\n")
    assert text.count("shape=octagon") == 3 and text.count("shape=box") == 3 and "loss" not in text
    assert 'layer1 -> "blob conv" [label="7"];' in text and '"blob conv" -> layer2;' in text
    assert r"pool\n(Pooling)\nAVE\nkernel size: 2 x 3" in text
    assert "SoftmaxWithLoss" in caffe.draw.draw_net(message, "LR", "dot").decode()
    with pytest.raises(InputError, match="rankdir 'up'"):
        caffe.draw.draw_net(message, "up", "dot")


@pytest.mark.skipif(shutil.which("dot") is not None, reason="Graphviz is installed")
def test_a_picture_without_graphviz_says_what_is_missing(tmp_path):
    message = text_format.Parse(PHASES, caffe.caffe_pb2.NetParameter())
    with pytest.raises(UnsupportedError, match=r"\.png needs Graphviz.*\.dot does not"):
        caffe.draw.draw_net_to_file(message, tmp_path / "net.png")
    assert not list(tmp_path.iterdir())


STAND_IN = """#!/bin/sh
[ "$1" = -Tnone ] && { echo 'Format: "none" not recognized' >&2; exit 1; }
echo "$1"; cat
"""


def test_a_picture_is_what_dot_makes_of_the_text(tmp_path, monkeypatch):
    program = tmp_path / "dot"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    message = text_format.Parse(PHASES, caffe.caffe_pb2.NetParameter())
    picture = tmp_path / "net.svg"
    caffe.draw.draw_net_to_file(message, picture, "BT")
    assert picture.read_text() == f"-Tsvg\n{caffe.draw.draw_net(message, 'BT', 'dot').decode()}"
    with pytest.raises(InputError, match="dot makes no 'none': Format"):
        caffe.draw.draw_net_to_file(message, tmp_path / "net.none")
    with pytest.raises(InputError, match="without an ending"):
        caffe.draw.draw_net_to_file(message, tmp_path / "net")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dot", "net.svg"]


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")
@pytest.mark.parametrize(("ext", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_graphviz_reads_the_text(ext, head):
    hostile = 'name: "a \\\\ <b> {c|d}" layer { name: "\\"q\\" -> r;" type: "ReLU" bottom: "x" top: "y}" }'
    for text in (PHASES, hostile):
        message = text_format.Parse(text, caffe.caffe_pb2.NetParameter())
        assert caffe.draw.draw_net(message, "LR", ext).startswith(head)
