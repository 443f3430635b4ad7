"""Layers that treat every number by itself: activations, Power, Dropout."""

from __future__ import annotations

from math import log

from ....errors import ModelError
from ..writer import OnnxWriter
from .base import LayerContext, Param, Tensors, register_layer


def relu(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    slope = ctx.param.negative_slope
    if ctx.param.relu6:
        if slope:
            raise ModelError(f"{ctx.where}: relu6 and negative_slope {slope}; wanted one of them")
        clip(ctx, out, tensors)
    elif slope:
        out.node("LeakyRelu", ctx.layer, alpha=slope)
    else:
        out.node("Relu", ctx.layer)


def prelu_params(ctx: LayerContext) -> list[Param]:
    ctx.rank(2, 3, 4, 5)
    param = ctx.param
    return [
        Param(
            () if param.channel_shared else (ctx.shape[1],),
            param.filler if param.HasField("filler") else None,
            0.25,
        )
    ]


def prelu(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    slope = tensors[0].reshape(-1, *[1] * (len(ctx.shape) - 2))
    out.node("PRelu", ctx.layer, [*ctx.layer.inputs, *out.weights(ctx.layer, [slope])])


def elu(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    out.node("Elu", ctx.layer, alpha=ctx.param.alpha)


def softmax(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    out.node("Softmax", ctx.layer, axis=ctx.axis(ctx.param.axis))


def power(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """(shift + scale * x) ** power."""
    param = ctx.param
    out.call("Power", ctx.layer, power=param.power, scale=param.scale, shift=param.shift)


def exp_or_log(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """base ** (shift + scale * x), and the logarithm of shift + scale * x; base -1 stands for e."""
    param = ctx.param
    if param.base != -1 and (param.base <= 0 or (param.base == 1 and ctx.layer.type == "Log")):
        raise ModelError(f"{ctx.where}: base {param.base:g}; wanted -1 or a base")
    base = 1.0 if param.base == -1 else log(param.base)
    if (base, param.scale, param.shift) == (1, 1, 0):
        out.node(ctx.layer.type, ctx.layer)
    elif ctx.layer.type == "Exp":
        out.call("Exp", ctx.layer, scale=param.scale * base, shift=param.shift * base)
    else:
        out.call("Log", ctx.layer, scale=param.scale, shift=param.shift, factor=1 / base)


def clip(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    low, high = (0.0, 6.0) if ctx.layer.type != "Clip" else (ctx.param.min, ctx.param.max)
    bounds = [out.scalar(f"{ctx.layer.name}/{name}", n) for name, n in (("min", low), ("max", high))]
    out.node("Clip", ctx.layer, [*ctx.layer.inputs, *bounds])


def swish(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    out.call("Swish", ctx.layer, beta=ctx.param.beta)


def threshold(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    out.call("Threshold", ctx.layer, threshold=ctx.param.threshold)


def dropout(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """Caffe scales while it trains, so that nothing is left to do here; forks can put it off until now."""
    if ctx.param.scale_train:
        out.node("Dropout", ctx.layer)
    else:
        factor = out.scalar(f"{ctx.layer.name}/scale", 1 - ctx.param.dropout_ratio)
        out.node("Mul", ctx.layer, [*ctx.layer.inputs, factor])


def _plain(name: str, op: str) -> None:
    register_layer(name, lambda ctx, out, tensors: out.node(op, ctx.layer))


register_layer("ReLU", relu, settings="relu_param")
register_layer("PReLU", prelu, params=prelu_params, settings="prelu_param")
register_layer("ELU", elu, settings="elu_param")
register_layer("Softmax", softmax, settings="softmax_param")
register_layer("Power", power, settings="power_param")
register_layer("Exp", exp_or_log, settings="exp_param")
register_layer("Log", exp_or_log, settings="log_param")
_plain("Sigmoid", "Sigmoid")
_plain("TanH", "Tanh")
_plain("AbsVal", "Abs")
_plain("BNLL", "Softplus")
register_layer("Dropout", dropout, settings="dropout_param")
register_layer("Clip", clip, settings="clip_param")
register_layer("ReLU6", clip)
register_layer("Swish", swish, settings="swish_param")
register_layer("Threshold", threshold, settings="threshold_param")
