"""LRN, BatchNorm, BN, Scale, Bias."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ....errors import ModelError, ShapeError
from ..schema import enum_name
from ..writer import OnnxWriter
from .base import Param, Shape, Site, Tensors, filler, kind, unsupported


def lrn_shape(site: Site) -> list[Shape]:
    site.rank(4)
    return [site.shape]


def lrn(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    param = site.param
    if param.local_size % 2 == 0:
        raise ModelError(f"{site.where}: local_size {param.local_size}; wanted an odd number")
    if enum_name(param, "norm_region") == "ACROSS_CHANNELS":
        out.node("LRN", site.layer, alpha=param.alpha, beta=param.beta, bias=param.k, size=param.local_size)
        return
    # Caffe builds this region out of an average pooling and a power layer, and forgets k on the way: it is always 1
    out.call(
        "LRN", site.layer, alpha=param.alpha, beta=param.beta, k=1.0, local_size=param.local_size,
        norm_region="WITHIN_CHANNEL", kernel_shape=[param.local_size] * 2, pads=[param.local_size // 2] * 4,
    )  # fmt: skip


_SCALE_FIELDS = ("scale_bias", "scale_filler", "bias_filler")


def batch_norm_params(site: Site) -> list[Param]:
    """mean, variance, and the factor by which both are divided. Caffe starts all three at 0; 0, 1, 1 can be run.

    NVIDIA's and Intel's Caffe add scale and bias, where the settings or the stored weights say so. The order of the
    five in old files of NVIDIA's is another one: the factor comes last.
    """
    site.rank(1, 2, 3, 4, 5)
    param, channels = site.param, (site.shape[1] if len(site.shape) > 1 else 1,)
    mean, variance, factor = Param(channels), Param(channels, default=1.0), Param((1,), default=1.0)
    scaled = len(site.layer.stored) == 5 if site.layer.stored else any(param.HasField(name) for name in _SCALE_FIELDS)
    if not scaled or (not site.layer.stored and param.HasField("scale_bias") and not param.scale_bias):
        return [mean, variance, factor]
    scale, bias = Param(channels, filler(param, "scale_filler"), 1.0), Param(channels, filler(param, "bias_filler"))
    statistics, plane = [mean, variance, factor], [scale, bias]
    found = plane + statistics if _factor_last(site) else statistics + plane
    return [replace(param, loose=True) for param in found]


def _factor_last(site: Site) -> bool:
    return len(site.layer.stored) == 5 and site.layer.stored[4] == 1 and site.layer.stored[2] > 1


def batch_norm(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """By the stored statistics: `checking` has asked about those of the batch."""
    layer = site.layer
    if _factor_last(site):
        tensors = [*tensors[2:], *tensors[:2]]
    factor = float(tensors[2].ravel()[0])
    factor = 0.0 if factor == 0 else 1.0 / factor
    mean, variance = out.weights(layer, [array * np.float32(factor) for array in tensors[:2]])
    planes = tensors[3:] or [np.ones_like(tensors[0]), np.zeros_like(tensors[0])]
    scale, bias = (
        out.tensor(f"{layer.name}/{name}", np.asarray(array, np.float32))
        for name, array in zip(("scale", "bias"), planes, strict=True)
    )
    out.node("BatchNormalization", layer, [layer.inputs[0], scale, bias, mean, variance], epsilon=site.param.eps)


def bn_params(site: Site) -> list[Param]:
    """SegNet's BN holds scale and shift; PSPNet's holds slope, bias, mean and variance."""
    site.rank(1, 2, 3, 4, 5)
    param = site.param
    shape = (1, site.shape[1] if len(site.shape) > 1 else 1, 1, 1)
    if _is_segnet(site):
        if enum_name(param, "bn_mode") != "INFERENCE":
            raise unsupported(site, "bn_mode LEARN, which takes the statistics of the batch", "INFERENCE")
        fillers = [("scale_filler", 1.0), ("shift_filler", 0.0)]
    else:
        fillers = [("slope_filler", 1.0), ("bias_filler", 0.0), ("", 0.0), ("", 1.0)]
    return [Param(shape, filler(param, name) if name else None, start, loose=True) for name, start in fillers]


def _is_segnet(site: Site) -> bool:
    if site.layer.stored:
        return len(site.layer.stored) == 2
    return any(site.param.HasField(name) for name in ("bn_mode", "scale_filler", "shift_filler"))


def bn(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    layer = site.layer
    if _is_segnet(site):
        planes = [array.reshape(-1, *[1] * (len(site.shape) - 2)) for array in tensors]
        out.call("Scale", layer, [*layer.inputs, *out.weights(layer, planes)])
    else:
        weights = out.weights(layer, [array.ravel() for array in tensors])
        out.node("BatchNormalization", layer, [*layer.inputs, *weights], epsilon=site.param.eps)


def _covered(site: Site) -> tuple[int, Shape]:
    """The axis at which a Scale or Bias starts and the shape of its parameter."""
    param = site.param
    axis = site.axis(param.axis)
    if len(site.shapes) > 1:
        other = site.shapes[1]
        if site.shape[axis : axis + len(other)] != other:
            raise ShapeError(
                f"{site.where}: bottom '{site.layer.bottoms[1]}' has shape {list(other)}, which is no part of "
                f"{list(site.shape)} from axis {axis} on"
            )
        return axis, other
    end = len(site.shape) if param.num_axes == -1 else axis + param.num_axes
    if end > len(site.shape):
        raise ModelError(f"{site.where}: axis {axis} and num_axes {param.num_axes} exceed shape {list(site.shape)}")
    return axis, site.shape[axis:end]


def scale_params(site: Site) -> list[Param]:
    param, (_, shape) = site.param, _covered(site)
    found = [Param(shape, filler(param, "filler"), 1.0)] if len(site.shapes) == 1 else []
    return [*found, Param(shape, filler(param, "bias_filler"))] if param.bias_term else found


def covered_shape(site: Site) -> list[Shape]:
    _covered(site)
    return [site.shape]


def bias_params(site: Site) -> list[Param]:
    return [Param(_covered(site)[1], filler(site.param, "filler"))] if len(site.shapes) == 1 else []


def _broadcast(site: Site, tensors: Tensors) -> list[np.ndarray]:
    axis, shape = _covered(site)
    behind = len(site.shape) - axis - len(shape)
    return [array.reshape(*shape, *[1] * behind) for array in tensors]


def _second(site: Site, out: OnnxWriter) -> str:
    """The second bottom with axes behind its own, so that it broadcasts against the first."""
    axis, shape = _covered(site)
    axes = [*range(axis), *range(axis + len(shape), len(site.shape))]
    if not axes:
        return site.layer.inputs[1]
    constant = out.constant(f"{site.layer.name}/axes", axes)
    return out.helper("Unsqueeze", site.layer, "unsqueeze", [site.layer.inputs[1], constant])


def scale(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    if len(site.shapes) > 1:
        inputs = [site.layer.inputs[0], _second(site, out)]
        if not site.param.bias_term:
            out.node("Mul", site.layer, inputs)
            return
        product = out.helper("Mul", site.layer, "product", inputs)
        out.node("Add", site.layer, [product, *out.weights(site.layer, _broadcast(site, tensors))])
        return
    inputs = [*site.layer.inputs, *out.weights(site.layer, _broadcast(site, tensors))]
    if site.param.bias_term:
        out.call("Scale", site.layer, inputs)
    else:
        out.node("Mul", site.layer, inputs)


def bias(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    if len(site.shapes) > 1:
        other = _second(site, out)
        if site.shapes[1] != site.shape and site.layer.inputs[1] not in out.constant_values:
            value = out.value(f"{site.layer.outputs[0]}@expanded")
            out.call("ExpandLike", site.layer, [other, site.layer.inputs[0]], [value], suffix="expand")
            other = value
        out.node("Add", site.layer, [site.layer.inputs[0], other])
        return
    out.node("Add", site.layer, [*site.layer.inputs, *out.weights(site.layer, _broadcast(site, tensors))])


kind("LRN", lrn, shape=lrn_shape, settings="lrn_param")
kind("BatchNorm", batch_norm, params=batch_norm_params, settings="batch_norm_param")
kind("BN", bn, params=bn_params, settings="bn_param")
kind("Scale", scale, shape=covered_shape, params=scale_params, settings="scale_param", bottoms=(1, 2))
kind("Bias", bias, shape=covered_shape, params=bias_params, settings="bias_param", bottoms=(1, 2))
