"""`explain`: whatever people call a network and a photo, as maps with a picture."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..api import ExcitationBackprop
from ..batch.photos import picture_of_input, preprocess_of
from ..engine.condition import frames_of_ours
from ..errors import InputError, ShapeError
from ..images.photo import Photo as Decoded
from ..images.photo import open_photo
from ..images.preprocess import Preprocess, prepare
from ..interop import to_tensor
from ..models import labels as shipped_labels
from ..models import open_model
from ..net import Net
from ..targets import Target
from .result import Explanation, Picture

Network = Net | torch.nn.Module | ExcitationBackprop | str | Path
PhotoLike = Any
"""A path, a PIL image, an array uint8 [H, W, 3], or a network input: a float tensor or array [N, C, ...]."""

_IMAGENET = Preprocess(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What torchvision's classifiers are trained with."""


def explain(
    network: Network,
    photo: PhotoLike | Sequence[PhotoLike],
    target: Target = "top1",
    *,
    preprocess: Preprocess | Mapping[str, Any] | None = None,
    labels: Sequence[str] | str | None = None,
    weights: str | Path | None = None,
    **options: Any,
) -> Explanation:
    """Where in a photo a network sees the evidence for a class, as maps with a picture.

    ebp_cuda.explain(module, "cat.jpg").save("map.png")
    ebp_cuda.explain("net.onnx", ["cat.jpg", "dog.jpg"], "top3")     # a notebook shows the picture by itself

    Layer, contrast and rules are chosen unless `options` name them (contrast_layer=None gives MWP); the picture and
    `setting` say which. For many
    photos make one `ExcitationBackprop` of a torch module and give that: a module is read anew by every call.

    Args:
        network: a Net, a torch module, an `ExcitationBackprop`, or what `models.open_model` takes.
        photo: a path, a PIL image, or an array uint8 [H, W, 3], or a list of them; or a network input, a float tensor
            or array [N, C, H, W], which is taken as it is.
        target: as for `ExcitationBackprop.attribute`.
        preprocess: how a photo becomes an input (`Preprocess`, or its fields). None: as the network says, or the timm
            model's config, or ImageNet's mean and std for a torchvision classifier; else a warning says what was taken.
        labels: names of the classes, or a shipped list: "imagenet", "coco80". None: the network's own.
        weights: of `open_model`.
        **options: of `ExcitationBackprop`.

    Raises:
        InputError: a photo that cannot be read, something that is no photo, and as `ExcitationBackprop`.
        ShapeError: an array of another shape.
        ModelError: as `open_model`.
        UnsupportedError: as `ExcitationBackprop`.
    """
    eb = _method(network, weights, labels, options)
    photos = list(photo) if isinstance(photo, (list, tuple)) and photo else [photo]
    how, known = _preprocess(eb.network, preprocess)
    pictures: list[Picture]
    if all(map(_is_photo, photos)):
        if not known:
            _warn(eb.network, how)
        decoded = [_decoded(one) for one in photos]
        x, pictures = prepare(decoded, how), [one.pixels() for one in decoded]
    else:
        x = _input(photo)
        numbers = x.detach().cpu().float().numpy()
        pictures = [picture_of_input(one, how) if known else _stretched(one) for one in numbers]
    attribution = eb.run(x, target)
    return Explanation(attribution, pictures, eb.labels or eb.net.labels, eb.net.graph.origin)


def _method(
    network: object, weights: str | Path | None, labels: Sequence[str] | str | None, options: Mapping[str, Any]
) -> ExcitationBackprop:
    if isinstance(network, ExcitationBackprop):
        given = [*options, *(["labels"] if labels is not None else []), *(["weights"] if weights is not None else [])]
        if given:
            raise InputError(f"explain: got {', '.join(given)}, which an ExcitationBackprop has of its own")
        return network
    if isinstance(network, (str, Path)):
        network = open_model(network, weights)
    if not isinstance(network, (Net, torch.nn.Module)):
        raise InputError(f"explain: network is a {type(network).__name__}; wanted a Net, a torch module or a path")
    names = shipped_labels(labels) if isinstance(labels, str) else labels
    return ExcitationBackprop(network, labels=names, **{"contrast_layer": "auto", **options})


def _preprocess(network: Net | torch.nn.Module, own: Preprocess | Mapping[str, Any] | None) -> tuple[Preprocess, bool]:
    """How a photo becomes an input, and whether anybody said so."""
    if own is not None:
        return (own if isinstance(own, Preprocess) else Preprocess.from_dict(own)), True
    module = network.module if isinstance(network, Net) else network
    fixed = preprocess_of(network, {}) if isinstance(network, Net) else Preprocess(size=_IMAGENET.size)
    if isinstance(network, Net) and network.preprocess is not None:
        return fixed, True
    how = None
    if isinstance(getattr(module, "pretrained_cfg", None), Mapping):
        how = Preprocess.from_timm(module)
    elif type(module).__module__.startswith("torchvision.models."):
        how = _IMAGENET
    if how is None:
        return fixed, False
    return (how.override(size=fixed.size) if isinstance(network, Net) else how), True


def _warn(network: Net | torch.nn.Module, how: Preprocess) -> None:
    origin = network.graph.origin if isinstance(network, Net) else type(network).__name__
    size = f"{how.size[0]} x {how.size[1]}" if how.size else "its own size"
    warnings.warn(
        f"{origin} does not say how photos become its input; taking RGB in 0..1 at {size} (see preprocess=, such as "
        "Preprocess(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), which is ImageNet's)",
        UserWarning,
        stacklevel=frames_of_ours(),
    )


def _is_photo(photo: object) -> bool:
    pixels = isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3
    return pixels or isinstance(photo, (str, Path, Image.Image))


def _decoded(photo: Any) -> Decoded:
    if isinstance(photo, (str, Path)):
        return open_photo(photo)
    return Decoded.of_array(np.asarray(photo.convert("RGB") if isinstance(photo, Image.Image) else photo))


def _input(photo: object) -> torch.Tensor:
    """A network input [N, C, ...] as a tensor."""
    try:
        x = to_tensor(photo)
    except (TypeError, ValueError, RuntimeError, BufferError):
        wanted = "a path, a PIL image, uint8 [H, W, 3], or a float tensor [N, C, ...]"
        raise InputError(f"explain: photo is a {type(photo).__name__}; wanted {wanted}") from None
    if not x.is_floating_point():
        raise InputError(f"explain: photo has dtype {x.dtype}; wanted uint8 [H, W, 3] or a float input [N, C, ...]")
    if x.dim() < 3:
        raise ShapeError(f"explain: photo has shape {list(x.shape)}; wanted uint8 [H, W, 3] or float [N, C, ...]")
    return x


def _stretched(x: np.ndarray[Any, Any]) -> Picture:
    """A picture of an input of unknown preprocessing: its channels from their least to their largest number."""
    span = float(np.ptp(x)) or 1.0
    return picture_of_input(x if x.ndim == 2 else (x - x.min()) / span, Preprocess())
