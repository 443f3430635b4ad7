"""Descriptions of the published networks, written as short Python that emits the deploy prototxt.

from ebp_cuda import models
models.names()                      # ['googlenet', 'googlenet_coco', 'vgg16', ...]
text = models.prototxt("vgg16")     # the original layer and blob names
models.labels("imagenet")[285]      # 'Egyptian cat'
models.model("vgg16").layer         # 'pool4'
models.open_model("torchvision:resnet50", "weights.pth")   # a Net, from a file or by a name
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from ebp_cuda.errors import InputError, ShapeError, nearest_names

from ._data import FOLDER
from .catalogue import MODELS, Model, Weights
from .opening import open_model

__all__ = ["Model", "Weights", "labels", "model", "names", "open_model", "preprocess", "prototxt", "recognize"]

_LABELS = FOLDER / "labels"


def names() -> list[str]:
    """The networks of the catalogue."""
    return list(MODELS)


def model(name: str) -> Model:
    """The catalogue's entry. Raises InputError with the nearest names for an unknown one."""
    if name not in MODELS:
        raise InputError(
            f"no network '{name}' in the catalogue{nearest_names(name, MODELS)} (known: {', '.join(MODELS)})"
        )
    return MODELS[name]


def prototxt(name: str, *, input_shape: Sequence[int] | None = None, classes: int | None = None) -> str:
    """The deploy prototxt of a network, as text.

    input_shape: [N, 3, H, W], by default one image of the size the network was trained for. classes: width of the
    last layer, by default the published one. Raises InputError for an unknown name, ShapeError for a bad shape.
    """
    entry = model(name)
    shape = entry.input_shape if input_shape is None else tuple(int(dim) for dim in input_shape)
    if len(shape) != 4 or shape[1] != 3 or min(shape) < 1:
        raise ShapeError(f"{name}: input_shape {list(shape)} is not [N, 3, H, W] with positive numbers")
    return entry.build(shape, entry.classes if classes is None else classes)


@cache
def _read_labels(label_set: str) -> tuple[str, ...]:
    return tuple((_LABELS / f"{label_set}.txt").read_text(encoding="utf-8").splitlines())


def labels(name: str) -> list[str]:
    """Class names in the order of the network's outputs.

    name: "imagenet" (1000, ILSVRC-2012 synsets in sorted order, first lemma), "coco80" (80, category ids in
    ascending order), or a network of the catalogue. Raises InputError for anything else.
    """
    known = sorted(path.stem for path in _LABELS.glob("*.txt"))
    label_set = MODELS[name].label_set if name in MODELS else name
    if label_set not in known:
        raise InputError(f"no class names '{name}'{nearest_names(name, [*known, *MODELS])} (known: {', '.join(known)})")
    return list(_read_labels(label_set))


@cache
def _weight_layers(name: str) -> frozenset[str]:
    """The names of the layers with weights, as the prototxt has them."""
    pairs = re.findall(r'name:\s*"([^"]+)"\s+type:\s*"(Convolution|InnerProduct)"', prototxt(name))
    return frozenset(layer for layer, _ in pairs)


def recognize(weight_layers: Collection[str]) -> Model | None:
    """The network of the catalogue whose layers with weights have exactly these names; None where there is none."""
    return next((MODELS[name] for name in MODELS if _weight_layers(name) == frozenset(weight_layers)), None)


def preprocess(name: str) -> dict[str, Any]:
    """How an image becomes the network's input: size, shortest_side, channel_order, raw_scale, mean, std."""
    return deepcopy(dict(model(name).preprocess))
