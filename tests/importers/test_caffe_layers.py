"""Caffe layers in ONNX: output sizes at every input size, and the layers that the original's measurements leave out."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.caffe_nets import BLOCK, MODEL, build, dims, layer, net, ort, random, run

from ebp_cuda.importers import caffe
from ebp_cuda.importers.caffe.layers.pooling import LOWEST


def caffe_pool(x: np.ndarray, method: str, kernel: int, stride: int, pad: int) -> np.ndarray:
    """Caffe's pooling of one square plane, restated: windows, their clipping, and its divisor."""
    n = x.shape[-1]
    count = ceil((n + 2 * pad - kernel) / stride) + 1
    if pad and (count - 1) * stride >= n + pad:
        count -= 1
    result = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            top, left = i * stride - pad, j * stride - pad
            window = x[..., max(top, 0) : top + kernel, max(left, 0) : left + kernel]
            if method == "MAX":
                result[i, j] = window.max() if window.size else LOWEST
            else:
                # without padding a window may lie outside; Caffe then divides 0 by an area of 0 or below, and we by 0
                area = (min(top + kernel, n + pad) - top) * (min(left + kernel, n + pad) - left)
                result[i, j] = window.sum() / area if window.size else np.nan
    return result


GEOMETRIES = [(k, s, p) for k in (1, 2, 3, 4, 5) for s in (1, 2, 3) for p in range(min(k, 3))]


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(("kernel", "stride", "pad"), GEOMETRIES)
def test_pooling_is_caffes_at_sizes_it_was_not_imported_for(
    tmp_path: Path, method: str, kernel: int, stride: int, pad: int
) -> None:
    param = f"pooling_param {{ pool: {method} kernel_size: {kernel} stride: {stride} pad: {pad} }}"
    model = build(tmp_path, net((1, 1, 16, 16), layer("y", "Pooling", param)))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(kernel * 9 + stride * 3 + pad)
    for n in range(kernel, kernel + 2 * stride + 3):
        x = rng.standard_normal((1, 1, n, n)).astype(np.float32)
        (got,) = session.run(None, {"x": x})
        wanted = caffe_pool(x[0, 0], method, kernel, stride, pad)
        np.testing.assert_allclose(got[0, 0], wanted, rtol=1e-5, atol=1e-6, err_msg=f"size {n}")
        inferred = caffe.infer_shapes(caffe.read_net(tmp_path / "net.prototxt"), {"x": x.shape})
        assert inferred["y"] == got.shape


@pytest.mark.parametrize("n", [9, 14, 15])
def test_pooling_may_round_down(tmp_path: Path, n: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, n, n)).astype(np.float32)
    for method, pool in (("MAX", torch.max_pool2d), ("AVE", torch.nn.functional.avg_pool2d)):
        param = f"pooling_param {{ pool: {method} kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR }}"
        got = run(build(tmp_path, net((1, 2, 8, 8), layer("y", "Pooling", param))), {"x": x})["y"]
        np.testing.assert_allclose(got, pool(torch.from_numpy(x), 3, 2, 1).numpy(), atol=1e-6)


