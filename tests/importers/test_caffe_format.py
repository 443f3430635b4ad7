"""Caffe's files read and written: prototxt in its formats, phases, blob versions, weights, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from support.caffe_nets import layer, net
from support.golden_data import GOLDEN, load, under

import ebp_cuda
from ebp_cuda import caffe as pycaffe
from ebp_cuda.errors import InputError, ModelError, UnsupportedError
from ebp_cuda.importers import caffe
from ebp_cuda.importers.caffe import wire
from ebp_cuda.importers.caffe.upgrade import v1_type

MODEL = GOLDEN / "caffemodel"
BLOCK = MODEL / "inception_block.prototxt"

TRAIN_VAL = """
name: "train_val"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 20 mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.5 }
  data_param { batch_size: 7 } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 16 mean_value: 104 mean_value: 117 mean_value: 123 } data_param { batch_size: 5 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" include { phase: TRAIN } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 6 } }
layer { name: "parts" type: "Slice" bottom: "label" top: "l1" top: "l2" slice_param { axis: 0 slice_point: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "l1" top: "loss" }
layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "l1" top: "acc" exclude { phase: TRAIN } }
layer { name: "rest" type: "Silence" bottom: "l2" }
"""


def test_phases_keep_the_layers_that_their_rules_name() -> None:
    test, train = caffe.parse_net(TRAIN_VAL, "TEST"), caffe.parse_net(TRAIN_VAL, "TRAIN")
    assert [layer.name for layer in test.kept()] == ["conv", "relu", "fc"]
    assert [layer.name for layer in train.kept()] == ["conv", "relu", "drop", "fc"]
    assert [layer.name for layer in test.layers if layer.dropped] == ["parts", "loss", "acc", "rest"]
    assert (test.inputs, train.inputs) == ({"data": (5, 3, 16, 16)}, {"data": (7, 3, 20, 20)})
    assert test.outputs() == train.outputs() == ["fc"]
    assert test.versions["conv"] == ["conv@conv", "conv"]
    assert train.versions["conv"] == ["conv@conv", "conv@relu", "conv"]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("", True),
        ("include { phase: TEST }", True),
        ("include { phase: TRAIN }", False),
        ("include { phase: TRAIN } include { min_level: 1 max_level: 3 }", True),
        ("include { min_level: 3 }", False),
        ("include { stage: 'deploy' stage: 'x' }", False),
        ("include { stage: 'deploy' not_stage: 'x' }", True),
        ("exclude { stage: 'deploy' }", False),
        ("exclude { max_level: 1 }", True),
    ],
)
def test_include_and_exclude_rules(rule: str, kept: bool) -> None:
    text = f"""state {{ level: 2 stage: "deploy" }} input: "x" input_shape {{ dim: 1 dim: 2 }}
        layer {{ name: "a" type: "ReLU" bottom: "x" top: "a" }}
        layer {{ name: "b" type: "TanH" bottom: "x" top: "b" {rule} }}"""
    assert ("b" in [layer.name for layer in caffe.parse_net(text).kept()]) is kept


def test_inputs_in_their_three_spellings() -> None:
    relu = 'layer { name: "r" type: "ReLU" bottom: "b" top: "r" } layer { name: "s" type: "ReLU" bottom: "a" top: "s" }'
    fields = 'input: "a" input: "b" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 '
    fields += "input_dim: 5 input_dim: 6 input_dim: 7 input_dim: 8 "
    shapes = (
        'input: "a" input: "b" input_shape { dim: 1 dim: 2 dim: 3 dim: 4 } input_shape { dim: 5 dim: 6 dim: 7 dim: 8 }'
    )
    layer = """layer { name: "data" type: "Input" top: "a" top: "b"
        input_param { shape { dim: 1 dim: 2 dim: 3 dim: 4 } shape { dim: 5 dim: 6 dim: 7 dim: 8 } } }"""
    for text in (fields, shapes, layer):
        assert caffe.parse_net(text + relu).inputs == {"a": (1, 2, 3, 4), "b": (5, 6, 7, 8)}


def test_an_input_overwritten_in_place_keeps_its_name() -> None:
    net = caffe.parse_net(
        """input: "x" input_shape { dim: 1 dim: 2 } layer { name: "r" type: "ReLU" bottom: "x" top: "x" }
        layer { name: "t" type: "TanH" bottom: "x" top: "y" }"""
    )
    assert list(net.inputs) == ["x"]
    assert net.versions["x"] == ["x", "x@r"]
    assert net.layers[2].inputs == ["x@r"]


@pytest.mark.parametrize("name", ["split_fanout3", "eltwise_sum_self", "mini_inception", "bn_scale_relu_inplace"])
def test_split_blobs_have_the_original_names(name: str) -> None:
    blobs = {key for key in under(load(f"tiny/{name}.npz"), "fwd/") if "_split_" in key}
    splits = caffe.split_blob_names(caffe.read_net(GOLDEN / "tiny" / f"{name}.prototxt"))
    assert {blob for _, blob in splits.values()} == blobs


def test_a_loss_weight_reads_a_blob_first() -> None:
    net = caffe.parse_net(
        """input: "x" input_shape { dim: 1 dim: 2 } layer { name: "r" type: "ReLU" bottom: "x" top: "y" loss_weight: 1 }
        layer { name: "t" type: "TanH" bottom: "y" top: "z" }"""
    )
    assert caffe.split_blob_names(net) == {("t", 0): ("y", "y_r_0_split_1")}


def test_v1_layers_are_upgraded() -> None:
    net = caffe.read_net(MODEL / "v1.prototxt")
    golden = load("caffemodel/v1.npz")
    wanted = [
        (name, kind)
        for name, kind in zip(golden["layer_names"].tolist(), golden["layer_types"].tolist(), strict=True)
        if kind != "Split"
    ]
    assert [(layer.name, layer.type) for layer in net.layers] == wanted
    assert net.inputs == {"data": (2, 3, 20, 17)}
    assert (v1_type("MULTINOMIAL_LOGISTIC_LOSS"), v1_type("HDF5_DATA")) == ("MultinomialLogisticLoss", "HDF5Data")


def test_listing_names_layers_types_and_blobs() -> None:
    first = caffe.network_layers(BLOCK)[:3]
    assert first == [
        {"name": "input", "type": "Input", "bottoms": [], "tops": ["data"]},
        {"name": "c0", "type": "Convolution", "bottoms": ["data"], "tops": ["c0"]},
        {"name": "r0", "type": "ReLU", "bottoms": ["c0"], "tops": ["c0"]},
    ]


@pytest.mark.parametrize(
    ("weights", "golden"),
    [
        ("inception_block.caffemodel", "inception_block"),
        ("inception_block.caffemodel.h5", "inception_block"),
        ("v1.caffemodel", "v1"),
        ("v1_upgraded.caffemodel", "v1"),
    ],
)
def test_weights_are_read_bit_by_bit(weights: str, golden: str) -> None:
    if weights.endswith(".h5"):
        pytest.importorskip("h5py")
    found = caffe.read_weights(MODEL / weights)
    params = under(load(f"caffemodel/{golden}.npz"), "param/")
    assert sum(map(len, found.values())) == len(params)
    for key, wanted in params.items():
        layer, index = key.rsplit("/", 1)
        blob = found[layer][int(index)]
        assert blob.fits(wanted.shape)
        np.testing.assert_array_equal(blob.data.reshape(wanted.shape), wanted)
    assert any(blob.legacy for blobs in found.values() for blob in blobs) is (weights == "v1.caffemodel")


def test_legacy_shapes_fit_as_caffe_compares_them() -> None:
    blob = caffe.WeightBlob(np.zeros((1, 1, 2, 3), np.float32), (1, 1, 2, 3), legacy=True)
    assert blob.fits((2, 3)) and blob.fits((1, 2, 3)) and blob.fits((1, 1, 2, 3))
    assert not blob.fits((3, 2)) and not blob.fits((6,)) and not blob.fits((1, 1, 1, 2, 3))
    assert not caffe.WeightBlob(blob.data, blob.shape, legacy=False).fits((2, 3))


def test_a_written_caffemodel_is_what_caffe_wrote(tmp_path: Path) -> None:
    params = under(load("caffemodel/inception_block.npz"), "param/")
    weights: dict[str, list[np.ndarray]] = {}
    for key, array in params.items():
        weights.setdefault(key.rsplit("/", 1)[0], []).append(array)
    path = tmp_path / "w.caffemodel"
    caffe.write_caffemodel(path, BLOCK.read_text(), weights)
    assert [p.name for p in tmp_path.iterdir()] == ["w.caffemodel"]
    wanted = caffe.NetParameter.FromString((MODEL / "inception_block.caffemodel").read_bytes())
    theirs = {layer.name: layer.blobs for layer in wanted.layer if layer.blobs}
    ours = caffe.NetParameter.FromString(path.read_bytes())
    assert {layer.name: list(layer.blobs) for layer in ours.layer if layer.blobs} == {
        name: list(blobs) for name, blobs in theirs.items()
    }


def test_a_blob_may_come_unpacked_or_as_doubles(tmp_path: Path) -> None:
    dims = wire.bytes_field(7, wire.bytes_field(1, bytes([2])))
    numbers = np.array([1.5, -2.0], "<f4")
    unpacked = b"".join(bytes([5 << 3 | wire.FIXED32]) + number.tobytes() for number in numbers)
    doubles = wire.bytes_field(8, numbers.astype("<f8").tobytes())
    halves = wire.bytes_field(5, numbers[:1].tobytes()) + wire.bytes_field(5, numbers[1:].tobytes())
    for data in (unpacked, doubles, halves):
        layer = wire.bytes_field(1, b"fc") + wire.bytes_field(7, dims + data)
        path = tmp_path / "w.caffemodel"
        path.write_bytes(wire.bytes_field(100, layer))
        np.testing.assert_array_equal(caffe.read_weights(path)["fc"][0].data, numbers)


def test_every_truncation_is_refused_or_misses_layers(tmp_path: Path) -> None:
    whole = (MODEL / "inception_block.caffemodel").read_bytes()
    complete = caffe.read_weights(MODEL / "inception_block.caffemodel")
    path = tmp_path / "cut.caffemodel"
    refused = 0
    for size in range(1, len(whole), 997):
        path.write_bytes(whole[:size])
        try:
            found = caffe.read_weights(path)
        except ModelError as error:
            refused += 1
            assert str(path) in str(error)
        else:
            assert len(found) < len(complete)
    assert refused > 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x00" * 64, "no caffemodel"),
        (b"layer { name: 'x' }", "no caffemodel"),
        (b"\x0a\x03net", "holds no layers"),
        (b"\x89HDF\r\n\x1a\n" + b"\x00" * 100, "HDF5"),
        (bytes(range(256)) * 8, "no caffemodel"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64, "Git LFS pointer"),
        (b"\n <!DOCTYPE html><html><body>Virus scan warning</body></html>", "HTML page"),
        (b'name: "net"\nlayer { name: "ip" blobs { data: 1 } }\n', "text caffemodel"),
        (b"\n\n# weights\nlayers { }", "text caffemodel"),
        (gzip.compress(b"\xa2\x06", mtime=0), "gzip archive (.gz); unpack it first"),
        (bz2.compress(b"\xa2\x06"), "bzip2 archive"),
        (b"PK\x03\x04" + b"\x00" * 40, "zip archive, or what torch.save writes"),
        (pickle.dumps({"ip": [1.0]}), "Python pickle"),
        (b"\x93NUMPY\x01\x00", "NumPy array"),
    ],
)
def test_garbage_is_no_weights_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.caffemodel"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(str(path))) as error:
        caffe.read_weights(path)
    assert message in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x0a\x03net"])
def test_a_network_without_parameters_takes_an_empty_weights_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.caffemodel").write_bytes(content)
    (tmp_path / "net.prototxt").write_text(net((1, 3, 4, 4), layer("y", "ReLU")))
    loaded = ebp_cuda.load(tmp_path / "net.prototxt", tmp_path / "w.caffemodel")
    assert loaded.forward(-np.ones((1, 3, 4, 4)))["y"].max() == 0
    assert pycaffe.Net(tmp_path / "net.prototxt", tmp_path / "w.caffemodel", pycaffe.TEST).outputs == ["y"]
    learns = layer("y", "InnerProduct", "inner_product_param { num_output: 2 }")
    (tmp_path / "net.prototxt").write_text(net((1, 3), learns))
    with pytest.raises(ModelError, match=r"w\.caffemodel: empty, or without layers"):
        ebp_cuda.load(tmp_path / "net.prototxt", tmp_path / "w.caffemodel", allow_missing=True)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"), (b"<html></html>", "HTML page")],
)
def test_what_lies_in_place_of_a_prototxt_is_named(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "net.prototxt").write_bytes(content)
    with pytest.raises(ModelError, match=rf"net\.prototxt: an? {kind}.*wanted a text prototxt"):
        caffe.read_net(tmp_path / "net.prototxt")


def test_a_blob_shorter_than_its_shape_is_named(tmp_path: Path) -> None:
    blob = wire.bytes_field(7, wire.bytes_field(1, bytes([3]))) + wire.bytes_field(5, np.zeros(2, "<f4").tobytes())
    path = tmp_path / "w.caffemodel"
    path.write_bytes(wire.bytes_field(100, wire.bytes_field(1, b"fc8") + wire.bytes_field(7, blob)))
    with pytest.raises(ModelError, match=r"layer 'fc8', blob 0: shape \[3\] wants 3 numbers, the file holds 2"):
        caffe.read_weights(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for read in (caffe.read_net, caffe.read_weights):
        with pytest.raises(ModelError, match=r"nothing\.here"):
            read(tmp_path / "nothing.here")
    with pytest.raises(ModelError, match="swapped"):
        caffe.read_net(MODEL / "v1.caffemodel")


RELU = 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'
INPUT = 'input: "x" input_shape { dim: 1 dim: 2 } '


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (INPUT, ModelError, "no layers"),
        (INPUT + "layer {", ModelError, "prototxt:1:"),
        (INPUT + "\n\n" + 'layer { name: 3 type: "ReLU" }', ModelError, "prototxt:3:"),
        (INPUT + RELU + RELU.replace("layer", "layers"), ModelError, "prototxt:1:"),
        (INPUT + RELU + "layers { type: RELU }", ModelError, "both `layer` and `layers`"),
        (INPUT + 'layers { layer { name: "c" type: "convo" } }', UnsupportedError, "V0 type 'convo'; nearest: conv"),
        (INPUT + 'layers { layer { type: "relu" } } layers { type: RELU }', ModelError, "V0 and V1 in one file"),
        (INPUT + RELU.replace('"x"', '"xx"'), ModelError, "layer 'r' (ReLU) reads blob 'xx'"),
        (INPUT + RELU + RELU, ModelError, "writes blob 'y', which layer 'r' has written"),
        ('input: "x" input_dim: 1 input_dim: 2 ' + RELU, ModelError, "1 inputs but 2 input_dim"),
        ('input: "x" input: "z" input: "w" ' + INPUT[11:] * 2 + RELU, ModelError, "3 inputs but 2 input_shape"),
        (
            INPUT + RELU.replace("top", "include { phase: TEST } exclude { phase: TRAIN } top"),
            ModelError,
            "both include and exclude",
        ),
    ],
)
def test_what_a_prototxt_may_not_say(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        caffe.parse_net(text)


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(InputError, match="phase 'test'"):
        caffe.parse_net(INPUT + RELU, "test")


def test_unknown_fields_and_odd_encodings_are_read_over(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    extra = 'top: "y" new_param { a: 1 b { c: "d" } }'
    path.write_bytes(b"\xef\xbb\xbf# \xb5\xc4\n" + (INPUT + RELU.replace('top: "y"', extra)).encode())
    assert [layer.name for layer in caffe.read_net(path).kept()] == ["r"]


def test_weights_of_no_layer_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weights of 'c00', .* nearest: c0"):
        caffe.write_caffemodel(tmp_path / "w", BLOCK.read_text(), {"c00": [np.zeros(1)]})
    assert not list(tmp_path.iterdir())


def test_a_damaged_hdf5_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    whole = (MODEL / "inception_block.caffemodel.h5").read_bytes()
    path = tmp_path / "w.h5"
    for damaged in (whole[:5000], whole.replace(b"TREE", b"tree"), whole.replace(b"data\0", b"date\0")):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=re.escape(str(path))):
            caffe.read_weights(path)
