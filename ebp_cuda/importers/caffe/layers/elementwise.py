"""Layers that treat every number by itself: activations, Power, Dropout."""

from __future__ import annotations

from math import log

from ....errors import ModelError
from ..writer import OnnxWriter
from .base import Param, Site, Tensors, kind


def relu(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    slope = site.param.negative_slope
    if site.param.relu6:
        if slope:
            raise ModelError(f"{site.where}: relu6 and negative_slope {slope}; wanted one of them")
        clip(site, out, tensors)
    elif slope:
        out.node("LeakyRelu", site.layer, alpha=slope)
    else:
        out.node("Relu", site.layer)


def prelu_params(site: Site) -> list[Param]:
    site.rank(2, 3, 4, 5)
    param = site.param
    return [
        Param(
            () if param.channel_shared else (site.shape[1],), param.filler if param.HasField("filler") else None, 0.25
        )
    ]


def prelu(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    slope = tensors[0].reshape(-1, *[1] * (len(site.shape) - 2))
    out.node("PRelu", site.layer, [*site.layer.inputs, *out.weights(site.layer, [slope])])


def elu(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    out.node("Elu", site.layer, alpha=site.param.alpha)


def softmax(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    out.node("Softmax", site.layer, axis=site.axis(site.param.axis))


def power(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """(shift + scale * x) ** power."""
    param = site.param
    out.call("Power", site.layer, power=param.power, scale=param.scale, shift=param.shift)


def exp_or_log(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """base ** (shift + scale * x), and the logarithm of shift + scale * x; base -1 stands for e."""
    param = site.param
    if param.base != -1 and (param.base <= 0 or (param.base == 1 and site.layer.type == "Log")):
        raise ModelError(f"{site.where}: base {param.base:g}; wanted -1 or a base")
    base = 1.0 if param.base == -1 else log(param.base)
    if (base, param.scale, param.shift) == (1, 1, 0):
        out.node(site.layer.type, site.layer)
    elif site.layer.type == "Exp":
        out.call("Exp", site.layer, scale=param.scale * base, shift=param.shift * base)
    else:
        out.call("Log", site.layer, scale=param.scale, shift=param.shift, factor=1 / base)


def clip(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    low, high = (0.0, 6.0) if site.layer.type != "Clip" else (site.param.min, site.param.max)
    bounds = [out.scalar(f"{site.layer.name}/{name}", n) for name, n in (("min", low), ("max", high))]
    out.node("Clip", site.layer, [*site.layer.inputs, *bounds])


def swish(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    out.call("Swish", site.layer, beta=site.param.beta)


def threshold(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    out.call("Threshold", site.layer, threshold=site.param.threshold)


def dropout(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """Caffe scales while it trains, so that nothing is left to do here; forks can put it off until now."""
    if site.param.scale_train:
        out.node("Dropout", site.layer)
    else:
        factor = out.scalar(f"{site.layer.name}/scale", 1 - site.param.dropout_ratio)
        out.node("Mul", site.layer, [*site.layer.inputs, factor])


def _plain(name: str, op: str) -> None:
    kind(name, lambda site, out, tensors: out.node(op, site.layer))


kind("ReLU", relu, settings="relu_param")
kind("PReLU", prelu, params=prelu_params, settings="prelu_param")
kind("ELU", elu, settings="elu_param")
kind("Softmax", softmax, settings="softmax_param")
kind("Power", power, settings="power_param")
kind("Exp", exp_or_log, settings="exp_param")
kind("Log", exp_or_log, settings="log_param")
_plain("Sigmoid", "Sigmoid")
_plain("TanH", "Tanh")
_plain("AbsVal", "Abs")
_plain("BNLL", "Softplus")
kind("Dropout", dropout, settings="dropout_param")
kind("Clip", clip, settings="clip_param")
kind("ReLU6", clip)
kind("Swish", swish, settings="swish_param")
kind("Threshold", threshold, settings="threshold_param")
