"""Converters of layers with weights: convolutions, matrix products and sums of products with a parameter."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....graph import Node
from ..call import Call, converter
from ..shaping import affine, last


def _weights(call: Call) -> dict[str, np.ndarray]:
    params = {"weight": call.required(1, "weight")}
    bias = call.optional(2, "bias")
    return params if bias is None else {**params, "bias": bias}


def same_padding(call: Call, lower: bool, kernel: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """The padding before and behind every spatial axis that gives ceil(n / stride) outputs.

    Args:
        call: the node, whose first input has the axes.
        lower: whether an odd pixel goes before.
        kernel: how far the dilated window reaches.
        strides: of the windows.
    """
    pairs = []
    for axis, (reach, stride) in enumerate(zip(kernel, strides, strict=True), start=2):
        if stride == 1:
            total = max(reach - 1, 0)
        else:
            n = call.length(axis)
            total = max((-(-n // stride) - 1) * stride + reach - n, 0)
        small, large = total // 2, total - total // 2
        pairs.append((large, small) if lower else (small, large))
    return pairs


def geometry(call: Call, kernel: tuple[int, ...]) -> dict[str, Any]:
    """Stride, padding and dilation of a convolution or pooling node with a kernel."""
    rank = len(kernel)
    strides, dilations = call.attr("strides") or (1,) * rank, call.attr("dilations") or (1,) * rank
    pads, auto = call.attr("pads") or (0,) * (2 * rank), call.attr("auto_pad", "NOTSET")
    if len(pads) != 2 * rank or len(strides) != rank or len(dilations) != rank or min((0, *pads)) < 0:
        raise call.refusal(f"attributes pads = {list(pads)}, strides = {list(strides)} for kernel {list(kernel)}")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
        pairs = same_padding(call, auto == "SAME_LOWER", reach, strides)
        pads = (*(before for before, _ in pairs), *(after for _, after in pairs))
    elif auto == "VALID":
        pads = (0,) * (2 * rank)
    elif auto != "NOTSET":
        raise call.refusal(f"attribute auto_pad = {auto!r}")
    return {"stride": strides, "padding": pads[:rank], "padding_end": pads[rank:], "dilation": dilations}


def _kernel(call: Call, weight: np.ndarray) -> tuple[int, ...]:
    kernel = tuple(weight.shape[2:])
    if call.attr("kernel_shape", kernel) != kernel:
        raise call.refusal(f"attribute kernel_shape = {call.attr('kernel_shape')} for a weight {list(weight.shape)}")
    return kernel


@converter("Conv")
def conv(call: Call) -> Node:
    """One to three spatial axes."""
    params = _weights(call)
    attrs = geometry(call, _kernel(call, params["weight"]))
    return call.node("conv", {**attrs, "groups": call.attr("group", 1)}, params, inputs=call.x)


@converter("ConvTranspose")
def conv_transpose(call: Call) -> list[Node]:
    """One to three spatial axes; output_shape and auto_pad where the size of the input is fixed."""
    params = _weights(call)
    kernel = _kernel(call, params["weight"])
    none, ones = (0,) * len(kernel), (1,) * len(kernel)
    extra = call.attr("output_padding") or none
    pads, auto = call.attr("pads") or none * 2, call.attr("auto_pad", "NOTSET")
    if call.attr("output_shape") is not None or auto.startswith("SAME"):
        pads = _deconvolution_pads(call, kernel, extra)
    before, after = pads[: len(kernel)], pads[len(kernel) :]
    even = before == after and min(pads) >= 0
    attrs: dict[str, Any] = {
        "stride": call.attr("strides") or ones,
        "dilation": call.attr("dilations") or ones,
        "padding": before if even else none,
        "padding_end": before if even else none,
        "groups": call.attr("group", 1),
        "output_padding": extra,
    }
    if even:
        return [call.node("conv_transpose", attrs, params, inputs=call.x)]
    whole = call.step("conv_transpose", call.x, "whole", params, **attrs)
    return _cut(call, whole, pads)


def _cut(call: Call, step: Node, pads: tuple[int, ...]) -> list[Node]:
    """The step's output without its edges; a negative pad puts zeros there."""
    rank = len(pads) // 2
    axes = tuple(range(2, rank + 2))
    ends = tuple(-after if after > 0 else np.iinfo(np.int64).max for after in pads[rank:])
    starts = tuple(max(n, 0) for n in pads[:rank])
    cut: dict[str, Any] = {"axes": axes, "starts": starts, "ends": tuple(map(int, ends)), "steps": (1,) * rank}
    if min(pads) >= 0:
        return [step, call.node("slice", cut, inputs=step.outputs)]
    inner = call.step("slice", step.outputs, "cut", **cut)
    zeros = ((0, 0), (0, 0), *((max(-b, 0), max(-a, 0)) for b, a in zip(pads[:rank], pads[rank:], strict=True)))
    return [step, inner, call.node("pad", {"pads": zeros}, inputs=inner.outputs)]


def _deconvolution_pads(call: Call, kernel: tuple[int, ...], extra: tuple[int, ...]) -> tuple[int, ...]:
    """The pads that give the output the size that is asked for."""
    rank = len(kernel)
    strides, dilations = call.attr("strides") or (1,) * rank, call.attr("dilations") or (1,) * rank
    wanted, auto = call.attr("output_shape"), call.attr("auto_pad", "NOTSET")
    befores, afters = [], []
    for axis in range(rank):
        n = call.length(axis + 2)
        size = wanted[-rank:][axis] if wanted is not None else n * strides[axis]
        total = strides[axis] * (n - 1) + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - size
        if total % 2 and call.opset < 11:  # the specification exchanged the sides then
            raise call.refusal("attribute output_shape or auto_pad needs uneven pads", "opset 11 or newer")
        small, large = total // 2, total - total // 2
        befores.append(small if auto == "SAME_UPPER" else large)
        afters.append(large if auto == "SAME_UPPER" else small)
    return (*befores, *afters)


@converter("Gemm")
def gemm(call: Call) -> list[Node]:
    """By a constant matrix, plus anything constant that broadcasts."""
    call.ignore_attrs("broadcast")  # of opset 1 to 6, which forbid what newer ones allow
    weight = call.required(1, "second factor")
    weight = weight if call.flag("transB") else weight.T
    alpha, beta, added = call.attr("alpha", 1.0), call.attr("beta", 1.0), call.optional(2, "summand")
    params = {"weight": weight if alpha == 1 else weight * weight.dtype.type(alpha)}
    steps: list[Node] = []
    before = call.shapes()
    if call.flag("transA"):
        steps.append(call.step("transpose", call.x, "turned", perm=(1, 0)))
        before = None if before is None else tuple(shape[::-1] for shape in before)
    x = last(steps, call.x)
    if added is None:
        return [*steps, call.node("linear", params=params, inputs=x)]
    added = added if beta == 1 else added * added.dtype.type(beta)
    if added.size in (1, len(weight)) and added.size == (added.shape or (1,))[-1]:
        params["bias"] = np.array(np.broadcast_to(added.reshape(-1), (len(weight),)))
        return [*steps, call.node("linear", params=params, inputs=x)]
    steps.append(call.step("linear", x, "product", params))
    after = None if before is None else tuple((shape[0], len(weight)) for shape in before)
    return [*steps, *affine(call, steps[-1].outputs[0], after, shift=added)]


@converter("caffe.InnerProduct")
def inner_product(call: Call) -> Node:
    """By a constant matrix."""
    params = _weights(call)
    params["weight"] = params["weight"].T
    return call.node("linear", params=params, inputs=call.x)