def test_a_convolutional_net_runs_at_any_size(tmp_path: Path) -> None:
    model = caffe.to_onnx(BLOCK, MODEL / "inception_block.caffemodel")
    assert dims(model.graph.input) == {"data": ["N", 3, "H", "W"]}
    assert dims(model.graph.output) == {"fc": ["N", 6, "", ""]}
    read = caffe.read_net(BLOCK)
    for shape in ((1, 3, 30, 44), (3, 3, 47, 29)):
        got = run(model, {"data": np.ones(shape, np.float32)})
        for value, wanted in caffe.infer_shapes(read, {"data": shape}).items():
            assert value == "data" or got[value].shape == wanted


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ([layer("y", "InnerProduct", "inner_product_param { num_output: 4 }")], ["N", 3, 8, 6]),
        (
            [
                layer("p", "Pooling", "pooling_param { pool: AVE global_pooling: true }"),
                layer("y", "InnerProduct", "inner_product_param { num_output: 4 }", "p"),
            ],
            ["N", 3, "H", "W"],
        ),
        ([layer("y", "Scale", "scale_param { axis: 1 num_axes: -1 }")], ["N", 3, 8, 6]),
        ([layer("y", "Flatten", "flatten_param { axis: 1 end_axis: 2 }")], ["N", 3, 8, 6]),
        ([layer("y", "Reshape", "reshape_param { shape { dim: 0 dim: 3 dim: 4 dim: 12 } }")], ["N", 3, 8, 6]),
        ([layer("y", "Reshape", "reshape_param { shape { dim: 2 dim: 3 dim: 4 dim: 12 } }")], [2, 3, 8, 6]),
        ([layer("y", "Slice", "slice_param { axis: 2 slice_point: 3 }", tops="y z")], ["N", 3, 8, 6]),
        ([layer("y", "Slice", "slice_param { slice_point: 1 }", tops="y z")], ["N", 3, "H", "W"]),
    ],
)
def test_axes_are_open_where_no_number_depends_on_them(tmp_path: Path, layers: list[str], wanted: list[Any]) -> None:
    model = build(tmp_path, net((2, 3, 8, 6), *layers))
    assert dims(model.graph.input) == {"x": wanted}
    batch, shape = 2 if wanted[0] == 2 else 5, [n if isinstance(n, int) else 11 for n in wanted[1:]]
    got = run(model, {"x": np.ones((batch, *shape), np.float32)})
    inferred = caffe.infer_shapes(caffe.read_net(tmp_path / "net.prototxt"), {"x": (batch, *shape)})
    assert {value: array.shape for value, array in got.items() if value in inferred} == {
        value: s for value, s in inferred.items() if value != "x"
    }


def test_inputs_of_different_sizes_have_symbols_of_their_own(tmp_path: Path) -> None:
    text = (
        'input: "a" input: "b" input_shape { dim: 1 dim: 1 dim: 4 dim: 4 } input_shape { dim: 1 dim: 1 dim: 8 dim: 4 }'
    )
    pool = "pooling_param { kernel_h: 2 kernel_w: 1 stride_h: 2 stride_w: 1 }"
    two = [layer("y", "Pooling", pool, "b"), layer("z", "ReLU", "", "a")]
    model = build(tmp_path, "\n".join([text, *(f"layer {{ {x} }}" for x in two)]))
    assert dims(model.graph.input) == {"a": ["N", 1, "H", "W"], "b": ["N", 1, "H_b", "W"]}


