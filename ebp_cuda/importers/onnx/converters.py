"""One function per ONNX operator, or per family of them: a call becomes a node of the vocabulary."""

from __future__ import annotations

import numpy as np

from ...errors import UnsupportedError
from ...graph import Node
from . import arithmetic, caffe_converters, copies, norms  # noqa: F401  they fill CONVERTERS too
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


@converter("MaxPool", "AveragePool")
def pool(call: Call) -> Node:
    kernel = tuple(call.attr("kernel_shape"))
    attrs = {**spatial(call, len(kernel)), "kernel": kernel, "ceil_mode": bool(call.attr("ceil_mode", 0))}
    if call.proto.op_type == "MaxPool":
        return call.node("max_pool", attrs, outputs=tuple(call.outputs))
    return call.node("avg_pool", {**attrs, "count_include_pad": bool(call.attr("count_include_pad", 0))})


@converter("GlobalMaxPool", "GlobalAveragePool")
def global_pool(call: Call) -> Node:
    return call.node("max_pool" if call.proto.op_type == "GlobalMaxPool" else "avg_pool", {"kernel": None})


_PLAIN = {
    "Relu": "relu", "Abs": "abs", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "Softplus": "softplus", "Erf": "erf", "HardSwish": "hard_swish", "Identity": "identity", "Cast": "identity",
}  # fmt: skip


@converter(*_PLAIN)
def plain(call: Call) -> Node:
    return call.node(_PLAIN[call.proto.op_type])


@converter("Dropout")
def dropout(call: Call) -> Node:
    return call.node("identity", inputs=call.inputs[:1])


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
    if call.attr("training_mode") or call.attr("spatial", 1) != 1:
        raise UnsupportedError(f"{call.where}: training_mode or spatial=0; wanted stored statistics per channel")
    return call.node("batch_norm", {"eps": call.attr("epsilon", 1e-5)}, params)


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
    axis, sizes = call.attr("axis", 0), call.attr("split")
    if sizes is None:
        sizes = call.optional(1, "split sizes")
    if sizes is None:
        call.rank()
        whole, count = (call.shapes(0) or ((),))[0][axis], len(call.outputs)
        part = -(-whole // count)
        sizes = [min(part, whole - i * part) for i in range(count)]
    return call.node("split", {"axis": axis, "sizes": tuple(int(n) for n in sizes)}, outputs=call.outputs)


@converter("Flatten")
def flatten(call: Call) -> Node:
    return call.node("flatten", {"axis": call.attr("axis", 1)})


@converter("Reshape")
def reshape(call: Call) -> Node:
    given = call.attr("shape")  # before opset 5
    wanted = [(int(n),) * 2 for n in given] if given is not None else call.lengths(1, "shape")
    if call.attr("allowzero") and any(0 in n for n in wanted):
        raise UnsupportedError(f"{call.where}: allowzero with an empty axis")
    free = [axis for axis, n in enumerate(wanted) if len(set(n)) > 1]
    if not free:
        shape = [n[0] for n in wanted]
    else:
        before = call.shapes(0)
        like = list(zip(*before, strict=True)) if before else []
        shape = [
            n[0] if axis not in free else 0 if axis < len(like) and like[axis] == n else -1
            for axis, n in enumerate(wanted)
        ]
    if shape.count(-1) > 1:
        raise UnsupportedError(f"{call.where}: several axes of its shape depend on the size of the input")
    return call.node("reshape", {"shape": tuple(shape)}, inputs=call.inputs[:1])


@converter("Squeeze", "Unsqueeze")
def squeeze(call: Call) -> Node:
    axes = axes_of(call)
    if axes is None:  # a Squeeze of all axes of size 1
        axes = [axis for axis, n in enumerate((call.shapes(0) or ((),))[0]) if n == 1]
    return call.node(call.proto.op_type.lower(), {"axes": tuple(axes)}, inputs=call.inputs[:1])


@converter("Transpose")
def transpose(call: Call) -> Node:
    return call.node("transpose", {"perm": tuple(call.attr("perm"))})
