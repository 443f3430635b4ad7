"""What a prototxt holds that no schema knows, importing around it, and the oldest format."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.caffe_nets import build, dims, layer, metadata, net, random, run
from typer.testing import CliRunner

from ebp_cuda.cli import app
from ebp_cuda.errors import InputError, ModelError, UnsupportedError
from ebp_cuda.importers import caffe

IMAGE = (1, 3, 8, 8)
FORK = """name: "fork"
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
lucky_number: 7   # a field of the net
layer {
  name: "conv"  type: "Convolution"  bottom: "data"  top: "conv"
  param { lr_mult: 1 freeze_until: 10 }
  convolution_param {
    num_output: 4 kernel_size: 3
    weight_filler { type: "msra" sparsity { deep { deeper: [1, 2] } } }
  }
}
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 pool: MEDIAN
    dice: "}\\"{" 'and more' } }
layer { name: "roi" type: "ROIPooling" bottom: "pool" top: "roi" roi_pooling_param { pooled_w: 6 } }
layer { name: "own" type: "Python" bottom: "conv" top: "own" python_param { module: "mine" layer: "Thing" } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "relu" }
"""


def save(folder: Path, text: str) -> Path:
    path = folder / "net.prototxt"
    path.write_text(text)
    return path


def test_everything_unknown_is_reported_at_once(tmp_path: Path) -> None:
    path, report = save(tmp_path, FORK), caffe.ImportReport()
    with pytest.raises(UnsupportedError) as caught:
        caffe.to_onnx(path, report=report)
    message = str(caught.value)
    for line, text in [
        (12, "layer 'pool' (Pooling): unknown value 'MEDIAN' of pooling_param.pool"),
        (13, "layer 'pool' (Pooling): unknown field pooling_param.dice"),
        (14, "layer 'roi' (ROIPooling): no translation for this type: its regions come from outside the network"),
        (15, "layer 'own' (Python): it runs Python code, mine.Thing, which is not in the file"),
    ]:
        assert f"{path}:{line}: {text}" in message
    assert "roi_pooling_param" not in message, "a type without a translation says it all"
    assert "freeze_until" not in message and "sparsity" not in message, "training says nothing about the forward pass"
    assert message.endswith("does not depend on these layers: relu")
    assert report.unknown[0] == f"{path}:3: unknown field lucky_number"
    assert f"{path}:6: layer 'conv': unknown field param.freeze_until" in report.unknown
    assert f"{path}:9: layer 'conv': unknown field convolution_param.weight_filler.sparsity" in report.unknown
    assert len(report.unknown) == 6


def test_what_does_not_depend_on_it_is_imported(tmp_path: Path) -> None:
    report = caffe.ImportReport()
    model = build(tmp_path, FORK, outputs=["relu", "conv"], report=report)
    assert [value.name for value in model.graph.output] == ["relu", "conv"]
    assert {item["name"] for item in metadata(model)["ebp_cuda.layers"]} == {"input", "conv", "relu"}
    x = random(*IMAGE)
    got = run(model, {"data": x})
    np.testing.assert_array_equal(got["relu"], np.maximum(got["conv"], 0))


def test_unknown_fields_can_be_ignored_and_types_cannot(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        build(tmp_path, FORK, ignore_unknown=True)
    assert "MEDIAN" not in str(caught.value) and "(ROIPooling)" in str(caught.value)
    model = build(tmp_path, FORK, ignore_unknown=True, outputs=["pool"])
    assert [node.op_type for node in model.graph.node] == ["Conv", "MaxPool"]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [(["rellu"], "no blob or layer 'rellu'; nearest: relu"), (["data"], "nothing computes 'data'")],
)
def test_outputs_that_there_are_not(tmp_path: Path, outputs: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        caffe.to_onnx(save(tmp_path, FORK), outputs=outputs)


def test_outputs_leave_other_inputs_and_weights_alone(tmp_path: Path) -> None:
    text = (
        'input: "x" input: "z" input_shape { dim: 2 dim: 3 } input_shape { dim: 2 dim: 5 } '
        f"layer {{ {layer('a', 'InnerProduct', 'inner_product_param { num_output: 2 }')} }}"
        f"layer {{ {layer('b', 'InnerProduct', 'inner_product_param { num_output: 2 }', 'z')} }}"
    )
    weights = {"a": [random(2, 3), random(2)], "b": [random(2, 5), random(2)]}
    report = caffe.ImportReport()
    model = build(tmp_path, text, weights, outputs=["a"], report=report)
    assert dims(model.graph.input) == {"x": ["N", 3]} and not report.unused
    assert {tensor.name for tensor in model.graph.initializer} == {"a/0", "a/1"}


def test_deeply_nested_text_is_read_over(tmp_path: Path) -> None:
    deep = "extra { a: 1 " * 100_000 + "}" * 100_000
    model = build(tmp_path, net(IMAGE, layer("y", "ReLU"), layer("z", "ReLU", deep)), outputs=["y"])
    assert len(model.graph.node) == 1
    with pytest.raises(ModelError, match="not a Caffe network"):
        caffe.parse_net("layer { name: " + "{" * 100_000)


def test_the_settings_of_training_files_are_known(tmp_path: Path) -> None:
    """What Caffe's own schema has is no news, though it says nothing about the forward pass."""
    text = """
    layer { name: "d" type: "Data" top: "x" top: "l" transform_param { crop_size: 9 mirror: true mean_file: "m" }
      data_param { source: "s" batch_size: 4 backend: LMDB prefetch: 2 rand_skip: 1 } }
    layer { name: "y" type: "InnerProduct" bottom: "x" top: "y" param { lr_mult: 1 share_mode: PERMISSIVE }
      inner_product_param { num_output: 2 weight_filler { type: "xavier" variance_norm: AVERAGE } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "l" top: "loss" loss_weight: 1
      loss_param { ignore_label: 255 normalization: VALID } }
    layer { name: "hinge" type: "HingeLoss" bottom: "y" bottom: "l" top: "hinge" hinge_loss_param { norm: L2 } }
    layer { name: "out" type: "HDF5Output" bottom: "y" bottom: "l" hdf5_output_param { file_name: "o" } }
    """
    report = caffe.ImportReport()
    model = build(tmp_path, text, report=report)
    assert not report.unknown and [value.name for value in model.graph.output] == ["y"]


V0 = """name: "oldest"
layers { layer { name: "data" type: "data" source: "db" batchsize: 4 cropsize: 9 } top: "data" top: "label" }
layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "data" top: "pad" }
layers {
  layer { name: "conv" type: "conv" num_output: 4 kernelsize: 5 stride: 2 group: 1 biasterm: true
    weight_filler { type: "gaussian" std: 0.1 } blobs_lr: 1 blobs_lr: 2 }
  bottom: "pad" top: "conv"
}
layers { layer { name: "relu" type: "relu" } bottom: "conv" top: "conv" }
layers { layer { name: "pool" type: "pool" pool: AVE kernelsize: 3 stride: 2 } bottom: "conv" top: "pool" }
layers { layer { name: "norm" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.5 } bottom: "pool" top: "norm" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.3 } bottom: "norm" top: "norm" }
layers { layer { name: "ip" type: "innerproduct" num_output: 3 } bottom: "norm" top: "ip" }
layers { layer { name: "prob" type: "softmax" } bottom: "ip" top: "prob" }
layers { layer { name: "loss" type: "softmax_loss" } bottom: "ip" bottom: "label" }
"""
CURRENT = """
input: "data" input_shape { dim: 4 dim: 3 dim: 9 dim: 9 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 5 stride: 2 pad: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" lrn_param { local_size: 3 alpha: 0.1 beta: 0.5 } }
layer { name: "ip" type: "InnerProduct" bottom: "norm" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def test_the_oldest_format_is_the_same_network(tmp_path: Path) -> None:
    weights = {"conv": [random(4, 3, 5, 5), random(4)], "ip": [random(3, 16), random(3)]}
    wanted = build(tmp_path, CURRENT, weights)
    path = save(tmp_path, V0)
    # a caffemodel of that time: V0 layers in V1 entries, blobs with the four old axes
    old = caffe.parse_prototxt(V0)
    for entry in old.layers:
        for array in weights.get(entry.layer.name, ()):
            sizes = (1,) * (4 - array.ndim) + array.shape
            names = ("num", "channels", "height", "width")
            entry.layer.blobs.add(data=array.ravel(), **dict(zip(names, sizes, strict=True)))
    (tmp_path / "old.caffemodel").write_bytes(old.SerializeToString())
    model = caffe.to_onnx(path, tmp_path / "old.caffemodel")
    x = random(2, 3, 9, 9)
    np.testing.assert_array_equal(run(model, {"data": x})["prob"], run(wanted, {"data": x})["prob"])
    assert dims(model.graph.input)["data"] == ["N", 3, 9, 9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (V0.replace('"relu" }', '"rely" }'), "layer 'relu': V0 type 'rely'; nearest: relu"),
        (V0.replace('type: "pool"', 'type: "lrn"').replace('"pad" top: "conv"', '"data" top: "conv"')
         .replace('bottom: "conv" top: "pool"', 'bottom: "pad" top: "pool"'), "reads padding"),
    ],
)  # fmt: skip
def test_what_the_oldest_format_may_not_say(text: str, message: str) -> None:
    with pytest.raises((ModelError, UnsupportedError), match=message):
        caffe.parse_net(text)


def test_v1_types_of_forks_keep_their_names() -> None:
    text = 'input: "x" input_shape { dim: 1 } layers { name: "a" type: PRELU bottom: "x" top: "a" }'
    assert [entry.type for entry in caffe.parse_net(text).kept()] == ["PReLU"]
    assert [entry.type for entry in caffe.parse_net(text.replace("PRELU", "ROI_POOLING")).kept()] == ["RoiPooling"]


def test_the_command_line_imports_around_and_takes_shapes(tmp_path: Path) -> None:
    path, out = save(tmp_path, FORK), tmp_path / "net.onnx"
    result = CliRunner().invoke(app, ["import", str(path), "-o", str(out), "--outputs", "relu,conv"])
    assert result.exit_code == 0 and out.exists(), result.output
    assert f"unknown to the format: {path}:3: unknown field lucky_number" in result.output
    out.unlink()
    result = CliRunner().invoke(app, ["import", str(path), "-o", str(out)])
    assert isinstance(result.exception, UnsupportedError) and not out.exists()
    data = f'layer {{ name: "d" type: "Data" top: "x" }} layer {{ {layer("y", "ReLU")} }}'
    command = ["import", str(save(tmp_path, data)), "-o", str(out), "--input-shape", "x=1,3,9,7"]
    assert CliRunner().invoke(app, command).exit_code == 0
    result = CliRunner().invoke(app, [*command[:-1], "x=1,3,9,seven"])
    assert re.search("wanted NAME=N,C,H,W", str(result.exception))
