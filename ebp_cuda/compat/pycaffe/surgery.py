"""Changes to a network's parameters that leave what it computes as it is."""

from __future__ import annotations

import numpy as np

from ...errors import UnsupportedError
from .net import PycaffeNet
from .network import Layer


def fold_negative_scales(net: PycaffeNet) -> list[str]:
    """Make every factor of every Scale layer positive, by turning the signs of what comes before it.

    Excitation Backprop hands p through Scale unchanged, which is right where the factor is positive. A channel with a
    negative factor g is turned around: the factor becomes -g, and the Convolution (or InnerProduct) that makes the
    channel gets -W and -bias, a BatchNorm in between -mean. All three are needed: with -W alone, as in the original's
    ResNet demo, the scores move. Returns the names of the Scale layers that changed. Raises UnsupportedError, before
    anything changes, where such a Scale does not follow a convolution alone.
    """
    found = [(layer, *_before(net, layer)) for layer in net.layers if _has_negative(layer)]
    for scale, norm, contraction in found:
        negative = np.flatnonzero(scale.blobs[0].data < 0)
        for blob in (scale.blobs[0], *contraction.blobs, *(norm.blobs[:1] if norm else [])):
            blob.data[negative] *= -1
    return [scale.name for scale, _, _ in found]


def _has_negative(layer: Layer) -> bool:
    return layer.type == "Scale" and bool(layer.blobs) and bool((layer.blobs[0].tensor < 0).any())


def _before(net: PycaffeNet, scale: Layer) -> tuple[Layer | None, Layer]:
    """The BatchNorm in front of a Scale, if there is one, and the layer with weights."""
    norm: Layer | None = None
    layer = _producer(net, scale)
    if layer is not None and layer.type == "BatchNorm":
        norm, layer = layer, _producer(net, layer)
    if layer is None or layer.type not in ("Convolution", "InnerProduct"):
        got = "an input" if layer is None else f"'{layer.name}' ({layer.type})"
        raise UnsupportedError(f"fold_negative_scales: '{scale.name}' follows {got}; wanted a convolution")
    return norm, layer


def _producer(net: PycaffeNet, layer: Layer) -> Layer | None:
    """The layer that writes the first bottom, where nobody else reads it."""
    value = layer.inputs[0]
    readers = [other for other in net.layers if value in other.inputs]
    found = next((other for other in net.layers if value in other.outputs and other.nodes), None)
    if found is not None and len(readers) > 1:
        raise UnsupportedError(f"fold_negative_scales: '{found.name}' in front of '{layer.name}' has other readers")
    return found