@pytest.mark.parametrize(("kernel", "stride", "pad", "group"), [(4, 2, 1, 1), (3, 3, 0, 2), (2, 1, 1, 4)])
def test_deconvolution(tmp_path: Path, kernel: int, stride: int, pad: int, group: int) -> None:
    weight, bias, x = random(4, 8 // group, kernel, kernel), random(8), random(2, 4, 5, 6)
    param = f"num_output: 8 kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
    text = net(x.shape, layer("y", "Deconvolution", f"convolution_param {{ {param} }}"))
    wanted = torch.conv_transpose2d(*map(torch.from_numpy, (x, weight, bias)), stride, pad, 0, group).numpy()
    got = run(build(tmp_path, text, {"y": [weight, bias]}), {"x": x})["y"]
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert caffe.infer_shapes(caffe.parse_net(text), {"x": x.shape})["y"] == wanted.shape


@pytest.mark.parametrize("axis", [2, 3, -1])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_inner_product_behind_a_later_axis(tmp_path: Path, axis: int, transpose: bool, with_bias: bool) -> None:
    x = random(2, 3, 4, 5)
    rows = x.reshape(*x.shape[: axis % 4], -1)
    weight, bias = random(7, rows.shape[-1]), random(7) if with_bias else np.zeros(7, np.float32)
    stored = [weight.T if transpose else weight, *([bias] if with_bias else [])]
    param = f"num_output: 7 axis: {axis} transpose: {transpose} bias_term: {with_bias}".lower()
    text = net(x.shape, layer("y", "InnerProduct", f"inner_product_param {{ {param} }}"))
    got = run(build(tmp_path, text, {"y": stored}), {"x": x})["y"]
    np.testing.assert_allclose(got, rows @ weight.T + bias, atol=1e-5)


@pytest.mark.parametrize("coeff", [(1, -1), (0.5, 2, 3), (1, 1, 1)])
def test_eltwise_with_coefficients(tmp_path: Path, coeff: Sequence[float]) -> None:
    x, names = random(2, 3, 4, 4), [f"s{i}" for i in range(len(coeff))]
    parts = [layer(name, "Power", f"power_param {{ scale: {i + 1} shift: 0.25 }}") for i, name in enumerate(names)]
    param = " ".join(f"coeff: {factor}" for factor in coeff)
    total = layer("y", "Eltwise", f"eltwise_param {{ {param} }}", " ".join(names))
    model = build(tmp_path, net(x.shape, *parts, total))
    wanted = sum(factor * (0.25 + (i + 1) * x) for i, factor in enumerate(coeff))
    np.testing.assert_allclose(run(model, {"x": x})["y"], wanted, atol=1e-5)
    assert model.graph.node[-1].op_type == {2: "Eltwise", 3: "Sum" if coeff == (1, 1, 1) else "Eltwise3"}[len(coeff)]


def test_lrn_within_a_channel(tmp_path: Path) -> None:
    x = random(1, 2, 6, 7)
    param = "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.7 beta: 0.6 k: 5 }"
    got = run(build(tmp_path, net(x.shape, layer("y", "LRN", param))), {"x": x})["y"]
    mean = torch.nn.functional.avg_pool2d(torch.from_numpy(x) ** 2, 3, 1, 1).numpy()
    np.testing.assert_allclose(got, x / (1 + 0.7 * mean) ** 0.6, atol=1e-6)


def test_slice_concat_and_explicit_split(tmp_path: Path) -> None:
    x = random(2, 6, 3, 3)
    text = net(
        x.shape,
        layer("s", "Slice", "slice_param { slice_point: 1 slice_point: 3 }", tops="a b c"),
        layer("d", "Split", bottoms="b", tops="b1 b2"),
        layer("y", "Concat", "concat_param { axis: -3 }", bottoms="c b1 b2 a"),
        layer("h", "Slice", tops="h1 h2 h3"),
    )
    got = run(build(tmp_path, text), {"x": x})
    np.testing.assert_array_equal(got["y"], np.concatenate([x[:, 3:], x[:, 1:3], x[:, 1:3], x[:, :1]], 1))
    np.testing.assert_array_equal(got["h2"], x[:, 2:4])


@pytest.mark.parametrize(
    ("param", "shape"),
    [
        ("axis: 1 shape { dim: -1 }", (2, 60)),
        ("axis: -1 shape { dim: 1 }", (2, 3, 4, 5, 1)),
        ("axis: 1 num_axes: 1 shape { dim: 3 dim: 1 }", (2, 3, 1, 4, 5)),
        ("axis: 2 num_axes: 0 shape { dim: 1 }", (2, 3, 1, 4, 5)),
    ],
)
def test_reshape_of_a_part_of_the_axes(tmp_path: Path, param: str, shape: tuple[int, ...]) -> None:
    x = random(2, 3, 4, 5)
    text = net(x.shape, layer("y", "Reshape", f"reshape_param {{ {param} }}"))
    np.testing.assert_array_equal(run(build(tmp_path, text), {"x": x})["y"], x.reshape(shape))


@pytest.mark.parametrize("shared", [False, True])
def test_prelu_slopes(tmp_path: Path, shared: bool) -> None:
    x, slope = random(2, 3, 4, 4), np.float32(0.3) if shared else np.float32([0.1, 0.2, 0.3])
    text = net(x.shape, layer("y", "PReLU", f"prelu_param {{ channel_shared: {str(shared).lower()} }}"))
    got = run(build(tmp_path, text, {"y": [slope]}), {"x": x})["y"]
    np.testing.assert_allclose(got, np.where(x > 0, x, x * slope.reshape(-1, 1, 1)), rtol=1e-6)


def test_scale_over_several_axes(tmp_path: Path) -> None:
    x, scale, bias = random(2, 3, 4, 5), random(3, 4), random(3, 4)
    text = net(x.shape, layer("y", "Scale", "scale_param { axis: 1 num_axes: 2 bias_term: true }"))
    got = run(build(tmp_path, text, {"y": [scale, bias]}), {"x": x})["y"]
    np.testing.assert_allclose(got, x * scale[:, :, None] + bias[:, :, None], rtol=1e-6)


def test_a_batch_norm_factor_of_zero_means_no_statistics(tmp_path: Path) -> None:
    x = random(2, 3, 4, 5)
    text = net(x.shape, layer("y", "BatchNorm", "batch_norm_param { eps: 0.25 }"))
    got = run(build(tmp_path, text, {"y": [np.ones(3), np.ones(3), np.zeros(1)]}), {"x": x})["y"]
    np.testing.assert_allclose(got, 2 * x, rtol=1e-6)
