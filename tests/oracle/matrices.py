"""Every linear layer of the float64 oracle as one explicit dense matrix per sample, and the windows of pooling.

A matrix has one row per output and one column per input of the flattened sample, so that a rule can be read off
it. Nothing here is shared with the package: geometry and formulas are restated on purpose, slow and obvious.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from ebp_cuda.graph import Node

Array = np.ndarray
Tap = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def param(node: Node, name: str) -> Array | None:
    tensor = node.params.get(name)
    return None if tensor is None else tensor.detach().cpu().double().numpy()


def probe(linear: Callable[[Array], Array], shape: Sequence[int]) -> Array:
    """The matrix of a linear map on one sample of `shape`, by feeding it every unit vector."""
    size = math.prod(shape)
    return linear(np.eye(size).reshape(size, *shape)).reshape(size, -1).T


def window_geometry(node: Node, plane: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """kernel, stride, padding, padding_end, dilation and output size of a convolution or pooling."""
    attrs, axes = node.attrs, len(plane)
    weight = param(node, "weight")
    kernel = tuple(weight.shape[2:]) if weight is not None else tuple(attrs.get("kernel") or plane)
    ones, zeros = (1,) * axes, (0,) * axes
    stride = tuple(attrs.get("stride") or ones)
    before = tuple(attrs.get("padding") or zeros)
    behind = tuple(attrs.get("padding_end") or before)
    dilation = tuple(attrs.get("dilation") or ones)
    out = []
    for axis in range(axes):
        room = plane[axis] + before[axis] + behind[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        if attrs.get("ceil_mode"):
            count = -(-room // stride[axis]) + 1
            if (count - 1) * stride[axis] >= plane[axis] + before[axis]:
                count -= 1  # the last window would start behind the plane
        else:
            count = room // stride[axis] + 1
        out.append(count)
    return kernel, stride, before, behind, dilation, tuple(out)


def window_taps(node: Node, plane: Sequence[int]) -> list[list[Tap]]:
    """For every output position: (output position, kernel offset, input position) of each tap inside the plane."""
    if node.op.startswith("adaptive"):
        return adaptive_taps(node, plane)
    kernel, stride, before, _, dilation, out = window_geometry(node, plane)
    axes = range(len(plane))
    windows = []
    for position in product(*map(range, out)):
        taps = []
        for offset in product(*map(range, kernel)):
            source = tuple(position[a] * stride[a] - before[a] + offset[a] * dilation[a] for a in axes)
            if all(0 <= source[a] < plane[a] for a in axes):
                taps.append((position, offset, source))
        windows.append(taps)
    return windows


def adaptive_taps(node: Node, plane: Sequence[int]) -> list[list[Tap]]:
    out = output_size(node, plane)
    windows = []
    for position in product(*map(range, out)):
        axes = list(zip(position, plane, out, strict=True))
        inside = [range(math.floor(i * n / m), math.ceil((i + 1) * n / m)) for i, n, m in axes]
        windows.append([(position, (), source) for source in product(*inside)])
    return windows


def output_size(node: Node, plane: Sequence[int]) -> tuple[int, ...]:
    if node.op.startswith("adaptive"):
        return tuple(n if m is None else m for n, m in zip(plane, node.attrs["size"], strict=True))
    return window_geometry(node, plane)[-1]


def conv_matrix(node: Node, shape: Sequence[int], ones: bool = False) -> tuple[Array, tuple[int, ...]]:
    """Dense matrix of a convolution on a sample [C, *plane], and the output shape. `ones`: all weights 1."""
    weight = param(node, "weight")
    weight = np.ones_like(weight) if ones else weight
    out_channels, group_in = weight.shape[:2]
    groups = node.attrs.get("groups", 1)
    group_out = out_channels // groups
    out = window_geometry(node, shape[1:])[-1]
    matrix = np.zeros((out_channels, *out, *shape))
    for position, offset, source in (tap for taps in window_taps(node, shape[1:]) for tap in taps):
        for g in range(groups):
            o, i = slice(g * group_out, (g + 1) * group_out), slice(g * group_in, (g + 1) * group_in)
            matrix[(o, *position, i, *source)] += weight[(o, slice(None), *offset)]
    return matrix.reshape(out_channels * math.prod(out), -1), (out_channels, *out)


def conv_transpose_matrix(node: Node, shape: Sequence[int], ones: bool = False) -> tuple[Array, tuple[int, ...]]:
    weight = param(node, "weight")
    weight = np.ones_like(weight) if ones else weight
    groups = node.attrs.get("groups", 1)
    channels, group_out = weight.shape[:2]
    kernel, stride, before, behind, dilation, _ = window_geometry(node, shape[1:])
    extra = tuple(node.attrs.get("output_padding") or (0,) * len(kernel))
    axes = range(len(kernel))
    out = tuple(
        (shape[1 + a] - 1) * stride[a] - before[a] - behind[a] + dilation[a] * (kernel[a] - 1) + 1 + extra[a]
        for a in axes
    )
    matrix = np.zeros((group_out * groups, *out, *shape))
    for source in product(*map(range, shape[1:])):
        for offset in product(*map(range, kernel)):
            target = tuple(source[a] * stride[a] - before[a] + offset[a] * dilation[a] for a in axes)
            if not all(0 <= target[a] < out[a] for a in axes):
                continue
            for i in range(channels):
                g = i // (channels // groups)
                o = slice(g * group_out, (g + 1) * group_out)
                matrix[(o, *target, i, *source)] += weight[(i, slice(None), *offset)]
    return matrix.reshape(group_out * groups * math.prod(out), -1), (group_out * groups, *out)


def linear_matrix(node: Node, shape: Sequence[int], ones: bool = False) -> tuple[Array, tuple[int, ...]]:
    weight = param(node, "weight")
    weight = np.ones_like(weight) if ones else weight
    return np.kron(np.eye(math.prod(shape[:-1])), weight), (*shape[:-1], weight.shape[0])


def avg_pool_matrix(node: Node, shape: Sequence[int], ones: bool = False) -> tuple[Array, tuple[int, ...]]:
    plane = shape[1:]
    kernel, stride, before, behind, _, _ = window_geometry(node, plane)
    out = output_size(node, plane)
    matrix = np.zeros((*out, *plane))
    for taps in window_taps(node, plane):
        position = taps[0][0]
        divisor = len(taps)
        if node.attrs.get("count_include_pad"):
            divisor = 1
            for a in range(len(plane)):
                start = position[a] * stride[a] - before[a]
                divisor *= min(start + kernel[a], plane[a] + behind[a]) - start
        for _, _, source in taps:
            matrix[(*position, *source)] = 1 if ones else 1 / divisor
    flat = matrix.reshape(math.prod(out), -1)
    return np.kron(np.eye(shape[0]), flat), (shape[0], *out)


def mean_matrix(node: Node, shape: Sequence[int], ones: bool = False) -> tuple[Array, tuple[int, ...]]:
    rank = len(shape) + 1
    axes = tuple(a % rank for a in node.attrs["axes"])
    keep = bool(node.attrs.get("keepdims"))
    out = np.mean(np.zeros((1, *shape)), axis=axes, keepdims=keep).shape[1:]
    matrix = probe(lambda e: e.mean(axis=axes, keepdims=keep), shape)
    return (matrix > 0).astype(float) if ones else matrix, out


def resize_axis(source: int, target: int, scale: float, mode: str, align: bool) -> Array:
    """Interpolation matrix [target, source] of one axis (half-pixel centres unless corners are aligned)."""
    matrix = np.zeros((target, source))
    for t in range(target):
        if mode == "nearest":
            matrix[t, min(math.floor(t / scale), source - 1)] = 1
            continue
        corners = (source - 1) / max(target - 1, 1)
        at = t * corners if align else max((t + 0.5) / scale - 0.5, 0.0)
        low = min(math.floor(at), source - 1)
        matrix[t, low] += 1 - (at - low)
        matrix[t, min(low + 1, source - 1)] += at - low
    return matrix


def resize_matrix(node: Node, shape: Sequence[int], ones: bool = False) -> tuple[Array, tuple[int, ...]]:
    attrs, plane = node.attrs, shape[1:]
    scale = attrs.get("scale")
    scale = tuple(scale) if isinstance(scale, Sequence) else (scale,) * len(plane)
    size = attrs.get("size")
    if attrs.get("zoom"):
        size = tuple((n - 1) // attrs["shrink"] * attrs["zoom"] + 1 for n in plane)
    size = size or tuple(math.floor(n * s) for n, s in zip(plane, scale, strict=True))
    matrix = np.eye(shape[0])
    for a, n in enumerate(plane):
        ratio = scale[a] if scale[a] is not None else size[a] / n
        matrix = np.kron(matrix, resize_axis(n, size[a], ratio, attrs["mode"], bool(attrs.get("align_corners"))))
    return matrix, (shape[0], *size)  # a silent output spreads by the interpolation weights: each row adds up to 1


MATRICES: dict[str, Callable[..., tuple[Array, tuple[int, ...]]]] = {
    "conv": conv_matrix,
    "conv_transpose": conv_transpose_matrix,
    "linear": linear_matrix,
    "avg_pool": avg_pool_matrix,
    "adaptive_avg_pool": avg_pool_matrix,
    "mean": mean_matrix,
    "resize": resize_matrix,
}


def apply_matrix(node: Node, x: Array) -> Array:
    matrix, out = MATRICES[node.op](node, x.shape[1:])
    y = (x.reshape(len(x), -1) @ matrix.T).reshape(len(x), *out)
    bias = param(node, "bias")
    if bias is None:
        return y
    return y + (bias if node.op == "linear" else bias.reshape(-1, *[1] * (len(out) - 1)))


def max_pool_winners(node: Node, x: Array) -> tuple[Array, Array]:
    """Output [N, C, *out], and for each output the flat input position of the first largest element of its window."""
    plane = x.shape[2:]
    windows = window_taps(node, plane)
    where = np.array([0])
    best, winner = [], []
    for taps in windows:
        where = np.array([np.ravel_multi_index(source, plane) for _, _, source in taps])
        values = x.reshape(*x.shape[:2], -1)[:, :, where]
        best.append(values.max(axis=2))
        winner.append(where[values.argmax(axis=2)])
    out = output_size(node, plane)
    return np.stack(best, 2).reshape(*x.shape[:2], *out), np.stack(winner, 2).reshape(*x.shape[:2], *out)
