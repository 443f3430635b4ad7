"""Layers with several bottoms and tops, with none, and along other axes: Caffe's values, or a refusal by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.caffe_nets import build, layer, net, random, run

import ebp_cuda
from ebp_cuda import caffe as pycaffe
from ebp_cuda.errors import EBPError, ModelError, ShapeError, UnsupportedError
from ebp_cuda.importers import caffe

F = torch.nn.functional
WEIGHTS = {"y": [random(4, 3, 3, 2, seed=1), random(4, seed=2)]}
CONVOLUTION = "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 }"


def everywhere(folder: Path, text: str, feeds: dict[str, np.ndarray], weights=None) -> list[dict[str, np.ndarray]]:
    """The outputs by ONNX Runtime, by the engine and by the pycaffe face."""
    model = build(folder, text, weights)
    names = [value.name for value in model.graph.output]
    files = [folder / "net.prototxt", *([folder / "net.caffemodel"] if weights else [])]
    loaded = ebp_cuda.load(*files).forward(feeds)
    face = pycaffe.Net(*files, pycaffe.TEST)
    for name, array in feeds.items():
        face.blobs[name].data[...] = array
    face.forward()
    return [
        run(model, feeds, names),
        {name: tensor.numpy() for name, tensor in loaded.items()},
        {name: face.blobs[name].data for name in names},
    ]


def test_a_convolution_of_several_bottoms_uses_one_weight_for_all(tmp_path: Path) -> None:
    x, z = random(2, 3, 6, 5), random(2, 3, 6, 5, seed=3)
    inputs = 'input: "x" input: "z" input_shape { dim: 2 dim: 3 dim: 6 dim: 5 }\n'
    text = f"{inputs}layer {{ {layer('y', 'Convolution', CONVOLUTION, 'x z', 'p q')} }}"
    weight, bias = map(torch.from_numpy, WEIGHTS["y"])
    for got in everywhere(tmp_path, text, {"x": x, "z": z}, WEIGHTS):
        for name, bottom in (("p", x), ("q", z)):
            np.testing.assert_allclose(got[name], F.conv2d(torch.from_numpy(bottom), weight, bias), atol=1e-5)


def test_an_edit_of_the_weight_reaches_every_pair_of_bottom_and_top(tmp_path: Path) -> None:
    lines = [layer("z", "Power", "power_param { scale: 2 }"), layer("y", "Convolution", CONVOLUTION, "x z", "p q")]
    (tmp_path / "net.prototxt").write_text("force_backward: true\n" + net((1, 3, 6, 5), *lines))
    face = pycaffe.Net(tmp_path / "net.prototxt", pycaffe.TEST)
    x = random(1, 3, 6, 5)
    face.params["y"][1].data[...] = 0
    before = {name: array.copy() for name, array in face.forward(x=x).items()}
    face.params["y"][0].data[...] *= 3
    after = face.forward()
    for name in "pq":
        np.testing.assert_allclose(after[name], 3 * before[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after["q"], 2 * after["p"], rtol=1e-4, atol=1e-5)
    weight = torch.from_numpy(face.params["y"][0].data.copy())
    face.backward(p=np.ones((1, 4, 4, 4)), q=np.ones((1, 4, 4, 4)))
    gradient = F.conv_transpose2d(torch.ones(1, 4, 4, 4), weight)
    np.testing.assert_allclose(face.blobs["x"].diff, 3 * gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("rest", "ends", "error", "match"),
    [
        (CONVOLUTION, ("x x", "p"), ModelError, "2 bottoms and 1 tops"),
        (CONVOLUTION, ("x small", "p q"), ShapeError, r"'small' has shape \[1, 3, 6, 4\]; wanted \[1, 3, 6, 5\]"),
        ("convolution_param { num_output: 1 kernel_size: 1 axis: 0 }", ("x", "p"), UnsupportedError, "channel axis 0"),
        (
            "convolution_param { num_output: 1 kernel_size: 1 axis: 3 }",
            ("x", "p"),
            ShapeError,
            "wanted 1 to 2 axes behind",
        ),
        ("convolution_param { num_output: 1 kernel_size: 1 axis: 4 }", ("x", "p"), ModelError, "axis 4"),
    ],
)
def test_what_no_convolution_is(tmp_path: Path, rest: str, ends: tuple[str, str], error: type, match: str) -> None:
    shapes = [f"input_shape {{ dim: 1 dim: 3 dim: 6 dim: {width} }}" for width in (5, 4)]
    inputs = f'input: "x" input: "small" {" ".join(shapes)}'
    with pytest.raises(error, match=match):
        build(tmp_path, f"{inputs}\nlayer {{ {layer('y', 'Convolution', rest, *ends)} }}")


@pytest.mark.parametrize("axis", [2, 3, -2])
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_a_convolution_along_a_later_axis_takes_those_before_it_as_images(tmp_path: Path, axis: int, kind: str) -> None:
    x = random(2, 3, 4, 5, 6)
    axis_of_five = axis % 5
    channels, plane = x.shape[axis_of_five], x.shape[axis_of_five + 1 :]
    weight = random(*((4, channels) if kind == "Convolution" else (channels, 4)), *[3] * len(plane), seed=1)
    folded = torch.from_numpy(x.reshape(-1, channels, *plane))
    name = f"conv{'' if kind == 'Convolution' else '_transpose'}{len(plane)}d"
    wanted = getattr(F, name)(folded, torch.from_numpy(weight), torch.from_numpy(random(4, seed=2)), stride=2)
    wanted = wanted.reshape(*x.shape[:axis_of_five], *wanted.shape[1:])
    param = f"convolution_param {{ num_output: 4 kernel_size: 3 stride: 2 axis: {axis} }}"
    text = net(x.shape, layer("y", kind, param))
    for got in everywhere(tmp_path, text, {"x": x}, {"y": [weight, random(4, seed=2)]}):
        np.testing.assert_allclose(got["y"], wanted, atol=1e-5)


def test_relevance_goes_through_a_convolution_along_a_later_axis(tmp_path: Path) -> None:
    x = np.abs(random(2, 2, 3, 6, 5))
    lines = [
        layer("y", "Convolution", CONVOLUTION.replace("}", "axis: 2 }")),
        layer("r", "ReLU", bottoms="y", tops="y"),
    ]
    ip = layer("ip", "InnerProduct", "inner_product_param { num_output: 3 }", "y")
    weights = {**WEIGHTS, "ip": [random(3, 2 * 4 * 4 * 4, seed=4), random(3, seed=5)]}
    build(tmp_path, net(x.shape, *lines, ip), weights)
    loaded = ebp_cuda.load(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    got = ebp_cuda.ExcitationBackprop(loaded, "x").relevance(x, 1)[:, 0]
    weight, top = (torch.from_numpy(weights[name][0]).double().clamp(min=0) for name in ("y", "ip"))
    signed, bias = (torch.from_numpy(array).double() for array in WEIGHTS["y"])
    images = torch.from_numpy(x).double().reshape(4, 3, 6, 5)
    y = F.conv2d(images, signed, bias).relu().reshape(2, -1)
    p = (y * top[1] / (y @ top[1])[:, None]).reshape(4, 4, 4, 4)
    p = p * (y.reshape(p.shape) > 0)
    z = F.conv2d(images, weight)
    wanted = images * F.conv_transpose2d(torch.where(z > 0, p / z, torch.zeros_like(z)), weight)
    np.testing.assert_allclose(got, wanted.reshape(x.shape), atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_product_of_many_bottoms(tmp_path: Path, count: int) -> None:
    shape = (2, 3, 4, 5)
    lines = [layer(f"b{i}", "Power", f"power_param {{ scale: {i + 1} shift: 0.5 }}") for i in range(count)]
    bottoms = " ".join(f"b{i}" for i in range(count))
    text = net(shape, *lines, layer("y", "Eltwise", "eltwise_param { operation: PROD }", bottoms))
    x = random(*shape)
    wanted = np.prod([(i + 1) * x + 0.5 for i in range(count)], axis=0)
    for got in everywhere(tmp_path, text, {"x": x}):
        np.testing.assert_allclose(got["y"], wanted, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_a_product_of_three_and_no_excitation_through_it(tmp_path: Path) -> None:
    lines = [layer("a", "Split", tops="a b"), layer("c", "Sigmoid")]
    product = layer("y", "Eltwise", "eltwise_param { operation: PROD }", "a c b")
    (tmp_path / "net.prototxt").write_text("force_backward: true\n" + net((1, 2, 3, 3), *lines, product))
    face = pycaffe.Net(tmp_path / "net.prototxt", pycaffe.TEST)
    x = random(1, 2, 3, 3)
    face.forward(x=x)
    face.backward(y=np.ones(x.shape))
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(face.blobs["x"].diff, 2 * x * s + x * x * s * (1 - s), rtol=1e-4, atol=1e-5)
    pycaffe.set_mode_eb_cpu()
    try:
        with pytest.raises(UnsupportedError, match=r"'y' \(Eltwise\) has no backward pass in mode 'eb'"):
            face.backward(y=np.ones(x.shape))
    finally:
        pycaffe.set_mode_cpu()


PARAMETER = layer("p", "Parameter", "parameter_param { shape { dim: 3 } }", "")
DUMMY = "dummy_data_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } data_filler { type: 'constant' value: 2 } }"


def test_a_parameter_layer_is_a_constant_from_the_weights(tmp_path: Path) -> None:
    x, p = random(2, 3, 4, 5), random(3, seed=7)
    lines = [layer("s", "Scale", "", "x p"), layer("y", "Bias", "", "s p")]
    text = net(x.shape, PARAMETER, *lines)
    wanted = x * p.reshape(3, 1, 1) + p.reshape(3, 1, 1)
    for got in everywhere(tmp_path, text, {"x": x}, {"p": [p]}):
        np.testing.assert_allclose(got["y"], wanted, atol=1e-6)
    assert list(ebp_cuda.load(tmp_path / "net.prototxt", tmp_path / "net.caffemodel").graph.inputs) == ["x"]
    with pytest.raises(ModelError, match="'p'"):
        build(tmp_path, text, {"p": [random(4)]})


def test_the_pycaffe_face_shows_a_parameter_layers_top_as_the_parameter_is_now(tmp_path: Path) -> None:
    shape = layer("p", "Parameter", "parameter_param { shape { dim: 1 dim: 3 } }", "")
    (tmp_path / "net.prototxt").write_text(net((1, 3), shape, layer("y", "Eltwise", bottoms="x p")))
    face = pycaffe.Net(tmp_path / "net.prototxt", pycaffe.TEST)
    assert face.inputs == ["x"] and face.params["p"][0].shape == (1, 3)
    for number in (4, 5):
        face.params["p"][0].data[...] = number
        np.testing.assert_array_equal(face.forward(x=[[1, 2, 3]])["y"], [[1 + number, 2 + number, 3 + number]])
        np.testing.assert_array_equal(face.blobs["p"].data, [[number] * 3])


def test_dummy_data_beside_an_input_is_a_constant(tmp_path: Path) -> None:
    x = random(1, 3, 4, 5)
    source = layer("d", "DummyData", DUMMY, "", "d")
    text = net(x.shape, source, layer("y", "Eltwise", "eltwise_param { operation: PROD }", "x d"))
    for got in everywhere(tmp_path, text, {"x": x}):
        np.testing.assert_allclose(got["y"], 2 * x, atol=1e-6)
    face = pycaffe.Net(tmp_path / "net.prototxt", pycaffe.TEST)
    assert face.inputs == ["x"]
    face.blobs["d"].data[...] = 3
    np.testing.assert_allclose(face.forward(x=x)["y"], 3 * x, atol=1e-6)


def test_random_dummy_data_is_refused_where_it_is_no_input(tmp_path: Path) -> None:
    drawn = layer("d", "DummyData", DUMMY.replace("'constant'", "'gaussian'"), "", "d")
    text = net((1, 3, 4, 5), drawn, layer("y", "Eltwise", bottoms="x d"))
    with pytest.raises(UnsupportedError, match=r"'d' \(DummyData\): random numbers, other ones at every forward"):
        build(tmp_path, text)
    alone = f"layer {{ {drawn} }} layer {{ {layer('y', 'ReLU', bottoms='d')} }}"
    assert caffe.parse_net(alone).inputs == {"d": (1, 3, 4, 5)}


@pytest.mark.parametrize("kind", ["Eltwise", "Concat"])
def test_a_constant_where_the_engine_takes_none_is_refused_and_never_left_out(tmp_path: Path, kind: str) -> None:
    x = random(1, 3, 4, 5)
    model = build(tmp_path, net(x.shape, layer("d", "DummyData", DUMMY, "", "d"), layer("y", kind, bottoms="x d")))
    two = np.full_like(x, 2)
    wanted = x + two if kind == "Eltwise" else np.concatenate([x, two], 1)
    np.testing.assert_allclose(run(model, {"x": x}, ["y"])["y"], wanted, atol=1e-6)
    try:
        got = ebp_cuda.load(tmp_path / "net.prototxt").forward(x)["y"]
    except EBPError as error:
        assert "'y'" in str(error)
    else:
        np.testing.assert_allclose(got, wanted, atol=1e-6)


WINDOWS = [(1, 2, 4, True), (1, 2, 5, False), (2, 3, 6, True), (2, 3, 7, False), (2, 4, 9, False), (3, 2, 6, False)]


@pytest.mark.parametrize(("kernel", "stride", "size", "outside"), WINDOWS)
def test_an_average_over_no_pixel_is_refused(
    tmp_path: Path, kernel: int, stride: int, size: int, outside: bool
) -> None:
    param = f"pooling_param {{ pool: AVE kernel_size: {kernel} stride: {stride} }}"
    x = random(1, 2, size, 5)
    text = net(x.shape, layer("y", "Pooling", param))
    if not outside:
        for got in everywhere(tmp_path, text, {"x": x}):
            assert np.isfinite(got["y"]).all()
        return
    assert np.isnan(run(build(tmp_path, text), {"x": x})["y"][:, :, -1]).all()
    match = rf"'y'.*the last window of spatial axis 0 starts at {size}, outside its {size} pixels"
    with pytest.raises(UnsupportedError, match=match):
        ebp_cuda.load(tmp_path / "net.prototxt").forward(x)
    face = pycaffe.Net(tmp_path / "net.prototxt", pycaffe.TEST)
    with pytest.raises(UnsupportedError, match=match):
        face.forward(x=x)


def test_padding_makes_caffe_drop_that_window(tmp_path: Path) -> None:
    param = "pooling_param { pool: AVE kernel_h: 1 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 1 }"
    x = random(1, 2, 4, 5)
    for got in everywhere(tmp_path, net(x.shape, layer("y", "Pooling", param)), {"x": x}):
        assert got["y"].shape == (1, 2, 2, 6)
        np.testing.assert_allclose(got["y"][..., 1:5], (x[:, :, ::2, :-1] + x[:, :, ::2, 1:]) / 2, atol=1e-6)
