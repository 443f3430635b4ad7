"""The descriptions in models/: structure, blob shapes, parameter counts. Weights are counted, never allocated."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from google.protobuf import text_format
from support.paths import GOLDEN

from ebp_cuda import models
from ebp_cuda.errors import InputError, ModelError, ShapeError
from ebp_cuda.importers.caffe.schema import NetParameter, enum_name
from ebp_cuda.models._prototxt import PrototxtWriter, Word

Shape = tuple[int, ...]


def parse(name: str, **options: Any) -> Any:
    return text_format.Parse(models.prototxt(name, **options), NetParameter())


def _pooled(size: int, kernel: int, stride: int, pad: int) -> int:
    """Caffe's output size: rounded up, without a last window that would start in the padding behind."""
    out = math.ceil((size + 2 * pad - kernel) / stride) + 1
    return out - 1 if pad and (out - 1) * stride >= size + pad else out


def _apply(layer: Any, shapes: list[Shape]) -> tuple[Shape, list[Shape]]:
    """Output shape and parameter shapes of one layer, worked out independently of the importer."""
    shape = shapes[0]
    if layer.type == "Convolution":
        p = layer.convolution_param
        kernel, stride, pad = p.kernel_size[0], (p.stride or [1])[0], (p.pad or [0])[0]
        size = tuple((dim + 2 * pad - kernel) // stride + 1 for dim in shape[2:])
        weight = (p.num_output, shape[1] // p.group, kernel, kernel)
        return (shape[0], p.num_output, *size), [weight, (p.num_output,)] if p.bias_term else [weight]
    if layer.type == "InnerProduct":
        outputs = layer.inner_product_param.num_output
        return (shape[0], outputs), [(outputs, math.prod(shape[1:])), (outputs,)]
    if layer.type == "Pooling":
        p = layer.pooling_param
        return (*shape[:2], *(_pooled(dim, p.kernel_size, p.stride, p.pad) for dim in shape[2:])), []
    if layer.type == "Concat":
        assert {(s[0], *s[2:]) for s in shapes} == {(shape[0], *shape[2:])}, layer.name
        return (shape[0], sum(s[1] for s in shapes), *shape[2:]), []
    if layer.type == "Eltwise":
        assert set(shapes) == {shape}, layer.name
        return shape, []
    if layer.type in ("BatchNorm", "Scale"):
        return shape, [(shape[1],), (shape[1],)] + ([(1,)] if layer.type == "BatchNorm" else [])
    assert layer.type in ("ReLU", "LRN", "Dropout", "Softmax", "Sigmoid"), layer.type
    return shape, []


def walk(name: str, **options: Any) -> tuple[dict[str, Shape], list[tuple[str, str, list[Shape]]]]:
    """Blob shapes, and (layer, type, parameter shapes) of the layers that have parameters."""
    net = parse(name, **options)
    blobs: dict[str, Shape] = {net.input[0]: tuple(net.input_shape[0].dim)}
    params = []
    for layer in net.layer:
        blobs[layer.top[0]], shapes = _apply(layer, [blobs[bottom] for bottom in layer.bottom])
        if shapes:
            params.append((layer.name, layer.type, shapes))
    return blobs, params


def count(params: list[tuple[str, str, list[Shape]]], *types: str) -> int:
    return sum(math.prod(shape) for _, kind, shapes in params for shape in shapes if not types or kind in types)


# parameters of the training networks' two auxiliary classifiers, which the published GoogLeNet file also holds
AUXILIARY = sum((c + 1) * 128 + (2048 + 1) * 1024 + (1024 + 1) * 1000 for c in (512, 528))


@pytest.mark.parametrize(
    ("name", "layers", "parameters", "unused"),
    [
        ("googlenet", 142, 6_998_552, AUXILIARY),
        ("vgg16", 39, 138_357_544, 0),
        ("vgg19", 45, 143_667_240, 0),
        ("alexnet", 23, 60_965_224, 0),
        ("caffenet", 23, 60_965_224, 0),
        ("resnet50", 228, 25_610_269, 0),
        ("googlenet_coco", 141, 6_055_552, 0),
    ],
)
def test_layers_and_parameters(name: str, layers: int, parameters: int, unused: int) -> None:
    """The counts are the literature's; a published file is its float32 parameters and a few kilobytes of names."""
    assert len(parse(name).layer) == layers
    _, params = walk(name)
    assert count(params) == parameters
    size = models.model(name).weights.size
    if size is not None:
        assert 1_000 < size - 4 * (parameters + unused) < 40_000


def test_resnet_parameters_as_counted_elsewhere() -> None:
    """25,557,032 is the usual count: no statistics, and no bias in conv1 where this network has 64."""
    _, params = walk("resnet50")
    assert count(params, "Convolution", "Scale", "InnerProduct") == 25_557_032 + 64
    assert [name for name, kind, shapes in params if kind == "Convolution" and len(shapes) == 2] == ["conv1"]
    assert len([1 for _, kind, _ in params if kind == "BatchNorm"]) == 53


@pytest.mark.parametrize("name", ["googlenet_coco", "vgg16"])
def test_weight_shapes_of_the_original(name: str) -> None:
    wanted = json.loads((GOLDEN / "weight_shapes.json").read_text())[name]
    _, params = walk(name)
    assert [[layer, kind, [list(shape) for shape in shapes]] for layer, kind, shapes in params] == wanted


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("googlenet", {"pool2/3x3_s2": (192, 28, 28), "pool5/7x7_s1": (1024, 1, 1), "prob": (1000,)}),
        ("googlenet_coco", {"pool2/3x3_s2": (192, 28, 28), "loss3/classifier": (80, 1, 1)}),
        ("vgg16", {"pool4": (512, 14, 14), "fc7": (4096,), "prob": (1000,)}),
        ("vgg19", {"pool4": (512, 14, 14), "conv5_4": (512, 14, 14), "fc8": (1000,)}),
        ("alexnet", {"conv1": (96, 55, 55), "pool2": (256, 13, 13), "pool5": (256, 6, 6)}),
        ("caffenet", {"norm1": (96, 27, 27), "pool2": (256, 13, 13), "fc8": (1000,)}),
        ("resnet50", {"res2c": (256, 56, 56), "res4a": (1024, 14, 14), "pool5": (2048, 1, 1), "prob": (1000,)}),
    ],
)
def test_blob_shapes(name: str, shapes: dict[str, Shape]) -> None:
    blobs, _ = walk(name)
    assert {blob: blobs[blob][1:] for blob in shapes} == shapes


