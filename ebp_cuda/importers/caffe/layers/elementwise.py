"""Layers that treat every number by itself: activations, Power, Dropout."""

from __future__ import annotations

from ..writer import OnnxWriter
from .base import Param, Site, Tensors, kind, unsupported


def relu(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    slope = site.param.negative_slope
    if slope:
        out.node("LeakyRelu", site.layer, alpha=slope)
    else:
        out.node("Relu", site.layer)


def prelu_params(site: Site) -> list[Param]:
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
    param = site.param
    if (param.base, param.scale, param.shift) != (-1, 1, 0):
        got = f"base {param.base:g}, scale {param.scale:g}, shift {param.shift:g}"
        raise unsupported(site, got, "the defaults (natural base, scale 1, shift 0)")
    out.node(site.layer.type, site.layer)


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
# Caffe scales while it trains, so a dropout at inference changes nothing; neither does it here in phase TRAIN
_plain("Dropout", "Dropout")
