"""The ONNX functions of domain "ebp_cuda.caffe": Caffe layers that no single standard operator says.

A runtime inlines them. The engine's importer reads a call by its name and attributes and ignores the body.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx.parser

from .function_bodies import BODIES

DOMAIN = "ebp_cuda.caffe"
OPSET = 18

_HEADER = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>'

_BODIES = {
    **BODIES,
    # x * scale + shift, the parameters shaped to broadcast
    "Scale": """Scale (x, scale, shift) => (y) {
        scaled = Mul(x, scale)
        y = Add(scaled, shift)
    }""",
    # a fully connected layer on the last axis; weight [inner, num_output]
    "InnerProduct": """InnerProduct (x, weight, bias) => (y) {
        product = MatMul(x, weight)
        y = Add(product, bias)
    }""",
    "Power": """Power <power, scale, shift> (x) => (y) {
        factor = Constant <value_float: float = @scale> ()
        offset = Constant <value_float: float = @shift> ()
        exponent = Constant <value_float: float = @power> ()
        scaled = Mul(x, factor)
        shifted = Add(scaled, offset)
        y = Pow(shifted, exponent)
    }""",
    # average pooling whose last windows may overhang the padded image: each divides by the part inside
    # (the paddings are inputs because onnx 1.16 infers no shapes from a Constant that an attribute fills; the inner
    # poolings count padding, of which they have none, because old runtimes fold the Pad before them into them)
    "Pooling": """Pooling <kernel_shape, strides, pads, ceil_mode, count_include_pad>
        (x, image_pads, ones_pads, end_pads) => (y) {
        zero = Constant <value = float {0}> ()
        one = Constant <value = float {1}> ()
        single = Constant <value = int64[2] {1, 1}> ()
        image = Pad(x, image_pads, zero)
        total = AveragePool
            <kernel_shape: ints = @kernel_shape, strides: ints = @strides, count_include_pad: int = 1> (image)
        plane = Shape <start: int = 2> (x)
        shape = Concat <axis: int = 0> (single, plane)
        ones = ConstantOfShape <value: tensor = float[1] {1}> (shape)
        padded = Pad(ones, ones_pads, one)
        extended = Pad(padded, end_pads, zero)
        inside = AveragePool
            <kernel_shape: ints = @kernel_shape, strides: ints = @strides, count_include_pad: int = 1> (extended)
        y = Div(total, inside)
    }""",
    # Caffe's mask: index of the winner within its plane, as a float; ONNX counts through the whole tensor
    "PoolingMask": """PoolingMask (indices, x) => (mask) {
        height = Shape <start: int = 2, end: int = 3> (x)
        width = Shape <start: int = 3, end: int = 4> (x)
        plane = Mul(height, width)
        place = Mod(indices, plane)
        mask = Cast <to: int = 1> (place)
    }""",
    "LRN": """LRN <local_size, alpha, beta, k, norm_region, kernel_shape, pads> (x) => (y) {
        factor = Constant <value_float: float = @alpha> ()
        offset = Constant <value_float: float = @k> ()
        exponent = Constant <value_float: float = @beta> ()
        square = Mul(x, x)
        mean = AveragePool
            <kernel_shape: ints = @kernel_shape, pads: ints = @pads, count_include_pad: int = 1> (square)
        scaled = Mul(mean, factor)
        base = Add(scaled, offset)
        norm = Pow(base, exponent)
        y = Div(x, norm)
    }""",
}


def eltwise_name(count: int) -> str:
    """Name of the weighted sum of `count` inputs: "Eltwise" for two, "Eltwise3" for three, ..."""
    return "Eltwise" if count == 2 else f"Eltwise{count}"


def _eltwise(count: int) -> str:
    names = [f"x{i}" for i in range(count)]
    lines = [
        f"i{i} = Constant <value = int64 {{{i}}}> ()\n c{i} = Gather(factors, i{i})\n s{i} = Mul(x{i}, c{i})"
        for i in range(count)
    ]
    total = f"y = Sum({', '.join(f's{i}' for i in range(count))})"
    head = f"{eltwise_name(count)} <operation, coeff> ({', '.join(names)}) => (y)"
    return "\n".join([head, "{", "factors = Constant <value_floats: floats = @coeff> ()", *lines, total, "}"])


def function(name: str, inputs: Sequence[str]) -> onnx.FunctionProto:
    """The definition of a function as it is called with `inputs`."""
    body = _BODIES[name] if name in _BODIES else _eltwise(len(inputs))
    parsed = onnx.parser.parse_function(f"{_HEADER}\n{body}")
    for node in parsed.node:  # the text has no word for an input that is left out
        node.input[:] = ["" if name == "none" else name for name in node.input]
    return parsed
