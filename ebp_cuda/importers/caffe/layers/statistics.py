"""Layers that sum over whole axes: Reduction, MVN, Normalize."""

from __future__ import annotations

from ....errors import ModelError
from ..schema import enum_name
from ..writer import OnnxWriter
from .base import Param, Shape, Site, Tensors, filler, kind


def reduction_shape(site: Site) -> list[Shape]:
    return [site.shape[: site.axis(site.param.axis)]]


def reduction(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    axis, operation = site.axis(site.param.axis), enum_name(site.param, "operation")
    axes = list(range(axis, len(site.shape)))
    inputs = [*site.layer.inputs, out.constant(f"{site.layer.name}/axes", axes)]
    out.call(f"Reduction{operation}", site.layer, inputs, axes=axes, coeff=site.param.coeff)


def mvn_axes(site: Site) -> list[int]:
    site.rank(2, 3, 4)
    axes = list(range(1 if site.param.across_channels else 2, len(site.shape)))
    if not axes:
        raise ModelError(f"{site.where}: nothing to average in a bottom of shape {list(site.shape)}")
    return axes


def mvn(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    axes = mvn_axes(site)
    inputs = [*site.layer.inputs, out.constant(f"{site.layer.name}/axes", axes)]
    if site.param.normalize_variance:
        out.call("MVN", site.layer, inputs, axes=axes, eps=site.param.eps)
    else:
        out.call("MVNMean", site.layer, inputs, axes=axes)


def normalize_params(site: Site) -> list[Param]:
    site.rank(2, 3, 4)
    shape = (1,) if site.param.channel_shared else (site.shape[1],)
    return [Param(shape, filler(site.param, "scale_filler"), 1.0, loose=True)]


def normalize(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """x / sqrt(sum x^2 + eps) * scale (SSD)."""
    layer, param = site.layer, site.param
    axes = list(range(1, len(site.shape))) if param.across_spatial else [1]
    weights = out.weights(layer, [tensors[0].reshape(-1, *[1] * (len(site.shape) - 2))])
    inputs = [*layer.inputs, out.constant(f"{layer.name}/axes", axes), *weights]
    out.call("Normalize", layer, inputs, axes=axes, eps=param.eps)


kind("Reduction", reduction, shape=reduction_shape, settings="reduction_param")
kind("MVN", mvn, shape=lambda site: [site.shape] if mvn_axes(site) else [], settings="mvn_param")
kind("Normalize", normalize, params=normalize_params, settings="norm_param")
