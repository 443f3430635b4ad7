"""Layers of Caffe and its forks, each with its formula in numpy: what test_caffe_more_layers.py compares with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import torch
from importers.test_caffe_layers import caffe_pool

from support.caffe_nets import layer, random

Array = np.ndarray
SHAPE = (2, 4, 5, 6)


@dataclass
class Case:
    text: str
    wanted: Callable[..., Array]
    """The top y, from the inputs x, z, ... in order and then the weights."""
    shapes: Sequence[tuple[int, ...]] = (SHAPE,)
    weights: Sequence[Array] = ()
    positive: bool = False
    indices: dict[str, int] = field(default_factory=dict)
    tolerance: float = 1e-5
    fixed: bool = False
    """The model keeps the height and width that it was imported for."""
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.text.split('type: "')[1].split('"')[0]


def one(kind: str, rest: str, wanted: Callable[..., Array], bottoms: str = "x", **more: object) -> Case:
    return Case(layer("y", kind, rest, bottoms), wanted, **more)  # type: ignore[arg-type]


def mvn(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    centered = x - x.mean(axes, keepdims=True)
    return centered / (np.sqrt((centered**2).mean(axes, keepdims=True)) + eps)


def interp(x: Array, height: int, width: int) -> Array:
    """Caffe's Interp: each output mixes the four pixels about its place, corners on corners."""
    ys = np.empty((*x.shape[:2], height, width))
    for i in range(height):
        for j in range(width):
            h = i * (x.shape[2] - 1) / (height - 1) if height > 1 else 0.0
            w = j * (x.shape[3] - 1) / (width - 1) if width > 1 else 0.0
            h1, w1 = int(h), int(w)
            h2, w2 = min(h1 + 1, x.shape[2] - 1), min(w1 + 1, x.shape[3] - 1)
            a, b = h - h1, w - w1
            ys[:, :, i, j] = (1 - a) * ((1 - b) * x[:, :, h1, w1] + b * x[:, :, h1, w2]) + a * (
                (1 - b) * x[:, :, h2, w1] + b * x[:, :, h2, w2]
            )
    return ys


