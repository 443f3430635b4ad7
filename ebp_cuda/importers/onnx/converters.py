"""One function per ONNX operator, or per family of them: a call becomes a node of the vocabulary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...errors import UnsupportedError
from ...graph import Node
from . import caffe_converters  # noqa: F401  it fills CONVERTERS too
from .call import CONVERTERS, Call, axes_of, converter, spatial

__all__ = ["CONVERTERS"]


def _weights(call: Call) -> dict[str, np.ndarray]:
    params = {"weight": call.required(1, "weight")}
    if len(call.inputs) > 2 and call.inputs[2]:
        params["bias"] = call.required(2, "bias")
    return params


@converter("Conv")
def conv(call: Call) -> Node:
    params = _weights(call)
    rank = params["weight"].ndim - 2
    return call.node("conv", {**spatial(call, rank), "groups": call.attr("group", 1)}, params)


@converter("ConvTranspose")
def conv_transpose(call: Call) -> Node:
    params = _weights(call)
    rank = params["weight"].ndim - 2
    extra = tuple(call.attr("output_padding") or [0] * rank)
    attrs = {**spatial(call, rank), "groups": call.attr("group", 1), "output_padding": extra}
    return call.node("conv_transpose", attrs, params)


@converter("Gemm")
def gemm(call: Call) -> Node:
    if call.attr("transA", 0):
        raise UnsupportedError(f"{call.where}: transA; wanted a plain fully connected layer")
    params = _weights(call)
    weight = params["weight"] if call.attr("transB", 0) else params["weight"].T
    params["weight"] = weight * weight.dtype.type(call.attr("alpha", 1.0)) if call.attr("alpha", 1.0) != 1 else weight
    if "bias" in params:
        bias = params["bias"] * params["bias"].dtype.type(call.attr("beta", 1.0))
        params["bias"] = np.broadcast_to(bias.reshape(-1), (weight.shape[0],))
    return call.node("linear", params=params)


@converter("MatMul", "caffe.InnerProduct")
def matmul(call: Call) -> Node:
    params = _weights(call)
    if params["weight"].ndim != 2:
        raise UnsupportedError(f"{call.where}: weight of shape {list(params['weight'].shape)}; wanted two axes")
    params["weight"] = params["weight"].T
    return call.node("linear", params=params)


@converter("MaxPool", "AveragePool", "caffe.Pooling")
def pool(call: Call) -> Node:
    kernel = tuple(call.attr("kernel_shape"))
    attrs = {**spatial(call, len(kernel)), "kernel": kernel, "ceil_mode": bool(call.attr("ceil_mode", 0))}
    if call.proto.op_type == "MaxPool":
        return replace(call.node("max_pool", attrs), outputs=tuple(call.outputs))
    return call.node("avg_pool", {**attrs, "count_include_pad": bool(call.attr("count_include_pad", 0))})


@converter("GlobalMaxPool", "GlobalAveragePool")
def global_pool(call: Call) -> Node:
    return call.node("max_pool" if call.proto.op_type == "GlobalMaxPool" else "avg_pool", {"kernel": None})


@converter("ReduceMean")
def reduce_mean(call: Call) -> Node:
    node = call.node("mean", {"axes": tuple(axes_of(call)), "keepdims": bool(call.attr("keepdims", 1))})
    return replace(node, inputs=node.inputs[:1])


_PLAIN = {
    "Relu": "relu", "Abs": "abs", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "Softplus": "softplus", "HardSwish": "hard_swish", "Identity": "identity", "Cast": "identity",
}  # fmt: skip


@converter(*_PLAIN)
def plain(call: Call) -> Node:
    return call.node(_PLAIN[call.proto.op_type])


@converter("Dropout")
def dropout(call: Call) -> Node:
    node = call.node("identity")
    return replace(node, inputs=node.inputs[:1])


@converter("LeakyRelu")
def leaky_relu(call: Call) -> Node:
    return call.node("leaky_relu", {"slope": call.attr("alpha", 0.01)})


@converter("PRelu")
def prelu(call: Call) -> Node:
    return call.node("prelu", params={"weight": call.required(1, "slope").reshape(-1)})


@converter("Elu")
def elu(call: Call) -> Node:
    return call.node("elu", {"alpha": call.attr("alpha", 1.0)})


@converter("HardSigmoid")
def hard_sigmoid(call: Call) -> Node:
    return call.node("hard_sigmoid", {"alpha": call.attr("alpha", 0.2), "beta": call.attr("beta", 0.5)})


@converter("Clip")
def clip(call: Call) -> Node:
    bounds = []
    for name, index, default in (("min", 1, -np.inf), ("max", 2, np.inf)):
        given = call.constant(index)
        bounds.append(float(call.attr(name, default) if given is None else given))
    return call.node("clip", {"min": bounds[0], "max": bounds[1]})


@converter("Softmax")
def softmax(call: Call) -> Node:
    return call.node("softmax", {"axis": call.attr("axis", -1)})


@converter("LRN")
def lrn(call: Call) -> Node:
    attrs = {"size": call.attr("size"), "alpha": call.attr("alpha", 1e-4), "beta": call.attr("beta", 0.75)}
    return call.node("lrn", {**attrs, "k": call.attr("bias", 1.0), "region": "across"})


@converter("BatchNormalization")
def batch_norm(call: Call) -> Node:
    names = ("weight", "bias", "mean", "var")
    params = {name: call.required(index + 1, name) for index, name in enumerate(names)}
    return call.node("batch_norm", {"eps": call.attr("epsilon", 1e-5)}, params)


@converter("Add", "Sub", "Mul", "Div", "Sum", "Max")
def arithmetic(call: Call) -> Node:
    kind = call.proto.op_type
    given = [call.constant(index) for index in range(len(call.inputs))]
    if not any(array is not None for array in given):
        op = {"Add": "sum", "Sum": "sum", "Mul": "mul", "Max": "max"}.get(kind)
        if op is None:
            raise UnsupportedError(f"{call.where}: {kind} of two activations has no rule")
        return call.node(op if len(given) > 1 else "identity")
    if len(given) != 2 or kind == "Max" or (kind == "Div" and given[0] is not None):
        raise UnsupportedError(f"{call.where}: {kind} with a constant; wanted x op constant")
    constant = np.asarray(given[0] if given[0] is not None else given[1], np.float32)
    if kind in ("Mul", "Div"):
        return call.node("affine", params={"scale": constant if kind == "Mul" else 1 / constant})
    if kind == "Sub" and given[0] is not None:
        return call.node("affine", params={"scale": np.float32(-1), "shift": constant})
    return call.node("affine", params={"shift": constant if kind == "Add" else -constant})


@converter("Concat")
def concat(call: Call) -> Node:
    return call.node("concat" if len(call.inputs) > 1 else "identity", {"axis": call.attr("axis")})


@converter("Slice")
def slice_(call: Call) -> Node:
    if call.attr("starts") is not None:
        starts, ends, axes, steps = (call.attr(name) for name in ("starts", "ends", "axes", "steps"))
    else:
        starts, ends = call.required(1, "starts"), call.required(2, "ends")
        axes, steps = (call.optional(index, what) for index, what in ((3, "axes"), (4, "steps")))
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    columns = zip(("axes", "starts", "ends", "steps"), (axes, starts, ends, steps), strict=True)
    return call.node("slice", {name: tuple(int(n) for n in values) for name, values in columns})


@converter("Split")
def split(call: Call) -> Node:
    sizes = call.attr("split") if call.attr("split") is not None else call.required(1, "split sizes")
    node = call.node("split", {"axis": call.attr("axis", 0), "sizes": tuple(int(n) for n in sizes)})
    return replace(node, outputs=tuple(call.outputs))


@converter("Flatten")
def flatten(call: Call) -> Node:
    return call.node("flatten", {"axis": call.attr("axis", 1)})


@converter("Reshape")
def reshape(call: Call) -> Node:
    return call.node("reshape", {"shape": tuple(int(n) for n in call.required(1, "shape"))})


@converter("Squeeze", "Unsqueeze")
def squeeze(call: Call) -> Node:
    node = call.node(call.proto.op_type.lower(), {"axes": tuple(axes_of(call))})
    return replace(node, inputs=node.inputs[:1])


@converter("Transpose")
def transpose(call: Call) -> Node:
    return call.node("transpose", {"perm": tuple(call.attr("perm"))})


@converter("Pad")
def pad(call: Call) -> Node:
    flat = [int(n) for n in (call.attr("pads") or call.required(1, "pads"))]
    if call.attr("mode", "constant") != "constant":
        raise UnsupportedError(f"{call.where}: mode {call.attr('mode')}; wanted constant")
    given = call.constant(2)
    value = float(call.attr("value", 0.0) if given is None else given)
    half = len(flat) // 2
    return call.node("pad", {"pads": tuple(zip(flat[:half], flat[half:], strict=True)), "value": value})