@pytest.mark.parametrize("name", models.names())
def test_attribution_layers_lie_in_order(name: str) -> None:
    entry = models.model(name)
    net = parse(name)
    tops = [layer.top[0] for layer in net.layer]
    assert entry.top in [layer.name for layer in net.layer]
    assert tops.index(entry.layer) < tops.index(entry.contrast_layer) < tops.index(entry.top)
    assert net.layer[-1].name == "prob" and list(net.layer[-1].bottom) == [entry.top]
    assert net.force_backward


def test_fully_convolutional_coco_network_takes_other_sizes() -> None:
    blobs, _ = walk("googlenet_coco", input_shape=(2, 3, 224, 300))
    assert blobs["loss3/classifier"] == (2, 80, 1, 3)  # as measured in the golden data
    assert walk("googlenet_coco", input_shape=(1, 3, 223, 223))[0]["loss3/classifier"] == (1, 80, 1, 1)
    assert walk("googlenet_coco", input_shape=(1, 3, 222, 224))[0]["loss3/classifier"] == (1, 80, 0, 1)


def test_alexnet_and_caffenet_differ_in_the_order_of_norm_and_pool() -> None:
    def chain(name: str) -> list[str]:
        return [layer.name for layer in parse(name).layer if layer.type in ("LRN", "Pooling")]

    assert chain("alexnet") == ["norm1", "pool1", "norm2", "pool2", "pool5"]
    assert chain("caffenet") == ["pool1", "norm1", "pool2", "norm2", "pool5"]


def test_resnet_block_names_and_strides() -> None:
    by_name = {layer.name: layer for layer in parse("resnet50").layer}
    for block in ("2a", "3a", "4a", "5a"):
        stride = 1 if block == "2a" else 2
        for unit in ("branch1", "branch2a"):
            conv = by_name[f"res{block}_{unit}"]
            assert (list(conv.convolution_param.stride) or [1]) == [stride]
            assert by_name[f"bn{block}_{unit}"].bottom == by_name[f"scale{block}_{unit}"].top == conv.top
    assert list(by_name["res4f"].bottom) == ["res4e", "res4f_branch2c"]
    assert list(by_name["res5a"].bottom) == ["res5a_branch1", "res5a_branch2c"]
    assert "res3b_branch1" not in by_name