def zoomed(x: Array, zoom: int, shrink: int) -> Array:
    return interp(x, *[(n - 1) // shrink * zoom + 1 for n in x.shape[2:]])


def unpool(x: Array, mask: Array, height: int, width: int) -> Array:
    y = np.zeros((*x.shape[:2], height * width))
    np.put_along_axis(y, mask.reshape(*x.shape[:2], -1).astype(int), x.reshape(*x.shape[:2], -1), 2)
    return y.reshape(*x.shape[:2], height, width)


def arg_max(x: Array, k: int, values: bool) -> Array:
    """Pairs of value and index, largest first: of equal values the larger index."""
    flat = x.reshape(len(x), -1)
    pairs = [sorted(((v, i) for i, v in enumerate(row)), reverse=True)[:k] for row in flat]
    found = np.array([[[i for _, i in p], [v for v, _ in p]] for p in pairs])
    return found[:, : 1 + values].reshape(len(x), 1 + values, k, *[1] * (x.ndim - 3))


def arg_max_along(x: Array, axis: int, k: int, values: bool) -> Array:
    order = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    places = x.shape[axis] - 1 - np.flip(order, axis).take(range(k), axis)
    return np.take_along_axis(x, places, axis) if values else places


def im2col(x: Array, k: int, stride: int, pad: int) -> Array:
    return torch.nn.functional.unfold(torch.from_numpy(x), k, 1, pad, stride).numpy()


def spp(x: Array, height: int, method: str) -> Array:
    parts = []
    for level in range(height):
        bins = 2**level
        kernel = [ceil(n / bins) for n in x.shape[2:]]
        assert kernel[0] == kernel[1], "the reference pools squares"
        pad = (kernel[0] * bins - x.shape[2] + 1) // 2
        planes = [caffe_pool(plane, method, kernel[0], kernel[0], pad) for plane in x.reshape(-1, *x.shape[2:])]
        parts.append(np.stack(planes).reshape(len(x), -1))
    return np.concatenate(parts, 1)


def shuffled(x: Array, group: int) -> Array:
    return x.reshape(len(x), group, -1, *x.shape[2:]).swapaxes(1, 2).reshape(x.shape)


CHANNELS = random(4, seed=5)
PLANE_SCALE = CHANNELS.reshape(-1, 1, 1)
DEPTHWISE = random(8, 1, 3, 3, seed=6)
EXP, LOG = "exp_param { base: 2 scale: 0.5 shift: 0.25 }", "log_param { base: 10 scale: 2 shift: 0.5 }"
BN4 = [np.abs(random(1, 4, 1, 1, seed=s)) + 0.5 for s in range(4)]
OTHER = (2, 4, 3, 2)


def depthwise(x: Array, weight: Array, bias: Array) -> Array:
    return torch.conv2d(*map(torch.from_numpy, (x, weight, bias)), 2, 1, 1, 4).numpy()


POINTWISE = [
    one("Exp", EXP, lambda x: 2 ** (0.25 + 0.5 * x)),
    one("Log", LOG, lambda x: np.log10(0.5 + 2 * x), positive=True),
    one("Threshold", "threshold_param { threshold: 0.3 }", lambda x: (x > 0.3) * 1.0),
    one("ReLU6", "", lambda x: np.clip(x, 0, 6)),
    one("Clip", "clip_param { min: -0.5 max: 0.75 }", lambda x: np.clip(x, -0.5, 0.75)),
    one("Swish", "swish_param { beta: 1.5 }", lambda x: x / (1 + np.exp(-1.5 * x))),
    one("Dropout", "dropout_param { dropout_ratio: 0.3 scale_train: false }", lambda x: 0.7 * x),
]
STATISTICS = [
    one("MVN", "", lambda x: mvn(x, (2, 3), 1e-9)),
    one("MVN", "mvn_param { across_channels: true eps: 0.5 }", lambda x: mvn(x, (1, 2, 3), 0.5)),
    one("MVN", "mvn_param { normalize_variance: false }", lambda x: x - x.mean((2, 3), keepdims=True)),
    one(
        "Normalize", "", lambda x, w: w * x / np.sqrt((x**2).sum((1, 2, 3), keepdims=True) + 1e-10),
        weights=[random(1)],
    ),
    one(
        "Normalize", "norm_param { across_spatial: false channel_shared: false eps: 0.01 }",
        lambda x, w: PLANE_SCALE * x / np.sqrt((x**2).sum(1, keepdims=True) + 0.01), weights=[CHANNELS],
    ),
    one("Reduction", "reduction_param { axis: 1 }", lambda x: x.sum((1, 2, 3))),
    one("Reduction", "reduction_param { axis: 2 operation: ASUM coeff: 0.5 }", lambda x: 0.5 * np.abs(x).sum((2, 3))),
    one("Reduction", "reduction_param { axis: -1 operation: SUMSQ }", lambda x: (x**2).sum(3)),
    one("Reduction", "reduction_param { axis: 2 operation: MEAN coeff: 3 }", lambda x: 3 * x.mean((2, 3))),
    one("BN", "bn_param { bn_mode: INFERENCE }", lambda x, a, b: x * a + b, weights=BN4[:2]),
    one(
        "BN", "bn_param { frozen: true eps: 0.01 }",
        lambda x, slope, bias, mean, var: (x - mean) / np.sqrt(var + 0.01) * slope + bias, weights=BN4,
    ),
]  # fmt: skip
PICKING = [
    one("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", lambda x: x.transpose(0, 2, 3, 1)),
    one("Permute", "permute_param { order: 0 order: 3 }", lambda x: x.transpose(0, 3, 1, 2)),
    one("ShuffleChannel", "shuffle_channel_param { group: 2 }", lambda x: shuffled(x, 2)),
    one("Tile", "tile_param { axis: 2 tiles: 3 }", lambda x: np.tile(x, (1, 1, 3, 1))),
    one("Crop", "crop_param { offset: 1 offset: 2 }", lambda x, z: x[:, :, 1:4, 2:4], "x z", shapes=(SHAPE, OTHER),
        fixed=True),
    one("Crop", "crop_param { axis: -1 }", lambda x, z: x[..., :2], "x z", shapes=(SHAPE, (2, 4, 5, 2)), fixed=True),
    one("ArgMax", "argmax_param { top_k: 3 }", lambda x: arg_max(x, 3, False)),
    one("ArgMax", "argmax_param { out_max_val: true top_k: 2 }", lambda x: arg_max(x, 2, True)),
    one("ArgMax", "argmax_param { axis: 1 }", lambda x: arg_max_along(x, 1, 1, False)),
    one("ArgMax", "argmax_param { axis: -2 top_k: 3 out_max_val: true }", lambda x: arg_max_along(x, 2, 3, True)),
    one(
        "Embed", "embed_param { input_dim: 7 num_output: 3 }", lambda x, w, b: w[x.astype(int)] + b,
        shapes=((2, 5),), weights=[random(7, 3), random(3)], indices={"x": 7}, fixed=True,
    ),
    one(
        "Embed", "embed_param { input_dim: 7 num_output: 3 bias_term: false }", lambda x, w: w[x.astype(int)],
        shapes=((2, 5),), weights=[random(7, 3)], indices={"x": 7}, fixed=True,
    ),
    one(
        "Im2col", "convolution_param { kernel_size: 3 stride: 2 pad: 1 }",
        lambda x: im2col(x, 3, 2, 1).reshape(2, 36, (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2),
    ),
    one("SPP", "spp_param { pyramid_height: 3 }", lambda x: spp(x, 3, "MAX"), shapes=((2, 3, 7, 7),), fixed=True),
    one(
        "SPP", "spp_param { pyramid_height: 3 pool: AVE }", lambda x: spp(x, 3, "AVE"), shapes=((2, 3, 9, 9),),
        fixed=True,
    ),
    one("SPP", "spp_param { pyramid_height: 1 pool: AVE }", lambda x: x.mean((2, 3), keepdims=True), fixed=True),
]  # fmt: skip
JOINING = [
    one("Scale", "scale_param { axis: 0 }", lambda x, z: x * z, "x z", shapes=(SHAPE, SHAPE)),
    one("Scale", "scale_param { axis: 0 }", lambda x, z: x * z[:, :, None, None], "x z", shapes=(SHAPE, (2, 4))),
    one("Scale", "", lambda x, z: x * z[:, None, None], "x z", shapes=(SHAPE, (4,)), fixed=True),
    one(
        "Scale", "scale_param { bias_term: true }", lambda x, z, b: x * z[:, None, None] + b[:, None, None], "x z",
        shapes=(SHAPE, (4,)), weights=[CHANNELS], fixed=True,
    ),
    one("Bias", "bias_param { axis: 0 }", lambda x, z: x + z, "x z", shapes=(SHAPE, SHAPE)),
    one("Bias", "bias_param { axis: 0 }", lambda x, z: x + z[:, :, None, None], "x z", shapes=(SHAPE, (2, 4))),
    one("Axpy", "", lambda a, x, y: a[:, :, None, None] * x + y, "x z w", shapes=((2, 4), SHAPE, SHAPE)),
    one("Axpy", "", lambda a, x, y: a * x + y, "x z w", shapes=((2, 4, 1, 1), SHAPE, SHAPE), fixed=True),
]  # fmt: skip
RESIZING = [
    one("Interp", "interp_param { zoom_factor: 3 shrink_factor: 2 }", lambda x: zoomed(x, 3, 2)),
    one("Interp", "interp_param { height: 9 width: 4 }", lambda x: interp(x, 9, 4)),
    one("Interp", "interp_param { height: 1 width: 7 }", lambda x: interp(x, 1, 7)),
    one(
        "Interp", "interp_param { zoom_factor: 2 pad_beg: -1 pad_end: -2 }",
        lambda x: zoomed(x[:, :, 1:-2, 1:-2], 2, 1),
    ),
    one("Interp", "interp_param { pad_beg: -1 }", lambda x: x[:, :, 1:, 1:]),
    one("Interp", "", lambda x, z: interp(x, *z.shape[2:]), "x z", shapes=(SHAPE, (2, 1, 8, 9))),
    one("Upsample", "upsample_param { scale: 2 }", lambda x: x.repeat(2, 2).repeat(2, 3)),
    one(
        "Upsample", "upsample_param { scale: 2 pad_out_h: true }",
        lambda x, z: unpool(x, z, 2 * x.shape[2] - 1, 2 * x.shape[3]), "x z", shapes=(OTHER, OTHER), indices={"z": 20},
    ),
    one(
        "Upsample", "upsample_param { upsample_h: 7 upsample_w: 3 }", lambda x, z: unpool(x, z, 7, 3), "x z",
        shapes=(OTHER, OTHER), indices={"z": 21}, fixed=True,
    ),
]  # fmt: skip
CONVOLVING = [
    one(kind, f"convolution_param {{ num_output: 8 kernel_size: 3 stride: 2 pad: 1 {group} }}", depthwise,
        weights=[DEPTHWISE, random(8)])
    for kind, group in [("ConvolutionDepthwise", ""), ("DepthwiseConvolution", "group: 4")]
] + [
    one(
        "Convolution", "convolution_param { num_output: 3 kernel_size: 2 hole: 2 bias_term: false }",
        lambda x, w: torch.conv2d(torch.from_numpy(x), torch.from_numpy(w), dilation=2).numpy(),
        weights=[random(3, 4, 2, 2)],
    ),
    one(
        "Pooling", "pooling_param { kernel_size: 2 stride: 2 ceil_mode: false }",
        lambda x: torch.max_pool2d(torch.from_numpy(x), 2, 2).numpy(),
    ),
]  # fmt: skip
CASES = [*POINTWISE, *STATISTICS, *PICKING, *JOINING, *RESIZING, *CONVOLVING]


def prototxt(case: Case, shapes: Sequence[Sequence[int]]) -> str:
    names = "xzw"[: len(shapes)]
    heads = [f'input: "{name}"' for name in names]
    dims = [f"input_shape {{ {' '.join(f'dim: {n}' for n in shape)} }}" for shape in shapes]
    return "\n".join([*heads, *dims, f"layer {{ {case.text} }}"])


def inputs_of(case: Case, shapes: Sequence[Sequence[int]]) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    feeds = {}
    for name, shape in zip("xzw", shapes, strict=False):
        x = rng.standard_normal(shape).astype(np.float32)
        feeds[name] = np.abs(x) + 0.1 if case.positive else x
        if name in case.indices:
            size = shape[-1] * (shape[-2] if len(shape) > 2 else 1)
            rows = [rng.permutation(case.indices[name])[:size] for _ in range(x.size // size)]
            feeds[name] = np.array(rows, np.float32).reshape(shape)
    return feeds
