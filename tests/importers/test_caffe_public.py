"""What prototxts that people published hold beyond the stock layers, and layers along the batch axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.caffe_nets import build, dims, layer, metadata, net, random, run

import ebp_cuda
from ebp_cuda.errors import ModelError, UnsupportedError
from ebp_cuda.importers import caffe
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.net import Net

IMAGE = (2, 3, 6, 8)
TRAIN = """
layer { name: "d" type: "Data" top: "x" top: "label" include { phase: TRAIN } transform_param { crop_size: 6 } }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 4 } }
layer { name: "anchors" type: "Python" bottom: "label" top: "a" python_param { module: "m" layer: "Anchors" } }
layer { name: "box" type: "SmoothL1LossOHEM" bottom: "fc" bottom: "a" top: "box" }
layer { name: "dice" type: "Python" bottom: "fc" bottom: "label" top: "dice" python_param { layer: "DiceLoss" } }
layer { name: "own" type: "Python" bottom: "fc" top: "own" loss_weight: 1 python_param { module: "m" layer: "Own" } }
layer { name: "map" type: "DetectionEvaluate" bottom: "fc" bottom: "label" top: "map" }
layer { name: "seen" type: "MultiLabelAccuracy" bottom: "fc" bottom: "label" top: "seen" }
"""


def test_what_only_trains_or_measures_is_left_out(tmp_path: Path) -> None:
    report = caffe.ImportReport()
    model = build(tmp_path, TRAIN, phase="TRAIN", report=report)
    assert [node.name for node in model.graph.node if node.op_type != "Flatten"] == ["fc"]
    assert dims(model.graph.input) == {"x": ["N", 3, 6, 6]}
    assert report.dropped == ["anchors", "box", "dice", "own", "map", "seen"]


def test_a_loss_that_the_network_reads_is_part_of_it(tmp_path: Path) -> None:
    text = net(IMAGE, layer("a", "SoftmaxWithLoss", bottoms="x x"), layer("y", "ReLU", bottoms="a"))
    with pytest.raises(UnsupportedError, match=r"layer 'a' \(SoftmaxWithLoss\): no translation"):
        build(tmp_path, text)


def test_a_blob_of_the_other_phase_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        build(tmp_path, TRAIN)
    assert "'fc' (InnerProduct) reads blob 'x', which no earlier layer writes in phase TEST" in str(caught.value)
    assert "layer 'd' does" in str(caught.value) and str(caught.value).endswith("--phase TRAIN) takes the other side")


def batch_norm(x: np.ndarray, mean: Any, var: Any, scale: Any, bias: Any) -> np.ndarray:
    plane = (np.asarray(part).reshape(-1, 1, 1) for part in (mean, var, scale, bias))
    mean, var, scale, bias = plane
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


@pytest.mark.parametrize(("param", "old"), [("", False), ("batch_norm_param { scale_bias: true }", False), ("", True)])
def test_batch_norm_with_scale_and_bias(tmp_path: Path, param: str, old: bool) -> None:
    rng = np.random.default_rng(0)
    mean, scale, bias = rng.standard_normal((3, 3)).astype(np.float32)
    var, factor = rng.uniform(0.5, 2, 3).astype(np.float32), np.float32([4])
    blobs = [scale, bias, 4 * mean, 4 * var, factor] if old else [4 * mean, 4 * var, factor, scale, bias]
    x = random(*IMAGE)
    model = build(tmp_path, net(IMAGE, layer("y", "BatchNorm", param)), {"y": blobs})
    wanted = batch_norm(x, mean, var, scale, bias)
    np.testing.assert_allclose(run(model, {"x": x})["y"], wanted, atol=1e-5)
    np.testing.assert_allclose(Net(load_onnx(model)).forward(x)["y"], wanted, atol=1e-5)


def test_batch_norm_starts_from_its_fillers(tmp_path: Path) -> None:
    param = "batch_norm_param { scale_bias: true scale_filler { value: 3 } bias_filler { value: 2 } filler {} }"
    x = random(*IMAGE)
    model = build(tmp_path, net(IMAGE, layer("y", "BatchNorm", param)))
    np.testing.assert_allclose(run(model, {"x": x})["y"], batch_norm(x, [0] * 3, [1] * 3, 3, 2), atol=1e-5)
    none = build(tmp_path, net(IMAGE, layer("y", "BatchNorm", "batch_norm_param { scale_bias: false }")))
    np.testing.assert_allclose(run(none, {"x": x})["y"], x, atol=1e-4)


def reorganized(x: np.ndarray, step: int, reverse: bool) -> np.ndarray:
    """Element by element: place (k, j, i) of the many channels is place (k % few, j', i') of the large plane."""
    n, c, h, w = x.shape
    few, large = c // step**2, (h * step, w * step)
    flat = x.reshape(n, -1)
    y = np.empty_like(flat)
    for k, j, i in np.ndindex(c, h, w):
        offset = k // few
        here = (k * h + j) * w + i
        there = ((k % few) * large[0] + j * step + offset // step) * large[1] + i * step + offset % step
        (y[:, there], y[:, here]) = (flat[:, here], y[:, here]) if reverse else (y[:, there], flat[:, there])
    return y.reshape((n, few, *large) if reverse else (n, c * step**2, h // step, w // step))


@pytest.mark.parametrize("reverse", [False, True])
def test_reorg(tmp_path: Path, reverse: bool) -> None:
    text = net((2, 8, 4, 6), layer("y", "Reorg", f"reorg_param {{ stride: 2 reverse: {str(reverse).lower()} }}"))
    x = random(2, 8, 4, 6)
    model = build(tmp_path, text)
    wanted = reorganized(x, 2, reverse)
    np.testing.assert_array_equal(run(model, {"x": x})["y"], wanted)
    engine = Net(load_onnx(model))
    np.testing.assert_array_equal(engine.forward(x)["y"], wanted)
    assert {row["caffe"] for row in engine.explain_support()} == {"move"}
    with pytest.raises(ModelError, match="stride 3 does not divide"):
        build(tmp_path, text.replace("stride: 2", "stride: 3"))


SIDES = "pad_t: 0 pad_b: 1 pad_l: 2 pad_r: 1"
PADDED = ((0, 0), (0, 0), (0, 1), (2, 1))


def windows(x: np.ndarray, low: float) -> np.ndarray:
    """3 x 3 windows at stride 2 over SIDES, as [N, C, H, W, 9]; `low` is what the padding holds."""
    view = np.lib.stride_tricks.sliding_window_view(np.pad(x, PADDED, constant_values=low), (3, 3), (2, 3))
    return view[:, :, ::2, ::2].reshape(*view[:, :, ::2, ::2].shape[:4], 9)


def test_sides_padded_one_by_one(tmp_path: Path) -> None:
    """As converters from TensorFlow write it."""
    x = random(*IMAGE)
    pool = f"pooling_param {{ pool: %s kernel_size: 3 stride: 2 ceil_mode: false {SIDES} }}"
    conv = f"convolution_param {{ num_output: 2 kernel_size: 3 stride: 2 bias_term: false {SIDES} }}"
    own = "pooling_param { pool: AVE_EXC_PAD kernel_size: 3 ceil_mode: false pad_t: 1 pad_b: 1 pad_l: 1 pad_r: 1 }"
    layers = [
        layer("c", "Convolution", conv),
        layer("m", "Pooling", pool % "MAX"),
        layer("a", "Pooling", pool % "AVE"),
        layer("e", "Pooling", own),
        layer("r", "ReLU", "relu_param { relu6: true }", "c"),
    ]
    weight = random(2, 3, 3, 3)
    model = build(tmp_path, net(IMAGE, *layers), {"c": [weight]})
    products = np.einsum("nihwk,oik->nohw", windows(x, 0), weight.reshape(2, 3, 9))
    wanted = {"c": products, "m": windows(x, -np.inf).max(-1), "a": windows(x, 0).mean(-1)}
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan), (3, 3), (2, 3)
    )
    wanted |= {"e": np.nanmean(around, (-2, -1)), "r": np.clip(products, 0, 6)}
    for got in (run(model, {"x": x}), Net(load_onnx(model)).forward(x, outputs=list(wanted))):
        for name, values in wanted.items():
            np.testing.assert_allclose(got[name], values, atol=1e-5, err_msg=name)
    up = layer("m", "Pooling", f"pooling_param {{ kernel_size: 3 stride: 2 {SIDES} }}")
    with pytest.raises(UnsupportedError, match="ceil_mode: false"):
        build(tmp_path, net(IMAGE, up))


def test_squeeze(tmp_path: Path) -> None:
    pool = layer("p", "Pooling", "pooling_param { pool: AVE global_pooling: true }")
    squeeze = layer("y", "Squeeze", "squeeze_param { axis: 2 axis: -1 }", "p")
    model, x = build(tmp_path, net(IMAGE, pool, squeeze)), random(*IMAGE)
    np.testing.assert_allclose(run(model, {"x": x})["y"], x.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(Net(load_onnx(model)).forward(x)["y"], x.mean((2, 3)), atol=1e-6)
    with pytest.raises(ModelError, match=r"axes \[1\] of a bottom of shape \[2, 3, 1, 1\]"):
        build(tmp_path, net(IMAGE, pool, squeeze.replace("axis: 2 axis: -1", "axis: 1")))


ALONG_THE_BATCH = {
    "Slice": (layer("s", "Slice", "slice_param { axis: 0 slice_point: 1 }", tops="y z"), lambda x: x[:1]),
    "Concat": (layer("y", "Concat", "concat_param { axis: 0 }", "x x"), lambda x: np.concatenate([x, x])),
    "Tile": (layer("y", "Tile", "tile_param { axis: 0 tiles: 3 }"), lambda x: np.tile(x, (3, 1, 1, 1))),
    "Reduction": (layer("y", "Reduction", "reduction_param { operation: MEAN }"), np.mean),
    "ArgMax": (layer("y", "ArgMax", "argmax_param { axis: 0 }"), lambda x: x.argmax(0)[None]),
    "Permute": (layer("y", "Permute", "permute_param { order: 1 order: 0 }"), lambda x: x.transpose(1, 0, 2, 3)),
}


@pytest.mark.parametrize("kind", ALONG_THE_BATCH)
def test_layers_along_the_batch_are_imported_and_have_no_rule(tmp_path: Path, kind: str) -> None:
    text, wanted = ALONG_THE_BATCH[kind]
    conv = layer("c", "Convolution", "convolution_param { num_output: 3 kernel_size: 1 }", tops="c")
    x = random(*IMAGE)
    model = build(tmp_path, net(IMAGE, conv, text.replace('bottom: "x"', 'bottom: "c"')))
    got = run(model, {"x": x})
    np.testing.assert_allclose(got["y"], wanted(got["c"]), rtol=1e-5, atol=1e-6)
    batch = dims(model.graph.input)["x"][0]
    assert batch == (2 if kind == "Slice" else "N")
    engine = Net(load_onnx(model))
    assert [row["missing"] for row in engine.explain_support()][-1] == "caffe rule, conserving rule"
    np.testing.assert_allclose(engine.forward(x, outputs=["y"])["y"], got["y"], rtol=1e-5, atol=1e-6)
    with pytest.raises(UnsupportedError, match=f"no 'caffe' rule for .*{kind}"):
        ebp_cuda.ExcitationBackprop(engine, layer="c", top="y").attribute(x, 0)


def test_the_sizes_of_the_file_are_shown(tmp_path: Path) -> None:
    conv = layer("c", "Convolution", "convolution_param { num_output: 3 kernel_size: 3 stride: 2 }")
    (tmp_path / "net.prototxt").write_text(net((1, 3, 33, 41), conv))
    caffe.import_file(tmp_path / "net.prototxt", None, tmp_path / "net.onnx")
    for source in ("net.prototxt", "net.onnx"):
        loaded = ebp_cuda.load(tmp_path / source)
        assert loaded.shapes()["c"] == (1, 3, 16, 20)
        assert "3x16x20" in loaded.summary()
    assert metadata(build(tmp_path, net((1, 3, 33, 41), conv)))["ebp_cuda.example_shapes"] == {"x": [1, 3, 33, 41]}


def test_volumes(tmp_path: Path) -> None:
    """Convolutions with three spatial axes, in ONNX and in the engine."""
    param = "convolution_param {{ num_output: 4 kernel_size: 3 kernel_size: 2 kernel_size: 1 stride: 2 {} }}"
    text = net(
        (2, 2, 6, 7, 8),
        layer("c", "Convolution", param.format("pad: 1 pad: 0 pad: 2")),
        layer("r", "ReLU", bottoms="c", tops="c"),
        layer("d", "Deconvolution", param.format("group: 2"), "c"),
        layer("y", "InnerProduct", "inner_product_param { num_output: 3 }", "d"),
    )
    model, x = build(tmp_path, text), np.abs(random(2, 2, 6, 7, 8))
    got, engine = run(model, {"x": x}), Net(load_onnx(model))
    assert got["c"].shape == (2, 4, 3, 3, 6) and got["d"].shape == (2, 4, 7, 6, 11)
    ours = engine.forward(x, outputs=["c", "d", "y"])
    for name in ours:
        np.testing.assert_allclose(ours[name], got[name], atol=1e-5)
    found = np.asarray(ebp_cuda.ExcitationBackprop(engine, layer="c", rules="conserving").relevance(x, 1))
    assert found.shape[-4:] == (4, 3, 3, 6)
    np.testing.assert_allclose(found.reshape(2, -1).sum(1), 1, atol=1e-4)
