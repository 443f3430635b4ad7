"""One layer each, over the settings that matter: what test_rules.py compares with the oracle."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from oracle.nets import batch_norm, conv, linear, simple, weights, window

from ebp_cuda.graph import Node

IMAGES = 2
RNG = np.random.default_rng(20)


@dataclass
class Case:
    name: str
    node: Node
    shapes: tuple[tuple[int, ...], ...]
    positive: bool = False
    """The layer is defined for positive inputs only."""
    within: tuple[float, float] | None = None
    """The layer is defined between two numbers only."""
    indices: dict[str, int] = field(default_factory=dict)
    """Inputs that hold indices, and how many there are: each at most once in a plane, where there are enough."""

    def __str__(self) -> str:
        return self.name


def plane(*shape: int) -> tuple[tuple[int, ...], ...]:
    return ((IMAGES, *shape),)


def conv_cases() -> list[Case]:
    settings = {
        "1x1": (4, 5, 1, {}, (5, 6)),
        "3x3_pad": (3, 4, 3, {"padding": 1}, (5, 6)),
        "3x3_s2": (3, 4, 3, {"stride": 2}, (7, 8)),
        "1x1_s2": (3, 2, 1, {"stride": 2}, (6, 5)),
        "5x5_s3_pad2": (2, 3, 5, {"stride": 3, "padding": 2}, (9, 7)),
        "rect": (2, 3, (1, 4), {"stride": (2, 1), "padding": (0, 2)}, (5, 6)),
        "dilated": (2, 3, 3, {"dilation": 2, "padding": 2}, (7, 6)),
        "dilated_s2": (2, 3, (2, 3), {"dilation": (3, 1), "stride": 2}, (8, 7)),
        "uneven_pad": (3, 2, 3, {"stride": 2, "padding": (0, 1), "padding_end": (1, 2)}, (6, 7)),
        "pad_behind": (3, 2, 3, {"padding": 0, "padding_end": 1}, (5, 4)),
        "pad_behind_s2": (3, 4, 3, {"stride": 2, "padding": 0, "padding_end": 1}, (6, 4)),
        "pad_before": (2, 3, 3, {"padding": (2, 0), "padding_end": 0}, (4, 5)),
        "group2": (4, 6, 3, {"groups": 2, "padding": 1}, (5, 4)),
        "depthwise_s2": (4, 4, 3, {"groups": 4, "padding": 1, "stride": 2}, (6, 7)),
        "whole_plane": (3, 4, (4, 5), {}, (4, 5)),
        "no_bias": (3, 4, 2, {"bias": False}, (4, 5)),
        "1d": (3, 4, (3,), {"padding": 1, "stride": 2}, (9,)),
        "1d_group_dilated": (4, 2, (2,), {"dilation": 2, "groups": 2}, (8,)),
        "3d": (2, 3, (3, 2, 3), {"padding": (1, 0, 2), "padding_end": (1, 1, 0), "stride": (2, 1, 1)}, (4, 3, 4)),
        "3d_group_dilated": (4, 2, (2, 1, 3), {"dilation": (2, 1, 1), "groups": 2}, (4, 2, 3)),
    }
    return [
        Case(f"conv_{name}", conv(RNG, "a", "y", c, out, kernel, **more), plane(c, *size))
        for name, (c, out, kernel, more, size) in settings.items()
    ]


def deconv_cases() -> list[Case]:
    cases = []
    for name, size, groups, extra, geometry in [
        ("s2", (3, 4), 1, (0, 0), {"kernel": 4, "stride": 2, "padding": 1}),
        ("group_extra", (4, 3), 2, (1, 1), {"kernel": 3, "stride": 2, "padding": 1}),
        ("dilated", (4, 4), 1, (0, 0), {"kernel": 2, "dilation": 2}),
        ("1d", (5,), 1, (0,), {"kernel": 3, "stride": 2, "padding": 1, "axes": 1}),
        ("3d", (2, 3, 2), 1, (1, 0, 0), {"kernel": (3, 2, 1), "stride": (2, 1, 1), "padding": (1, 0, 0), "axes": 3}),
    ]:
        attrs = window(**geometry) | {"groups": groups, "output_padding": extra}
        params = {"weight": weights(RNG, 4, 3, *attrs.pop("kernel")), "bias": weights(RNG, 3 * groups)}
        node = Node("deconv", "conv_transpose", ("a",), ("y",), attrs, params)
        cases.append(Case(f"deconv_{name}", node, plane(4, *size)))
    return cases


def linear_cases() -> list[Case]:
    silent = linear(RNG, "a", "y", 6, 4)
    silent.params["weight"].copy_(-silent.params["weight"].abs())
    return [
        Case("linear", linear(RNG, "a", "y", 7, 5), plane(7)),
        Case("linear_tokens", linear(RNG, "a", "y", 4, 3, bias=False), plane(3, 4)),
        Case("linear_all_negative", silent, plane(6)),
    ]


def pool_cases() -> list[Case]:
    windows = {
        "2x2": ((6, 8), window(2, 2)),
        "3x3_s1_p1": ((5, 6), window(3, 1, 1)),
        "3x3_s2_ceil": ((8, 10), window(3, 2) | {"ceil_mode": True}),
        "3x3_s2_floor": ((8, 10), window(3, 2)),
        "3x3_s2_p1_ceil": ((7, 6), window(3, 2, 1) | {"ceil_mode": True}),
        "2x2_s3_ceil": ((7, 8), window(2, 3) | {"ceil_mode": True}),
        "rect_p": ((9, 10), window((2, 3), (2, 1), (1, 0)) | {"ceil_mode": True}),
        "3x3_s2_p1_ceil_clip": ((5, 8), window((3, 2), 2, 1) | {"ceil_mode": True}),
        "global": ((4, 5), {"kernel": None}),
        "1d": ((9,), window(3, 2, 1, axes=1)),
        "3d": ((5, 4, 6), window((3, 2, 3), (2, 2, 1), (1, 0, 1), axes=3)),
        "3d_same": ((3, 4, 3), window(3, 1, 1, axes=3)),
        "3d_ceil": ((4, 5, 4), window(2, 2, axes=3) | {"ceil_mode": True}),
        "3d_global": ((2, 3, 2), {"kernel": None}),
    }
    cases = []
    for name, (size, attrs) in windows.items():
        shapes = plane(3, *size)
        cases.append(Case(f"max_pool_{name}", simple("max_pool", "a", "y", **attrs), shapes))
        for whole in (True, False):
            node = simple("avg_pool", "a", "y", **attrs, count_include_pad=whole)
            cases.append(Case(f"avg_pool_{name}_{'whole' if whole else 'inside'}", node, shapes))
    more = {
        "dilated": ((6, 7), window((2, 3), (1, 2), 1, dilation=(2, 1))),
        "uneven_pad": ((6, 7), window(3, 2, (0, 1), (1, 2))),
        "large_window": ((18, 19), window((17, 16), 2)),
    }
    for name, (size, attrs) in more.items():
        cases.append(Case(f"max_pool_{name}", simple("max_pool", "a", "y", **attrs), plane(2, *size)))
    means = {"plane": ((2, 3), True), "plane_flat": ((-2, -1), False), "channels": ((1,), True), "rows": ((2,), False)}
    for name, (axes, keep) in means.items():
        cases.append(Case(f"mean_{name}", simple("mean", "a", "y", axes=axes, keepdims=keep), plane(3, 4, 5)))
    return cases


def join_cases() -> list[Case]:
    shape = (IMAGES, 3, 4, 5)
    return [
        Case("sum_2", simple("sum", [*"ab"], "y", coefficients=None), (shape,) * 2),
        Case("sum_3", simple("sum", [*"abc"], "y", coefficients=None), (shape,) * 3),
        Case("sum_same", simple("sum", [*"aa"], "y", coefficients=None), (shape,)),
        Case("sum_coefficients", simple("sum", [*"abc"], "y", coefficients=(0.5, 2.0, 1.0)), (shape,) * 3),
        Case("sum_difference", simple("sum", [*"ab"], "y", coefficients=(1.0, -1.0)), (shape,) * 2),
        Case("max_2", simple("max", [*"ab"], "y"), (shape,) * 2),
        Case("max_4", simple("max", [*"abcd"], "y"), (shape,) * 4),
        Case("mul", simple("mul", [*"ab"], "y"), (shape,) * 2),
        Case("mul_gate_first", simple("mul", [*"ab"], "y"), ((IMAGES, 3, 1, 1), shape)),
        Case("concat_channels", simple("concat", [*"abc"], "y", axis=1), (shape, (IMAGES, 2, 4, 5), (IMAGES, 1, 4, 5))),
        Case("concat_last", simple("concat", [*"ab"], "y", axis=3), (shape, (IMAGES, 3, 4, 2))),
    ]


def move_cases() -> list[Case]:
    shape = plane(4, 4, 6)
    corners = {"axes": (1, 3), "starts": (1, 0), "ends": (3, 6)}
    return [
        Case("slice", simple("slice", "a", "y", **corners, steps=(1, 1)), shape),
        Case("slice_steps", simple("slice", "a", "y", **corners, steps=(1, 2)), shape),
        Case("slice_channels", simple("slice", "a", "y", axes=(1,), starts=(1,), ends=(3,)), shape),
        Case("split", Node("n", "split", ("a",), ("y", "z", "w"), {"axis": 1, "sizes": (1, 2, 1)}), shape),
        Case("flatten", simple("flatten", "a", "y", axis=1), shape),
        Case("flatten_planes", simple("flatten", "a", "y", axis=2), shape),
        Case("reshape", simple("reshape", "a", "y", shape=(0, 8, -1)), shape),
        Case("reshape_merge", simple("reshape", "a", "y", shape=(0, -1)), plane(2, 3)),
        Case("squeeze", simple("squeeze", "a", "y", axes=(2, 3)), plane(4, 1, 1)),
        Case("squeeze_last", simple("squeeze", "a", "y", axes=(-1,)), plane(4, 3, 1)),
        Case("unsqueeze", simple("unsqueeze", "a", "y", axes=(2, -1)), shape),
        Case("transpose", simple("transpose", "a", "y", perm=(0, 2, 3, 1)), shape),
        Case("pad", simple("pad", "a", "y", pads=((0, 0), (0, 1), (1, 2), (0, 3)), value=0.0), shape),
        Case("pad_value", simple("pad", "a", "y", pads=((0, 0), (0, 0), (1, 1), (2, 0)), value=-1.5), shape),
    ]


def resize_cases() -> list[Case]:
    settings = {
        "nearest_x2": {"mode": "nearest", "scale": (2.0, 2.0)},
        "nearest_size": {"mode": "nearest", "size": (7, 3)},
        "linear_size": {"mode": "linear", "size": (7, 9), "align_corners": False},
        "linear_corners": {"mode": "linear", "size": (8, 7), "align_corners": True},
        "linear_down": {"mode": "linear", "size": (3, 2), "align_corners": False},
        "linear_x1.5": {"mode": "linear", "scale": (1.5, 1.5), "align_corners": False},
    }
    nodes = {name: simple("resize", "a", "y", **attrs) for name, attrs in settings.items()}
    return [Case(f"resize_{name}", node, plane(3, 5, 4)) for name, node in nodes.items()]


def pointwise_cases() -> list[Case]:
    attrs: dict[str, dict] = {name: {} for name in ("relu", "abs", "exp", "sigmoid", "tanh", "erf", "softplus", "silu")}
    attrs |= {name: {} for name in ("hard_swish", "gelu", "identity")}
    attrs["leaky_relu"] = {"slope": 0.3}
    attrs["elu"] = {"alpha": 0.7}
    attrs["clip"] = {"min": 0.0, "max": 1.0}
    attrs["hard_sigmoid"] = {"alpha": 0.2, "beta": 0.5}
    attrs["softmax"] = {"axis": 1}
    attrs["power"] = {"power": 2.0, "scale": 0.5, "shift": 3.0}
    attrs["lrn"] = {"size": 5, "alpha": 0.5, "beta": 0.75, "k": 1.0, "region": "across"}
    cases = [Case(name, simple(name, "a", "y", **more), plane(7, 3, 4)) for name, more in attrs.items()]
    narrow = {"size": 3, "alpha": 1.0, "beta": 0.6, "k": 2.0, "region": "across"}
    within = {"size": 3, "alpha": 0.5, "beta": 0.75, "k": 1.0, "region": "within"}
    cases += [
        Case("selu", simple("elu", "a", "y", alpha=1.6732632, scale=1.050701), plane(7, 3, 4)),
        Case("clip_signed", simple("clip", "a", "y", min=-1.0, max=0.5), plane(3, 4, 5)),
        Case("softmax_last", simple("softmax", "a", "y", axis=-1), plane(3, 5)),
        Case("lrn_within", simple("lrn", "a", "y", **within), plane(2, 5, 4)),
        Case("lrn_narrow", simple("lrn", "a", "y", **narrow), plane(4, 2, 3)),
        Case("power_line", simple("power", "a", "y", power=1.0, scale=-2.0, shift=0.5), plane(3, 4, 5)),
        Case("log", simple("log", "a", "y"), plane(3, 4, 5), positive=True),
        Case("sqrt", simple("sqrt", "a", "y"), plane(3, 4, 5), positive=True),
        Case("batch_norm", batch_norm(RNG, "a", "y", 3), plane(3, 4, 5)),
    ]
    for name, params in {
        "prelu": {"weight": weights(RNG, 4).abs()},
        "prelu_one": {"weight": torch.tensor([0.25])},
    }.items():
        cases.append(Case(name, Node("n", "prelu", ("a",), ("y",), {}, params), plane(4, 3, 5)))
    for name, params in {
        "affine": {"scale": weights(RNG, 4, 1, 1), "shift": weights(RNG, 4, 1, 1)},
        "affine_scale": {"scale": torch.tensor(-0.5)},
        "affine_shift": {"shift": weights(RNG, 1, 4, 1, 1)},
    }.items():
        cases.append(Case(name, Node("n", "affine", ("a",), ("y",), {}, params), plane(4, 3, 5)))
    return cases


CASES = [
    *conv_cases(),
    *deconv_cases(),
    *linear_cases(),
    *pool_cases(),
    *join_cases(),
    *move_cases(),
    *resize_cases(),
    *pointwise_cases(),
]
