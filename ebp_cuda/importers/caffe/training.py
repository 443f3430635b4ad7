"""Which layers of a network only train or measure it: losses, scores, and what prepares labels for them."""

from __future__ import annotations

from collections.abc import Sequence

from .layer import Layer

_SINKS = frozenset({"Silence", "HDF5Output"})
_CARRIERS = frozenset({"Slice", "Reshape", "Flatten", "Split"})
_LABEL_MAKERS = frozenset({"Python", "BoxAnnotatorOHEM", "SampleTriplet", "LabelMix", "Gather"})
"""Types of forks that may select or make the labels of a loss."""


def is_loss(kind: str) -> bool:
    """Whether a layer type computes a training loss: SoftmaxWithLoss, EuclideanLoss, SmoothL1LossOHEM, ..."""
    return "Loss" in kind


def _measures(layer: Layer) -> bool:
    """Losses, scores, and layers that swallow a blob; a Python layer is a loss by its class or its weight."""
    kind = layer.type
    if kind == "Python":
        return "Loss" in layer.proto.python_param.layer or any(layer.proto.loss_weight)
    return is_loss(kind) or kind in _SINKS or "Accuracy" in kind or "Evaluate" in kind or kind.startswith("Eval")


def drop_training_parts(layers: Sequence[Layer]) -> None:
    """Mark losses and their like as dropped, and what feeds nothing else: labels, and the layers that prepare them."""
    read_by_kept: set[str] = set()
    read_by_dropped: set[str] = set()
    for layer in reversed(layers):
        outputs = set(layer.outputs)
        for_loss_only = outputs <= read_by_dropped
        prepares = layer.type in _CARRIERS or layer.type in _LABEL_MAKERS
        prepares |= layer.brings_data and layer.type != "Input"
        layer.dropped = outputs.isdisjoint(read_by_kept) and (_measures(layer) or (for_loss_only and prepares))
        (read_by_dropped if layer.dropped else read_by_kept).update(layer.inputs)