def test_width_of_the_last_layer_can_be_given() -> None:
    _, params = walk("vgg16", classes=20)
    assert params[-1] == ("fc8", "InnerProduct", [(20, 4096), (20,)])


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 1, 224, 224), (0, 3, 224, 224)])
def test_bad_input_shape(shape: Shape) -> None:
    with pytest.raises(ShapeError, match=re.escape(f"{list(shape)} is not [N, 3, H, W]")):
        models.prototxt("vgg16", input_shape=shape)


def test_imagenet_names() -> None:
    names = models.labels("imagenet")
    assert len(names) == 1000 == len({name.casefold() for name in names})
    wanted = {0: "tench", 134: "crane bird", 281: "tabby", 285: "Egyptian cat", 517: "crane", 540: "drilling platform",
              541: "drum", 542: "drumstick", 657: "missile", 967: "espresso", 999: "toilet tissue"}  # fmt: skip
    assert {index: names[index] for index in wanted} == wanted


def test_coco_names() -> None:
    names = models.labels("coco80")
    assert len(set(names)) == 80
    assert {i: names[i] for i in (0, 15, 16, 79)} == {0: "person", 15: "cat", 16: "dog", 79: "toothbrush"}


@pytest.mark.parametrize("name", models.names())
def test_labels_fit_the_network(name: str) -> None:
    assert len(models.labels(name)) == models.model(name).classes


def test_caller_cannot_change_the_catalogue() -> None:
    models.labels("imagenet").clear()
    models.preprocess("vgg16")["mean"].clear()
    assert len(models.labels("imagenet")) == 1000
    assert models.preprocess("vgg16")["mean"] == [103.939, 116.779, 123.68]


@pytest.mark.parametrize("name", models.names())
def test_catalogue_entries_are_complete(name: str) -> None:
    entry = models.model(name)
    lengths = {"sha1": 40, "sha256": 64, "sha384": 96}
    assert {algorithm: len(digest) for algorithm, digest in entry.weights.hashes.items()}.items() <= lengths.items()
    assert all(re.fullmatch("[0-9a-f]+", digest) for digest in entry.weights.hashes.values())
    assert all(url.startswith(("http://", "https://")) for url in entry.weights.urls) and entry.weights.urls
    assert set(entry.preprocess) == {"size", "shortest_side", "channel_order", "raw_scale", "mean", "std"}
    size = entry.preprocess["size"] or [entry.preprocess["shortest_side"]] * 2
    assert tuple(size) == entry.input_shape[2:]


@pytest.mark.parametrize("ask", [models.model, models.prototxt, models.preprocess, models.labels])
def test_unknown_names_get_suggestions(ask: Any) -> None:
    with pytest.raises(InputError, match=r"'vgg-16'.*nearest: vgg16"):
        ask("vgg-16")


def test_emitter_refuses_dangling_bottoms_and_repeated_names() -> None:
    net = PrototxtWriter("small")
    x = net.relu("relu1", net.input("data", (1, 3, 8, 8)), "hidden")
    with pytest.raises(ModelError, match=r"'pool1' .* reads 'hiden'"):
        net.max_pool("pool1", "hiden", kernel=2)
    with pytest.raises(ModelError, match=r"'relu1' .* there already"):
        net.relu("relu1", x)


def test_emitter_writes_every_kind_of_field() -> None:
    net = PrototxtWriter('a "quoted" name')
    net.input("data", (1, 3, 8, 8))
    net.layer("e", "Eltwise", ["data", "data"], eltwise_param={"operation": Word("MAX"), "coeff": [0.5, 1e-7]})
    net.layer("s", "Slice", ["data"], "one", slice_param={"slice_point": [1, 2]}, loss_weight=None)
    net.conv("c", "data", 4, kernel=1, bias=False)
    parsed = text_format.Parse(net.text(), NetParameter())
    assert parsed.name == 'a "quoted" name'
    assert list(parsed.layer[1].slice_param.slice_point) == [1, 2] and list(parsed.layer[1].top) == ["one"]
    assert list(parsed.layer[0].eltwise_param.coeff) == [0.5, pytest.approx(1e-7)]
    assert enum_name(parsed.layer[0].eltwise_param, "operation") == "MAX"
    assert parsed.layer[2].convolution_param.bias_term is False
